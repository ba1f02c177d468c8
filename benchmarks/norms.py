"""Norms of reconstructions: does it pay to encode for the norm or the angle, or to score by angle?

    SPHEREQUANT_DATA=... SPHEREQUANT_WEIGHTS=... python benchmarks/norms.py

Of a row u the encoder takes the reconstruction x of least squared error. Here its codes go on by
iterated conditional modes on another cost: squared error plus w (|x|^2 - |u|^2)^2, or minus the
cosine of u and x. "Learned too" goes on with turns of such codes and least-squares codebooks.
Scores are inner products with x, as the index has them, squared distances to x, and cosines; the
last column is the difference of two of these with its 95 % interval over queries. For the
embeddings of a trained network: mAP of test images against training images, by the network's own
codebooks and class targets. For frozen features: the share of the 10 nearest training images, by
inner product of the floats, that is among the 10 best scores. Figures go to docs/results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import held_out_vectors
import results
from codebook_error import squared_error
from embeddings import RUNS
from held_out_vectors import Array
from spherequant import Model
from spherequant.evaluation import paired_bootstrap
from spherequant.evaluation.metrics import average_precision
from spherequant.quantizer import Codebooks, CodebookSums, Encoder, learn_codebooks, normalise_rows
from training_runs import setting

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.uint8]

# inner products <u, x>, squares |x|^2 and squares |u|^2 -> what is to be least
Cost = Callable[[Array, Array, Array], Array]
# scores [Q, N] of some queries, the first of them -> a figure for each
Judge = Callable[[Array, int], Array]

NEAREST = 10
ROUNDS = 3
LEARNED_TURNS = 4
LEARNED_ROWS = 20_000
QUERIES_AT_ONCE = 100
ROWS_AT_ONCE = 5_000


def penalty(weight: float) -> Cost:
    """Squared error, less |u|^2, plus the weighted square of the difference of squared norms."""
    return lambda inner, square, norm: square - 2 * inner + weight * (square - norm) ** 2


def angle(inner: Array, square: Array, _: Array) -> Array:
    """Minus the cosine, times |u|."""
    return np.asarray(-inner / np.sqrt(np.maximum(square, 1e-12)), np.float32)


COSTS: dict[str, Cost | None] = {
    "squared error (as it is)": None,
    "norm penalty, w = 0.3": penalty(0.3),
    "norm penalty, w = 3": penalty(3.0),
    "angle": angle,
}


# How stored points are ranked: inner product, squared distance, inner product of directions.
SCORES: dict[str, Callable[[Array, Array], Array]] = {
    "inner product": lambda q_QD, x_ND: q_QD @ x_ND.T,
    "Euclidean": lambda q_QD, x_ND: 2 * q_QD @ x_ND.T - (x_ND**2).sum(axis=1),
    "cosine": lambda q_QD, x_ND: q_QD @ normalise_rows(x_ND).T,
}


def refined(codebooks: Codebooks, u_ND: Array, codes_NM: Codes, cost: Cost) -> Codes:
    """Codes of least cost, one codebook after the other, from given ones."""
    codes_NM = codes_NM.copy()
    for start in range(0, len(u_ND), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        _refine(codebooks, u_ND[rows], codes_NM[rows], cost)
    return codes_NM


def _refine(codebooks: Codebooks, u_ND: Array, codes_NM: Codes, cost: Cost) -> None:
    norm_N1 = (u_ND**2).sum(axis=1, keepdims=True)
    decoded_ND = codebooks.decode(codes_NM)
    for _ in range(ROUNDS):
        for m, array_KD in enumerate(codebooks.array):
            rest_ND = decoded_ND - array_KD[codes_NM[:, m]]
            inner_NK = (u_ND * rest_ND).sum(axis=1, keepdims=True) + u_ND @ array_KD.T
            square_NK = (rest_ND**2).sum(axis=1, keepdims=True) + (array_KD**2).sum(axis=1)
            square_NK = square_NK + 2 * rest_ND @ array_KD.T
            codes_NM[:, m] = cost(inner_NK, square_NK, norm_N1).argmin(axis=1)
            decoded_ND = rest_ND + array_KD[codes_NM[:, m]]


def encode(codebooks: Codebooks, u_ND: Array, cost: Cost | None) -> Codes:
    """Codes of least squared error, or from these on of another cost."""
    codes_NM = Encoder(codebooks).encode(u_ND)
    return codes_NM if cost is None else refined(codebooks, u_ND, codes_NM, cost)


def relearned(codebooks: Codebooks, u_ND: Array, cost: Cost) -> Codebooks:
    """Turns of codes of the cost and of codebooks of least squared error."""
    for _ in range(LEARNED_TURNS):
        sums = CodebookSums(*codebooks.array.shape)
        sums.add(encode(codebooks, u_ND, cost), u_ND)
        codebooks = sums.solve(codebooks, 0.01 * len(u_ND) / codebooks.n_codewords)
    return codebooks


def row(
    name: str,
    codebooks: Codebooks,
    cost: Cost | None,
    parts: tuple[Array, Array, Array],
    judge: Judge,
) -> list[str]:
    """One line of a table.

    Args:
        name: of the line.
        codebooks: what encodes.
        cost: what the codes are least in.
        parts: rows to encode that nothing was learned from, rows of the database, float queries.
        judge: a figure for each query, from its scores.
    """
    held_out, database, queries = parts
    decoded = codebooks.decode(encode(codebooks, held_out, cost))
    length_N = np.linalg.norm(decoded, axis=1)
    own_N = np.linalg.norm(held_out, axis=1)
    cosine = float(((decoded * held_out).sum(axis=1) / length_N / own_N).mean())
    stored = codebooks.decode(encode(codebooks, database, cost))
    scored = [
        np.concatenate(
            [judge(score(queries[i : i + QUERIES_AT_ONCE], stored), i) for i in _starts(queries)]
        )
        for score in SCORES.values()
    ]
    ratio_N = length_N / own_N
    line = [name, f"{squared_error(decoded, held_out):.5f}", f"{cosine:.5f}"]
    line += [f"{ratio_N.mean():.3f} ± {ratio_N.std():.3f}"]
    line += [f"{values.mean():.4f}" for values in scored]
    gain = paired_bootstrap(scored[-1], scored[0])
    line += [f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"]
    print(*line, flush=True)
    return line


def _starts(queries: Array) -> range:
    return range(0, len(queries), QUERIES_AT_ONCE)


def lines(
    codebooks: Codebooks, learned_from: Array, parts: tuple[Array, Array, Array], judge: Judge
) -> list[list[str]]:
    """Every cost, and the stronger two in learning too."""
    table = [row(name, codebooks, cost, parts, judge) for name, cost in COSTS.items()]
    for name in ("norm penalty, w = 3", "angle"):
        cost = COSTS[name]
        if cost is not None:
            learned = relearned(codebooks, learned_from, cost)
            table.append(row(f"{name}, learned too", learned, cost, parts, judge))
    return table


def trained_network(options: argparse.Namespace) -> list[list[str]]:
    """Lines for the embeddings of a run, by its codebooks and class target; mAP."""
    vectors = held_out_vectors.of_kind("supervised", options.features, options.run)
    model = Model.load(RUNS / options.run)
    target = model.encoder.target
    if target is None:
        raise SystemExit(f"{options.run} was trained without labels")
    chosen = np.linspace(0, len(vectors.held_out) - 1, options.queries).astype(np.int64)
    asked = vectors.held_out_labels[chosen]

    def judge(scores_QN: Array, first: int) -> Array:
        relevant = asked[first : first + len(scores_QN), None] == vectors.training_labels
        return np.asarray(average_precision(scores_QN, relevant))

    database = target.target(vectors.training)
    parts = (target.target(vectors.held_out), database, vectors.held_out[chosen])
    return lines(model.codebooks, database, parts, judge)


def frozen_features(options: argparse.Namespace) -> list[list[str]]:
    """Lines for the features of a pretrained network; recall of the nearest neighbours."""
    vectors = held_out_vectors.of_kind("frozen", options.features, options.run)
    chosen = np.linspace(0, len(vectors.held_out) - 1, options.queries).astype(np.int64)
    queries = vectors.held_out[chosen]
    step = max(1, len(vectors.training) // LEARNED_ROWS)
    learned_from = np.ascontiguousarray(vectors.training[::step])
    true_QR = np.concatenate(
        [_best(queries[i : i + QUERIES_AT_ONCE] @ vectors.training.T) for i in _starts(queries)]
    )

    def judge(scores_QN: Array, first: int) -> Array:
        pairs = zip(_best(scores_QN), true_QR[first : first + len(scores_QN)], strict=True)
        return np.array([len(np.intersect1d(*pair)) / NEAREST for pair in pairs])

    codebooks = learn_codebooks(learned_from, options.bits // 8, 256)
    return lines(codebooks, learned_from, (vectors.held_out, vectors.training, queries), judge)


def _best(scores_QN: Array) -> npt.NDArray[np.int64]:
    return np.argpartition(-scores_QN, NEAREST, axis=1)[:, :NEAREST]


def main() -> None:
    """Encode, rank, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="cifar10-full-0/dsq-32")
    parser.add_argument("--bits", type=int, default=32, help="of the frozen features")
    parser.add_argument("--queries", type=int, default=1_000, help="spread over the test images")
    parser.add_argument("--features", type=Path, default=Path("results/held-out-vectors"))
    options = parser.parse_args()
    torch.set_num_threads(2)
    columns = [
        "codes", "squared error", "cosine", "norm / norm of u",
        *[f"{{}}, {name}" for name in SCORES], "cosine less inner product",
    ]  # fmt: skip
    tables = []
    for caption, figure, made, made_by in (
        (
            f"Embeddings of `{options.run}`, its own codebooks",
            "mAP",
            trained_network,
            setting(Model.load(RUNS / options.run)),
        ),
        (f"Frozen features, {options.bits} bits", "recall@10", frozen_features, None),
    ):
        tables.append(
            {
                "caption": caption,
                "columns": [c.format(figure) for c in columns],
                "rows": made(options),
                "setting": made_by,
            }
        )
    results.record(
        "norms",
        "Norms of reconstructions",
        f"Codes by other costs than the squared error; error, cosine and norm of the 10,000 test "
        f"images, which nothing was learned from, {options.queries:,} of them asking the 50,000 "
        f"training images. The codebooks of the frozen features are learned from "
        f"{LEARNED_ROWS:,} to {2 * LEARNED_ROWS:,} of those. One seed.",
        tables,
    )


if __name__ == "__main__":
    main()
