"""The CIFAR-10 grid: DSQ and its alternatives, by protocol, length and seed, one training a cell.

    SPHEREQUANT_DATA=... python benchmarks/grid.py            # reduced: minutes a cell on 2 cores
    SPHEREQUANT_DATA=... FULL=1 python benchmarks/grid.py     # all epochs, all cells; takes a GPU

A cell that was recorded with the same settings is not run again, and a training that was cut goes
on where it stopped: the command may be given as often as there is time. The cells that matter most
come first; `--list` says which are missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grid_records
import grid_tables
import results
from spherequant import TrainConfig, evaluate
from training_runs import trained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spherequant import Model

OBJECTIVES = (
    "dsq",
    "softmax",
    "softmax-centre",
    "orthohash",
    "csq",
    "paper",
    "no-norm",
    "no-discriminative",
)
# DSQ with sparse codebooks in the loop: method and budget.
SPARSE = {"sdsq-s1": "S1", "sdsq-s2": "S2"}
METHODS = (*OBJECTIVES, *SPARSE)
BINARY = ("orthohash", "csq")
SEEDS = (0, 1, 2)
# FAISS learns on the embeddings of these. RaBitQ needs more than 64 bits.
POST_HOC = ("dsq", "softmax", "softmax-centre")
BASELINES = ("pq", "opq", "rq", "lsq", "itq", "itq_asymmetric")
# The same training images: one network serves both.
TRAINED_UNDER = {"cifar10-59k": "cifar10-54k"}
# Learning rates that the searches multiply: 0.06, times the square root of the batch over 512.
RATES = {"cifar10-54k": 0.04082164, "cifar10-full": 0.06}
# Times that rate, and constants.
Searched: TypeAlias = tuple[float, dict[str, Any]]
_A_FIFTH = {"quantization_weight": 0.02, "centre_weight": 0.02, "discriminative_weight": 0.1}
# By the protocol that trains, the best of those that were tried on images which are neither trained
# on nor queries (grid_constants.py, grid_rates.py). Those of "dsq" are for all methods whose own do
# not stand here.
SEARCHED: dict[str, dict[str, Searched]] = {
    "cifar10-54k": {
        "dsq": (2.0, {"softmax_scale": 5.0}),
        "paper": (2.0, {"softmax_scale": 5.0, **_A_FIFTH}),
        "orthohash": (2.0, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        "csq": (4.0, {"quantization_weight": 0.1}),
    },
    "cifar10-full": {
        "dsq": (1.0, {"softmax_scale": 5.0}),
        "paper": (1.0, {"softmax_scale": 5.0, **_A_FIFTH}),
        "orthohash": (1.0, {"softmax_scale": 5.0, "softmax_margin": 0.4}),
        "csq": (2.0, {"quantization_weight": 0.1}),
    },
}
PLACES = (
    ("cifar10-54k", 32),
    ("cifar10-54k", 64),
    ("cifar10-59k", 32),
    ("cifar10-full", 32),
    ("cifar10-full", 64),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How much of the grid, and how long each training is.

    Attributes:
        name: of the folder of its records.
        epochs: by the protocol that trains; 0 for those of the recipe.
        image_size: side of the networks' input in pixels; 0 for that of the recipe.
    """

    name: str
    epochs: dict[str, int]
    image_size: int


REDUCED = Setting("reduced", {"cifar10-54k": 20, "cifar10-full": 4}, 16)
FULL = Setting("full", {"cifar10-54k": 60, "cifar10-full": 0}, 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A cell to run."""

    protocol: str
    method: str
    bits: int
    seed: int

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{self.protocol}-{self.method}-{self.bits}-{self.seed}"

    def baselines(self) -> tuple[str, ...]:
        """What FAISS learns on its embeddings."""
        return BASELINES if self.method in POST_HOC else ()

    def config(self, setting: Setting) -> TrainConfig:
        """What it is trained with."""
        under = TRAINED_UNDER.get(self.protocol, self.protocol)
        factor, constants = searched(under, self.method)
        return TrainConfig(
            bits=self.bits,
            objective="dsq" if self.method in SPARSE else self.method,
            sparsity=SPARSE.get(self.method, "none"),
            backbone="small",
            image_size=setting.image_size,
            protocol=under,
            epochs=setting.epochs[under],
            learning_rate=rate(under, factor),
            seed=self.seed,
            **constants,
        )

    def settings(self, setting: Setting) -> dict[str, Any]:
        """What makes its record valid."""
        return {**self.config(setting).to_dict(), "baselines": list(self.baselines())}


def searched(protocol: str, method: str) -> Searched:
    """Return what was found for a method under the protocol that trains."""
    return SEARCHED[protocol].get(method, SEARCHED[protocol]["dsq"])


def rate(protocol: str, factor: float) -> float:
    """Return a multiple of the learning rate that the searches began with under a protocol."""
    return round(factor * RATES[protocol], 6)


def cells() -> Iterator[Wanted]:
    """Every cell, the most important first."""
    for seed in SEEDS:
        for method in METHODS:
            yield Wanted("cifar10-54k", method, 32, seed)
    for seed in SEEDS:
        for method in OBJECTIVES:
            yield Wanted("cifar10-full", method, 32, seed)
    for method in ("dsq", "softmax"):
        for seed in SEEDS:
            yield Wanted("cifar10-59k", method, 32, seed)
    for method in ("dsq", *BINARY):
        yield Wanted("cifar10-full", method, 64, 0)
    for seed in SEEDS:
        for method in ("dsq", *BINARY):
            yield Wanted("cifar10-54k", method, 64, seed)


def network(cell: Wanted, setting: Setting, source: str) -> Model:
    """Train, or take the network that another cell or script trained."""
    config = cell.config(setting)
    shared = f"{config.protocol}-{cell.method}-{cell.bits}-{cell.seed}"
    return trained(f"grid-{setting.name}/{shared}", source, config)


def chosen_setting() -> Setting:
    """Return the setting that the environment asks for."""
    return FULL if os.environ.get("FULL") == "1" else REDUCED


def run(cell: Wanted, setting: Setting, source: str) -> grid_records.Cell:
    """Train where that is left to do, and evaluate."""
    model = network(cell, setting, source)
    begun = time.perf_counter()
    report = evaluate(model, source, cell.protocol, list(cell.baselines()), examples=0)
    if report.warnings:
        sys.exit(f"{cell.name} is no figure of its protocol: {'; '.join(report.warnings)}")
    return grid_records.Cell(
        protocol=cell.protocol,
        method=cell.method,
        bits=cell.bits,
        seed=cell.seed,
        settings=cell.settings(setting),
        trained_under=model.config.protocol,
        epochs=model.config.epochs,
        image_size=model.config.image_size,
        images=model.summary["images"],
        train_seconds=model.summary["seconds"],
        evaluate_seconds=round(time.perf_counter() - begun, 1),
        machine=results.machine(),
        date=time.strftime("%Y-%m-%d"),
        **grid_records.measured(report, grid_tables.compared(cell.method)),
    )


def publish(setting: Setting) -> None:
    """Record the tables of what there is."""
    folder = results.DOCS / "results" / "grid" / setting.name
    wanted = {cell.name: cell.settings(setting) for cell in cells()}
    recorded = [
        cell
        for cell in grid_records.load(folder)
        if cell.name in wanted and cell.made_with(wanted[cell.name])
    ]
    constants = ". ".join(
        f"Under `{protocol}` "
        + "; ".join(
            f"{'all others' if method == 'dsq' else method}: "
            f"learning rate {rate(protocol, factor):g}, "
            + ", ".join(f"{key} {value:g}" for key, value in values.items())
            for method, (factor, values) in reversed(of_method.items())
        )
        for protocol, of_method in SEARCHED.items()
    )
    results.record(
        f"grid-{setting.name}",
        f"CIFAR-10: DSQ and trained alternatives ({setting.name} setting)",
        "`small` from scratch; every method in the same loop: augmentation, schedule, optimizer, "
        "batch, averaging and epochs ([alternatives](alternatives.md)). mAP@all, ties averaged; "
        "split seed 0. Each cell names its seeds, epochs and image size. FAISS's quantizers and "
        "ITQ are learned on the training images' embeddings; codes of FAISS's codebooks stand by "
        "the best of inner product, cosine and Euclidean distance. Under `cifar10-59k` stand the "
        "networks of `cifar10-54k`, whose training images are the same. A difference is that of "
        "the AP of each query, averaged over the seeds that both have, with its paired bootstrap "
        "interval. "
        f"What is not each objective's default (grid_constants.py, grid_rates.py): {constants}. "
        + (
            f"Not run: {len(wanted) - len(recorded)} of {len(wanted)} cells."
            if len(recorded) < len(wanted)
            else ""
        ),
        grid_tables.tables(recorded, PLACES),
    )


def main() -> None:
    """Run what is missing, as far as there is time, and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0, help="begin no cell after so long")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--list", action="store_true", help="say which cells are missing")
    options = parser.parse_args()
    setting = chosen_setting()
    folder = results.DOCS / "results" / "grid" / setting.name
    begun = time.monotonic()
    recorded = {cell.name: cell for cell in grid_records.load(folder)}
    for cell in cells():
        known = recorded.get(cell.name)
        if options.only not in cell.name:
            continue
        if known is not None and known.made_with(cell.settings(setting)):
            continue
        if options.list:
            print(cell.name)
            continue
        if options.minutes and time.monotonic() - begun > 60 * options.minutes:
            break
        source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
        made = run(cell, setting, source)
        made.save(folder)
        print(f"{made.name}: {made.maps['codes']:.4f}", file=sys.stderr, flush=True)
    if not options.list:
        publish(setting)


if __name__ == "__main__":
    main()
