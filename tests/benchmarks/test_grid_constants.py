from __future__ import annotations

import dataclasses

import pytest

import grid
from grid_constants import SEEDS, TRIED
from grid_rates import settings_of
from spherequant.training.recipe import resolve

ALL = [(protocol, method) for protocol, tried in TRIED.items() for method in tried]


def resolved(config):
    return resolve(config, images=5_000, classes=10, bf16_pays=False)


@pytest.mark.parametrize(("protocol", "method"), ALL)
def test_constants_reach_the_training(protocol, method):
    tried = TRIED[protocol][method]
    configs = [
        resolved(
            dataclasses.replace(settings_of(method, factor, 8, 16, protocol), **constants),
        )
        for factor, constants in tried
    ]
    assert [
        {name: getattr(config, name) for name in constants}
        for config, (_, constants) in zip(configs, tried, strict=True)
    ] == [constants for _, constants in tried]


@pytest.mark.parametrize(("protocol", "method"), ALL)
def test_what_the_grid_has_was_tried(protocol, method):
    used = resolved(grid.Wanted(protocol, method, 32, 0).config(grid.REDUCED))
    factor, _ = grid.searched(protocol, method)
    tried = [constants for rate, constants in TRIED[protocol][method] if rate == factor]
    assert {name: getattr(used, name) for name in tried[0]} in tried
    assert used.learning_rate == pytest.approx(grid.rate(protocol, factor), rel=1e-4)


@pytest.mark.parametrize("protocol", TRIED)
def test_no_seed_is_one_of_the_grids(protocol):
    assert not set(SEEDS[protocol]) & set(grid.SEEDS)
