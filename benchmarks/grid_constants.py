"""Constants of the grid's methods, by images that are neither trained on nor queries.

    SPHEREQUANT_DATA=... python benchmarks/grid_constants.py
    SPHEREQUANT_DATA=... python benchmarks/grid_constants.py --protocol cifar10-full

Weights of DSQ's terms, scale, margin and learning rate of all that have a softmax, weight of
central similarity's quantization: each method is trained with several, on smaller images, with
seeds that the grid does not have; images of the database that were not trained on, at most 2,000,
ask the training images. What suits 5,000 training images need not suit 50,000, so each protocol
that trains has a search of its own. A training that ended is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

import results
from grid import RATES
from grid_rates import settings_of
from spherequant.evaluation.validation import Validation, ask_training_images
from spherequant.images import Limits, Source, make_split, open_source
from training_runs import trained

if TYPE_CHECKING:
    from grid import Searched
    from spherequant import Model, TrainConfig


def _weighted(
    scale: float, quantization: float, centre: float, discriminative: float
) -> dict[str, float]:
    return {
        "softmax_scale": scale,
        "quantization_weight": quantization,
        "centre_weight": centre,
        "discriminative_weight": discriminative,
    }


_FEW_IMAGES: dict[str, tuple[Searched, ...]] = {
    "dsq": (
        (1, _weighted(12.0, 0.1, 0.1, 0.5)),
        (1, _weighted(12.0, 0.1, 0.0, 0.5)),
        (1, _weighted(12.0, 0.02, 0.02, 0.1)),
        (1, _weighted(12.0, 0.001, 0.0, 0.005)),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.6}),
        (2, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 3.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
        (3, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
    ),
    "softmax": (
        (1, {"softmax_scale": 12.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
    ),
    "paper": (
        (1, {"softmax_scale": 12.0}),
        (1, {"softmax_scale": 8.0}),
        (1, _weighted(8.0, 0.02, 0.02, 0.1)),
        (2, _weighted(5.0, 0.02, 0.02, 0.1)),
    ),
    "no-norm": (
        (1, {"softmax_scale": 12.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 3.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 3.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
    ),
    "orthohash": (
        (2, {"softmax_scale": 16.0, "softmax_margin": 0.2}),
        (2, {"softmax_scale": 12.0, "softmax_margin": 0.2}),
        (2, {"softmax_scale": 8.0, "softmax_margin": 0.2}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
        (2, {"softmax_scale": 3.0, "softmax_margin": 0.2}),
        (1, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
        (4, {"softmax_scale": 5.0, "softmax_margin": 0.2}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
    ),
    "csq": (
        (4, {"quantization_weight": 0.1}),
        (4, {"quantization_weight": 0.01}),
        (4, {"quantization_weight": 0.0001}),
    ),
}
_MANY_IMAGES: dict[str, tuple[Searched, ...]] = {
    "dsq": (
        (1, {"softmax_scale": 12.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (0.5, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
    ),
    "orthohash": (
        (2, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        (1, {"softmax_scale": 8.0, "softmax_margin": 0.4}),
    ),
    "csq": (
        (4, {"quantization_weight": 0.1}),
        (2, {"quantization_weight": 0.1}),
        (1, {"quantization_weight": 0.1}),
    ),
}
TRIED = {"cifar10-54k": _FEW_IMAGES, "cifar10-full": _MANY_IMAGES}
EPOCHS = {"cifar10-54k": 8, "cifar10-full": 4}
SEEDS = {"cifar10-54k": (7, 8), "cifar10-full": (7,)}
NAMES = {"cifar10-54k": "grid-constants", "cifar10-full": "grid-constants-full"}


def measure(config: TrainConfig, tried: Searched, source: str) -> Validation:
    """Train, and ask the training images with images of the database that are not among them."""
    values = "-".join(f"{value:g}" for value in (tried[0], *tried[1].values()))
    folder = NAMES[config.protocol]
    name = f"{folder}/{config.objective}-{values}-{config.epochs}-{config.image_size}-{config.seed}"
    model = trained(name, source, dataclasses.replace(config, **tried[1]))
    with open_source(source) as opened:
        return ask(model, opened)


def ask(model: Model, opened: Source) -> Validation:
    """Ask a model's training images with images of the database that are not among them."""
    split = make_split(opened.items, model.config.protocol)
    held_out = np.setdiff1d(split.database, split.training)
    found = ask_training_images(model, opened, split, held_out, Limits())
    if found is None:
        raise SystemExit("none of the images can be read")
    return found


def main() -> None:
    """Run what is missing, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=TRIED, default="cifar10-54k")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+")
    options = parser.parse_args()
    protocol, tried = options.protocol, TRIED[options.protocol]
    epochs = options.epochs or EPOCHS[protocol]
    seeds = options.seeds or SEEDS[protocol]
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    rows: list[list[Any]] = []
    asked = database = 0
    for method in options.methods or tried:
        for factor, constants in tried[method]:
            found = []
            for seed in seeds:
                config = settings_of(method, factor, epochs, options.image_size, protocol)
                config = dataclasses.replace(config, seed=seed)
                one = measure(config, (factor, constants), source)
                asked, database = one.query_count, one.database_count
                found.append(one.map)
                print(
                    method, factor, constants, seed, f"{one.map:.4f}", file=sys.stderr, flush=True
                )
            named = ", ".join(f"{name} {value:g}" for name, value in constants.items())
            rows.append([method, named, factor, float(np.mean(found)), min(found), max(found)])
    results.record(
        NAMES[protocol],
        f"Constants of methods of the grid: `{protocol}`",
        f"`small` at {options.image_size} pixels, {epochs} epochs, 32 bits, "
        f"seed {', '.join(map(str, seeds))}; learning rates are multiples of "
        f"{RATES[protocol]:.4g}. mAP of "
        f"{asked:,} images of the database of `{protocol}` that were not trained on, asking "
        f"{database:,} training images. No query was looked at.",
        [
            {
                "caption": "mAP on images that are neither trained on nor queries",
                "columns": ["method", "constants", "times the rate", "mAP", "least", "most"],
                "rows": rows,
            }
        ],
        setting={
            "epochs": epochs,
            "image_size": options.image_size,
            "seeds": list(seeds),
        },
    )


if __name__ == "__main__":
    main()
