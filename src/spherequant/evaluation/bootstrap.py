"""When is one better? A paired bootstrap over queries (docs/protocols.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spherequant.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two means over the same queries, with its 95 % interval.

    Attributes:
        difference: mean of the first minus mean of the second.
        low: lower end of the interval (percentiles of the resampled differences).
        high: upper end of the interval.
        query_count: queries resampled.
        resamples: resamples taken.
    """

    difference: float
    low: float
    high: float
    query_count: int
    resamples: int

    @property
    def at_or_above(self) -> bool:
        """The first is at or above the second: the interval is not wholly below 0."""
        return self.high >= 0

    @property
    def above(self) -> bool:
        """The first is above the second: the interval is wholly above 0."""
        return self.low > 0

    def within(self, margin: float) -> bool:
        """The first is no more than ``margin`` below: the interval lies above ``-margin``."""
        return self.low > -margin


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare two methods by their average precisions on the same queries.

    Training seeds are averaged query by query, then queries are drawn with replacement.

    Args:
        first: average precisions [Q], or [S, Q] for S training seeds.
        second: the same, over the same queries in the same order; S may differ.
        resamples: how many resamples.
        seed: of the resampling.

    Raises:
        InputError: no queries, not the same number of them, a value that is not finite, or no
            resample.
    """
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    mean_first, mean_second = _mean_over_seeds(first, "first"), _mean_over_seeds(second, "second")
    if len(mean_first) != len(mean_second):
        raise InputError(
            f"first has {len(mean_first)} queries and second {len(mean_second)}: a paired "
            "comparison needs the same queries in the same order"
        )
    difference = mean_first - mean_second
    generator = np.random.default_rng(seed)
    count = len(difference)
    means = [
        float(difference[generator.integers(0, count, count)].mean()) for _ in range(resamples)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Comparison(float(difference.mean()), float(low), float(high), count, resamples)


def _mean_over_seeds(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name} has shape {array.shape}; it must be [Q] or [S, Q], not empty")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds a value that is not finite")
    mean: NDArray[np.float64] = array.mean(axis=0)
    return mean
