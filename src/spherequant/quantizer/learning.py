"""Learning codebooks: codes given codebooks, codebooks given codes, in turn.

On a CPU the canonical encoder makes the codes, elsewhere ``encode_batch`` does.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch

from spherequant.errors import InputError
from spherequant.quantizer.batch_encoding import encode_batch, extend_beam
from spherequant.quantizer.codebooks import (
    DEFAULT_BEAM,
    DEFAULT_ICM_ROUNDS,
    DEFAULT_ICM_STARTS,
    MAX_CODEBOOKS,
    MAX_CODEWORDS,
    Codebooks,
)
from spherequant.quantizer.encoder import Encoder
from spherequant.quantizer.least_squares import CodebookSums, as_tensor
from spherequant.quantizer.sparse_least_squares import solve_sparse
from spherequant.quantizer.sparsity import nonzero_budget
from spherequant.quantizer.vectors import as_rows

# benchmarks/codebook_error.py compares other values of the settings that follow.
DEFAULT_ITERATIONS = 16
TEMPERATURE = 2.0  # of the first turn, in errors of a row
TURN_BEAM = 8  # in turns; half of the encoder's
TURN_STARTS = 1  # of ICM, in turns
LEVEL_BEAM = 5 / 256  # codes kept of a row in learning the next codebook, as a share of K
LEVEL_ITERATIONS = 2  # of k-means, with each number of axes
# Items that hold a codeword to where the turns started: rows that are held back choose, the first
# where there are too few to hold any back. FIRST_ANCHOR counts until they choose.
ANCHORS = (16.0, 1.0, 128.0)
FIRST_ANCHOR = 4.0

EPSILON = 1e-2  # of the N / K items that a codeword has on average

_SEEDED_SHARE = 4  # the first of so many sparse turns give unused codewords a new place
_FIRST_AXES = 2  # of k-means
_HELD_SHARE = 10  # one row of so many is held back
_HELD_ROWS = (40, 4_096)  # at least, else none are; at most
_SEED_ROWS = 8_192  # rows among which the first codewords of a codebook are chosen
_MAX_ROWS = 131_072  # rows learned from: 512 for each of 256 codewords
_RESIDUALS = 1 << 23  # values of those that a codebook is learned on, or as many as rows have
_MAX_COSTS = 1 << 23  # held at once while beams are extended: 32 MiB


def nearest_codes(
    u_ND: torch.Tensor,
    codebooks: Codebooks,
    beam: int = DEFAULT_BEAM,
    icm_rounds: int = DEFAULT_ICM_ROUNDS,
    icm_starts: int = DEFAULT_ICM_STARTS,
) -> torch.Tensor:
    """Codes of the rows, by the canonical encoder on a CPU and ``encode_batch`` elsewhere.

    Args:
        u_ND: float [N, D].
        codebooks: What to encode with.
        beam: Partial codes kept after each codebook.
        icm_rounds: Most rounds of ICM.
        icm_starts: Codes of the beam from which it goes on.

    Returns:
        uint8 [N, M], on the device of ``u_ND``.

    Raises:
        InputError: another D, or a setting out of the encoder's range.
    """
    if u_ND.device.type != "cpu":
        return encode_batch(u_ND, codebooks, beam, icm_rounds, icm_starts)
    encoder = Encoder(codebooks, None, beam, icm_rounds, icm_starts)
    return torch.from_numpy(encoder.encode(u_ND.detach().numpy()))


def reseed_dead(
    codebooks: Codebooks,
    codes_NM: torch.Tensor,
    u_ND: torch.Tensor,
    generator: torch.Generator,
) -> Codebooks:
    """Move codewords that no item uses to where items are reconstructed worst.

    For each of them an item is drawn, without replacement and with a probability in proportion to
    its squared error, and the codeword becomes what would reconstruct that item exactly, its
    other codewords unchanged. Where there are fewer items with an error than unused codewords,
    the rest stay.

    Args:
        codebooks: M codebooks of K codewords.
        codes_NM: integers [N, M], the items' codes.
        u_ND: float [N, D], what they stand for, on the same device.
        generator: A generator on the CPU.

    Returns:
        New codebooks, or the same where all codewords are used.
    """
    codes = codes_NM.to("cpu", torch.int64)
    used_MK = torch.zeros(codebooks.n_codebooks, codebooks.n_codewords, dtype=torch.bool)
    used_MK.scatter_(1, codes.T, value=True)
    dead = (~used_MK).nonzero()
    if len(dead) == 0:
        return codebooks
    array_MKD = torch.tensor(codebooks.array)
    decoded_ND = torch.from_numpy(codebooks.decode(codes.numpy()))
    residual_ND = u_ND.detach().to("cpu", torch.float32) - decoded_ND
    error_N = residual_ND.double().square().sum(dim=1)
    # Rounding leaves errors near 1e-14 of unit vectors: those are reconstructed already.
    wrong_N = (error_N > 1e-10).nonzero()[:, 0]
    count = min(len(dead), len(wrong_N))
    if count == 0:
        return codebooks
    drawn = torch.multinomial(error_N[wrong_N], count, generator=generator)
    for (m, c), n in zip(dead[:count].tolist(), wrong_N[drawn].tolist(), strict=True):
        array_MKD[m, c] = residual_ND[n] + array_MKD[m, codes[n, m]]
    return Codebooks(array_MKD.numpy())


def improve(codebooks: Codebooks, u_ND: torch.Tensor, generator: torch.Generator) -> Codebooks:
    """One turn: codes given codebooks, then codebooks given codes, then unused codewords.

    Args:
        codebooks: Where to start from.
        u_ND: float [N, D], N >= 1.
        generator: A generator on the CPU.

    Returns:
        New codebooks of the same shape.

    Raises:
        InputError: another D.
    """
    codes_NM = nearest_codes(u_ND, codebooks, TURN_BEAM, icm_starts=TURN_STARTS)
    return _updated(codebooks, codes_NM, u_ND, generator)


def _updated(
    codebooks: Codebooks, codes_NM: torch.Tensor, u_ND: torch.Tensor, generator: torch.Generator
) -> Codebooks:
    sums, epsilon = _sums(codebooks, codes_NM, u_ND)
    return reseed_dead(sums.solve(codebooks, epsilon), codes_NM, u_ND, generator)


def _sums(
    codebooks: Codebooks, codes_NM: torch.Tensor, u_ND: torch.Tensor
) -> tuple[CodebookSums, float]:
    """What the update of codebooks of this shape needs of the rows, and its ε."""
    sums = CodebookSums(
        codebooks.n_codebooks, codebooks.n_codewords, codebooks.dim, device=u_ND.device
    )
    sums.add(codes_NM, u_ND)
    return sums, EPSILON * len(u_ND) / codebooks.n_codewords


def _decoded(codebooks: Codebooks, codes_NM: torch.Tensor) -> torch.Tensor:
    decoded_ND = codebooks.decode(codes_NM.cpu().numpy())
    return torch.from_numpy(decoded_ND).to(codes_NM.device)


def annealed(
    codebooks: Codebooks,
    u_ND: torch.Tensor,
    turns: int,
    generator: torch.Generator,
    anchor: float = ANCHORS[0],
    first: Codebooks | None = None,
) -> Codebooks:
    """Turns whose codes are those of perturbed rows, ever less so, and in the last of the rows.

    Turns of exact codes stop at the first poor optimum: a row keeps the codewords that it has
    helped to make. Here each row is encoded away from itself, by T times its own error in each
    dimension times a standard normal number; the codebooks are then those of least error on the
    rows themselves. T falls from near ``TEMPERATURE`` to zero in equal steps. (Perturbing one of
    the two steps of a turn is the idea of stochastic relaxation: Zeger, Vaisey and Gersho, IEEE
    Transactions on Signal Processing 40(2), 1992; for additive codes Martinez et al., "LSQ++",
    ECCV 2018, who perturb codebooks or all rows alike.)

    With few rows a codeword the least error on them is not the least on others: each codeword is
    held to a first place, and one that no row uses goes back there.

    Args:
        codebooks: Where to start from.
        u_ND: float [N, D].
        turns: How many; none leave the codebooks as they are.
        generator: A generator on the CPU.
        anchor: As how many items, above 0, a codeword's first place counts.
        first: The first places; by default where the turns start from.

    Returns:
        New codebooks.
    """
    if turns == 0:
        return codebooks
    first = first or codebooks
    return _last_sums(codebooks, u_ND, turns, generator, anchor, first).solve(first, anchor)


def _last_sums(
    codebooks: Codebooks,
    u_ND: torch.Tensor,
    turns: int,
    generator: torch.Generator,
    anchor: float,
    first: Codebooks,
) -> CodebookSums:
    """What the last of the turns, at least one, updates the codebooks from."""
    codes_NM = nearest_codes(u_ND, codebooks, beam=1, icm_rounds=0)
    for left in reversed(range(turns)):
        error_ND = u_ND - _decoded(codebooks, codes_NM)
        normal_ND = torch.randn(u_ND.shape, generator=generator).to(u_ND.device)
        perturbed_ND = u_ND + TEMPERATURE * left / turns * normal_ND * error_ND
        codes_NM = nearest_codes(perturbed_ND, codebooks, TURN_BEAM, icm_starts=TURN_STARTS)
        sums, _ = _sums(codebooks, codes_NM, u_ND)
        if left:
            codebooks = sums.solve(first, anchor)
    return sums


def _learned_anew(
    u_ND: torch.Tensor,
    n_codebooks: int,
    n_codewords: int,
    turns: int,
    generator: torch.Generator,
) -> Codebooks:
    """Residual codebooks, then twice half of the turns; rows held back in the first half choose.

    How far turns help depends on the rows: where these have much structure and are few, residual
    codebooks are hard to better on rows that were not learned from; where they have little or are
    many, they are far from the best. The rows that are held back choose with which anchor the
    first half ends; the second, perturbed anew, goes on from there with it and with all rows.
    """
    least, most = _HELD_ROWS
    held = min(len(u_ND) // _HELD_SHARE, most)
    if turns == 0 or held < least:
        start = residual_codebooks(u_ND, n_codebooks, n_codewords, generator)
        return annealed(start, u_ND, turns, generator)
    order_N = torch.randperm(len(u_ND), generator=generator).to(u_ND.device)
    held_ND, kept_ND = u_ND[order_N[:held]], u_ND[order_N[held:].sort().values]
    start = residual_codebooks(kept_ND, n_codebooks, n_codewords, generator)
    sums = _last_sums(start, kept_ND, -(-turns // 2), generator, FIRST_ANCHOR, start)

    def error(codebooks: Codebooks) -> float:
        left_ND = held_ND - _decoded(codebooks, nearest_codes(held_ND, codebooks))
        return float(left_ND.double().square().sum())

    tried = {anchor: sums.solve(start, anchor) for anchor in ANCHORS}
    anchor = min(tried, key=lambda anchor: error(tried[anchor]))
    return annealed(tried[anchor], u_ND, max(1, turns // 2), generator, anchor, start)


def _leading_first(codebooks: Codebooks) -> Codebooks:
    """The same codebooks by falling variance of their codewords."""
    variance_M = codebooks.array.var(axis=1).sum(axis=1)
    return Codebooks(codebooks.array[np.argsort(-variance_M, kind="stable")])


def sparsified(
    codebooks: Codebooks,
    u_ND: torch.Tensor,
    budget: int,
    turns: int,
    generator: torch.Generator,
) -> Codebooks:
    """Sparse codebooks near dense ones: codes given codebooks, then sparse codebooks, in turn.

    In the last three quarters of the turns the squared error falls with each update of the
    codebooks. In the first, codewords that no item uses move to a badly reconstructed one and
    compete for the budget with the others.

    Args:
        codebooks: Where to start from.
        u_ND: float [N, D].
        budget: S, the most nonzeros of all codebooks together.
        turns: How many, at least 1.
        generator: A generator on the CPU.

    Returns:
        Codebooks of at most S nonzeros.
    """
    for turn in range(turns):
        codes_NM = nearest_codes(u_ND, codebooks)
        if turn < turns // _SEEDED_SHARE:
            seeded = reseed_dead(codebooks, codes_NM, u_ND, generator)
            if seeded is not codebooks:
                codebooks, codes_NM = seeded, nearest_codes(u_ND, seeded)
        sums, epsilon = _sums(codebooks, codes_NM, u_ND)
        codebooks = solve_sparse(sums, codebooks, epsilon, budget)
    return codebooks


def residual_codebooks(
    u_ND: torch.Tensor, n_codebooks: int, n_codewords: int, generator: torch.Generator
) -> Codebooks:
    """First codebooks, each learned on what those before it leave: leading ones carry the most.

    Residual quantization (Chen, Guan and Wang, Sensors 2010). What a codebook is learned on are the
    residuals of all partial codes that a beam search keeps of each row, not of the best alone:
    with 256 codewords those of 5, which are more rows of the same kind, so that what is learned
    of them fits rows that were not learned from better.

    Args:
        u_ND: float [N, D], N >= 1; fewer distinct rows than codewords are allowed.
        n_codebooks: M.
        n_codewords: K.
        generator: A generator on the CPU.

    Returns:
        Codebooks of the shape [M, K, D].

    Raises:
        InputError: no rows.
    """
    if len(u_ND) == 0:
        raise InputError("codebooks cannot be learned from no vectors")
    levels = [_clustered(u_ND, n_codewords, generator)]
    device = u_ND.device
    codes_NLm = torch.zeros(len(u_ND), 1, 0, dtype=torch.int64, device=device)
    cost_NL = torch.zeros(len(u_ND), 1, device=device)
    beam = max(1, int(LEVEL_BEAM * n_codewords))
    while len(levels) < n_codebooks:
        codes_NLm, cost_NL = _extended(codes_NLm, cost_NL, u_ND, levels, beam)
        residual_RD = _residuals(codes_NLm, u_ND, levels, generator)
        levels.append(_clustered(residual_RD, n_codewords, generator))
    return Codebooks(np.stack(levels))


def _clustered(
    u_ND: torch.Tensor, n_codewords: int, generator: torch.Generator
) -> npt.NDArray[np.float32]:
    """Codewords by k-means on the rows, in ever more of their principal axes: [K, D].

    Clusters of few axes, along which rows lie farthest apart, are where those of more axes start
    (Liu, Lu and Shao, "Improved Residual Vector Quantization", arXiv:1509.05195).
    """
    dim = u_ND.shape[1]
    centred_ND = u_ND - u_ND.mean(dim=0)
    covariance_DD = (centred_ND.T @ centred_ND).double()
    axes_DD = torch.linalg.eigh(covariance_DD).eigenvectors.flip(1)
    turned_ND = u_ND @ axes_DD.float()
    widths = [min(_FIRST_AXES, dim)]
    while widths[-1] < dim:
        widths.append(min(2 * widths[-1], dim))
    first_NA = turned_ND[:, : widths[0]]
    level = Codebooks(_spread_rows(first_NA, n_codewords, generator)[None].numpy())
    steps = [axes for axes in widths for _ in range(LEVEL_ITERATIONS)]
    for axes, following in itertools.pairwise([*steps, dim]):
        part_NA = turned_ND[:, :axes].contiguous()
        codes_N1 = nearest_codes(part_NA, level, beam=1, icm_rounds=0)
        # The last step with these axes finds the codewords of the next ones already.
        padded = np.pad(level.array, ((0, 0), (0, 0), (0, following - axes)))
        level = _updated(Codebooks(padded), codes_N1, turned_ND[:, :following], generator)
    level_KD = torch.from_numpy(level.array[0].astype(np.float64)) @ axes_DD.T.cpu()
    return np.asarray(level_KD.numpy(), np.float32)


def _extended(
    codes_NLm: torch.Tensor,
    cost_NL: torch.Tensor,
    u_ND: torch.Tensor,
    levels: list[npt.NDArray[np.float32]],
    beam: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The beam of each row with a codeword of the last codebook, and its costs."""
    device = u_ND.device
    last_KD = as_tensor(levels[-1], torch.float64, device)
    before_mKxD = as_tensor(np.concatenate(levels), torch.float64, device)[: -len(last_KD)]
    pair_mKxK = (2 * before_mKxD @ last_KD.T).float()
    norm_K = last_KD.square().sum(dim=1)
    rows = max(1, _MAX_COSTS // (codes_NLm.shape[1] * len(last_KD)))
    codes, costs = [], []
    for start in range(0, len(u_ND), rows):
        block = slice(start, start + rows)
        unary_BK = (norm_K - 2 * u_ND[block].double() @ last_KD.T).float()
        extended = extend_beam(codes_NLm[block], cost_NL[block], unary_BK, pair_mKxK, beam)
        codes.append(extended[0])
        costs.append(extended[1])
    return torch.cat(codes), torch.cat(costs)


def _residuals(
    codes_NLm: torch.Tensor,
    u_ND: torch.Tensor,
    levels: list[npt.NDArray[np.float32]],
    generator: torch.Generator,
) -> torch.Tensor:
    """What the codes of beams leave of their rows: float32 [R, D], of codes drawn where R < N L."""
    count, width, _ = codes_NLm.shape
    most = max(count, _RESIDUALS // u_ND.shape[1])
    drawn_R = torch.arange(count * width)
    if len(drawn_R) > most:
        drawn_R = torch.randperm(len(drawn_R), generator=generator)[:most].sort().values
    drawn_R = drawn_R.to(u_ND.device)
    residual_RD = u_ND[drawn_R // width]
    codes_Rm = codes_NLm.flatten(0, 1)[drawn_R]
    for m, level in enumerate(levels):
        residual_RD -= as_tensor(level, torch.float32, u_ND.device)[codes_Rm[:, m]]
    return residual_RD


def _spread_rows(u_ND: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Rows drawn by k-means++ (Arthur and Vassilvitskii, SODA 2007): float32 [count, D], CPU.

    Each is drawn with a probability in proportion to the squared distance to the nearest row
    drawn before. When every row is drawn already, the first stands for the rest.
    """
    # NumPy: many small steps, for which torch's threads only wait on each other.
    rows_ND = _subsample(u_ND, _SEED_ROWS, generator).cpu().numpy().astype(np.float64)
    square_N = np.einsum("nd,nd->n", rows_ND, rows_ND)
    distance_N = np.full_like(square_N, np.inf)
    drawn = [int(torch.randint(len(rows_ND), (1,), generator=generator))]
    while len(drawn) < count:
        inner_N = np.einsum("nd,d->n", rows_ND, rows_ND[drawn[-1]])
        to_last_N = square_N - 2 * inner_N + square_N[drawn[-1]]
        # Rounding leaves about 1e-16 of the squares between equal rows.
        to_last_N[to_last_N <= 1e-12 * square_N] = 0
        np.minimum(distance_N, to_last_N, out=distance_N)
        if not distance_N.any():
            drawn += [drawn[0]] * (count - len(drawn))
        else:
            sums_N = distance_N.cumsum()
            below = sums_N[-1] * float(torch.rand((), generator=generator, dtype=torch.float64))
            drawn.append(int(sums_N.searchsorted(below, side="right")))
    return torch.from_numpy(rows_ND[drawn].astype(np.float32))


def _subsample(u_ND: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    if len(u_ND) <= count:
        return u_ND
    chosen = torch.randperm(len(u_ND), generator=generator)[:count].sort().values
    return u_ND[chosen.to(u_ND.device)]


def learn_codebooks(
    u_ND: npt.ArrayLike | torch.Tensor,
    n_codebooks: int,
    n_codewords: int,
    *,
    iterations: int = DEFAULT_ITERATIONS,
    seed: int = 0,
    init: Codebooks | None = None,
    sparsity: int | str | None = None,
) -> Codebooks:
    """Learn additive codebooks of least squared error on the rows.

    Args:
        u_ND: [N, D], finite, N >= 1; on any device with float64. At most 131,072 rows, drawn by
            the seed, are used.
        n_codebooks: M, 1 to 16.
        n_codewords: K, 1 to 256; may exceed the number of distinct rows.
        iterations: Turns of codes and codebooks after the start, and for sparse ones as many
            again.
        seed: Everything random comes from it.
        init: Codebooks of the shape [M, K, D] to start from and improve step by step; by default
            residual ones, whose codes are perturbed in the first turns (:func:`annealed`). How
            far they may then go from the residual ones is decided by a tenth of the rows.
        sparsity: The most nonzeros of all codebooks together, as
            :func:`~spherequant.quantizer.sparsity.nonzero_budget` has it; None for dense ones.

    Returns:
        The codebooks, those whose codewords vary most first, unless ``init`` has another order.

    Raises:
        InputError: no rows, rows that are not finite, or M, K or the sparsity out of range.
    """
    if not (1 <= n_codebooks <= MAX_CODEBOOKS and 1 <= n_codewords <= MAX_CODEWORDS):
        raise InputError(
            f"there may be 1 to {MAX_CODEBOOKS} codebooks of 1 to {MAX_CODEWORDS} codewords, "
            f"not {n_codebooks} of {n_codewords}"
        )
    generator = torch.Generator().manual_seed(seed)
    device = u_ND.device if isinstance(u_ND, torch.Tensor) else torch.device("cpu")
    rows = as_rows(u_ND.detach().cpu().float().numpy() if isinstance(u_ND, torch.Tensor) else u_ND)
    if len(rows) == 0:  # with `init` too, from which no turn could be made
        raise InputError("codebooks cannot be learned from no vectors")
    budget = nonzero_budget(sparsity, n_codebooks, n_codewords, rows.shape[1])
    u_ND = _subsample(as_tensor(rows, torch.float32), _MAX_ROWS, generator).to(device)
    if init is None:
        learned = _learned_anew(u_ND, n_codebooks, n_codewords, iterations, generator)
        codebooks = _leading_first(learned)
    elif init.array.shape == (n_codebooks, n_codewords, u_ND.shape[1]):
        codebooks = init
        for _ in range(iterations):
            codebooks = improve(codebooks, u_ND, generator)
    else:
        raise InputError(
            f"init has the shape {list(init.array.shape)}, "
            f"not {[n_codebooks, n_codewords, u_ND.shape[1]]}"
        )
    if budget is None or budget >= codebooks.array.size:
        return codebooks
    return sparsified(codebooks, u_ND, budget, max(1, iterations), generator)
