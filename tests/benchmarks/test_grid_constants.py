from __future__ import annotations

import dataclasses

import pytest

import grid
from grid_constants import SEEDS, TRIED
from grid_rates import settings_of
from spherequant.training.recipe import resolve


@pytest.mark.parametrize("method", TRIED)
def test_constants_reach_the_training(method):
    resolved = [
        resolve(
            dataclasses.replace(settings_of(method, factor, 8, 16), **constants),
            images=4_750,
            labelled=True,
            bf16_pays=False,
        )
        for factor, constants in TRIED[method]
    ]
    assert [
        {name: getattr(config, name) for name in constants}
        for config, (_, constants) in zip(resolved, TRIED[method], strict=True)
    ] == [constants for _, constants in TRIED[method]]


@pytest.mark.parametrize("method", TRIED)
def test_what_the_grid_has_was_tried(method):
    config = grid.Wanted("cifar10-54k", method, 32, 0).config(grid.REDUCED)
    used = resolve(config, images=4_750, labelled=True, bf16_pays=False)
    factor = grid.RATES.get(method, grid.RATE)
    tried = [constants for rate, constants in TRIED[method] if rate == factor]
    assert {name: getattr(used, name) for name in tried[0]} in tried


def test_no_seed_is_one_of_the_grids():
    assert not set(SEEDS) & set(grid.SEEDS)
