"""Our codes and codebooks as a FAISS index, and back.

FAISS scores them as we do, within rounding. Both kinds can only be searched: FAISS's own encoders
would make other codes of a vector, and neither kind knows our filters, keys or metadata; ids are
ours. (FAISS: Douze et al., "The Faiss library", arXiv:2401.08281.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spherequant.errors import FormatError, SpherequantError
from spherequant.quantizer import Codebooks
from spherequant.system import replacing, require_faiss

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

# residual: IndexResidualQuantizer, whose table is ours. lifted: a product quantizer over M copies
# of the query side by side, about 2.5 times as fast to search, with a transform of M D^2 floats.
Kind = Literal["residual", "lifted"]
KINDS: tuple[Kind, ...] = ("residual", "lifted")

_FAISS_CODEWORDS = 256  # FAISS stores 8 bits a codebook; books of fewer are filled up with zeros


def write_faiss(
    path: str | os.PathLike[str],
    codebooks: Codebooks,
    ids_N: NDArray[np.int64],
    codes_NM: NDArray[np.uint8],
    kind: Kind = "residual",
) -> None:
    """Write an index that ``faiss.read_index`` reads, by inner product.

    Args:
        path: the file to write; replaced whole or not at all.
        codebooks: M codebooks of D dimensions.
        ids_N: int64 [N], told by FAISS as the results.
        codes_NM: uint8 [N, M].
        kind: which of FAISS's indexes.

    Raises:
        MissingDependencyError: FAISS is not installed.
        SpherequantError: the file cannot be written.
    """
    faiss = require_faiss("Writing an index of FAISS")
    index, inner = faiss_index(codebooks, kind)
    whole = faiss.IndexIDMap(index)  # must be empty when it is made
    if len(codes_NM):
        inner.add_sa_codes(np.ascontiguousarray(codes_NM, np.uint8))
    faiss.copy_array_to_vector(np.ascontiguousarray(ids_N, np.int64), whole.id_map)
    whole.ntotal = index.ntotal = inner.ntotal
    try:
        with replacing(path) as draft:
            faiss.write_index(whole, str(draft))
    except (RuntimeError, OSError) as error:
        raise SpherequantError(f"cannot write {path}: {error}") from error


def faiss_index(codebooks: Codebooks, kind: Kind) -> tuple[Any, Any]:
    """An empty FAISS index of these codebooks, and the one inside that takes codes.

    Raises:
        MissingDependencyError: FAISS is not installed.
    """
    faiss = require_faiss("An index of FAISS")
    books = _padded(codebooks)
    if kind == "residual":
        index = _residual(faiss, books)
        return index, index
    inner = _product(faiss, books)
    return _tiled(faiss, inner, *books.shape[::2]), inner


def read_faiss(
    path: str | os.PathLike[str],
) -> tuple[Codebooks, NDArray[np.int64], NDArray[np.uint8]]:
    """Read back what ``write_faiss`` wrote.

    Returns:
        Codebooks, ids int64 [N] and codes uint8 [N, M]. Codebooks written with fewer than 256
        codewords come back with 256, the added ones zero and used by no code.

    Raises:
        FormatError: no such file, or a FAISS index of another making.
        MissingDependencyError: FAISS is not installed.
    """
    faiss = require_faiss("Reading an index of FAISS")
    try:
        whole = faiss.read_index(str(path))
    except RuntimeError as error:
        raise FormatError(f"{path} cannot be read as a FAISS index") from error
    if isinstance(whole, faiss.IndexIDMap):
        ids = faiss.vector_to_array(whole.id_map)
        index = faiss.downcast_index(whole.index)
        found = _residual_books(faiss, index) or _product_books(faiss, index)
        if found is not None:
            books_MKD, holder = found
            codes = faiss.vector_to_array(holder.codes)
            if len(codes) == len(ids) * len(books_MKD):
                return Codebooks(books_MKD), ids, codes.reshape(len(ids), len(books_MKD))
    raise FormatError(f"{path} is a FAISS index, but not one that spherequant exported")


def _residual_books(faiss: Any, index: Any) -> tuple[NDArray[np.float32], Any] | None:
    """Codebooks, and what holds the codes, of what `_residual` makes; None of anything else."""
    if not isinstance(index, faiss.IndexResidualQuantizer):
        return None
    quantizer, d = index.rq, index.d
    flat = faiss.vector_to_array(quantizer.codebooks)
    as_written = (
        quantizer.search_type == faiss.AdditiveQuantizer.ST_LUT_nonorm
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
        and len(flat) == quantizer.M * _FAISS_CODEWORDS * d
    )
    return (flat.reshape(quantizer.M, _FAISS_CODEWORDS, d), index) if as_written else None


def _product_books(faiss: Any, index: Any) -> tuple[NDArray[np.float32], Any] | None:
    """The same of what `_tiled` makes."""
    if not isinstance(index, faiss.IndexPreTransform) or index.chain.size() != 1:
        return None
    product, d = faiss.downcast_index(index.index), index.d
    if not isinstance(product, faiss.IndexPQ):
        return None
    m, flat = product.pq.M, faiss.vector_to_array(product.pq.centroids)
    tile = faiss.downcast_VectorTransform(index.chain.at(0))
    as_written = (
        product.metric_type == faiss.METRIC_INNER_PRODUCT
        and len(flat) == m * _FAISS_CODEWORDS * d
        and isinstance(tile, faiss.LinearTransform)
        and not tile.have_bias
        and np.array_equal(faiss.vector_to_array(tile.A), _tile(m, d).ravel())
    )
    return (flat.reshape(m, _FAISS_CODEWORDS, d), product) if as_written else None


def _padded(codebooks: Codebooks) -> NDArray[np.float32]:
    m, k, d = codebooks.array.shape
    books = np.zeros((m, _FAISS_CODEWORDS, d), np.float32)
    books[:, :k] = codebooks.array
    return books


def _residual(faiss: Any, books_MKD: NDArray[np.float32]) -> Any:
    m, _, d = books_MKD.shape
    search_type = faiss.AdditiveQuantizer.ST_LUT_nonorm
    index = faiss.IndexResidualQuantizer(d, m, 8, faiss.METRIC_INNER_PRODUCT, search_type)
    faiss.copy_array_to_vector(books_MKD.ravel(), index.rq.codebooks)
    index.rq.is_trained = index.is_trained = True
    return index


def _product(faiss: Any, books_MKD: NDArray[np.float32]) -> Any:
    m, _, d = books_MKD.shape
    index = faiss.IndexPQ(m * d, m, 8, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books_MKD.ravel(), index.pq.centroids)
    index.is_trained = True
    return index


def _tiled(faiss: Any, product: Any, m: int, d: int) -> Any:
    tile = faiss.LinearTransform(d, m * d, False)
    faiss.copy_array_to_vector(_tile(m, d).ravel(), tile.A)
    tile.is_trained = True
    return faiss.IndexPreTransform(tile, product)


def _tile(m: int, d: int) -> NDArray[np.float32]:
    """M copies of a vector, one below the other: float32 [M D, D]."""
    return np.tile(np.eye(d, dtype=np.float32), (m, 1))
