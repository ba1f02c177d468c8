"""What every source of images can do, whatever it is kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from spherequant.images.decoding import decode
from spherequant.images.listing import covers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from PIL import Image

    from spherequant.images.decoding import Reserve
    from spherequant.images.items import Item, Limits, Skip


class Source(ABC):
    """A listed collection of images. Reading is thread-safe; a context manager closes it.

    Attributes:
        name: Short and stable: the folder's or archive's name, or the name of a known set.
        root: Absolute path, ``"digits:"`` and the like for known sets, ``"given:"`` for images
            that the caller handed over.
        items: Listed images, sorted by key.
        skips: Files passed over while listing, and rows of a label table that were not used.
        present: What is there though it is no item: keys of the files passed over, and folders,
            ending in ``/``, below which nothing could be listed.
        complete: Whether all was listed; False for an archive that is cut off or damaged, and for
            a benchmark that lacks images.
        label_note: What was read as labels, in one sentence for the user.
        limits: Bounds on one image, used where a call brings none.
        warnings: Why figures on these images are not those of the set they are called after; a
            report repeats them.
    """

    warnings: tuple[str, ...] = ()
    present: Collection[str] = frozenset()
    complete: bool = True

    def __init__(
        self,
        name: str,
        root: str,
        items: Sequence[Item],
        skips: Sequence[Skip],
        label_note: str,
        limits: Limits,
    ) -> None:
        self.name = name
        self.root = root
        self.items = items
        self.skips = skips
        self.label_note = label_note
        self.limits = limits

    def is_present(self, key: str) -> bool:
        """Whether ``present`` has the key, or a folder above it."""
        return covers(self.present, key)

    def read(self, item: Item, limits: Limits | None = None) -> bytes:
        """The encoded image; its digest is the sha256 of these bytes.

        Args:
            item: One of ``items``.
            limits: Bounds; the source's own when None.

        Raises:
            InputError: Gone, unreadable, damaged in its archive, or above the bound on bytes.
        """
        return self._read(item, limits or self.limits)

    def image(
        self, item: Item, limits: Limits | None = None, reserve: Reserve | None = None
    ) -> Image.Image:
        """The decoded image, mode RGB; see `spherequant.images.decode`.

        Args:
            item: One of ``items``.
            limits: Bounds; the source's own when None.
            reserve: Called with the bytes that decoding will take, before it does.

        Raises:
            InputError: One plain sentence.
        """
        limits = limits or self.limits
        return decode(self._read(item, limits), limits, reserve)

    @abstractmethod
    def _read(self, item: Item, limits: Limits) -> bytes:
        """`read` under the given bounds, judged before the bytes are held in memory."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Give back files that the source holds open; reading fails afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r}, {len(self.items)} images)"
