"""CIFAR-10, all 50,000 training images: DSQ against post-hoc codes of a softmax network.

    SPHEREQUANT_DATA=... python benchmarks/cifar10_full.py

Trains `small` from scratch twice, with the objective at 32 bits and with softmax alone; learns 16,
24, 48 and 64 bits on the frozen network of the first. About 40 minutes on 2 cores.
"""

from __future__ import annotations

import argparse

import results
from embeddings import embedded
from spherequant import TrainConfig, evaluate
from spherequant.evaluation import paired_bootstrap
from training_runs import (
    database_accuracy,
    of_length,
    rank_class_centres,
    rank_codes,
    rank_faiss,
    rank_floats,
    setting,
    trained,
)

BITS = (16, 24, 32, 48, 64)


def main() -> None:
    """Train, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    options = parser.parse_args()
    seed = options.seed
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))

    config = TrainConfig(bits=32, backbone="small", protocol="cifar10-full", seed=seed)
    model = trained(f"cifar10-full-{seed}/dsq-32", source, config)
    report = evaluate(model, source, "cifar10-full", out=f"results/cifar10-full-{seed}/report")
    softmax = TrainConfig(
        bits=32,
        backbone="small",
        protocol="cifar10-full",
        seed=seed,
        quantization_weight=0,
        centre_weight=0,
        discriminative_weight=0,
        rounds=0,
        encode_toward_class=False,
    )
    plain = trained(f"cifar10-full-{seed}/softmax-32", source, softmax)

    ours, theirs = embedded(model, source), embedded(plain, source)
    own_float = rank_floats(ours.collection)
    centre = rank_class_centres(model, ours.collection)
    float_alone = rank_floats(theirs.collection)
    rows, comparisons = [], []
    for bits in options.bits:
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
    figures = report.to_dict()
    results.record(
        f"cifar10-full-{seed}",
        "CIFAR-10, `cifar10-full`",
        f"`small` from scratch at {config.bits} bits: {model.config.epochs} epochs in "
        f"{model.summary['seconds']:.0f} s of training, decoding and learning included; softmax "
        f"alone {plain.summary['seconds']:.0f} s. Seed {seed}, split seed 0, 10,000 queries, "
        "mAP@all, one seed. Lengths other than 32: codes learned on the frozen network of the "
        "32-bit training. FAISS's quantizers are learned on the embeddings of the network trained "
        f"with softmax alone (float {float_alone.ap.mean():.4f}), without its classifier; "
        "DSQ's encoder uses predicted classes. The database is the training images, which the "
        f"networks know: DSQ's classifier is right on {database_accuracy(model, ours):.4f} of "
        "them.",
        [
            {
                "caption": "32 bits and its controls",
                "columns": ["measure", "value"],
                "rows": [
                    ["DSQ, mAP", figures["map"]],
                    ["float embeddings", figures["float_map"]],
                    ["class-id", figures["class_id_map"]],
                    ["class centre", figures["class_centre_map"]],
                    ["DSQ, mAP, recall-aware", figures["map_recall_aware"]],
                    ["DSQ, mAP by cosine", figures["cosine_map"]],
                    ["DSQ, mAP by Euclidean distance", figures["euclidean_map"]],
                    ["classifier's accuracy on the queries", figures["accuracy"]],
                    ["distinct codes", figures["distinct_codes"]],
                ],
            },
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
        ],
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
