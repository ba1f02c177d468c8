"""Binary codes of the same embeddings, at the same number of bytes an item.

Iterative quantization (ITQ; Gong and Lazebnik, CVPR 2011): the signs of the first principal
components of the centred embeddings after a learned rotation, one bit each. FAISS learns it; before
the components are learned, it divides centred embeddings by their norm, which the signs of an item
do not notice. Ranked by Hamming distance, as the method is, or asymmetrically: the projected float
query against the signs of the item (Gordo et al., TPAMI 2014).

RaBitQ (Gao and Long, SIGMOD 2024): the signs of the centred embedding after a random rotation, and
two floats with which FAISS estimates the inner product of a float query and the item without bias.
The floats take 64 bits of every item, so that of ``bits`` only ``bits - 64`` are signs, one a
dimension: embeddings of more dimensions are projected to their first principal components,
embeddings of fewer are rotated into a space of so many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.evaluation.rankings import CHUNK_ITEMS, CodeRanker
from spherequant.quantizer import inner_products
from spherequant.quantizer.signs import pack_signs, sign_codebooks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FACTOR_BITS = 64  # FAISS's RaBitQ stores two float32 beside the signs of an item


def sign_ranker(
    faiss: Any,
    training_ND: NDArray[np.float32],
    database_ND: NDArray[np.float32],
    queries_QD: NDArray[np.float32],
    bits: int,
    seed: int,
    *,
    asymmetric: bool,
) -> CodeRanker:
    """Learn ITQ, encode a database, and rank it.

    Args:
        faiss: the module.
        training_ND: float32 [T, D], at least ``bits`` rows.
        database_ND: float32 [N, D].
        queries_QD: float32 [Q, D].
        bits: a multiple of 8, at most D.
        seed: of the rotation that learning starts from.
        asymmetric: keep the queries as floats; else their signs alone are compared, and a score is
            ``bits`` less twice the Hamming distance.

    Returns:
        A ranker by the inner product of queries [Q, bits] and signs.
    """
    transform = learn_itq(faiss, training_ND, bits, seed)
    codes_NM = sign_codes(transform, database_ND)
    projected_QP = np.asarray(transform.apply(np.ascontiguousarray(queries_QD)), dtype=np.float32)
    if not asymmetric:
        projected_QP = np.where(projected_QP >= 0, np.float32(1), np.float32(-1))
    return CodeRanker(sign_codebooks(bits), codes_NM, projected_QP, every_measure=False)


def learn_itq(faiss: Any, training_ND: NDArray[np.float32], bits: int, seed: int) -> Any:
    """A ``faiss.ITQTransform`` of D dimensions to ``bits``, learned from float32 [T, D]."""
    transform = faiss.ITQTransform(training_ND.shape[1], bits, True)
    transform.itq.seed = seed
    transform.train(np.ascontiguousarray(training_ND))
    return transform


def sign_codes(transform: Any, vectors_ND: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Signs of the transformed rows, as `pack_signs` orders them; uint8 [N, M]."""
    codes_NM = np.empty((len(vectors_ND), transform.d_out // 8), dtype=np.uint8)
    for start in range(0, len(vectors_ND), CHUNK_ITEMS):
        rows = slice(start, start + CHUNK_ITEMS)
        projected_NP = transform.apply(np.ascontiguousarray(vectors_ND[rows]))
        codes_NM[rows] = pack_signs(np.asarray(projected_NP))
    return codes_NM


def rabitq_ranker(
    faiss: Any,
    training_ND: NDArray[np.float32],
    database_ND: NDArray[np.float32],
    queries_QD: NDArray[np.float32],
    bits: int,
    seed: int,
) -> FaissRanker:
    """Learn RaBitQ, encode a database, and rank it by FAISS's estimates of the inner product.

    Args:
        faiss: the module.
        training_ND: float32 [T, D], at least ``min(D, bits - 64)`` rows.
        database_ND: float32 [N, D].
        queries_QD: float32 [Q, D]; they are not quantized.
        bits: of a whole item, a multiple of 8 above 64.
        seed: of the random rotation.
    """
    projection_PD = _sign_projection(faiss, training_ND, bits - FACTOR_BITS, seed)
    index = faiss.IndexRaBitQ(len(projection_PD), faiss.METRIC_INNER_PRODUCT)
    index.qb = 0  # bits of a quantized query; 0 keeps floats
    index.train(inner_products(training_ND, projection_PD))
    for start in range(0, len(database_ND), CHUNK_ITEMS):
        chunk_ND = np.asarray(database_ND[start : start + CHUNK_ITEMS])
        index.add(inner_products(chunk_ND, projection_PD))
    return FaissRanker(index, inner_products(queries_QD, projection_PD))


def _sign_projection(
    faiss: Any, training_ND: NDArray[np.float32], dim_out: int, seed: int
) -> NDArray[np.float32]:
    """A random rotation to dim_out dimensions, float32 [dim_out, D], orthonormal.

    Of its rows where dim_out is less than D, which then span the first principal components; else
    of its columns. It is linear, without a shift, so that inner products are kept as far as can be.
    """
    dim = training_ND.shape[1]
    rotation = faiss.RandomRotationMatrix(min(dim, dim_out), dim_out)
    rotation.init(seed)
    rotation_PR = faiss.vector_to_array(rotation.A).reshape(dim_out, -1)
    if dim_out >= dim:
        return np.ascontiguousarray(rotation_PR)
    components = faiss.PCAMatrix(dim, dim_out)
    components.train(np.ascontiguousarray(training_ND))
    components_RD = faiss.vector_to_array(components.A).reshape(dim_out, dim)
    return np.ascontiguousarray(rotation_PR @ components_RD)


class FaissRanker:
    """The whole database of a FAISS index, by the scores that it computes.

    Args:
        index: searched by inner product; item n is its n-th.
        queries_QP: float32 [Q, P], of the index's dimensions.
    """

    names: tuple[str, ...] = ("codes",)

    def __init__(self, index: Any, queries_QP: NDArray[np.float32]) -> None:
        self._index = index
        self._queries_QP = queries_QP

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N]."""
        block_BP = np.ascontiguousarray(self._queries_QP[queries])
        scores_BN = np.empty((len(block_BP), self._index.ntotal), dtype=np.float32)
        for query in range(len(block_BP)):
            found, positions = self._index.search(block_BP[query : query + 1], self._index.ntotal)
            scores_BN[query, positions[0]] = found[0]
        yield scores_BN
