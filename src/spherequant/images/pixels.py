"""Training images decoded once, in a temporary file that memory can map."""

from __future__ import annotations

import weakref
from contextlib import closing
from typing import IO, TYPE_CHECKING, Self

import numpy as np

from spherequant.images.items import Item, Skip
from spherequant.images.scratch import scratch_array
from spherequant.images.streaming import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.images.items import Limits
    from spherequant.images.source import Source


class PixelCache:
    """Prepared images of one shape; a context manager deletes them.

    The file has no name from the start: the system frees it when the process ends, however it ends.

    Attributes:
        pixels: uint8 [N, S, S, 3], mapped from the file; only images that decoded.
            [0, 0, 0, 3] when none did, and after `close`.
        items: The N items that decoded, in the order given.
        skips: The others, with reasons.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        items: Sequence[Item],
        skips: Sequence[Skip],
        file: IO[bytes] | None,
    ) -> None:
        self.pixels = pixels
        self.items = items
        self.skips = skips
        self._file = file
        if file is not None:
            weakref.finalize(self, file.close)  # a cache that is dropped closes quietly

    @classmethod
    def fill(
        cls,
        source: Source,
        items: Sequence[Item],
        prepare: Callable[[Image.Image], NDArray[np.uint8]],
        *,
        limits: Limits | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> PixelCache:
        """Decode and prepare items, in parallel, once, into a temporary file (TMPDIR).

        Args:
            source: Where the items are read from.
            items: Images wanted.
            prepare: RGB image to uint8 [S, S, 3], the same S for all; called in threads.
            limits: Bounds on one image; the source's own when None.
            progress: Called after each image with the number handled so far.

        Raises:
            SpherequantError: The disk has no room; says how much is needed and what to do.
            ValueError: ``prepare`` returned something else than uint8 [S, S, 3].
        """
        store: _Store | None = None
        kept: list[Item] = []
        skips: list[Skip] = []
        outcomes = stream(source, items, lambda _, image: prepare(image), limits=limits)
        try:
            with closing(outcomes):
                for handled, outcome in enumerate(outcomes, 1):
                    if isinstance(outcome, Skip):
                        skips.append(outcome)
                    else:
                        item, picture = outcome
                        if store is None:
                            store = _Store(_checked(picture), len(items))
                        store.put(len(kept), picture, item.key)
                        kept.append(item)
                    if progress is not None:
                        progress(handled)
        except BaseException:
            if store is not None:
                store.file.close()
            raise
        if store is None:
            return cls(np.zeros((0, 0, 0, 3), np.uint8), kept, skips, None)
        return cls(store.rows_NSS3[: len(kept)], kept, skips, store.file)

    def close(self) -> None:
        """Forget the pixels; the disk is free once no array of them is left."""
        self.pixels = np.zeros((0, 0, 0, 3), np.uint8)
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Store:
    """Rows of one shape in a scratch file."""

    def __init__(self, picture: NDArray[np.uint8], count: int) -> None:
        self.rows_NSS3, self.file = scratch_array(
            (count, *picture.shape),
            np.uint8,
            "the decoded training images",
            otherwise=", or train on smaller or fewer images",
        )

    def put(self, row: int, picture: NDArray[np.uint8], key: str) -> None:
        shape = self.rows_NSS3.shape[1:]
        if picture.shape != shape or picture.dtype != np.uint8:
            raise ValueError(
                f"prepare returned {picture.dtype} {list(picture.shape)} for {key!r}, "
                f"and uint8 {list(shape)} before: it must return one shape"
            )
        self.rows_NSS3[row] = picture


def _checked(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first prepared picture, which sets the shape."""
    shape = picture.shape
    if picture.dtype != np.uint8 or len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise ValueError(f"prepare must return uint8 [S, S, 3], not {picture.dtype} {list(shape)}")
    return picture
