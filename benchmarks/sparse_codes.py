"""SDSQ at 32 bits: dense codebooks against sparse ones on the embeddings of one trained network.

    SPHEREQUANT_DATA=... python benchmarks/sparse_codes.py [--run cifar10-full-0/dsq-32]

The network is one that benchmarks/cifar10_full.py trained (its folder below results/), with dense
codebooks in the loop. On its embeddings of the training images codebooks are learned anew, dense
and with the budgets S1 and S2: supervised, on the targets that the encoder makes with predicted
classes, and unsupervised, on the embeddings as they are, encoded as they are. The error is that of
the queries' codes, which nothing was learned from. Figures go to docs/results.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

import results
from embeddings import RUNS, embedded, with_queries
from spherequant import Model
from spherequant.evaluation import Ranked, paired_bootstrap
from spherequant.quantizer import Encoder, learn_codebooks
from training_runs import rank_floats, rank_with, setting

BUDGETS = (None, "S1", "S2")
N_CODEWORDS = 256


class Learned(NamedTuple):
    """What codebooks of one kind came to."""

    nonzeros: int
    error: float
    ranked: Ranked
    distinct: int


def main() -> None:
    """Learn, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="cifar10-full-0/dsq-32")
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--queries", type=int, default=2_000, help="ranked, of all of them")
    options = parser.parse_args()
    model = Model.load(RUNS / options.run)
    data = embedded(model, str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))).collection
    data = with_queries(data, options.queries)
    target = model.encoder.target

    found: dict[tuple[str, str], Learned] = {}
    for kind in ("supervised", "unsupervised"):
        towards = target if kind == "supervised" else None
        u_ND = data.training if towards is None else towards.target(data.training)
        held_out = data.queries if towards is None else towards.target(data.queries)
        for budget in BUDGETS:
            codebooks = learn_codebooks(
                u_ND, options.bits // 8, N_CODEWORDS, seed=options.seed, sparsity=budget
            )
            encoder = Encoder(codebooks, towards)
            decoded = codebooks.decode(encoder.encode(data.queries)).astype(np.float64)
            codes = encoder.encode(data.database)
            one = Learned(
                codebooks.nnz,
                float(((decoded - held_out) ** 2).sum(axis=1).mean()),
                rank_with(codebooks, codes, data),
                len(np.unique(codes, axis=0)),
            )
            found[kind, budget or "dense"] = one
            print(kind, budget, *one[:2], one.ranked.ap.mean(), *one[3:], flush=True)
    _record(options, model, found, float(rank_floats(data).ap.mean()), len(data.queries))


def _record(
    options: argparse.Namespace,
    model: Model,
    found: dict[tuple[str, str], Learned],
    float_map: float,
    queries: int,
) -> None:
    rows = [
        [
            kind,
            budget,
            f"{one.nonzeros:,}",
            f"{one.error:.6f}",
            one.ranked.ap.mean(),
            f"{one.distinct:,}",
        ]
        for (kind, budget), one in found.items()
    ]
    comparisons = []
    for budget in BUDGETS[1:]:
        ours = found["supervised", str(budget)]
        others = {
            "dense DSQ": found["supervised", "dense"],
            f"unsupervised {budget}": found["unsupervised", str(budget)],
        }
        for name, other in others.items():
            result = paired_bootstrap(ours.ranked.ap, other.ranked.ap)
            interval = f"[{result.low:+.4f}, {result.high:+.4f}]"
            comparisons.append([f"SDSQ {budget}", name, f"{result.difference:+.4f}", interval])
    entries = model.codebooks.dim * options.bits // 8 * N_CODEWORDS
    run = options.run.replace("/", "-")
    results.record(
        f"sparse-codes-{run}",
        f"SDSQ: sparse codebooks on the embeddings of `{options.run}`",
        f"The network stays as it was trained, with dense codebooks in the loop; codebooks of "
        f"{entries:,} values are learned on its embeddings of the training images. Queries were "
        f"not trained on; their error is of what the encoder aims at. {queries:,} queries, "
        f"spread evenly over the protocol's, mAP@all, one seed ({options.seed}); the floats "
        f"themselves reach {float_map:.4f}.",
        [
            {
                "caption": f"{options.bits} bits",
                "columns": [
                    "codebooks", "budget", "nonzeros", "squared error, queries", "mAP",
                    "distinct codes",
                ],
                "rows": rows,
            },
            {
                "caption": "Differences of mAP, with 95 % intervals over queries",
                "columns": ["codes", "against", "difference", "interval"],
                "rows": comparisons,
            },
        ],
        setting=setting(model),
    )  # fmt: skip


if __name__ == "__main__":
    main()
