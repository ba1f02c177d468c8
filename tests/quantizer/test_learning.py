from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.errors import InputError
from spherequant.quantizer import (
    Codebooks,
    CodebookSums,
    Encoder,
    learn_codebooks,
    learning,
    nearest_codes,
    normalise_rows,
    reseed_dead,
    residual_codebooks,
)


def error(codebooks, x):
    codes = Encoder(codebooks).encode(x)
    return float(((codebooks.decode(codes) - x) ** 2).sum(axis=1).mean())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def between(n, seed, d=16, clusters=10):
    """Unit vectors near the lines between centres, as those of images that a network is unsure of.

    float32 [n, d].
    """
    centres = normalise_rows(np.random.default_rng(123).normal(size=(clusters, d)))
    rng = np.random.default_rng(seed)
    near, far = centres[rng.integers(clusters, size=(2, n))]
    share = rng.beta(0.3, 1, size=(n, 1))
    return normalise_rows(near + share * (far - near) + rng.normal(0, 0.1 / d**0.5, (n, d)))


def test_turns_lower_the_error_on_seen_and_unseen_rows(clustered):
    x, _ = clustered(2000)
    unseen, _ = clustered(500, seed=1)
    first = residual_codebooks(torch.from_numpy(x), 3, 16, generator())
    learned = learn_codebooks(x, 3, 16)
    assert error(learned, x) < 0.98 * error(first, x)
    assert error(learned, unseen) < error(first, unseen)


@pytest.mark.parametrize("rows", [500, 1500, 6000])
def test_at_or_below_a_residual_quantizer_on_unseen_rows(rows, clustered):
    faiss = pytest.importorskip("faiss")
    x, _ = clustered(rows, d=32, clusters=20)
    unseen, _ = clustered(1000, d=32, clusters=20, seed=1)
    rq = faiss.ResidualQuantizer(32, 4, 5)
    rq.max_beam_size = 5
    rq.train(x)
    theirs = float(((rq.decode(rq.compute_codes(unseen)) - unseen) ** 2).sum(axis=1).mean())
    assert error(learn_codebooks(x, 4, 32), unseen) <= theirs


def test_leading_codebooks_carry_the_most(clustered):
    x, _ = clustered(2000)
    energy = learn_codebooks(x, 4, 16).array.var(axis=1).sum(axis=1)
    assert (np.diff(energy) < 0).all()


def test_annealing_finds_better_codebooks_than_turns_alone(clustered):
    alone, perturbed = [], []
    for seed in (0, 5, 9):
        x, _ = clustered(3000, d=24, clusters=3, seed=seed)
        unseen, _ = clustered(1000, d=24, clusters=3, seed=seed + 1)
        u = torch.from_numpy(x)
        first = residual_codebooks(u, 4, 16, generator())
        alone.append(error(learn_codebooks(x, 4, 16, init=first), unseen))
        perturbed.append(error(learning.annealed(first, u, 16, generator(), 2), unseen))
    assert np.mean(perturbed) < np.mean(alone)


def test_residuals_of_a_beam_fit_other_rows_better(monkeypatch):
    u, unseen = torch.from_numpy(between(1500, 0)), between(1000, 1)
    of_beams = error(residual_codebooks(u, 4, 256, generator()), unseen)
    monkeypatch.setattr(learning, "LEVEL_BEAM", 1 / 256)
    assert of_beams < 0.9 * error(residual_codebooks(u, 4, 256, generator()), unseen)


def test_beams_are_those_of_the_encoder(clustered):
    u = torch.from_numpy(clustered(200)[0])
    codebooks = learn_codebooks(u, 4, 8, iterations=1)
    levels = list(codebooks.array)
    codes, cost = torch.zeros(200, 1, 0, dtype=torch.int64), torch.zeros(200, 1)
    for m in range(4):
        codes, cost = learning._extended(codes, cost, u, levels[: m + 1], 5)
    assert codes.shape == (200, 5, 4)
    best = nearest_codes(u, codebooks, beam=5, icm_rounds=0)
    assert torch.equal(codes[:, 0], best.long())
    decoded = sum(torch.tensor(levels[m])[codes[:, :, m]] for m in range(4))
    squares = (u[:, None] - decoded).square().sum(dim=2) - u.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(cost, squares, atol=1e-5, rtol=0)
    residuals = learning._residuals(codes, u, levels, generator())
    torch.testing.assert_close(residuals, (u[:, None] - decoded).flatten(0, 1))


@pytest.mark.parametrize(("rows", "n_codewords", "d"), [(4000, 4, 16), (1500, 128, 64)])
def test_rows_held_back_choose_how_far_turns_go(rows, n_codewords, d, monkeypatch):
    x, unseen = between(rows, 0, d), between(2000, 1, d)
    summed, solved = [], []

    class Recorded(CodebookSums):
        def add(self, codes_NM, u_ND):
            self.rows = u_ND
            summed.append(len(u_ND))
            super().add(codes_NM, u_ND)

        def solve(self, first, anchor):
            solved.append((len(self.rows), anchor, first))
            return super().solve(first, anchor)

    residual, starts = learning.residual_codebooks, []

    def residual_codebooks(*arguments):
        starts.append(residual(*arguments))
        monkeypatch.setattr(learning, "CodebookSums", Recorded)  # those of turns alone
        return starts[-1]

    monkeypatch.setattr(learning, "residual_codebooks", residual_codebooks)
    learn_codebooks(x, 4, n_codewords)
    (start,), half = starts, learning.DEFAULT_ITERATIONS // 2
    kept = rows - rows // 10
    anchor = solved[-1][1]
    assert summed == [kept] * half + [rows] * half
    assert [(n, a) for n, a, _ in solved] == [
        *[(kept, learning.FIRST_ANCHOR)] * (half - 1),
        *[(kept, a) for a in learning.ANCHORS],
        *[(rows, anchor)] * half,
    ]
    assert all(first is start for *_, first in solved)
    u = torch.from_numpy(x)
    errors = {
        a: error(learning.annealed(start, u, 16, generator(), a), unseen) for a in learning.ANCHORS
    }
    assert errors[anchor] < 1.01 * min(errors.values())


def test_another_seed_perturbs_rows_in_another_way(clustered, monkeypatch):
    x, _ = clustered(500)
    drawn, normal = [], torch.randn

    def randn(*arguments, **options):
        drawn.append(normal(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn", randn)
    for seed in (1, 1, 2):
        learn_codebooks(x, 2, 8, seed=seed)
    turns = learning.DEFAULT_ITERATIONS
    assert [len(noise) for noise in drawn[:turns]] == [450] * (turns // 2) + [500] * (turns // 2)
    first, again, other = drawn[::turns]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_half_precision_is_read(clustered):
    x = torch.from_numpy(clustered(100)[0]).bfloat16()
    assert learn_codebooks(x, 2, 4) == learn_codebooks(x.float(), 2, 4)


def test_an_anchor_holds_codebooks_and_what_no_row_uses(clustered):
    u = torch.from_numpy(clustered(600)[0])
    first = residual_codebooks(u, 2, 16, generator())
    held = learning.annealed(first, u, 4, generator(), 1e9)
    np.testing.assert_allclose(held.array, first.array, atol=1e-5)
    far = first.array.copy()
    far[:, 3] = 50
    turned = learning.annealed(Codebooks(far), u, 4, generator(), 1.0)
    assert (turned.array[:, 3] == 50).all()
    assert error(turned, u.numpy()) < error(Codebooks(far), u.numpy())


def test_turns_help_with_three_rows_a_codeword(clustered):
    first, turned = [], []
    for seed in range(0, 10, 2):
        x, _ = clustered(800, clusters=20, seed=seed)
        unseen, _ = clustered(1000, clusters=20, seed=seed + 1)
        first.append(error(learn_codebooks(x, 4, 64, iterations=0), unseen))
        turned.append(error(learn_codebooks(x, 4, 64), unseen))
    assert np.mean(turned) < 0.98 * np.mean(first)


def test_turns_perturb_rows_by_less_and_less_of_their_own_error(clustered, monkeypatch):
    x = torch.from_numpy(clustered(300)[0])
    codebooks = learn_codebooks(x, 2, 8, iterations=0, seed=0)
    given = []

    def encode(rows, *rest, **options):
        given.append(rows)
        return nearest_codes(rows, *rest, **options)

    ones = torch.ones_like(x)
    monkeypatch.setattr(learning, "nearest_codes", encode)
    monkeypatch.setattr(learning.torch, "randn", lambda *_, **__: ones)
    learning.annealed(codebooks, x, 4, generator(), 1e12)  # they stay
    first, *turns = given
    torch.testing.assert_close(first, x)
    codes = nearest_codes(x, codebooks, beam=1, icm_rounds=0)
    for share, rows in zip((0.75, 0.5, 0.25, 0), turns, strict=True):
        error = x - torch.from_numpy(codebooks.decode(codes.numpy()))
        torch.testing.assert_close(rows, x + learning.TEMPERATURE * share * error)
        codes = nearest_codes(rows, codebooks, learning.TURN_BEAM, icm_starts=learning.TURN_STARTS)


@pytest.mark.parametrize("seed", range(10))
def test_first_codewords_are_spread(seed):
    """Drawn by distance, five codewords reach all five places, however crowded one of them is."""
    few = 10 * np.eye(4, dtype=np.float32)
    x = torch.from_numpy(np.concatenate([np.zeros((200, 4), np.float32), few]))
    drawn = learning._spread_rows(x, 5, generator(seed))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in x.tolist()}
    again = learning._spread_rows(x, 7, generator(seed))
    assert len(again) == 7  # rows may come twice where there are no others


def test_the_last_turn_is_exact(clustered):
    x, _ = clustered(400)
    u = torch.from_numpy(x)
    first = residual_codebooks(u, 2, 16, generator())
    assert learning.annealed(first, u, 0, generator()) == first
    codes = nearest_codes(u, first, learning.TURN_BEAM, icm_starts=learning.TURN_STARTS)
    sums = CodebookSums(2, 16, 16)
    sums.add(codes, u)
    assert learning.annealed(first, u, 1, generator(), 3.0) == sums.solve(first, 3.0)


def test_the_seed_decides(clustered):
    x, _ = clustered(400)
    learned = learn_codebooks(x, 2, 16, iterations=2, seed=3)
    assert learned == learn_codebooks(torch.from_numpy(x), 2, 16, iterations=2, seed=3)
    assert learned != learn_codebooks(x, 2, 16, iterations=2, seed=4)


def test_warm_start(clustered):
    x, _ = clustered(400)
    first = learn_codebooks(x, 2, 8, iterations=0)
    assert learn_codebooks(x, 2, 8, iterations=0, init=first) == first
    assert error(learn_codebooks(x, 2, 8, iterations=3, init=first), x) < error(first, x)
    with pytest.raises(InputError, match="init has the shape"):
        learn_codebooks(x, 3, 8, init=first)


def test_more_rows_than_are_learned_from(clustered, monkeypatch):
    x, _ = clustered(600)
    whole = learn_codebooks(x, 2, 8, iterations=1)
    counts = []

    class Counted(CodebookSums):
        def add(self, codes_NM, u_ND):
            counts.append(len(u_ND))
            super().add(codes_NM, u_ND)

    monkeypatch.setattr(learning, "_MAX_ROWS", 300)
    monkeypatch.setattr(learning, "_RESIDUALS", 300)
    monkeypatch.setattr(learning, "CodebookSums", Counted)
    drawn = learn_codebooks(x, 2, 8, iterations=1)
    assert set(counts) == {300}
    assert error(drawn, x) < 1.2 * error(whole, x)


@pytest.mark.parametrize("m", [1, 5, 16])
@pytest.mark.parametrize("k", [1, 3, 256])
def test_any_shape_even_beyond_the_rows(m, k, clustered):
    x, _ = clustered(60, d=6)
    learned = learn_codebooks(x, m, k, iterations=1)
    assert learned.array.shape == (m, k, 6)
    assert error(learned, x) < 1.01
    if k == 256:
        assert error(learned, x) < 1e-6


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_fewer_distinct_rows_than_codewords(distinct):
    rows = normalise_rows(np.random.default_rng(0).normal(size=(distinct, 4)))
    x = np.repeat(rows, 40, axis=0)
    # init: also through the turns, which few rows alone would skip
    learned = learn_codebooks(x, 2, 16, iterations=2)
    again = learn_codebooks(x, 2, 16, iterations=2, init=learned)
    assert error(learned, x) < 1e-9
    assert error(again, x) < 1e-9


def test_a_dead_codeword_moves_to_a_badly_reconstructed_row():
    u = torch.tensor([[1.0, 0], [0, 1], [0, -3]])
    codebooks = Codebooks([[[1, 0], [9, 9], [0, 1]], [[0, 0], [8, 8], [7, 7]]])
    codes = torch.tensor([[0, 0], [2, 0], [0, 0]], dtype=torch.uint8)
    seeded = reseed_dead(codebooks, codes, u, generator())
    # Only row 2 is wrong: the first unused codeword goes there, the other two stay.
    assert seeded.array[0, 1].tolist() == [0, -3]
    np.testing.assert_array_equal(seeded.array[1], codebooks.array[1])
    assert error(seeded, u.numpy()) < 1e-9


def test_with_every_codeword_used_nothing_moves():
    codebooks = Codebooks([[[1.0], [2.0]]])
    codes = torch.tensor([[0], [1]])
    assert reseed_dead(codebooks, codes, torch.tensor([[5.0], [6.0]]), generator()) is codebooks


def test_dead_codewords_come_to_life(clustered):
    x, _ = clustered(500)
    u = torch.from_numpy(x)
    codebooks = Codebooks(np.full((2, 16, 16), 50.0))
    for _ in range(4):
        codebooks = learning.improve(codebooks, u, generator())
    codes = nearest_codes(u, codebooks)
    assert len(codes[:, 0].unique()) > 8
    assert error(codebooks, x) < 0.2


@pytest.mark.parametrize(("m", "k"), [(0, 4), (17, 4), (2, 0), (2, 257)])
def test_impossible_sizes_are_refused(m, k):
    with pytest.raises(InputError, match="1 to 16 codebooks of 1 to 256"):
        learn_codebooks(np.ones((3, 2)), m, k)


def test_rows_that_cannot_be_learned_from_are_refused():
    with pytest.raises(InputError, match="no vectors"):
        learn_codebooks(np.ones((0, 2)), 1, 2)
    with pytest.raises(InputError, match="row 1"):
        learn_codebooks(np.array([[1.0], [np.nan]]), 1, 2)


@pytest.mark.parametrize("sparsity", ["S1", "S2", 300])
def test_sparse_codebooks_fill_their_budget(sparsity, clustered):
    x, _ = clustered(2000)
    unseen, _ = clustered(500, seed=1)
    learned = learn_codebooks(x, 3, 16, sparsity=sparsity)
    assert learned.nnz == {"S1": 16 * 16, "S2": 16 * 16 + 16 * 16, 300: 300}[sparsity]
    dense = learn_codebooks(x, 3, 16)
    assert 0.99 * error(dense, unseen) < error(learned, unseen) < 0.5
    assert learned == learn_codebooks(x, 3, 16, sparsity=sparsity)


def test_a_budget_for_everything_is_dense(clustered):
    x, _ = clustered(400, d=4)
    assert learn_codebooks(x, 2, 8, sparsity=64) == learn_codebooks(x, 2, 8)


def test_sparse_turns_never_raise_the_error(clustered):
    x, _ = clustered(2000)
    u = torch.from_numpy(x)
    codebooks = learn_codebooks(x, 3, 16, sparsity="S1")
    errors = [error(codebooks, x)]
    for _ in range(5):
        # One turn is too few for unused codewords to move.
        codebooks = learning.sparsified(codebooks, u, 16 * 16, 1, generator())
        errors.append(error(codebooks, x))
        assert codebooks.nnz <= 16 * 16
    # The update never raises it; the beam search after it may, by little.
    assert (np.diff(errors) <= 1e-3 * errors[0]).all()


@pytest.mark.parametrize("m", [1, 5])
@pytest.mark.parametrize("k", [1, 3, 256])
def test_sparse_codebooks_of_any_shape(m, k, clustered):
    x, _ = clustered(60, d=6)
    learned = learn_codebooks(x, m, k, iterations=1, sparsity="S1")
    assert learned.array.shape == (m, k, 6)
    assert learned.nnz <= k * 6
    assert error(learned, x) < 1.01


def test_few_distinct_rows_need_few_nonzeros():
    x = np.repeat(np.eye(3, dtype=np.float32), 50, axis=0)
    learned = learn_codebooks(x, 2, 16, sparsity=40)
    assert learned.nnz <= 40
    assert error(learned, x) < 1e-4
    assert np.isfinite(learn_codebooks(x[:1], 2, 4, sparsity=1).array).all()


def test_impossible_budgets_are_refused(clustered):
    x, _ = clustered(20)
    with pytest.raises(InputError, match="1 to 512 nonzeros, not 513"):
        learn_codebooks(x, 2, 16, sparsity=513)
    with pytest.raises(InputError, match="give 'S1', 'S2'"):
        learn_codebooks(x, 2, 16, sparsity="few")
