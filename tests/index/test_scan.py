from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.index import scan


def slow_top_k(codes, lut, k, allowed, exclude, min_score):
    """Every item scored one look-up at a time, then sorted by (-score, position)."""
    found = []
    for position, code in enumerate(codes):
        score = np.float32(lut[0][code[0]])
        for m in range(1, len(code)):
            score = np.float32(score + lut[m][code[m]])
        if position == exclude or (allowed is not None and position not in allowed):
            continue
        if min_score is None or score >= np.float32(min_score):
            found.append((-score, position))
    found.sort()
    return [(-s, p) for s, p in found[:k]]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40),
    k=st.integers(1, 50),
    levels=st.integers(1, 5),  # few levels: ties everywhere
    chunk=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    filtered=st.booleans(),
    min_score=st.none() | st.integers(-4, 4).map(lambda x: x / 4),
)
def test_equals_brute_force(n, k, levels, chunk, seed, filtered, min_score):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, 3), np.uint8)
    lut = rng.integers(-levels, levels + 1, (2, 3, 4)).astype(np.float32) / 4
    allowed = np.flatnonzero(rng.random(n) < 0.5) if filtered else None
    exclude = np.array([-1, rng.integers(-1, max(n, 1))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK", chunk)
        scores, positions = scan.top_k(
            codes, lut, k, allowed=allowed, exclude=exclude, min_score=min_score
        )
    assert scores.dtype == np.float32
    assert positions.dtype == np.int64
    for query in range(2):
        expected = slow_top_k(codes, lut[query], k, allowed, exclude[query], min_score)
        real = positions[query] >= 0
        assert real.sum() == len(expected)
        assert list(zip(scores[query][real], positions[query][real], strict=True)) == expected
        assert np.isneginf(scores[query][~real]).all()
        assert (positions[query][~real] == -1).all()


def test_the_order_of_the_sum_is_part_of_the_definition():
    lut = np.array([[[1e8], [-1e8], [1.0]]], np.float32)
    codes = np.zeros((1, 3), np.uint8)
    assert scan.score(codes, lut[0])[0] == 1.0  # (1e8 - 1e8) + 1, not 1e8 + (-1e8 + 1)


def test_layout_of_codes_does_not_matter():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (1000, 4), np.uint8)
    lut = rng.normal(size=(3, 4, 256)).astype(np.float32)
    by_row = scan.top_k(codes, lut, 10)
    by_column = scan.top_k(np.asfortranarray(codes), lut, 10)
    assert np.array_equal(by_row[0], by_column[0])
    assert np.array_equal(by_row[1], by_column[1])
