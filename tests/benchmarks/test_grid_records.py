from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import grid_records
from grid_records import Cell, load, pack
from spherequant.training import TrainConfig

AP = np.array([0.0, 0.25, 1 / 3, 1.0])


@pytest.fixture
def cell(make_cell) -> Cell:
    settings = TrainConfig(protocol="cifar10-54k", epochs=3).to_dict()
    return make_cell({"codes": AP}, settings=settings)


def test_a_cell_is_read_as_it_was_written(tmp_path, cell):
    changes = ({}, {"seed": 1}, {"method": "csq", "accuracy": None})
    cells = [dataclasses.replace(cell, **changed) for changed in changes]
    for cell in cells:
        cell.save(tmp_path / "reduced")
    assert load(tmp_path / "reduced") == sorted(cells, key=lambda cell: cell.name)
    assert not list(tmp_path.glob("**/*.part"))


def test_no_folder_holds_no_cells(tmp_path):
    assert load(tmp_path / "nothing") == []


def test_average_precision_is_kept_in_sixteen_bits(cell):
    np.testing.assert_allclose(cell.average_precision("codes"), AP, rtol=0, atol=8e-6)
    assert len(pack(np.random.default_rng(0).random(1000))) < 2700


def test_a_cell_is_valid_for_the_settings_that_made_it(cell):
    config = TrainConfig(protocol="cifar10-54k", epochs=3)
    assert cell.made_with(config.to_dict())
    assert not cell.made_with({**config.to_dict(), "a setting of a later version": 1})
    assert not cell.made_with(dataclasses.replace(config, epochs=4).to_dict())


def test_another_schema_is_refused(tmp_path, monkeypatch, cell):
    monkeypatch.setattr(grid_records, "SCHEMA", 0)
    cell.save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="another schema"):
        load(tmp_path)
