from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherequant import _native
from spherequant.errors import InputError
from spherequant.quantizer import vectors
from spherequant.quantizer.vectors import as_rows, inner_products, normalise_rows, thread_count

LEVELS = _native.encoding_levels()


@pytest.mark.parametrize(
    ("n", "k", "d"), [(1, 1, 1), (3, 16, 5), (7, 17, 64), (9, 33, 3), (130, 5, 20), (8, 256, 2)]
)
def test_inner_products_to_the_bit(n, k, d, reference_products):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, d)).astype(np.float32)
    y = rng.normal(size=(k, d)).astype(np.float32)
    expected = reference_products(x, y).tobytes()
    assert inner_products(x, y).tobytes() == expected
    for level in LEVELS:
        assert _native.Columns(y).inner_products(x, 2, level).tobytes() == expected


@pytest.mark.parametrize("level", LEVELS)
def test_a_sum_is_rounded_once(level):
    # 1 + 2**-23 + 2**-24 - 2**-70: the product has too many bits for float32, the sum for float64,
    # in which it would become a tie.
    e = 2.0**-23
    x = np.array([[1 + e, 1 + e]], np.float32)
    y = np.array([[1, (1 - e) * e / 2]], np.float32)
    assert _native.Columns(y).inner_products(x, 1, level)[0, 0] == 1 + e
    assert _native.Columns(y).inner_products(-x, 1, level)[0, 0] == -1 - e


near_halves = st.builds(
    lambda sign, last, exponent: sign * (1 + last * 2.0**-23) * 2.0**exponent,
    st.sampled_from([-1.0, 1.0]),
    st.integers(-3, 3),
    st.integers(-26, 2),
)


@given(st.lists(st.tuples(near_halves, near_halves), min_size=1, max_size=6))
def test_levels_round_alike(pairs):
    x, y = np.array(pairs, np.float32).T[:, None]
    products = [_native.Columns(y).inner_products(x, 1, level).tobytes() for level in LEVELS]
    assert len(set(products)) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_sums_overflow_to_infinity(level):
    ones = np.ones((1, 2), np.float32)
    assert _native.Columns(ones).inner_products(3e38 * ones, 1, level) == np.inf
    assert _native.Columns(ones).inner_products(-3e38 * ones, 1, level) == -np.inf


@given(
    n=st.integers(0, 150), k=st.integers(0, 40), split=st.integers(0, 150), seed=st.integers(0, 9)
)
def test_inner_products_of_a_row_depend_on_that_row(n, k, split, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    y = rng.normal(size=(k, 6)).astype(np.float32)
    whole = inner_products(x, y, threads=2)
    parts = [inner_products(x[:split], y, threads=1), inner_products(x[split:], y, threads=3)]
    assert whole.shape == (n, k)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_inner_products_refuses_what_does_not_match():
    with pytest.raises(InputError, match="y must have 3 values a row, not 4"):
        inner_products(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="threads must be at least 1"):
        inner_products(np.ones((2, 3)), np.ones((2, 3)), threads=0)


def test_the_binding_checks_shapes_itself():
    f32 = np.float32
    with pytest.raises(ValueError, match="rows of 3"):
        _native.Columns(np.ones((2, 4), f32)).inner_products(np.ones((2, 3), f32), 1)
    with pytest.raises(ValueError, match="threads"):
        _native.Columns(np.ones((2, 3), f32)).inner_products(np.ones((2, 3), f32), 0)
    with pytest.raises(ValueError, match="codebooks"):
        _native.EncodingTables(np.ones((17, 1, 1), f32), 1)
    with pytest.raises(ValueError, match="codewords"):
        _native.EncodingTables(np.ones((1, 257, 1), f32), 1)
    with pytest.raises(ValueError, match="dimension"):
        _native.EncodingTables(np.ones((1, 1, 0), f32), 1)
    tables = _native.EncodingTables(np.ones((1, 2, 3), f32), 1)
    with pytest.raises(ValueError, match="codebooks of 3"):
        tables.encode(np.ones((1, 4), f32), 1, 0, 1, 1)
    with pytest.raises(ValueError, match="beam"):
        tables.encode(np.ones((1, 3), f32), 0, 0, 1, 1)
    with pytest.raises(ValueError, match="icm_starts"):
        tables.encode(np.ones((1, 3), f32), 1, 0, 0, 1)


def test_thread_count():
    assert thread_count(3) == 3
    assert thread_count(10**6) == 256
    assert 1 <= thread_count(None) <= (os.cpu_count() or 1)


def test_no_machine_is_given_more_threads_than_have_memory(monkeypatch):
    monkeypatch.setattr(vectors, "usable_processors", lambda: 384)
    assert thread_count(None) == 256


def test_normalise_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 3))  # more than a chunk
    z = normalise_rows(x)
    assert z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(z * np.linalg.norm(x, axis=1)[:, None], x, atol=1e-6)
    assert normalise_rows(x[39_999:]).tobytes() == z[39_999:].tobytes()
    assert normalise_rows(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1.0, 1e30, 1e300])
def test_normalise_rows_neither_overflows_nor_vanishes(scale):
    z = normalise_rows(np.array([[3.0, -4.0]]) * scale)
    np.testing.assert_allclose(z, [[0.6, -0.8]], rtol=1e-6)


def test_normalise_rows_names_the_row():
    x = np.ones((20_000, 2), np.float32)
    x[17_000] = 0
    with pytest.raises(InputError, match="photos: row 17000 is zero"):
        normalise_rows(x, what="photos")
    x[5] = np.nan
    with pytest.raises(InputError, match="row 5 holds a NaN"):
        normalise_rows(x)
    x[2] = np.inf
    with pytest.raises(InputError, match="row 2 holds"):
        normalise_rows(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), "two dimensions"),
        (np.ones((2, 0)), "at least 1 value"),
        (np.ones((2, 2), complex), "real numbers"),
        (np.array([["a"]]), "real numbers"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        as_rows(x)
    with pytest.raises(InputError, match=message):
        normalise_rows(x)


def test_a_float64_beyond_float32_is_refused():
    with pytest.raises(InputError, match="row 1"):
        as_rows(np.array([[1.0], [1e300]]))


def test_importing_the_room_loads_neither_torch_nor_sklearn():
    script = (
        "import sys, spherequant.quantizer as q; q.Codebooks([[[1.0]]]).decode([[0]]); "
        "assert not {'torch', 'sklearn'} & set(sys.modules); "
        "assert set(q.__all__) <= set(dir(q)); [getattr(q, name) for name in q.__all__]"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, env={**os.environ}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_rows_whose_squares_overflow_are_finite():
    x = np.full((2, 3), 3e38, np.float32)
    np.testing.assert_array_equal(as_rows(x), x)
    x[1, 2] = -np.inf
    with pytest.raises(InputError, match="row 1"):
        as_rows(x)


def test_rows_at_any_address():
    shifted = np.zeros(4 * 6 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
    shifted[:] = [[1, 2, 3], [4, 5, 6]]
    assert not shifted.flags.aligned
    rows = as_rows(shifted)
    assert rows.flags.aligned
    np.testing.assert_array_equal(rows, shifted)
    aligned = rows.copy()
    assert as_rows(aligned) is aligned
