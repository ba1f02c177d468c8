"""Learning rates for the grid's methods, by validation images: no query is looked at.

    SPHEREQUANT_DATA=... python benchmarks/grid_rates.py

The rate of RATES was found for DSQ. Each method is trained under cifar10-54k with multiples of it,
shorter and on smaller images than in the grid, with a seed that the grid does not have. A training
that was measured is not run again, and one that was cut goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import results
from embeddings import RUNS
from grid import OBJECTIVES, rate
from spherequant import TrainConfig
from spherequant.evaluation.validation import validate
from spherequant.images import Limits, open_source
from training_runs import trained

PROTOCOL = "cifar10-54k"
FACTORS = (1.0, 2.0, 0.5, 4.0, 8.0)
SEED = 7
NAME = "grid-rates"


def settings_of(
    method: str, factor: float, epochs: int, image_size: int, protocol: str = PROTOCOL
) -> TrainConfig:
    """What one training of the search is asked for."""
    return TrainConfig(
        bits=32,
        objective=method,
        backbone="small",
        image_size=image_size,
        mirror=False,
        protocol=protocol,
        epochs=epochs,
        learning_rate=rate(protocol, factor),
        seed=SEED,
    )


def measure(config: TrainConfig, source: str) -> dict[str, Any]:
    """Train, and ask the training images with the validation images."""
    name = f"{NAME}/{config.objective}-{config.learning_rate}-{config.epochs}-{config.image_size}"
    with open_source(source) as opened:
        model = trained(name, source, config)
        validation = validate(model, opened, Limits())
    if validation is None:
        raise SystemExit(f"{source} leaves no validation image")
    return {
        "method": config.objective,
        "rate": config.learning_rate,
        "map": validation.map,
        "seconds": model.summary["seconds"],
        "settings": config.to_dict(),
    }


def publish(runs: list[dict[str, Any]], epochs: int, image_size: int) -> None:
    """Record the table of the trainings of these epochs and this size, as they are made now."""
    now = [
        settings_of(method, factor, epochs, image_size).to_dict()
        for method in OBJECTIVES
        for factor in FACTORS
    ]
    runs = [run for run in runs if run["settings"] in now]
    results.record(
        NAME,
        "Learning rates of methods of the grid",
        f"`small` at {image_size} pixels, {epochs} epochs, 32 bits, seed {SEED}: mAP of the "
        "validation images of `cifar10-54k`, asking its training images. No query was looked at.",
        [
            {
                "caption": "mAP on validation images",
                "columns": ["method", "learning rate", "mAP", "training, s"],
                "rows": [[run["method"], run["rate"], run["map"], run["seconds"]] for run in runs],
            }
        ],
    )


def main() -> None:
    """Run what is missing, as far as there is time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--methods", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--minutes", type=float, default=0, help="begin no training after so long")
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    kept = RUNS / f"{NAME}.json"
    runs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    begun = time.monotonic()
    for factor in FACTORS:
        for method in options.methods:
            config = settings_of(method, factor, options.epochs, options.image_size)
            if any(run["settings"] == config.to_dict() for run in runs):
                continue
            if options.minutes and time.monotonic() - begun > 60 * options.minutes:
                break
            runs.append(measure(config, source))
            print(f"{method} {config.learning_rate}: {runs[-1]['map']:.4f}", file=sys.stderr)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    publish(runs, options.epochs, options.image_size)


if __name__ == "__main__":
    main()
