"""Look-up tables by a sparse product: the bits of the dense one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant import _native
from spherequant.quantizer import Codebooks, sparse_tables

LEVELS = _native.encoding_levels()


def sparse_rows(k, d, share, rng):
    return (rng.normal(size=(k, d)) * (rng.random((k, d)) < share)).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 140),
    k=st.integers(1, 300),
    d=st.integers(1, 70),
    share=st.sampled_from([0.0, 0.02, 0.25, 1.0]),
    threads=st.integers(1, 3),
    level=st.sampled_from(LEVELS),
    seed=st.integers(0, 99),
)
def test_sparse_products_to_the_bit(n, k, d, share, threads, level, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    x[rng.random((n, d)) < 0.1] = 0
    x[rng.random((n, d)) < 0.1] = -0.0
    y = sparse_rows(k, d, share, rng)
    y[rng.random((k, d)) < 0.1] = -0.0
    sparse = _native.SparseColumns(y).inner_products(x, threads, level)
    assert sparse is not None
    assert sparse.tobytes() == _native.Columns(y).inner_products(x, 1).tobytes()


def test_uneven_rows_and_the_slow_reference(reference_products):
    rng = np.random.default_rng(0)
    y = sparse_rows(530, 24, 0.1, rng)
    y[rng.choice(530, 40, replace=False)] = rng.normal(size=(40, 24))
    x = rng.normal(size=(70, 24)).astype(np.float32)
    expected = reference_products(x, y).tobytes()
    for level in LEVELS:
        assert _native.SparseColumns(y).inner_products(x, 2, level).tobytes() == expected


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(st.tuples(floats, st.one_of(st.just(0.0), floats)), min_size=1, max_size=6),
    n=st.sampled_from([1, 9]),
)
def test_any_finite_values_to_the_bit_or_not_at_all(pairs, n):
    x, y = np.array(pairs, np.float32).T[:, None]
    dense = _native.Columns(y).inner_products(np.repeat(x, n, axis=0), 1)
    sparse = _native.SparseColumns(y).inner_products(np.repeat(x, n, axis=0), 1)
    if sparse is not None:
        # The payload of a NaN (infinity less infinity) is no one's promise.
        np.testing.assert_array_equal(sparse, dense)
        assert (np.signbit(sparse) == np.signbit(dense))[~np.isnan(dense)].all()


def test_a_zero_whose_sign_depends_on_the_terms_left_out():
    # -2^-80 * 2^-80 is rounded to -0, and adding 1 * 0 makes it 0.
    x = np.array([[-(2.0**-80), 1]], np.float32)
    y = np.array([[2.0**-80, 0]], np.float32)
    assert not np.signbit(_native.Columns(y).inner_products(x, 1)[0, 0])
    assert _native.SparseColumns(y).inner_products(x, 1) is None


def test_shapes_are_checked():
    columns = _native.SparseColumns(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="rows of 4 values"):
        columns.inner_products(np.ones((1, 4), np.float32), 1)
    with pytest.raises(ValueError, match="threads"):
        columns.inner_products(np.ones((1, 3), np.float32), 0)
    with pytest.raises(ValueError, match="does not encode with abacus"):
        columns.inner_products(np.ones((1, 3), np.float32), 1, "abacus")
    with pytest.raises(ValueError, match="65536"):
        _native.SparseColumns(np.ones((1, 65537), np.float32))
    assert columns.inner_products(np.ones((0, 3), np.float32), 1).shape == (0, 2)


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("queries", [0, 1, 5, 16, 40])
def test_a_look_up_table_is_the_same_either_way(share, queries, monkeypatch):
    rng = np.random.default_rng(1)
    array = sparse_rows(3 * 20, 32, share, rng).reshape(3, 20, 32)
    q = rng.normal(size=(queries, 32)).astype(np.float32)
    table = Codebooks(array).lookup_table(q)
    monkeypatch.setattr(sparse_tables, "MAX_DIM", 0)
    assert Codebooks(array).lookup_table(q).tobytes() == table.tobytes()


def test_sparse_columns_are_made_where_they_pay():
    rng = np.random.default_rng(1)
    q = rng.normal(size=(16, 32)).astype(np.float32)
    for share, many, few in ((0.05, True, True), (0.2, True, False), (0.5, False, False)):
        array = sparse_rows(3 * 20, 32, share, rng).reshape(3, 20, 32)
        for queries, pays in ((q, many), (q[:2], few)):
            books = Codebooks(array)
            books.lookup_table(queries)
            assert (books._sparse is not None) == pays
            assert (books._columns is None) == pays
    assert Codebooks(array).nnz == np.count_nonzero(array)


def test_values_too_small_for_a_sparse_product_are_multiplied_in_full():
    array = np.zeros((1, 4, 32), np.float32)
    array[0, 0, 0] = 2.0**-80
    q = np.full((2, 32), -(2.0**-80), np.float32)
    q[:, 1] = 1
    table = Codebooks(array).lookup_table(q)
    assert not np.signbit(table).any()


def test_one_query_alone_waits_for_codebooks_that_are_far():
    near, far = np.zeros((4, 256, 511), np.float32), np.zeros((4, 256, 512), np.float32)
    assert not sparse_tables.pays(near, near.size // 4, 1)
    assert sparse_tables.pays(far, far.size // 4, 1)
    assert not sparse_tables.pays(far, far.size // 4, 2)
    assert not sparse_tables.pays(np.zeros((1, 1, 65_537), np.float32), 0, 1)
