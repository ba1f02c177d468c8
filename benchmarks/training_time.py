"""How long `small` trains on CIFAR-10 with the recipe's epochs, and nothing else.

SPHEREQUANT_DATA=... python benchmarks/training_time.py
"""

from __future__ import annotations

import os
import shutil
import statistics
from typing import TYPE_CHECKING

import results
from embeddings import RUNS
from spherequant import TrainConfig, train
from training_runs import say

if TYPE_CHECKING:
    from spherequant.training import TrainEvent

NAME = "training-time"


def main() -> None:
    """Train, record."""
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    config = TrainConfig(bits=32, backbone="small", protocol="cifar10-full")
    folder = RUNS / NAME
    shutil.rmtree(folder, ignore_errors=True)
    speeds: list[float] = []

    def watch(event: TrainEvent) -> None:
        say(event)
        if event.stage == "train" and event.step * event.epochs % event.steps == 0:
            speeds.append(event.images_per_second)

    model = train(source, config, out=folder, report=watch)
    results.record(
        NAME,
        "Time of a training",
        "`small` under `cifar10-full` with the settings of the recipe, seed 0, alone on the "
        "machine: decoding, epochs, codes and codebooks. Images a second are those since the "
        "training began, at the end of each epoch, rounds of codes included. Load of the machine "
        f"over the last 15 minutes: {os.getloadavg()[2]:.1f}.",
        [
            {
                "caption": f"{model.config.epochs} epochs of {model.summary['images']} images",
                "columns": ["measure", "value"],
                "rows": [
                    ["seconds in all", f"{model.summary['seconds']:.0f}"],
                    ["images a second, highest", f"{max(speeds):.0f}"],
                    ["images a second, median", f"{statistics.median(speeds):.0f}"],
                    ["images a second, lowest", f"{min(speeds):.0f}"],
                ],
            }
        ],
    )


if __name__ == "__main__":
    main()
