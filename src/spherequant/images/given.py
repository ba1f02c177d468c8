"""Images that the caller hands over: an iterable of (key, image, labels)."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spherequant.errors import InputError, SourceError
from spherequant.images.decoding import (
    PillowGuard,
    bytes_per_pixel,
    decode,
    from_array,
    slowness,
    to_png,
    upright_rgb,
)
from spherequant.images.folder import read_file
from spherequant.images.items import Item, Skip
from spherequant.images.labels import own_labels_note, refuse_file_labels, tidy_labels
from spherequant.images.listing import is_unicode, nfc
from spherequant.images.source import Source

if TYPE_CHECKING:
    from spherequant.images.decoding import Reserve
    from spherequant.images.items import Limits

_LOADING = threading.Lock()  # the caller may give one lazily loaded PIL image under two keys
_SHAPE = "a list or other re-iterable of (key, image, labels)"


class GivenSource(Source):
    """Images of a list or other re-iterable of (key, image, labels).

    An image is a PIL image, a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], encoded bytes,
    or a path. Labels are a string, several, or None. A list's or tuple's images stay where they
    are; anything else is walked once, and its images are kept in an unnamed temporary file, so
    that a collection larger than memory can be given by a generator.
    """

    def __init__(self, given: Iterable[Any], labels: str, limits: Limits) -> None:
        refuse_file_labels(labels, "a list of images")
        spool = None if isinstance(given, Sequence) else _Spool()
        self._spool = spool
        self._images: dict[str, Any] = {}
        items: list[Item] = []
        skips: list[Skip] = []
        present: set[str] = set()
        try:
            for number, row in enumerate(given):
                key, image, own = _unpack(row, number)
                if key in self._images:
                    skips.append(Skip(key, "a second image with this key: only the first is read"))
                    continue
                try:
                    self._images[key] = image if spool is None else spool.keep(image, limits)
                except InputError as error:
                    skips.append(Skip(key, str(error)))
                    present.add(key)
                    continue
                items.append(Item(key, () if labels == "none" else own, size=_size(image)))
        except BaseException:
            self.close()
            raise
        if not items:
            self.close()
            why = f" ({skips[0].path}: {skips[0].reason})" if skips else ""
            raise SourceError(f"no usable images were given{why}: pass {_SHAPE}")
        items.sort(key=lambda item: item.key)
        note = own_labels_note(items, "the given images", labels)
        super().__init__("given", "given:", items, skips, note, limits)
        self.present = present

    def image(
        self, item: Item, limits: Limits | None = None, reserve: Reserve | None = None
    ) -> Image.Image:
        """The decoded image; arrays and PIL images take no detour over `read`."""
        image = self._images[item.key]
        limits = limits or self.limits
        if isinstance(image, (Image.Image, np.ndarray)):
            return _as_rgb(image, limits, reserve)
        return decode(self._read(item, limits), limits, reserve)

    def _read(self, item: Item, limits: Limits) -> bytes:
        image = self._images[item.key]
        if isinstance(image, _Stored):
            limits.check_bytes(image.size)
            return image.read()
        if isinstance(image, bytes):
            limits.check_bytes(len(image))
            return image
        if isinstance(image, (str, os.PathLike)):
            return read_file(image, limits)
        return to_png(_as_rgb(image, limits, None))

    def close(self) -> None:
        """Delete the temporary file, where there is one."""
        if self._spool is not None:
            self._spool.file.close()


class _Stored:
    """A stretch of the temporary file."""

    __slots__ = ("_file", "_offset", "size")

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._offset, self.size = file, offset, size

    def read(self) -> bytes:
        try:
            return os.pread(self._file.fileno(), self.size, self._offset)
        except (OSError, ValueError):
            raise InputError("the images were closed") from None


class _Spool:
    """Encoded images, one after the other, in an unnamed temporary file."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by the source
            prefix="spherequant-", buffering=0
        )
        weakref.finalize(self, self.file.close)  # a source that is dropped closes quietly
        self._end = 0

    def keep(self, image: object, limits: Limits) -> Any:
        if isinstance(image, (str, os.PathLike)):
            return image
        data = image if isinstance(image, bytes) else to_png(_as_rgb(image, limits, None))
        try:
            written = 0
            while written < len(data):
                written += self.file.write(data[written:])
        except OSError as error:
            raise SourceError(
                f"the images given do not fit {tempfile.gettempdir()} ({error.strerror}): "
                "point TMPDIR at a larger disk, or give paths"
            ) from None
        self._end += len(data)
        return _Stored(self.file, self._end - len(data), len(data))


def _unpack(row: Any, number: int) -> tuple[str, Any, tuple[str, ...]]:
    """Key (NFC), image and labels of one row."""
    if not isinstance(row, (tuple, list)) or len(row) != 3 or not isinstance(row[0], str):
        raise SourceError(f"image number {number} is no (key, image, labels); pass {_SHAPE}")
    key, image, labels = row
    if not key or "\0" in key:
        what = "a NUL character in its key" if key else "an empty key"
        raise SourceError(f"image number {number} has {what}")
    if not is_unicode(key):
        raise SourceError(f"image number {number} has the key {key!r}, which is no valid Unicode")
    return nfc(key), image, () if labels is None else _tidy(labels, key)


def _tidy(labels: Any, key: str) -> tuple[str, ...]:
    """Labels given as one text or whole number, or as several."""
    if isinstance(labels, (str, int, np.integer)):
        labels = [labels]
    try:
        several = list(labels)
    except TypeError:
        several = [labels]
    texts = [str(label) for label in several if isinstance(label, (str, int, np.integer))]
    if isinstance(labels, bytes) or len(texts) < len(several) or not all(map(is_unicode, texts)):
        raise SourceError(
            f"the labels of {key!r} are {labels!r}: give a text of valid Unicode, several, or None"
        )
    return tidy_labels(texts)


def _size(image: object) -> int:
    if isinstance(image, np.ndarray):
        return int(image.nbytes)
    if isinstance(image, bytes):
        return len(image)
    if isinstance(image, Image.Image):
        return image.width * image.height * len(image.getbands())
    return 0


def _as_rgb(image: object, limits: Limits, reserve: Reserve | None) -> Image.Image:
    """RGB of a PIL image or a uint8 array."""
    if isinstance(image, np.ndarray):
        image = from_array(image)
    if not isinstance(image, Image.Image):
        raise InputError(
            f"not an image but {type(image).__name__}: give a PIL image, uint8 array, bytes or path"
        )
    limits.check_pixels(*image.size, weight=slowness(image))
    if reserve is not None:
        reserve(bytes_per_pixel(image) * image.width * image.height)
    with _LOADING, PillowGuard(image.format or "PIL"):
        return upright_rgb(image)
