"""One training, several lengths: the first codebooks of 64 bits against codebooks of each length.

    SPHEREQUANT_DATA=... python benchmarks/lengths.py results/cifar10-full-0/dsq-32

Learns codebooks on the frozen network of a CIFAR-10 model, of 64 bits and of each shorter length:
with the model's own class target, and of plain embeddings, where length matters more.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

import numpy as np

import results
from embeddings import embedded, with_queries
from requantize import requantize
from spherequant import Model
from spherequant.evaluation import paired_bootstrap
from spherequant.quantizer import Encoder
from training_runs import rank_with, setting

if TYPE_CHECKING:
    from spherequant.evaluation.embeddings import Collection

LONGEST = 64
BITS = (16, 24, 32, 48)
MARGIN = 0.01
COLUMNS = [
    "bits",
    "learned for this length",
    "first codebooks of 64 bits, encoded anew",
    "first bytes of 64-bit codes",
    "anew less learned",
    f"within {MARGIN}",
]


def main() -> None:
    """Learn, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--training", type=int, default=50_000)
    options = parser.parse_args()
    model = Model.load(options.model)
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    data = with_queries(embedded(model, source).collection, options.queries)
    rng = np.random.default_rng(0)
    training_ND = data.training[rng.permutation(len(data.training))[: options.training]]
    plain = dataclasses.replace(model, encoder=Encoder(model.codebooks))
    tables = [
        {"caption": f"mAP, {name}", "columns": COLUMNS, "rows": _rows(one, data, training_ND)}
        for name, one in (
            ("codes of the class target", model),
            ("codes of plain embeddings", plain),
        )
    ]
    results.record(
        "lengths",
        "One training, several lengths",
        f"CIFAR-10, `{model.config.protocol}`, the network of a training at {model.bits} bits, "
        f"frozen. Codebooks are learned from {len(training_ND)} of its training embeddings. "
        f"{len(data.queries)} queries against {len(data.database)}, mAP@all, one seed. Differences "
        "with their 95 % interval, paired over queries.",
        tables,
        setting=setting(model),
    )


def _rows(model: Model, data: Collection, training_ND: np.ndarray) -> list[list[object]]:
    longest = requantize(model, training_ND, None, LONGEST)
    codes_NM = longest.encode_vectors(data.database)
    rows: list[list[object]] = []
    for bits in BITS:
        separate, short = requantize(model, training_ND, None, bits), longest.shortened(bits)
        learned, anew = (
            rank_with(one.codebooks, one.encode_vectors(data.database), data)
            for one in (separate, short)
        )
        cut_NM = np.ascontiguousarray(codes_NM[:, : bits // 8])
        cut = rank_with(short.codebooks, cut_NM, data)
        result = paired_bootstrap(anew.ap, learned.ap)
        rows.append(
            [
                bits,
                *(float(ranked.ap.mean()) for ranked in (learned, anew, cut)),
                f"{result.difference:+.4f} [{result.low:+.4f}, {result.high:+.4f}]",
                "yes" if result.within(MARGIN) else "no",
            ]
        )
        print(bits, rows[-1], file=sys.stderr, flush=True)
    own = float(rank_with(longest.codebooks, codes_NM, data).ap.mean())
    return [*rows, [LONGEST, own, own, own, None, None]]


if __name__ == "__main__":
    main()
