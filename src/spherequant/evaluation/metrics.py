"""Average precision, precision at N and the precision-recall curve, exact under ties.

Short codes tie massively, and the order in which a sort leaves tied items is an accident of the
file order. Every figure here is therefore the **expectation over all orders of tied items**
(docs/protocols.md), in closed form.

A ranking is reduced to its *ties*: for each distinct score that a relevant item has, how many items
stand before it (``s``), how many share it (``g``), and how many of those are relevant (``t``).
One sort of the scores gives them (native/ranking.h), and every figure is a function of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from spherequant import _native
from spherequant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

Denominator = Literal["found", "recall-aware"]
DENOMINATORS: tuple[Denominator, ...] = ("found", "recall-aware")
TIE_RULE = "expectation over all orders of tied items"
_CURVE_POINTS = 100


@dataclass(frozen=True, slots=True)
class Ties:
    """The ties of one ranking that hold a relevant item, best score first.

    A score that one item alone has is a tie of one.

    Attributes:
        before: int64 [T], items ranked before the tie (``s`` in the formula).
        size: int64 [T], items in the tie (``g``).
        relevant: int64 [T], relevant items in the tie (``t``), at least 1.
        relevant_before: int64 [T], relevant items ranked before the tie (``c``).
        item_count: items ranked.
        relevant_count: relevant items ranked.
        any_tied: whether any two items of the ranking, relevant or not, share a score.
    """

    before: NDArray[np.int64]
    size: NDArray[np.int64]
    relevant: NDArray[np.int64]
    relevant_before: NDArray[np.int64]
    item_count: int
    relevant_count: int
    any_tied: bool


def find_ties(
    scores_N: NDArray[np.generic], relevant: NDArray[np.bool_] | NDArray[np.int64]
) -> Ties:
    """Reduce one ranking to its ties.

    Args:
        scores_N: [N] of any real dtype, higher is better; compared in that dtype.
        relevant: bool [N], or the int64 positions of the relevant items.

    Raises:
        InputError: a score is NaN.
    """
    if np.isnan(scores_N).any():
        raise InputError("a score is NaN: a ranking needs scores that can be compared")
    if scores_N.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        # Their places among the different scores are in the same order, and whole numbers.
        scores_N = np.unique(scores_N, return_inverse=True)[1].astype(np.float64)
    of_relevant = scores_N[relevant]
    before, size, relevant_in, relevant_before, any_tied = _native.find_ties(
        np.sort(scores_N), np.sort(of_relevant)
    )
    return Ties(
        before, size, relevant_in, relevant_before, len(scores_N), len(of_relevant), any_tied
    )


def tie_averaged_precision(ties: Ties, at: int | None = None) -> tuple[float, float]:
    """Expected AP@R of one ranking over all orders of its tied items.

    The closed form rests on harmonic numbers in float64; its error stays below 1e-10 for a million
    items.

    Args:
        ties: of the ranking.
        at: R, the ranks that count; None, or more than there are items, means all.

    Returns:
        Two values in [0, 1], by denominator: ``found`` divides by the relevant items among the
        top R, ``recall-aware`` by ``min(R, all relevant items)``. Both are 0 when nothing
        relevant can be among the top R.
    """
    depth = ties.item_count if at is None else min(at, ties.item_count)
    reached = int(np.searchsorted(ties.before, depth))  # ties that begin above the cut
    if reached == 0:
        return 0.0, 0.0
    s, g = ties.before[:reached], ties.size[:reached]
    t, c = ties.relevant[:reached], ties.relevant_before[:reached]
    is_cut = bool(s[-1] + g[-1] > depth)
    slots = g.copy()
    slots[-1] = min(g[-1], depth - s[-1])
    sums = _precision_sums(s, slots, t / g, c, (t - 1) / np.maximum(g - 1, 1))
    total = float(sums.sum())
    # Here n is fixed, so the expectation is linear and the cut needs no case of its own.
    recall_aware = total / min(depth, ties.relevant_count)
    if not is_cut:
        return total / int(c[-1] + t[-1]), recall_aware
    found = _found_with_cut_tie(
        float(sums[:-1].sum()), int(s[-1]), int(g[-1]), int(t[-1]), int(c[-1]), int(slots[-1])
    )
    return found, recall_aware


def expected_hits(ties: Ties, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Expected number of relevant items among the first n, for each n of ``ranks``; float64.

    Inside a tie it grows linearly with the rank, between ties it is flat: so it is an
    interpolation between the ends of the ties.
    """
    if ties.before.size == 0:
        return np.zeros(len(ranks))
    ends = np.stack([ties.before, ties.before + ties.size], axis=1).ravel()
    hits = np.stack([ties.relevant_before, ties.relevant_before + ties.relevant], axis=1).ravel()
    return np.interp(ranks, ends, hits)


def average_precision(
    scores: ArrayLike,
    relevant: ArrayLike,
    at: int | None = None,
    denominator: Denominator = "found",
) -> float | NDArray[np.float64]:
    """Average precision of one query or of many, averaged over all orders of tied items.

    Args:
        scores: [N] or [Q, N] of any real dtype, higher is better; compared in that dtype.
        relevant: bool (or 0 and 1), of the same shape.
        at: R, the ranks that count; None means all.
        denominator: what the sum of precisions is divided by: ``found``, the relevant items among
            the top R (what the field's code prints), or ``recall-aware``, ``min(R, all relevant)``.

    Returns:
        A float for one query, float64 [Q] for many. A query without a hit counts 0.

    Raises:
        InputError: shapes differ, a score is NaN, ``relevant`` is not bool, ``at`` is below 1, or
            the denominator has another name.
    """
    if denominator not in DENOMINATORS:
        raise InputError(f"denominator is {denominator!r}; it can be 'found' or 'recall-aware'")
    if at is not None and at < 1:
        raise InputError(f"at is {at}; it counts ranks, so it is at least 1 (None means all)")
    which = DENOMINATORS.index(denominator)
    values = [tie_averaged_precision(ties, at)[which] for ties in _ties_of_rows(scores, relevant)]
    return values[0] if np.ndim(scores) == 1 else np.array(values, dtype=np.float64)


def precision_at(
    scores: ArrayLike, relevant: ArrayLike, n: int | Sequence[int]
) -> float | NDArray[np.float64]:
    """Expected share of relevant items among the first n, over all orders of tied items.

    Where fewer than n items are ranked, the missing ones count as wrong.

    Args:
        scores: [N] or [Q, N], higher is better.
        relevant: bool, of the same shape.
        n: one rank, or several.

    Returns:
        A float for one query and one n; otherwise float64 [Q], [n] or [Q, n].

    Raises:
        InputError: as `average_precision`; or an n below 1.
    """
    ranks = np.atleast_1d(np.asarray(n, dtype=np.int64))
    if (ranks < 1).any():
        raise InputError(f"n is {n}; it counts ranks, so it is at least 1")
    rows = [expected_hits(ties, ranks) / ranks for ties in _ties_of_rows(scores, relevant)]
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(ranks))
    if np.ndim(n) == 0:
        values = values[:, 0]
    if np.ndim(scores) > 1:
        return values
    return float(values[0]) if np.ndim(n) == 0 else values[0]


def precision_recall_curve(
    scores: ArrayLike, relevant: ArrayLike, ranks: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall at fixed ranks, averaged over the orders of ties and over queries.

    Fixed ranks, not fixed recalls: at a rank both are linear in the number of hits, so their
    expectations are exact; interpolated precision at a given recall is not.

    Args:
        scores: [N] or [Q, N], higher is better.
        relevant: bool, of the same shape. Queries without a relevant item have no recall and are
            left out of its mean.
        ranks: increasing, at least 1; None takes `curve_ranks` of N.

    Returns:
        ranks int64 [P], precision float64 [P], recall float64 [P].

    Raises:
        InputError: as `average_precision`; or a rank below 1.
    """
    rows = list(_ties_of_rows(scores, relevant))
    grid = curve_ranks(np.shape(scores)[-1]) if ranks is None else np.asarray(ranks, dtype=np.int64)
    if (grid < 1).any():
        raise InputError(f"ranks count from 1, and one of them is {grid.min()}")
    hits = np.array([expected_hits(ties, grid) for ties in rows]).reshape(len(rows), len(grid))
    counts = np.array([ties.relevant_count for ties in rows], dtype=np.int64)
    return grid, *mean_precision_recall(hits, counts, grid)


def mean_precision_recall(
    hits_QP: NDArray[np.float64], relevant_counts_Q: NDArray[np.int64], ranks_P: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean precision and mean recall (float64 [P] each) from the expected hits of each query."""
    if len(hits_QP) == 0:
        return np.zeros(len(ranks_P)), np.zeros(len(ranks_P))
    has_relevant = relevant_counts_Q > 0
    recall_QP = hits_QP[has_relevant] / relevant_counts_Q[has_relevant, None]
    recall = recall_QP.mean(axis=0) if has_relevant.any() else np.zeros(len(ranks_P))
    return (hits_QP / ranks_P).mean(axis=0), recall


def curve_ranks(item_count: int) -> NDArray[np.int64]:
    """Ranks from 1 to ``item_count``, evenly spaced in their logarithm; at most 100."""
    if item_count < 1:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.rint(np.geomspace(1, item_count, _CURVE_POINTS)).astype(np.int64))


def _ties_of_rows(scores: ArrayLike, relevant: ArrayLike) -> Iterator[Ties]:
    scores_QN, relevant_QN = np.asarray(scores), np.asarray(relevant)
    if scores_QN.shape != relevant_QN.shape or scores_QN.ndim not in {1, 2}:
        raise InputError(
            f"scores {scores_QN.shape} and relevant {relevant_QN.shape} must have the same shape, "
            "[N] or [Q, N]"
        )
    if relevant_QN.dtype != np.bool_:
        if not np.isin(relevant_QN, (0, 1)).all():
            raise InputError("relevant must be bool (or 0 and 1): one entry for each score")
        relevant_QN = relevant_QN.astype(bool)
    for row, mask in zip(np.atleast_2d(scores_QN), np.atleast_2d(relevant_QN), strict=True):
        yield find_ties(row, mask)


@cache  # tables double in size, so together they hold twice the largest
def _harmonic_table(power: int) -> NDArray[np.float64]:
    """H_0 .. H_(2^power), float64; H_n = 1 + 1/2 + ... + 1/n."""
    table = np.zeros((1 << power) + 1)
    np.cumsum(1.0 / np.arange(1, len(table)), out=table[1:])
    table.flags.writeable = False
    return table


def _precision_sums(
    s: NDArray[np.int64],
    slots: NDArray[np.int64],
    share: NDArray[np.float64],
    c: NDArray[np.int64],
    step: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What ties add to the sum of precisions: Σ_{i=1..L} share · (c + 1 + (i-1) · step) / (s+i).

    Since (i-1)/(s+i) = 1 - (s+1)/(s+i), it needs only ΔH = Σ 1/(s+i) = H_{s+L} - H_s::

        share · [(c + 1) ΔH + step · (L - (s + 1) ΔH)]

    Args:
        s: [T], ranked before the tie.
        slots: [T], L, the ranks of the tie that count.
        share: [T], probability that the item at such a rank is relevant: t/g (h/L in a cut tie).
        c: [T], relevant before the tie.
        step: [T], expected further relevant items a rank, given a relevant one: (t-1)/(g-1).
    """
    harmonic = _harmonic_table(int((s + slots).max()).bit_length())
    delta = np.where(slots == 1, 1.0 / (s + 1), harmonic[s + slots] - harmonic[s])
    later = np.where(slots == 1, 0.0, step * (slots - (s + 1) * delta))
    sums: NDArray[np.float64] = share * ((c + 1) * delta + later)
    return sums


def _found_with_cut_tie(above: float, s: int, g: int, t: int, c: int, slots: int) -> float:
    """Expected AP@R with the denominator ``found`` when R cuts the last tie.

    The number h of the tie's relevant items inside the cut is hypergeometric, and the denominator
    c + h depends on it: sum over h. Dividing expectations instead is wrong.

    Args:
        above: sum of precisions of the ties above.
        s: items before the tie.
        g: items in the tie.
        t: relevant items in the tie.
        c: relevant items before the tie.
        slots: L, the ranks left, 1 <= L < g.
    """
    h = np.arange(max(0, slots - (g - t)), min(t, slots) + 1)
    # C(t,h) C(g-t,L-h) / C(g,L), in logarithms of the ratios between neighbours: no factorials of
    # large numbers, hence no loss of digits.
    before, after = h[:-1], h[1:]
    ratios = ((t - before) / after) * ((slots - before) / (g - t - slots + after))
    log_weights = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    every = np.full(len(h), slots)
    inside = _precision_sums(
        np.full(len(h), s), every, h / slots, np.full(len(h), c), (h - 1) / max(slots - 1, 1)
    )
    values = np.where(c + h > 0, (above + inside) / np.maximum(c + h, 1), 0.0)
    return float(weights @ values)
