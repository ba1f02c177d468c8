"""The margin of the softmax term, by validation images: no query is looked at.

    SPHEREQUANT_DATA=... python benchmarks/margin.py [--protocol cifar10-full]

DSQ is trained with margins, with and without smoothed labels, for a part of its usual epochs and
with a seed that no result has. A training that ended is not run again; one that was cut goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import results
from spherequant import TrainConfig
from spherequant.evaluation.validation import Validation, validate
from spherequant.images import Limits, Source, open_source
from training_runs import trained

SEED = 7
# Margin (a cosine) and label smoothing; the first is without a margin.
PAIRS = ((0.0, 0.1), (0.4, 0.0), (0.2, 0.1), (0.2, 0.0), (0.0, 0.0), (0.4, 0.1), (0.6, 0.0))
EPOCHS = {"cifar10-54k": 12, "cifar10-full": 4}


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of the search."""

    protocol: str
    epochs: int
    margin: float
    smoothing: float

    def config(self) -> TrainConfig:
        """What it is asked for."""
        return TrainConfig(
            bits=32,
            backbone="small",
            protocol=self.protocol,
            epochs=self.epochs,
            softmax_margin=self.margin,
            label_smoothing=self.smoothing,
            seed=SEED,
        )

    def measure(self, source: Source, path: str) -> Validation:
        """Train; ask the training images with the validation images."""
        name = f"margin/{self.protocol}-{self.epochs}-{self.margin}-{self.smoothing}"
        model = trained(name, path, self.config())
        validation = validate(model, source, Limits())
        if validation is None:
            raise SystemExit(f"{path} leaves no validation image under {self.protocol}")
        return validation


def main() -> None:
    """Train with each pair, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=EPOCHS, default="cifar10-54k")
    parser.add_argument("--epochs", type=int, default=0, help="0 for those of the search")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="the first so many")
    options = parser.parse_args()
    epochs = options.epochs or EPOCHS[options.protocol]
    path = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    rows: list[list[Any]] = []
    asked = database = 0
    with open_source(path) as source:
        for pair in PAIRS[: options.pairs]:
            found = Trial(options.protocol, epochs, *pair).measure(source, path)
            asked, database = found.query_count, found.database_count
            rows.append([*pair, found.map])
            print(*rows[-1], flush=True)
    results.record(
        f"margin-{options.protocol}",
        f"Margin of the softmax term: `{options.protocol}`",
        f"`small` from scratch, {epochs} epochs, 32 bits, seed {SEED}: mAP of {asked:,} validation "
        f"images that ask {database:,} training images. No query was looked at.",
        [
            {
                "caption": "mAP on validation images",
                "columns": ["margin", "label smoothing", "mAP"],
                "rows": rows,
            }
        ],
        setting={"epochs": epochs, "image_size": 32, "seeds": [SEED]},
    )


if __name__ == "__main__":
    main()
