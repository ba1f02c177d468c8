"""What ``add`` and ``update`` were given, checked, embedded and encoded: rows for the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import InputError
from spherequant.images import perceptual_hash, thumbnail
from spherequant.images.decoding import picture
from spherequant.index import columns
from spherequant.index.arguments import (
    as_array,
    check_images,
    check_labels,
    check_length,
    check_originals,
)
from spherequant.index.originals import digests_and_sizes
from spherequant.quantizer import normalise_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from spherequant.index.embedder import BatchEmbedder
    from spherequant.index.header import Header
    from spherequant.quantizer import Encoder

# Images of one ``add`` that are prepared at once.
_PREPARE_ITEMS = 256


class Incoming:
    """Makes rows of what callers hand over.

    Args:
        header: gives the index's header.
        encoder: gives what makes the codes.
        embedder: gives the model, when images come.
    """

    def __init__(
        self,
        header: Callable[[], Header],
        encoder: Callable[[], Encoder],
        embedder: Callable[[], BatchEmbedder],
    ) -> None:
        self._now = header
        self._encoder = encoder
        self._embedder = embedder

    @property
    def _header(self) -> Header:
        return self._now()

    def rows(
        self,
        keys: list[str],
        *,
        images: Iterable[Any] | None = None,
        codes: ArrayLike | None = None,
        vectors: ArrayLike | None = None,
        originals: Sequence[bytes | None] | None = None,
        labels: Sequence[str | Sequence[str]] | None = None,
        metadata: Sequence[Mapping[str, object] | None] | None = None,
    ) -> columns.Rows:
        """The arguments of ``Index.add``.

        Raises:
            InputError: they do not go together, or one of them cannot be used.
        """
        given = [name for name, value in _named(images, codes, vectors) if value is not None]
        if given not in (["images"], ["codes"], ["vectors"], ["images", "vectors"]):
            raise InputError(
                "add needs images, codes or vectors (or images with the vectors that the model "
                f"gave for them); got {' and '.join(given) or 'none of them'}."
            )
        tags = check_labels(labels, keys)
        values = self._check_metadata(metadata, keys)
        kept = check_originals(originals, keys, images is not None)
        digests, sizes = digests_and_sizes(kept)
        unit = None if vectors is None else self.check_vectors(as_array(vectors, "vectors"))
        shown = _Shown()
        if images is not None:
            found = self._look_at(check_images(images), len(keys), shown, embed=unit is None)
            unit = found if unit is None else unit
            check_length("images", len(shown.phashes), len(keys))
        if unit is not None:
            check_length("vectors", len(unit), len(keys))
            made = self._encoder().encode(unit)
        else:
            made = self._check_codes(as_array(codes, "codes"))
            check_length("codes", len(made), len(keys))
            if self._header.keep_vectors:
                raise InputError(
                    "this index keeps vectors, which codes do not give: add vectors or images."
                )
        return columns.Rows(
            keys,
            made,
            tags,
            values,
            vectors=unit,
            thumbnails=shown.thumbnails,
            sizes=sizes,
            digests=digests,
            phashes=shown.phashes,
            originals=kept,
        )

    def changes(
        self,
        keys: list[str],
        labels: Sequence[str | Sequence[str]] | None,
        metadata: Sequence[Mapping[str, object] | None] | None,
    ) -> list[dict[str, Any]]:
        """The arguments of ``Index.update``: for each key the columns to set.

        Raises:
            InputError: neither labels nor metadata, or one of them cannot be used.
        """
        if labels is None and metadata is None:
            raise InputError("update needs labels or metadata.")
        values: list[dict[str, Any]] = [dict(some) for some in self._check_metadata(metadata, keys)]
        if labels is not None:
            for some, tags in zip(values, check_labels(labels, keys), strict=True):
                some["labels"] = list(tags)
        return values

    def _look_at(
        self, images: Iterable[Any], count: int, shown: _Shown, *, embed: bool
    ) -> NDArray[np.float32]:
        """Vectors, thumbnails and hashes of images, a few hundred in memory at a time."""
        embedder = self._embedder() if embed else None
        vectors: list[NDArray[np.float32]] = [np.empty((0, self._header.dim), np.float32)]
        prepared: list[NDArray[Any]] = []
        for image in images:
            upright = picture(image)
            shown.phashes.append(perceptual_hash(upright))
            shown.thumbnails.append(thumbnail(upright) if self._header.thumbnails else None)
            if len(shown.phashes) > count:
                raise InputError(f"add was given {count} keys and more images than that.")
            if embedder is None:
                continue
            prepared.append(embedder.prepare(upright))
            if len(prepared) == _PREPARE_ITEMS:
                vectors.append(embedder.embed_prepared(np.stack(prepared)))
                prepared = []
        if embedder is not None and prepared:
            vectors.append(embedder.embed_prepared(np.stack(prepared)))
        return np.concatenate(vectors)

    def check_vectors(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors as unit rows of the index's dimension, float32 [n, D].

        Raises:
            InputError: they are not.
        """
        dim = self._header.dim
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise InputError(f"vectors have the shape [n, {dim}] here; got {list(vectors.shape)}.")
        if vectors.dtype.kind not in "fiu":
            raise InputError(f"vectors are numbers; got {vectors.dtype}.")
        if not len(vectors):
            return np.empty((0, dim), np.float32)
        unit: NDArray[np.float32] = normalise_rows(vectors)
        return unit

    def _check_codes(self, codes: NDArray[Any]) -> NDArray[np.uint8]:
        width, n_codewords = self._header.n_codebooks, self._header.n_codewords
        if codes.ndim != 2 or codes.shape[1] != width:
            raise InputError(f"codes have the shape [n, {width}] here; got {list(codes.shape)}.")
        if codes.dtype.kind not in "iu":
            raise InputError(f"codes are whole numbers (uint8); got {codes.dtype}.")
        if codes.size and (codes.min() < 0 or codes.max() >= n_codewords):
            raise InputError(f"a code byte lies in 0..{n_codewords - 1}; got {codes.max()}.")
        return codes.astype(np.uint8)

    def _check_metadata(
        self, metadata: Sequence[Mapping[str, object] | None] | None, keys: list[str]
    ) -> list[dict[str, columns.Value]]:
        if metadata is None:
            return [{} for _ in keys]
        check_length("metadata", len(metadata), len(keys))
        types = self._header.metadata
        checked = []
        for key, given in zip(keys, metadata, strict=True):
            values = columns.as_mapping(given, key)
            unknown = [name for name in values if name not in types]
            if unknown:
                raise InputError(
                    f"metadata {unknown[0]!r} of {key!r} has no column here; the columns, fixed "
                    f"when the index was made or by the first metadata, are: "
                    f"{', '.join(types) or 'none'}."
                )
            checked.append(
                {
                    name: columns.check_value(name, value, types[name], key)
                    for name, value in values.items()
                }
            )
        return checked


class _Shown:
    """What is kept of images beside their codes."""

    def __init__(self) -> None:
        self.thumbnails: list[bytes | None] = []
        self.phashes: list[int | None] = []


def _named(
    images: object | None, codes: object | None, vectors: object | None
) -> list[tuple[str, object | None]]:
    return [("images", images), ("codes", codes), ("vectors", vectors)]
