"""One word or path -> the source it means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from spherequant.errors import ConfigError, SourceError
from spherequant.images.archives import open_archive
from spherequant.images.folder import FolderSource
from spherequant.images.given import GivenSource
from spherequant.images.items import Limits
from spherequant.images.known import KNOWN_SETS, open_known
from spherequant.images.labels import check_mode
from spherequant.images.listing import is_unicode
from spherequant.images.source import Source


def open_source(
    spec: str | os.PathLike[str] | Source | Iterable[Any],
    labels: str = "auto",
    limits: Limits | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """Open and list a source of images; no pixel is decoded.

    Args:
        spec: A folder, .zip or .tar (also gz, bz2, xz); a name of `KNOWN_SETS`, also with a colon
            (``digits:``) or with the folder of its files (``coco:/data/coco``); a re-iterable of
            (key, image, labels); or an open source, which comes back as it is.
        labels: ``auto``, ``folders``, ``csv`` or ``none``; what was read is in ``label_note``.
        limits: Bounds on one image; `Limits()` when None.
        cache_dir: Where the folders of known sets are; ``~/.cache/spherequant`` when None, and
            ``$SPHEREQUANT_DATA`` for the benchmarks, which are never downloaded.

    Raises:
        SourceError: Missing, empty, without a readable image, or ambiguous; names the cure.
        LabelError: The labels asked for are not there, or their table cannot be used.
        ConfigError: An unknown value of ``labels``, or labels asked of a source already open.
    """
    check_mode(labels)
    if isinstance(spec, Source):
        if labels != "auto":
            raise ConfigError(f"the source is open already: pass labels={labels!r} when opening it")
        return spec
    limits = limits or Limits()
    if not isinstance(spec, (str, os.PathLike)):
        if isinstance(spec, (bytes, bytearray)) or not isinstance(spec, Iterable):
            raise SourceError(
                "a source is a path, a name, or (key, image, labels) rows, "
                f"not {type(spec).__name__}"
            )
        return GivenSource(spec, labels, limits)
    known, place = _known_name(spec)
    path = Path(spec).expanduser()
    if known is not None:
        if ":" not in str(spec) and path.exists():
            raise SourceError(
                f"{spec!r} is the name of a known set and of a path here: write ./{spec} for the "
                f"path or {known}: for the set"
            )
        if place is not None:
            _check_path(place)
        return open_known(known, labels, limits, Path(cache_dir) if cache_dir else None, place)
    _check_path(path)
    if path.is_dir():
        return FolderSource(path, labels, limits)
    if path.is_file():
        return open_archive(path, labels, limits)
    raise SourceError(_missing(str(spec)))


def _known_name(spec: str | os.PathLike[str]) -> tuple[str | None, Path | None]:
    """The known set that a word means, and the place after its colon.

    Letters' case and dashes do not matter.
    """
    if not isinstance(spec, str):
        return None, None
    if not spec.strip():  # as a path it would be the current folder
        raise SourceError("the source is an empty text: give a folder, .zip or .tar of images")
    word, _, place = spec.partition(":")
    known = {_plain(name): name for name in KNOWN_SETS}.get(_plain(word))
    return known, Path(place).expanduser() if known and place else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _check_path(path: Path) -> None:
    """Refuse a path that could not be stored as text, as given or where a link leads."""
    if not is_unicode(str(path)) or (path.exists() and not is_unicode(str(path.resolve()))):
        raise SourceError(f"the path {str(path.absolute())!r} is not valid UTF-8: rename it")


def _missing(spec: str) -> str:
    if os.sep in spec or "." in spec:
        return f"{spec} does not exist: give a folder, .zip or .tar of images"
    near = get_close_matches(spec.lower(), KNOWN_SETS, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"{spec!r} is neither a path that exists nor a known set{hint}. Give a folder, .zip or "
        f".tar of images, or one of {', '.join(KNOWN_SETS)}"
    )
