"""What ``add`` and ``update`` were given, checked, embedded and encoded: rows for the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Incoming:
    """Makes rows of what callers hand over.

    Attributes:
        header: of the index, with all columns that metadata may name.
        encoder: gives what makes the codes.
        embedder: gives the model, when images come.
    """

    header: Header
    encoder: Callable[[], Encoder]
    embedder: Callable[[], BatchEmbedder]

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
        either = {"images": images, "codes": codes, "vectors": vectors}
        given = [name for name, value in either.items() if value is not None]
        if given not in (["images"], ["codes"], ["vectors"], ["images", "vectors"]):
            raise InputError(
                "add needs images, codes or vectors (or images with the vectors that the model "
                f"gave for them); got {' and '.join(given) or 'none of them'}."
            )
        tags = check_labels(labels, keys)
        values = _check_metadata(metadata, keys, self.header.metadata)
        kept = check_originals(originals, keys, images is not None)
        digests, sizes = digests_and_sizes(kept)
        unit = (
            None
            if vectors is None
            else check_vectors(as_array(vectors, "vectors"), self.header.dim)
        )
        shown = _Shown()
        if images is not None:
            model = self.embedder() if unit is None else None
            found = _look_at(check_images(images), len(keys), model, self.header, shown)
            unit = found if unit is None else unit
            check_length("images", shown.phashes, len(keys))
        if unit is not None:
            check_length("vectors", unit, len(keys))
            made = self.encoder().encode(unit)
        else:
            made = _check_codes(as_array(codes, "codes"), self.header)
            check_length("codes", made, len(keys))
            if self.header.keep_vectors:
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


def make_changes(
    header: Header,
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
    checked = _check_metadata(metadata, keys, header.metadata)
    values: list[dict[str, Any]] = [dict(some) for some in checked]
    if labels is not None:
        for some, tags in zip(values, check_labels(labels, keys), strict=True):
            some["labels"] = list(tags)
    return values


def check_vectors(vectors: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Vectors as unit rows of the index's dimension, float32 [n, D].

    Raises:
        InputError: they are not.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InputError(f"vectors have the shape [n, {dim}] here; got {list(vectors.shape)}.")
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"vectors are numbers; got {vectors.dtype}.")
    if not len(vectors):
        return np.empty((0, dim), np.float32)
    unit: NDArray[np.float32] = normalise_rows(vectors)
    return unit


@dataclass(slots=True)
class _Shown:
    """What is kept of images beside their codes."""

    thumbnails: list[bytes | None] = field(default_factory=list)
    phashes: list[int | None] = field(default_factory=list)


def _look_at(
    images: Iterable[Any], count: int, model: BatchEmbedder | None, header: Header, shown: _Shown
) -> NDArray[np.float32]:
    """Vectors, where there is a model, thumbnails and hashes; a few hundred images in memory."""
    vectors: list[NDArray[np.float32]] = [np.empty((0, header.dim), np.float32)]
    prepared: list[NDArray[Any]] = []
    for image in images:
        upright = picture(image)
        shown.phashes.append(perceptual_hash(upright))
        shown.thumbnails.append(thumbnail(upright) if header.thumbnails else None)
        if len(shown.phashes) > count:
            raise InputError(f"add was given {count} keys and more images than that.")
        if model is None:
            continue
        prepared.append(model.prepare(upright))
        if len(prepared) == _PREPARE_ITEMS:
            vectors.append(model.embed_prepared(np.stack(prepared)))
            prepared = []
    if model is not None and prepared:
        vectors.append(model.embed_prepared(np.stack(prepared)))
    return np.concatenate(vectors)


def _check_codes(codes: NDArray[Any], header: Header) -> NDArray[np.uint8]:
    width, n_codewords = header.n_codebooks, header.n_codewords
    if codes.ndim != 2 or codes.shape[1] != width:
        raise InputError(f"codes have the shape [n, {width}] here; got {list(codes.shape)}.")
    if codes.dtype.kind not in "iu":
        raise InputError(f"codes are whole numbers (uint8); got {codes.dtype}.")
    if codes.size and (codes.min() < 0 or codes.max() >= n_codewords):
        wrong = codes.min() if codes.min() < 0 else codes.max()
        raise InputError(f"a code byte lies in 0..{n_codewords - 1}; got {wrong}.")
    return codes.astype(np.uint8)


def _check_metadata(
    metadata: Sequence[Mapping[str, object] | None] | None,
    keys: list[str],
    types: Mapping[str, str],
) -> list[dict[str, columns.Value]]:
    if metadata is None:
        return [{} for _ in keys]
    check_length("metadata", metadata, len(keys))
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
