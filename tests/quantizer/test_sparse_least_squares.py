from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from spherequant.errors import InputError
from spherequant.quantizer import Codebooks, CodebookSums, sparse_least_squares
from spherequant.quantizer.sparse_least_squares import solve_sparse

EPSILON = 0.05


def one_hot(codes, k):
    n, m = codes.shape
    a = np.zeros((n, m * k))
    for i in range(n):
        for j in range(m):
            a[i, j * k + codes[i, j]] = 1
    return a


def problem(n, m, k, d, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(k, size=(n, m)).astype(np.uint8)
    u = rng.normal(size=(n, d)).astype(np.float32)
    sums = CodebookSums(m, k, d)
    sums.add(codes, u)
    return codes, u, sums, Codebooks(rng.normal(size=(m, k, d)) * (rng.random((m, k, d)) < 0.2))


def objective(codebooks, codes, u, old):
    error = ((codebooks.decode(codes).astype(np.float64) - u) ** 2).sum()
    return error + EPSILON * ((codebooks.array.astype(np.float64) - old.array) ** 2).sum()


def slow_on_support(codes, u, old, support_MKD):
    """Each dimension's least squares with the columns of its support, by NumPy."""
    m, k, d = support_MKD.shape
    a = one_hot(codes, k)
    flat, support = old.array.reshape(m * k, d), support_MKD.reshape(m * k, d)
    out = np.zeros((m * k, d))
    for i in range(d):
        on = support[:, i]
        rows = np.vstack([a, EPSILON**0.5 * np.eye(m * k)])[:, on]
        out[on, i] = np.linalg.lstsq(rows, np.r_[u[:, i], EPSILON**0.5 * flat[:, i]], rcond=None)[0]
    return out.reshape(m, k, d)


@pytest.mark.parametrize("budget", [1, 7, 20, 59])
@pytest.mark.parametrize(("n", "m", "k", "d"), [(80, 3, 4, 5), (7, 2, 10, 3), (40, 1, 12, 5)])
def test_values_are_least_squares_on_a_support_of_the_budget(n, m, k, d, budget):
    codes, u, sums, old = problem(n, m, k, d)
    new = solve_sparse(sums, old, EPSILON, budget)
    # Codewords that no item uses and that were zero need no values.
    useful = int(np.count_nonzero((sums.counts.numpy()[:, :, None] > 0) | (old.array != 0)))
    assert new.nnz == min(budget, useful)
    expected = slow_on_support(codes, u, old, new.array != 0)
    np.testing.assert_allclose(new.array, expected, atol=1e-5)


def test_the_whole_budget_is_the_dense_solution():
    _, _, sums, old = problem(60, 2, 4, 3)
    assert solve_sparse(sums, old, EPSILON, 24) == sums.solve(old, EPSILON)


def test_orthogonal_columns_keep_the_entries_that_explain_most():
    # With one codebook the best support is known: the largest n_c times mean squared.
    _, _, sums, _ = problem(200, 1, 6, 5)
    old = Codebooks(np.zeros((1, 6, 5)))
    gain = sums.moment.numpy() ** 2 / (sums.counts.numpy().T + EPSILON)
    best = np.argsort(gain.ravel())[-9:]
    new = solve_sparse(sums, old, EPSILON, 9)
    assert set(np.flatnonzero(new.array)) == set(best)


def slow_fista(gram, moment, bound, dense, budget, steps=10):
    """The support after proximal steps with momentum (Beck and Teboulle, 2009), entry by entry.

    ``min Σ_d x_dᵀ G x_d - 2 b_dᵀ x_d + 2 λ Σ_e |x_e| / |ĉ_e|``, row r in steps of 1 / H_r, λ at
    each step that with which the budget's entries are not zero.
    """
    rows, dim = dense.shape
    x, y, t = dense.copy(), dense.copy(), 1.0
    for _ in range(steps):
        reached = np.zeros((rows, dim))  # by the gradient step
        for r in range(rows):
            for d in range(dim):
                slope = sum(gram[r, other] * y[other, d] for other in range(rows)) - moment[r, d]
                reached[r, d] = y[r, d] - slope / bound[r]
        survives_below = np.abs(reached) * bound[:, None] * np.abs(dense)  # the λ that ends it
        lam = np.sort(survives_below.ravel())[-budget - 1]
        new = np.zeros((rows, dim))
        for r in range(rows):
            for d in range(dim):
                shrink = lam / abs(dense[r, d]) / bound[r]
                if survives_below[r, d] > lam:
                    new[r, d] = np.sign(reached[r, d]) * (abs(reached[r, d]) - shrink)
        t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
        y = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
    return x != 0


@pytest.mark.parametrize("seed", range(4))
def test_the_support_is_that_of_plain_proximal_steps(seed):
    _, _, sums, old = problem(60, 3, 5, 4, seed)
    gram = sums.gram.numpy() + EPSILON * np.eye(15)
    moment = sums.moment.numpy() + EPSILON * old.array.reshape(15, 4)
    bound = 3 * np.diag(sums.gram.numpy()) + EPSILON
    dense = np.linalg.solve(gram, moment)
    given = sparse_least_squares._Problem(
        torch.from_numpy(gram), torch.from_numpy(moment), torch.from_numpy(bound)[:, None]
    )
    supports = {}
    for steps in (1, 10):
        supports[steps] = slow_fista(gram, moment, bound, dense, 20, steps)
        assert supports[steps].sum() == 20
    found = sparse_least_squares.relaxed_support(given, torch.from_numpy(dense), 20)
    np.testing.assert_array_equal(found.numpy(), supports[10])
    assert (supports[1] != supports[10]).any()  # the steps are not for nothing


def test_near_the_best_of_all_supports():
    codes, u, sums, _ = problem(30, 2, 2, 2, seed=3)
    old = Codebooks(np.zeros((2, 2, 2)))
    for budget in (2, 4):
        best = np.inf
        for chosen in combinations(range(8), budget):
            support = np.zeros(8, bool)
            support[list(chosen)] = True
            values = slow_on_support(codes, u, old, support.reshape(2, 2, 2))
            best = min(best, objective(Codebooks(values), codes, u, old))
        zero = objective(old, codes, u, old)
        found = objective(solve_sparse(sums, old, EPSILON, budget), codes, u, old)
        assert zero - found >= 0.8 * (zero - best)


@pytest.mark.parametrize("seed", range(5))
def test_within_the_budget_nothing_gets_worse(seed):
    codes, u, sums, old = problem(60, 3, 5, 4, seed)
    new = solve_sparse(sums, old, EPSILON, old.nnz)
    kept = Codebooks(slow_on_support(codes, u, old, old.array != 0))
    assert new.nnz <= old.nnz
    assert objective(new, codes, u, old) <= objective(old, codes, u, old)
    assert objective(new, codes, u, old) <= objective(kept, codes, u, old) * (1 + 1e-6)


def test_no_items_and_equal_items():
    sums = CodebookSums(2, 3, 4)
    old = Codebooks(np.random.default_rng(0).normal(size=(2, 3, 4)))
    assert solve_sparse(sums, old, EPSILON, 5).nnz <= 5
    codes, u = np.zeros((9, 2), np.uint8), np.tile([1.0, 0, 0, 0], (9, 1))
    sums.add(codes, u)
    new = solve_sparse(sums, Codebooks(np.zeros((2, 3, 4))), 1e-6, 5)
    assert new.nnz == 2  # of one value that is not zero
    np.testing.assert_allclose(new.decode(codes[:1]), u[:1], atol=1e-5)


def test_conjugate_gradients_cut_short_only_lose_precision(monkeypatch):
    codes, u, sums, old = problem(60, 3, 5, 4)
    budget = old.nnz
    exact = objective(solve_sparse(sums, old, EPSILON, budget), codes, u, old)
    monkeypatch.setattr(sparse_least_squares, "_MOST_CG_STEPS", 1)
    rough = objective(solve_sparse(sums, old, EPSILON, budget), codes, u, old)
    assert exact <= rough <= objective(old, codes, u, old)


def test_what_does_not_match_is_refused():
    sums = CodebookSums(2, 3, 4)
    old = Codebooks(np.zeros((2, 3, 4)))
    for epsilon, budget in ((0.0, 3), (1.0, 0)):
        with pytest.raises(InputError, match="must be positive"):
            solve_sparse(sums, old, epsilon, budget)
    with pytest.raises(InputError, match="cannot update"):
        solve_sparse(sums, Codebooks(np.zeros((2, 3, 5))), 1.0, 3)


def test_the_relaxation_keeps_the_budget_among_equal_entries():
    codes = np.array([[c] for c in range(4)] * 3, np.uint8)
    sums = CodebookSums(1, 4, 2)
    sums.add(codes, np.ones((12, 2)))
    assert solve_sparse(sums, Codebooks(np.zeros((1, 4, 2))), EPSILON, 3).nnz == 3
