"""CIFAR-10 with 5,000 training images, from an ImageNet-pretrained MobileNetV2.

    SPHEREQUANT_DATA=... SPHEREQUANT_WEIGHTS=... python benchmarks/cifar10_54k.py

Trains at 32 bits and evaluates under `cifar10-54k`. Images of 32 pixels are enlarged to what a
network of photographs expects; `--image-size` says how far.
"""

from __future__ import annotations

import argparse
import time

import results
from spherequant import TrainConfig, evaluate
from training_runs import baseline_rows, control_rows, setting, trained

WEIGHTS = "mobilenetv2_100.tf_in1k"


def main() -> None:
    """Train, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    weights = results.data_file("SPHEREQUANT_WEIGHTS", WEIGHTS)
    config = TrainConfig(
        bits=32,
        backbone=f"local-dir:{weights}",
        weights="pretrained",
        image_size=options.image_size,
        epochs=options.epochs,
        protocol="cifar10-54k",
        seed=options.seed,
    )
    name = f"cifar10-54k-{options.image_size}px-{options.epochs}-epochs-seed-{options.seed}"
    model = trained(f"{name}/dsq-32", source, config)
    begun = time.perf_counter()
    report = evaluate(model, source, "cifar10-54k", baselines=True, out=f"results/{name}/report")
    figures = report.to_dict()
    seconds = model.summary["seconds"] + time.perf_counter() - begun
    results.record(
        name,
        f"CIFAR-10, `cifar10-54k`, MobileNetV2 at {options.image_size} pixels",
        f"{WEIGHTS} (ImageNet-pretrained), images enlarged to {options.image_size} pixels, "
        f"{options.epochs} epochs of {model.summary['images']} images (250 more validate), "
        f"float32; training {model.summary['seconds']:.0f} s, with evaluation {seconds:.0f} s. "
        f"Seed {options.seed}, split seed 0, 1,000 queries against 54,000, mAP@all, one seed.",
        [
            {
                "caption": "32 bits, its controls, and FAISS on the same embeddings",
                "columns": ["measure", "value"],
                "rows": [
                    *control_rows(figures),
                    *map(list, baseline_rows(figures)),
                    ["classifier's accuracy", figures["accuracy"]],
                    ["distinct codes", figures["distinct_codes"]],
                ],
            }
        ],
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
