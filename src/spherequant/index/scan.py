"""Exact top-k over codes: the definition of a search result.

The score of an item with code b for a query with look-up table ``lut`` [M, K] is the float32 sum
``(((lut[0, b_0] + lut[1, b_1]) + lut[2, b_2]) + ...)``, added in the order m = 0..M-1 without
fusing. Higher scores come first; of equal scores, the lower position. Positions are laid out in
the order of ids, so that is the lower id.

This module is the boundary at which a native scan takes over: arrays in, arrays out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Items scored at once: 64 Ki float32 scores are 256 KiB, which stays in a core's cache.
CHUNK = 65_536

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def top_k(
    codes_NM: NDArray[np.uint8],
    lut_QMK: Float32,
    k: int,
    *,
    allowed: Int64 | None = None,
    exclude: Int64 | None = None,
    min_score: float | None = None,
) -> tuple[Float32, Int64]:
    """The k best items for each query.

    Args:
        codes_NM: uint8 [N, M], the code of each position.
        lut_QMK: float32 [Q, M, K], the table of each query, finite.
        k: how many to return, at least 1; may exceed N.
        allowed: int64 [n], ascending positions that may be returned; all when None.
        exclude: int64 [Q], a position that must not be returned to that query, or -1.
        min_score: items that score less are left out.

    Returns:
        Scores float32 [Q, k] and positions int64 [Q, k], best first; past the end -inf and -1.
    """
    n_queries = lut_QMK.shape[0]
    scores = np.full((n_queries, k), -np.inf, np.float32)
    positions = np.full((n_queries, k), -1, np.int64)
    for query in range(n_queries):
        left_out = -1 if exclude is None else int(exclude[query])
        found, where = _top_k_of_one(codes_NM, lut_QMK[query], k, allowed, left_out, min_score)
        scores[query, : len(found)] = found
        positions[query, : len(found)] = where
    return scores, positions


def _top_k_of_one(
    codes_NM: NDArray[np.uint8],
    lut_MK: Float32,
    k: int,
    allowed: Int64 | None,
    left_out: int,
    min_score: float | None,
) -> tuple[Float32, Int64]:
    """``top_k`` for one query; at most k rows, without padding."""
    best = np.empty(0, np.float32)
    where = np.empty(0, np.int64)  # ascending, beside ``best``
    total = len(codes_NM) if allowed is None else len(allowed)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        if allowed is None:
            places = np.arange(start, stop, dtype=np.int64)
            block = codes_NM[start:stop]
        else:
            places = allowed[start:stop]
            block = codes_NM[places]
        scores = score(block, lut_MK)
        keep = places != left_out
        if min_score is not None:
            keep &= scores >= min_score
        if len(best) == k:
            keep &= scores > best.min()  # a later item with the k-th score has a higher id
        best = np.concatenate([best, scores[keep]])
        where = np.concatenate([where, places[keep]])
        if len(best) > k:
            chosen = _best_places(best, k)
            best, where = best[chosen], where[chosen]
    order = np.argsort(-best, kind="stable")
    return best[order], where[order]


def score(codes_NM: NDArray[np.uint8], lut_MK: Float32) -> Float32:
    """Score of each code: float32 [N], the sum of its M table entries in the order m = 0..M-1."""
    scores: Float32 = lut_MK[0][codes_NM[:, 0]]
    for m in range(1, codes_NM.shape[1]):
        scores = scores + lut_MK[m][codes_NM[:, m]]
    return scores


def _best_places(scores: Float32, k: int) -> NDArray[np.bool_]:
    """Mask of the k highest scores; among those equal to the k-th, the first ones."""
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    chosen: NDArray[np.bool_] = scores > kth
    ties = np.flatnonzero(scores == kth)
    chosen[ties[: k - int(chosen.sum())]] = True
    return chosen
