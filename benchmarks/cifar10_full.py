"""CIFAR-10, all 50,000 training images: DSQ against post-hoc codes of a softmax network.

    SPHEREQUANT_DATA=... python benchmarks/cifar10_full.py

Trains `small` from scratch twice, with the objective at 32 bits and with softmax alone; learns 8,
16, 24, 48 and 64 bits on the frozen network of the first. The epochs are more than the recipe's:
about as many as half an hour on 2 cores with bfloat16 has time for. About 70 minutes in all.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

import results
from embeddings import embedded
from spherequant import TrainConfig, evaluate
from spherequant.evaluation import paired_bootstrap
from training_runs import (
    control_rows,
    database_accuracy,
    of_length,
    rank_class_centres,
    rank_codes,
    rank_faiss,
    rank_floats,
    setting,
    trained,
)

if TYPE_CHECKING:
    from embeddings import Embedded
    from spherequant import Model

BITS = (8, 16, 24, 32, 48, 64)
EPOCHS = 25


def run_of(seed: int, epochs: int) -> tuple[str, TrainConfig]:
    """Return the name of a run below results/, and what its network is trained with."""
    config = TrainConfig(
        bits=32, backbone="small", protocol="cifar10-full", epochs=epochs, seed=seed
    )
    return f"cifar10-full-{f'{epochs}-epochs-' if epochs != EPOCHS else ''}{seed}", config


def by_length(
    model: Model, ours: Embedded, theirs: Embedded, lengths: list[int]
) -> list[dict[str, Any]]:
    """The tables of all lengths: DSQ's codes, and FAISS's of the network of softmax alone."""
    own_float = rank_floats(ours.collection)
    centre = rank_class_centres(model, ours.collection)
    rows, comparisons = [], []
    for bits in lengths:
        dsq = rank_codes(of_length(model, ours, bits), ours.collection)
        faiss = rank_faiss(theirs.collection, bits)
        rows.append([bits, dsq.ap.mean(), faiss["rq"].ap.mean(), faiss["pq"].ap.mean()])
        others = {
            "float of the same network": own_float,
            "class centre": centre,
            "softmax alone + RQ": faiss["rq"],
            "softmax alone + PQ": faiss["pq"],
        }
        for name, other in others.items():
            result = paired_bootstrap(dsq.ap, other.ap)
            interval = f"[{result.low:+.4f}, {result.high:+.4f}]"
            comparisons.append([bits, name, f"{result.difference:+.4f}", interval])
    return [
        {
            "caption": "mAP@all by code length",
            "columns": ["bits", "DSQ", "softmax alone + FAISS RQ", "softmax alone + FAISS PQ"],
            "rows": rows,
        },
        {
            "caption": "DSQ less the other: difference of mAP and its 95 % interval",
            "columns": ["bits", "other", "difference", "interval"],
            "rows": comparisons,
        },
    ]


def softmax_alone(config: TrainConfig, name: str, source: str) -> tuple[Embedded, str]:
    """Embeddings of a network trained with the first term only, and a note on it."""
    plain = trained(f"{name}/softmax-32", source, dataclasses.replace(config, objective="softmax"))
    theirs = embedded(plain, source)
    float_alone = rank_floats(theirs.collection).ap.mean()
    return theirs, (
        f" Softmax alone took {plain.summary['seconds']:.0f} s. Lengths other than 32: codes "
        "learned on the frozen network of the 32-bit training. FAISS's quantizers are learned on "
        f"the embeddings of the network trained with softmax alone (float {float_alone:.4f}), "
        "without its classifier."
    )


def main() -> None:
    """Train, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    name, config = run_of(options.seed, options.epochs)
    model = trained(f"{name}/dsq-32", source, config)
    report = evaluate(model, source, "cifar10-full", out=f"results/{name}/report")
    ours = embedded(model, source)
    figures = report.to_dict()
    theirs, note = softmax_alone(config, name, source)
    notes = (
        f"`small` from scratch at {config.bits} bits: {model.config.epochs} epochs in "
        f"{model.summary['seconds']:.0f} s of training, decoding and learning included. Seed "
        f"{options.seed}, split seed 0, 10,000 queries, mAP@all, one seed. DSQ's encoder uses "
        "predicted classes. The database is the training images, which the network knows: its "
        f"classifier is right on {database_accuracy(model, ours):.4f} of them.{note}"
    )
    tables = [
        {
            "caption": "32 bits and its controls",
            "columns": ["measure", "value"],
            "rows": [
                *control_rows(figures),
                ["DSQ, mAP, recall-aware", figures["map_recall_aware"]],
                ["classifier's accuracy on the queries", figures["accuracy"]],
                ["distinct codes", figures["distinct_codes"]],
            ],
        },
        *by_length(model, ours, theirs, options.bits),
    ]
    results.record(
        name,
        "CIFAR-10, `cifar10-full`",
        notes,
        tables,
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
