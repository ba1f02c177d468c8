from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spherequant.errors import InputError
from spherequant.evaluation import paired_bootstrap


def test_an_even_difference_has_no_width():
    base = np.linspace(0, 0.9, 50)
    comparison = paired_bootstrap(base + 0.1, base)
    assert comparison.difference == pytest.approx(0.1)
    assert comparison.low == pytest.approx(0.1)
    assert comparison.high == pytest.approx(0.1)
    assert comparison.above
    assert comparison.at_or_above
    assert (comparison.query_count, comparison.resamples) == (50, 1000)


def test_decisions_follow_the_interval():
    generator = np.random.default_rng(0)
    base = generator.random(1000)
    noise = generator.normal(0, 0.1, 1000)
    near = paired_bootstrap(base - 0.002 + noise - noise.mean(), base)
    assert near.low < 0 < near.high
    assert near.at_or_above
    assert not near.above
    assert near.within(0.01)
    far = paired_bootstrap(base - 0.05 + noise - noise.mean(), base)
    assert not far.at_or_above
    assert not far.within(0.01)
    assert far.within(0.06)


def test_the_interval_is_that_of_the_mean():
    difference = np.random.default_rng(1).normal(0.02, 0.2, 2000)
    comparison = paired_bootstrap(difference, np.zeros(2000), resamples=2000)
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert comparison.high - comparison.low == pytest.approx(2 * half, rel=0.1)


def test_the_interval_holds_95_of_100():
    """Differences of 0 and 1: a resample's mean is binomial."""
    difference = np.arange(1000) < 300
    comparison = paired_bootstrap(difference.astype(float), np.zeros(1000), resamples=20_000)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    np.testing.assert_allclose([comparison.low, comparison.high], expected, atol=0.0011)


def test_seeds_are_averaged_query_by_query():
    first = np.array([[0.2, 0.4], [0.4, 0.6], [0.6, 0.8]])
    assert paired_bootstrap(first, [0.4, 0.6]).difference == pytest.approx(0)
    assert paired_bootstrap(first, [0.4, 0.6]).high == pytest.approx(0)


def test_equal_seeds_give_equal_intervals():
    values = np.random.default_rng(2).random((2, 100))
    assert paired_bootstrap(*values, seed=4) == paired_bootstrap(*values, seed=4)
    assert paired_bootstrap(*values, seed=4) != paired_bootstrap(*values, seed=5)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0.1, 0.2], [0.1], "same queries"),
        ([], [], "not empty"),
        ([0.1, np.nan], [0.1, 0.2], "not finite"),
        (np.zeros((1, 1, 1)), [0.1], r"\[Q\] or \[S, Q\]"),
    ],
)
def test_refused(first, second, message):
    with pytest.raises(InputError, match=message):
        paired_bootstrap(first, second)


def test_at_least_one_resample():
    with pytest.raises(InputError, match="at least 1, not 0"):
        paired_bootstrap([0.1, 0.2], [0.1, 0.3], resamples=0)
