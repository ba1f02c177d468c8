"""One training for all lengths against a training for each: networks differ, not only codes.

    SPHEREQUANT_DATA=... python benchmarks/lengths_trained.py

Trains `small` under cifar10-54k at 64 bits and at each shorter length, with each seed, as grid.py
does; networks that it has trained are taken. The first codebooks of the one, with which images are
encoded anew, are then compared with the codes of the others, query by query.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np

import results
from embeddings import embedded
from grid import SEEDS, Wanted, chosen_setting, network
from lengths import BITS, LONGEST, MARGIN
from spherequant.evaluation import paired_bootstrap
from training_runs import rank_codes, setting

if TYPE_CHECKING:
    from grid import Setting
    from spherequant import Model

PROTOCOL = "cifar10-54k"


def main() -> None:
    """Train, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    amount = chosen_setting()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    longest = [_trained(LONGEST, seed, amount, source) for seed in options.seeds]
    collections = [embedded(model, source).collection for model in longest]
    rows: list[list[object]] = []
    for bits in options.bits:
        learned = np.stack([_learned(bits, seed, amount, source) for seed in options.seeds])
        shortened = np.stack(
            [
                rank_codes(model.shortened(bits), collection).ap
                for model, collection in zip(longest, collections, strict=True)
            ]
        )
        result = paired_bootstrap(shortened, learned)
        rows.append(
            [
                bits,
                float(learned.mean()),
                float(shortened.mean()),
                f"{result.difference:+.4f} [{result.low:+.4f}, {result.high:+.4f}]",
                "yes" if result.within(MARGIN) else "no",
            ]
        )
        print(*rows[-1], file=sys.stderr, flush=True)
    results.record(
        f"lengths-trained-{amount.name}",
        f"One training for all lengths against a training for each ({amount.name} setting)",
        f"`small` from scratch under `{PROTOCOL}`, trained at {LONGEST} bits and at each length; "
        f"1,000 queries against 54,000, mAP@all, the mean over the seeds. Differences of the AP of "
        "each query, averaged over the seeds, with their 95 % interval.",
        [
            {
                "caption": "mAP by length",
                "columns": [
                    "bits",
                    "trained at this length",
                    f"first codebooks of the training at {LONGEST}",
                    "difference",
                    f"within {MARGIN}",
                ],
                "rows": rows,
            }
        ],
        setting=setting(*longest),
    )


def _trained(bits: int, seed: int, amount: Setting, source: str) -> Model:
    return network(Wanted(PROTOCOL, "dsq", bits, seed), amount, source)


def _learned(bits: int, seed: int, amount: Setting, source: str) -> np.ndarray:
    """AP of each query under the training at this length: float64 [Q]."""
    model = _trained(bits, seed, amount, source)
    return rank_codes(model, embedded(model, source).collection).ap


if __name__ == "__main__":
    main()
