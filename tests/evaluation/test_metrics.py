"""Tie-averaged metrics against the definition: the mean over every order of tied items."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import InputError
from spherequant.evaluation.metrics import (
    DENOMINATORS,
    average_precision,
    curve_ranks,
    expected_hits,
    find_ties,
    precision_at,
    precision_recall_curve,
    tie_averaged_precision,
)


def orders(scores, relevant):
    """Relevance in rank order, for each order of tied items; every one is equally likely."""
    groups = [
        [mark for score, mark in zip(scores, relevant, strict=True) if score == value]
        for value in sorted(set(scores), reverse=True)
    ]
    for arranged in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield list(itertools.chain(*arranged))


def plain_average_precision(ranked, at, denominator):
    """AP@R of one order, as docs/protocols.md states it; a Fraction."""
    hits, total = 0, Fraction(0)
    for rank, mark in enumerate(ranked[:at], start=1):
        if mark:
            hits += 1
            total += Fraction(hits, rank)
    n = hits if denominator == "found" else min(at, sum(ranked))
    return total / n if n else Fraction(0)


def slow_average_precision(scores, relevant, at, denominator):
    values = [
        plain_average_precision(ranked, at, denominator) for ranked in orders(scores, relevant)
    ]
    return sum(values, Fraction(0)) / len(values)


def slow_hits(scores, relevant, n):
    values = [Fraction(sum(ranked[:n])) for ranked in orders(scores, relevant)]
    return sum(values, Fraction(0)) / len(values)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_small_ranking_equals_the_mean_over_all_orders(count):
    for breaks in itertools.product([0, 1], repeat=count - 1):
        scores = [-sum(breaks[:position]) for position in range(count)]
        for relevant in itertools.product([False, True], repeat=count):
            ranked = list(orders(scores, relevant))
            for at, denominator in itertools.product(range(1, count + 2), DENOMINATORS):
                values = [plain_average_precision(each, at, denominator) for each in ranked]
                expected = sum(values, Fraction(0)) / len(values)
                found = average_precision(scores, relevant, at, denominator)
                assert math.isclose(found, expected, rel_tol=0, abs_tol=1e-13)


rankings = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=6, max_size=8).filter(
    lambda rows: max(sum(row[0] == value for row in rows) for value in range(3)) <= 5
)


@settings(max_examples=60, deadline=None)
@given(rankings, st.integers(1, 9), st.sampled_from(DENOMINATORS))
def test_larger_rankings_equal_the_mean_over_all_orders(rows, at, denominator):
    scores, relevant = zip(*rows, strict=True)
    expected = slow_average_precision(scores, relevant, at, denominator)
    found = average_precision(scores, relevant, at, denominator)
    assert math.isclose(found, expected, rel_tol=0, abs_tol=1e-13)


@settings(max_examples=40, deadline=None)
@given(rankings, st.integers(1, 9))
def test_precision_at_equals_the_mean_over_all_orders(rows, n):
    scores, relevant = zip(*rows, strict=True)
    expected = slow_hits(scores, relevant, n) / n
    assert math.isclose(precision_at(scores, relevant, n), expected, rel_tol=0, abs_tol=1e-13)


def hypergeometric_average_precision(size, relevant, at):
    """``found`` for one tie of all items: exact sums over the relevant items inside the cut."""
    total = Fraction(0)
    for h in range(max(0, at - (size - relevant)), min(relevant, at) + 1):
        ways = math.comb(relevant, h) * math.comb(size - relevant, at - h)
        if h == 0:
            continue
        step = Fraction(h - 1, at - 1) if at > 1 else Fraction(0)
        inner = sum(
            (Fraction(h, at) * (1 + (i - 1) * step) / i for i in range(1, at + 1)), Fraction(0)
        )
        total += Fraction(ways, math.comb(size, at)) * inner / h
    return total


@pytest.mark.parametrize(
    ("size", "relevant", "at"), [(60, 7, 20), (400, 40, 100), (300, 299, 7), (500, 1, 499)]
)
def test_large_cut_ties_keep_their_digits(size, relevant, at):
    marks = np.arange(size) < relevant
    found = average_precision(np.zeros(size), marks, at)
    expected = hypergeometric_average_precision(size, relevant, at)
    assert math.isclose(found, expected, rel_tol=1e-12)


def test_the_worked_example_of_the_definition():
    assert average_precision([1, 1, 1, 1, 1], [1, 1, 0, 0, 0], at=2) == pytest.approx(0.55)


def test_without_ties_it_is_the_textbook_value():
    scores, relevant = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert average_precision(scores, relevant) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, relevant, 1) == 1.0
    assert average_precision(scores, relevant, 1, "recall-aware") == 1.0
    assert average_precision(scores, relevant, 2) == 1.0
    assert average_precision(scores, relevant, 2, "recall-aware") == 0.5


def test_rounding_stays_small_for_many_items():
    generator = np.random.default_rng(0)
    count = 200_000
    scores = np.round(generator.normal(size=count), 4)  # thousands of ties
    relevant = generator.random(count) < 0.02
    found, _ = tie_averaged_precision(find_ties(scores, relevant))
    assert math.isclose(found, direct_average_precision(scores, relevant), abs_tol=1e-10)


def direct_average_precision(scores, relevant):
    """The formula of docs/protocols.md term by term, one rank at a time, summed exactly."""
    total, before, hits = [], 0, 0
    values, starts = np.unique(-scores, return_inverse=True)
    sizes = np.bincount(starts)
    marks = np.bincount(starts, weights=relevant).astype(int)
    for size, inside in zip(sizes.tolist(), marks.tolist(), strict=True):
        if inside:
            ranks = np.arange(1, size + 1)
            step = (inside - 1) / (size - 1) if size > 1 else 0.0
            terms = inside / size * (hits + 1 + (ranks - 1) * step) / (before + ranks)
            total.extend(terms.tolist())
        before, hits = before + size, hits + inside
    assert len(values) == len(sizes)
    return math.fsum(total) / hits


def test_the_order_of_items_does_not_matter():
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 5, 40).astype(np.float32)
    relevant = generator.random(40) < 0.3
    shuffled = generator.permutation(40)
    for at in (None, 7):
        assert average_precision(scores, relevant, at) == average_precision(
            scores[shuffled], relevant[shuffled], at
        )


def test_a_query_without_a_hit_counts_0():
    assert average_precision([3, 2, 1], [0, 0, 0]) == 0.0
    assert average_precision([3, 2, 1], [0, 0, 1], at=2) == 0.0
    assert average_precision([3, 2, 1], [0, 0, 1], at=2, denominator="recall-aware") == 0.0
    assert average_precision([], []) == 0.0
    assert precision_at([], [], 3) == 0.0


def test_many_queries_are_rows():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    relevant = np.array([[False, True, False], [True, False, False]])
    rows = average_precision(scores, relevant)
    assert rows.shape == (2,)
    assert rows.dtype == np.float64
    assert list(rows) == [average_precision(s, r) for s, r in zip(scores, relevant, strict=True)]
    assert precision_at(scores, relevant, 2) == pytest.approx([1 / 2, 1 / 3])
    assert precision_at(scores, relevant, [1, 2]).shape == (2, 2)
    assert precision_at(scores[0], relevant[0], [1, 2, 5]) == pytest.approx([0, 1 / 2, 1 / 5])


def test_minus_zero_ties_with_zero_and_infinities_are_ranked():
    assert average_precision([0.0, -0.0], [True, False]) == pytest.approx(0.75)
    assert average_precision([np.inf, 0.0, -np.inf], [True, False, True]) == pytest.approx(5 / 6)


def test_scores_are_compared_in_their_own_type():
    close = np.array([1.0, 1.0 + 1e-12])
    assert average_precision(close, [True, False]) == 0.5
    assert average_precision(close.astype(np.float32), [True, False]) == pytest.approx(0.75)


def test_precision_recall_curve_is_exact_at_its_ranks():
    scores = np.array([[2.0, 1.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    relevant = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    ranks, precision, recall = precision_recall_curve(scores, relevant, ranks=[1, 2, 4])
    assert list(ranks) == [1, 2, 4]
    assert precision == pytest.approx([1 / 3, (0.25 + 0.5) / 3, (0.5 + 0.25) / 3])
    assert recall == pytest.approx([0.5, (0.25 + 1) / 2, 1.0])  # the third query has none


def test_the_curve_covers_the_database():
    assert list(curve_ranks(3)) == [1, 2, 3]
    assert curve_ranks(50_000)[[0, -1]].tolist() == [1, 50_000]
    assert len(curve_ranks(50_000)) <= 100
    assert curve_ranks(0).size == 0
    ranks, precision, recall = precision_recall_curve(np.ones((1, 3)), np.zeros((1, 3), bool))
    assert list(precision) == list(recall) == [0, 0, 0]
    assert list(ranks) == [1, 2, 3]


def test_ties_tell_whether_any_items_share_a_score():
    assert not find_ties(np.array([1.0, 2.0]), np.array([True, False])).any_tied
    assert find_ties(np.array([1.0, 2.0, 2.0]), np.array([True, False, False])).any_tied
    positions = find_ties(np.array([1.0, 2.0, 2.0]), np.array([0], dtype=np.int64))
    assert expected_hits(positions, np.array([1, 2, 3])) == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool])
def test_scores_of_any_dtype_are_compared_in_it(dtype):
    rng = np.random.default_rng(3)
    places = rng.integers(0, 2, 50)
    # 2^53 + 1 is no float64, and 1 + 1e-12 no float32.
    values = {np.int64: [2**53, 2**53 + 1], np.uint8: [127, 255], np.float64: [1, 1 + 1e-12]}
    scores = np.array(values.get(dtype, [0, 1]), dtype=dtype)[places]
    relevant = rng.random(50) < 0.4
    assert average_precision(scores, relevant) == average_precision(
        places.astype(np.float32), relevant
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_zero_of_either_sign_is_one_score(dtype):
    assert find_ties(np.array([0.0, -0.0, -1.0], dtype), np.array([0])).size.tolist() == [2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_score_that_is_no_number_is_refused(dtype):
    with pytest.raises(InputError, match="NaN"):
        find_ties(np.array([1.0, np.nan], dtype), np.array([True, False]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, np.nan], [True, False]), "NaN"),
        (([1.0, 2.0], [True]), "same shape"),
        (([1.0, 2.0], [0, 2]), "bool"),
        (([1.0, 2.0], [True, False], 0), "at is 0"),
        (([1.0, 2.0], [True, False], 1, "recall"), "denominator"),
        ((np.zeros((1, 1, 1)), np.zeros((1, 1, 1), bool)), "same shape"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        average_precision(*arguments)


def test_ranks_below_1_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        precision_at([1.0], [True], 0)
    with pytest.raises(InputError, match="ranks count from 1"):
        precision_recall_curve([1.0], [True], [0, 1])
    with pytest.raises(InputError, match="same shape"):
        precision_recall_curve(1.0, True)
