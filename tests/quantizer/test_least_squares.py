from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.errors import InputError
from spherequant.quantizer import Codebooks, CodebookSums, least_squares


def random_items(n, m, k, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(k, size=(n, m)).astype(np.uint8), rng.normal(size=(n, d)).astype(np.float32)


def dense(codes, k):
    n, m = codes.shape
    a = np.zeros((n, m * k))
    for i in range(n):
        for j in range(m):
            a[i, j * k + codes[i, j]] = 1
    return a


@pytest.mark.parametrize(
    ("n", "m", "k", "d"), [(50, 3, 4, 5), (6, 2, 9, 3), (30, 1, 5, 2), (0, 2, 3, 2)]
)
def test_sums_and_solution_equal_the_dense_problem(n, m, k, d):
    codes, u = random_items(n, m, k, d)
    old = Codebooks(np.random.default_rng(1).normal(size=(m, k, d)))
    a = dense(codes, k)
    sums = CodebookSums(m, k, d)
    sums.add(codes, u)
    np.testing.assert_array_equal(sums.gram.numpy(), a.T @ a)
    np.testing.assert_allclose(sums.moment.numpy(), a.T @ u, atol=1e-12)
    np.testing.assert_array_equal(sums.counts.numpy(), a.sum(axis=0).reshape(m, k))
    # ||AC - U||^2 + eps ||C - C_old||^2 as one stacked least-squares problem.
    eps = 0.3
    flat = old.array.reshape(m * k, d).astype(np.float64)
    expected = np.linalg.lstsq(
        np.vstack([a, eps**0.5 * np.eye(m * k)]), np.vstack([u, eps**0.5 * flat]), rcond=None
    )[0]
    new = sums.solve(old, eps)
    np.testing.assert_allclose(new.array.reshape(m * k, d), expected, atol=1e-6)


def test_sums_add_up_over_batches_and_machines(monkeypatch):
    codes, u = random_items(100, 3, 4, 5)
    whole, first, second = (CodebookSums(3, 4, 5) for _ in range(3))
    whole.add(codes, u)
    first.add(codes[:30], u[:30])
    monkeypatch.setattr(least_squares, "_MAX_ONE_HOT", 12 * 7)  # seven rows at a time
    second.add(torch.from_numpy(codes[30:]), torch.from_numpy(u[30:]))
    first += second
    assert torch.equal(whole.gram, first.gram)
    torch.testing.assert_close(whole.moment, first.moment, rtol=0, atol=1e-12)


def test_unused_codewords_stay_where_they_were():
    codes, u = random_items(40, 2, 6, 3)
    codes[codes == 4] = 1
    old = Codebooks(np.random.default_rng(1).normal(size=(2, 6, 3)))
    sums = CodebookSums(2, 6, 3)
    sums.add(codes, u)
    new = sums.solve(old, 1e-3)
    assert new.array[:, 4].tobytes() == old.array[:, 4].tobytes()
    assert np.isfinite(new.array).all()


def test_the_update_never_raises_the_error():
    codes, u = random_items(200, 4, 8, 6)
    old = Codebooks(np.random.default_rng(1).normal(size=(4, 8, 6)))
    sums = CodebookSums(4, 8, 6)
    sums.add(codes, u)
    new = sums.solve(old, 1e-2)
    assert ((new.decode(codes) - u) ** 2).sum() < ((old.decode(codes) - u) ** 2).sum()


def test_read_only_arrays_are_welcome():
    codes, u = random_items(5, 1, 2, 3)
    codes.flags.writeable = u.flags.writeable = False
    sums = CodebookSums(1, 2, 3)
    sums.add(codes, u)
    assert sums.counts.sum() == 5


def test_what_does_not_match_is_refused():
    sums = CodebookSums(2, 3, 4)
    with pytest.raises(InputError, match=r"\[N, 2\] and \[N, 4\]"):
        sums.add(np.zeros((5, 3), np.uint8), np.zeros((5, 4)))
    with pytest.raises(InputError, match=r"\[N, 2\] and \[N, 4\]"):
        sums.add(np.zeros((5, 2), np.uint8), np.zeros((6, 4)))
    for codes in ([[0, 3]], [[0, -1]]):
        with pytest.raises(InputError, match="between 0 and 2"):
            sums.add(np.array(codes), np.zeros((1, 4)))
    with pytest.raises(InputError, match="must be integers"):
        sums.add(np.array([[1.7, 0]]), np.zeros((1, 4)))
    assert not sums.counts.any()
    with pytest.raises(InputError, match="different shapes"):
        sums += CodebookSums(2, 3, 5)
    with pytest.raises(InputError, match="epsilon"):
        sums.solve(Codebooks(np.zeros((2, 3, 4))), 0.0)
    with pytest.raises(InputError, match="cannot update"):
        sums.solve(Codebooks(np.zeros((2, 3, 5))), 1.0)
