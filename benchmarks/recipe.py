"""What the recipe of `small` chooses beside what it could, by images that are not queries.

    SPHEREQUANT_DATA=... python benchmarks/recipe.py
    SPHEREQUANT_DATA=... python benchmarks/recipe.py --protocol cifar10-full

Each variant changes one thing of the first; of epochs at the full side there are two thirds as
many, which cost more pixels. Images of the database that were not trained on, at most 2,000, ask
the training images. A training that ended is not run again.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

import results
from grid_constants import ask
from spherequant import TrainConfig
from spherequant.images import open_source
from spherequant.training.progressive import pixels_seen
from training_runs import trained

EPOCHS = {"cifar10-54k": 30, "cifar10-full": 6}
SIDE = 32  # of CIFAR-10's images
# Words, multiple of the epochs, multiple of the rate, settings.
VARIANTS: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
    ("as it is", 1, 1, {}),
    ("full side in all epochs", 2 / 3, 1, {"progressive": 0.0}),
    ("two thirds of the rate", 1, 2 / 3, {}),
    ("twice the rate", 1, 2, {}),
    ("scale 8", 1, 1, {"softmax_scale": 8.0}),
    ("scale 12", 1, 1, {"softmax_scale": 12.0}),
)


def main() -> None:
    """Train with each variant, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=EPOCHS, default="cifar10-54k")
    parser.add_argument("--epochs", type=int, help="of the first variant")
    parser.add_argument("--seeds", type=int, nargs="+", default=(7,))
    options = parser.parse_args()
    protocol, epochs = options.protocol, options.epochs or EPOCHS[options.protocol]
    path = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    rows: list[list[Any]] = []
    asked, database, usual = 0, 0, 0.0
    with open_source(path) as source:
        for words, longer, faster, settings in VARIANTS:
            found = []
            for seed in options.seeds:
                config = TrainConfig(
                    bits=32,
                    backbone="small",
                    image_size=SIDE,
                    protocol=protocol,
                    epochs=round(longer * epochs),
                    learning_rate=0.0 if faster == 1 else round(faster * usual, 6),
                    seed=seed,
                    **settings,
                )
                name = f"recipe/{protocol}-{config.epochs}-{seed}-{words.replace(' ', '-')}"
                model = trained(name, path, config)
                usual = usual or model.config.learning_rate  # the first variant has the recipe's
                one = ask(model, source)
                asked, database = one.query_count, one.database_count
                found.append(one.map)
                print(words, seed, f"{one.map:.4f}", file=sys.stderr, flush=True)
            share = model.config.progressive
            cost = pixels_seen(config.epochs, config.epochs, SIDE, share) / SIDE**2
            rows.append([words, config.epochs, cost, float(np.mean(found)), min(found), max(found)])
    results.record(
        f"recipe-{protocol}",
        f"Choices of the recipe: `{protocol}`",
        f"`small` from scratch at {SIDE} pixels, 32 bits, seed "
        f"{', '.join(map(str, options.seeds))}. mAP of {asked:,} images of the database that were "
        f"not trained on, asking {database:,} training images. No query was looked at. The cost is "
        "that of the pixels that the network sees, in epochs at the full side.",
        [
            {
                "caption": "mAP on images that are neither trained on nor queries",
                "columns": ["variant", "epochs", "cost", "mAP", "least", "most"],
                "rows": rows,
            }
        ],
        setting={"image_size": SIDE, "seeds": list(options.seeds)},
    )


if __name__ == "__main__":
    main()
