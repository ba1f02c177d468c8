from __future__ import annotations

import sys

import numpy as np
import pytest

import grid
import results
from grid import REDUCED, Wanted, cells
from spherequant import TrainConfig
from spherequant.images import open_source
from spherequant.training import train


def test_every_cell_stands_once_and_the_most_important_first():
    names = [cell.name for cell in cells()]
    assert len(names) == len(set(names))
    assert names[: len(grid.METHODS)] == [f"cifar10-54k-{m}-32-0" for m in grid.METHODS]


def test_every_cell_has_a_column():
    for cell in cells():
        assert (cell.protocol, cell.bits) in grid.PLACES


def test_methods_differ_in_their_objective_or_budget_only():
    configs = [cell.config(REDUCED) for cell in cells() if cell.protocol == "cifar10-54k"]
    assert {config.objective for config in configs} == set(grid.OBJECTIVES)
    assert {config.sparsity for config in configs} == {"none", *grid.SPARSE.values()}
    varied = ("objective", "sparsity", "seed", "bits")
    rest = {
        tuple((k, v) for k, v in c.to_dict().items() if k not in varied)
        for c in configs
        if c.objective == "dsq" or c.objective not in grid.SEARCHED["cifar10-54k"]
    }
    assert len(rest) == 1


def test_the_larger_database_takes_the_same_network():
    ours = Wanted("cifar10-59k", "dsq", 32, 1)
    assert ours.config(REDUCED) == Wanted("cifar10-54k", "dsq", 32, 1).config(REDUCED)


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """Digits in the place of CIFAR-10, and docs of its own."""
    with open_source("digits") as source:
        rows = [(item.key, np.asarray(source.image(item)), item.labels) for item in source.items]
    trainings = []

    def trained(name, source, config):
        trainings.append(name)
        small = TrainConfig(
            bits=16, objective=config.objective, image_size=16, epochs=1, precision="float32"
        )
        return train(rows[::5], small)

    def evaluate(model, source, protocol, baselines, examples):
        return measure(model, rows[::5], "holdout", baselines, examples=examples)

    measure = grid.evaluate
    monkeypatch.setattr(grid, "trained", trained)
    monkeypatch.setattr(grid, "evaluate", evaluate)
    monkeypatch.setattr(results, "DOCS", tmp_path)
    monkeypatch.setattr(results, "data_file", lambda variable, name: name)
    monkeypatch.delenv("FULL", raising=False)
    return trainings


def test_a_recorded_cell_is_not_run_again(miniature, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    monkeypatch.setattr(grid, "BASELINES", ("pq",))
    monkeypatch.setattr(sys, "argv", ["grid.py", "--only", "cifar10-54k-dsq-32"])
    monkeypatch.setattr(grid, "SEEDS", (0,))
    grid.main()
    monkeypatch.setattr(grid, "SEEDS", (0, 1))
    grid.main()
    assert miniature == [f"grid-reduced/cifar10-54k-dsq-32-{seed}" for seed in (0, 1)]
    folder = tmp_path / "results" / "grid" / "reduced"
    assert len(list(folder.glob("*.json"))) == 2
    text = (tmp_path / "results.md").read_text()
    assert "CIFAR-10: DSQ and trained alternatives (reduced setting)" in text
    assert "Not run: " in text
