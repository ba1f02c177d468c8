"""What the files of a benchmark say of its images, and the message for files that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spherequant.errors import LabelError, SourceError
from spherequant.images.listing import nfc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST_BYTES = 1 << 30  # the largest published file, COCO's instances_train2017.json, has 449 MB


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a benchmark.

    Attributes:
        key: Its path as the benchmark's files name it, ``/``-separated, NFC.
        labels: Sorted, without repeats.
        split: ``"train"``, ``"val"``, ``"test"``, or None.
    """

    key: str
    labels: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a benchmark's files say.

    Attributes:
        rows: Its images, each key once.
        folder: Where they belong below the benchmark's folder: ``""``, or a path ending in ``/``.
        note: What was read, in one phrase for the user.
        warnings: Where the set is not quite the published one.
    """

    rows: Sequence[Row]
    folder: str
    note: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Needed:
    """A file or folder of a benchmark: its paths that will do, the publisher's first.

    Attributes:
        paths: Below the benchmark's folder; that of a folder ends in ``/``.
        origin: What the publisher ships it in.
    """

    paths: tuple[str, ...]
    origin: str

    def find(self, root: Path) -> Path | None:
        """The first of the paths that is there."""
        for path in self.paths:
            place = root / path
            if place.is_dir() if path.endswith("/") else place.is_file():
                return place
        return None


def require(root: Path, needed: Sequence[Needed]) -> list[Path]:
    """The places of needed files.

    Raises:
        SourceError: Lists each that is missing, where it belongs and what it is shipped in.
    """
    places = [one.find(root) for one in needed]
    missing = [one for one, place in zip(needed, places, strict=True) if place is None]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(needed)} files that describe the images are missing:\n"
            + "\n".join(f"  {root / one.paths[0]}  (from {one.origin})" for one in missing)
        )
    return [place for place in places if place is not None]


def read_bytes(path: Path) -> bytes:
    """The bytes of a list or a label file.

    Raises:
        SourceError: It cannot be read, or is larger than any that is published.
    """
    try:
        size = path.stat().st_size
        if size <= _MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    raise SourceError(f"{path} has {size:,} bytes: that is not the published file. Unpack it again")


def read_lines(path: Path) -> list[str]:
    """The lines of a text with any line endings, stripped; blank ones at its end are left out.

    Raises:
        SourceError: It cannot be read.
        LabelError: It is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    return [line.strip() for line in lines] if lines != [""] else []


def path_parts(text: str, path: Path, line: int) -> tuple[str, ...]:
    """The parts of an image's path in a list, with slashes or backslashes, NFC.

    Raises:
        LabelError: It is empty, or has ``..``; names the list and its line.
    """
    parts = tuple(
        part for part in nfc(text.strip()).replace("\\", "/").split("/") if part not in {"", "."}
    )
    if not parts:
        raise LabelError(f"{path} line {line}: no image is named")
    if ".." in parts:
        raise LabelError(f"{path} line {line}: {text!r} has '..': name the image without it")
    return parts


def count_warnings(what: str, found: int, expected: int) -> tuple[str, ...]:
    """A warning where a set has another size than the published one; else none."""
    if found == expected:
        return ()
    text = f"{found:,} {what}, where the published set has {expected:,}"
    return (f"{text}: figures on this copy are not quite comparable",)
