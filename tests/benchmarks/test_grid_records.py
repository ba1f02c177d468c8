from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import grid_records
from grid_records import Cell, load, pack
from spherequant.training import TrainConfig

AP = np.array([0.0, 0.25, 1 / 3, 1.0])


def make_cell(**changes: object) -> Cell:
    cell = Cell(
        protocol="cifar10-54k",
        method="dsq",
        bits=32,
        seed=0,
        settings=TrainConfig(protocol="cifar10-54k", epochs=3).to_dict(),
        trained_under="cifar10-54k",
        epochs=3,
        image_size=32,
        images=4750,
        train_seconds=12.5,
        evaluate_seconds=3.25,
        query_count=4,
        database_count=54_000,
        map_at="all",
        score="inner product",
        accuracy=0.5,
        distinct_codes=77,
        maps={"codes": float(AP.mean())},
        ap={"codes": pack(AP)},
        queries="0" * 64,
        machine="2 threads",
        date="2026-11-22",
    )
    return dataclasses.replace(cell, **changes)


def test_a_cell_is_read_as_it_was_written(tmp_path):
    cells = [make_cell(), make_cell(seed=1), make_cell(method="csq", accuracy=None)]
    for cell in cells:
        cell.save(tmp_path / "reduced")
    assert load(tmp_path / "reduced") == sorted(cells, key=lambda cell: cell.name)
    assert not list(tmp_path.glob("**/*.part"))


def test_no_folder_holds_no_cells(tmp_path):
    assert load(tmp_path / "nothing") == []


def test_average_precision_is_kept_in_sixteen_bits():
    np.testing.assert_allclose(make_cell().average_precision("codes"), AP, rtol=0, atol=8e-6)
    assert len(pack(np.random.default_rng(0).random(1000))) < 2700


def test_a_cell_is_valid_for_the_settings_that_made_it():
    cell, config = make_cell(), TrainConfig(protocol="cifar10-54k", epochs=3)
    assert cell.made_with(config.to_dict())
    assert cell.made_with({**config.to_dict(), "a setting of a later version": 1})
    assert not cell.made_with(dataclasses.replace(config, epochs=4).to_dict())


def test_another_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_records, "SCHEMA", 0)
    make_cell().save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="another schema"):
        load(tmp_path)
