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
            (``digits:``); a re-iterable of (key, image, labels); or an open source, which comes
            back as it is.
        labels: ``auto``, ``folders``, ``csv`` or ``none``; what was read is in ``label_note``.
        limits: Bounds on one image; `Limits()` when None.
        cache_dir: Where known sets are downloaded to; ``~/.cache/spherequant`` when None.

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
    known = _known_name(spec)
    path = Path(spec).expanduser()
    if known is not None:
        if not str(spec).endswith(":") and path.exists():
            raise SourceError(
                f"{spec!r} is the name of a known set and of a path here: write ./{spec} for the "
                f"path or {known}: for the set"
            )
        return open_known(known, labels, limits, Path(cache_dir) if cache_dir else None)
    _check_path(path)
    if path.is_dir():
        return FolderSource(path, labels, limits)
    if path.is_file():
        return open_archive(path, labels, limits)
    raise SourceError(_missing(str(spec)))


def _known_name(spec: str | os.PathLike[str]) -> str | None:
    """The known set that a word means: letters' case and dashes do not matter."""
    if not isinstance(spec, str):
        return None
    name = spec.removesuffix(":").lower().replace("-", "").replace("_", "")
    return name if name in KNOWN_SETS else None


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
