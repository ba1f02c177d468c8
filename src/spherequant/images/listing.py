"""From the files of a folder or an archive to keys: what is an image, what is junk, what neither.

A key is the path inside the source, ``/``-separated, in Unicode NFC, so that a folder lists the
same on systems that decompose names and on those that do not. Keys distinguish case.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from spherequant.errors import InputError, SourceError
from spherequant.images.decoding import sniff
from spherequant.images.items import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Place = TypeVar("Place")

TABLE_NAME = "labels.csv"

_IMAGE_NAME = re.compile(
    r"\.(apng|avif|bmp|dib|gif|hei[cf]|hif|j2[ck]|jfif|jp2|jp[cefx]|jpe?g|mpo|p[bgnp]m|png|qoi|tiff?"
    r"|webp)$",
    re.IGNORECASE,
)
_CAMERA_RAW_NAME = re.compile(
    r"\.(3fr|arw|cr[23w]|dcr|dng|erf|iiq|kdc|mef|mrw|nef|nrw|orf|pef|raf|raw|rw[2l]|sr[2fw]|x3f)$",
    re.IGNORECASE,
)
# What Windows, macOS and file servers leave beside images; and hidden files and folders.
_JUNK = re.compile(
    r"(?:^|/)(?:(?:(?:eh)?thumbs\.db|desktop\.ini|__macosx|@eadir)(?:/|$)|\.(?!\.?(?:/|$)))",
    re.IGNORECASE,
)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_KEY_BYTES = 4096  # of the longest path that systems open


@dataclass(slots=True)
class Entry(Generic[Place]):
    """One file as it is kept: its name there, and the place from which its source reads it."""

    path: str
    size: int
    mtime: float
    place: Place


@dataclass(slots=True)
class Listing(Generic[Place]):
    """What a folder or archive holds: images by key (sorted), label tables by key, and the rest.

    ``present`` and ``complete`` are those of `Source`.
    """

    images: dict[str, Entry[Place]] = field(default_factory=dict)
    tables: dict[str, Entry[Place]] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    complete: bool = True

    def skip(self, path: str, reason: str) -> None:
        """Report a file that is there and passed over; a folder's path ends in ``/``.

        Of junk nothing is said.
        """
        if _JUNK.search(path):
            return
        self.skips.append(Skip(printable(path), reason))
        try:
            self.present.add(_key(path))
        except InputError:
            return  # a name without a key: no item ever had it


def list_images(
    entries: Iterable[Entry[Place]],
    head: Callable[[Entry[Place]], bytes],
    listing: Listing[Place] | None = None,
) -> Listing[Place]:
    """Sort files into images, label tables, silent junk and reported skips.

    Args:
        entries: Regular files, in any order.
        head: The first bytes of a file; may raise `InputError`.
        listing: The one to fill, where ``entries`` reports what it passes over; else a new one.

    Returns:
        The listing, independent of the order of entries with different names. Of two names that
        are one key, the name in NFC is kept, else the first.
    """
    listing = Listing() if listing is None else listing
    found: list[tuple[str, bool, str, int, Entry[Place]]] = []
    for order, entry in enumerate(entries):
        if _JUNK.search(entry.path):
            continue
        try:
            key = _key(entry.path)
            if key.rpartition("/")[2].casefold() == TABLE_NAME and key.count("/") < 2:
                if key in listing.tables:
                    reason = f"a second file with the key {key!r}: only the first is read"
                    listing.skips.append(Skip(printable(entry.path), reason))
                else:
                    listing.tables[key] = entry
                continue
            _check_image(entry, head)
        except InputError as error:
            listing.skip(entry.path, str(error))
            continue
        found.append((key, key != entry.path, entry.path, order, entry))
    found.sort(key=lambda row: row[:4])
    for key, _, path, _, entry in found:
        if key in listing.images:
            listing.skips.append(
                Skip(path, f"a second file with the key {key!r}: only the first is read")
            )
        else:
            listing.images[key] = entry
    return listing


def check_readable(
    listing: Listing[Place], head: Callable[[Entry[Place]], bytes], root: str
) -> None:
    """Refuse a listing in which no file even starts like an image.

    Raises:
        SourceError: Nothing to read; says what was found instead.
    """
    reason = ""
    for key, entry in listing.images.items():
        try:
            if sniff(head(entry)) is not None:
                return
            reason = reason or f"{key}: it starts like no known image format"
        except InputError as error:
            reason = reason or f"{key}: {error}"
    if not reason and listing.skips:
        reason = f"{listing.skips[0].path}: {listing.skips[0].reason}"
    count = len(listing.images) + len(listing.skips)
    what = f"none of its {count} files is a readable image ({reason})" if count else "it is empty"
    raise SourceError(
        f"no image in {root}: {what}. Give a folder, .zip or .tar of JPEG, PNG, WebP, ... files"
    )


def covers(present: Collection[str], key: str) -> bool:
    """Whether ``present``, of keys and of folders ending in ``/``, has the key or one above it."""
    return key in present or any(
        key[: end + 1] in present for end, letter in enumerate(key) if letter == "/"
    )


def nfc(text: str) -> str:
    """The Unicode normal form that keys and labels are kept in."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which stand for bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str) -> str:
    """A file name for a message: bytes that are no UTF-8 become replacement characters."""
    shown = path if len(path) <= _KEY_BYTES else f"{path[:_KEY_BYTES]}..."
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _key(path: str) -> str:
    """The key of a file name, or `InputError` for a name that leads out of the source."""
    if path.startswith("/") or _DRIVE.match(path):
        raise InputError("an absolute path inside an archive")
    if "/." in path or "//" in path or path.startswith("."):
        parts = path.split("/")
        if ".." in parts:
            raise InputError("a path with '..' that leads out of the source")
        path = "/".join(part for part in parts if part not in {"", "."})
    if not path:
        raise InputError("a file without a name: rename it")
    if "\0" in path:
        raise InputError("the file name holds a NUL character: rename it")
    if not is_unicode(path):
        raise InputError("the file name is not valid UTF-8: rename it")
    if len(path) > _KEY_BYTES or len(path.encode()) > _KEY_BYTES:
        raise InputError(f"a file name of more than {_KEY_BYTES:,} bytes: rename it")
    return nfc(path)


def _check_image(entry: Entry[Place], head: Callable[[Entry[Place]], bytes]) -> None:
    """Pass a file that is an image by its name or, under any other name, by its first bytes."""
    if _IMAGE_NAME.search(entry.path):
        if entry.size == 0:
            raise InputError("empty file (0 bytes)")
    elif _CAMERA_RAW_NAME.search(entry.path):
        raise InputError("not an image: a camera's raw file; export it as JPEG or TIFF")
    elif entry.size == 0 or sniff(head(entry)) is None:
        raise InputError("not an image")
