from __future__ import annotations

import dataclasses

import pytest

import grid
from grid_constants import SEEDS, TRIED
from grid_rates import settings_of
from spherequant.training.recipe import resolve


@pytest.mark.parametrize("method", TRIED)
def test_the_first_that_was_tried_is_what_the_grid_has(method):
    config = settings_of(method, 1.0, 8, 16)
    used = resolve(config, images=4_750, labelled=True, bf16_pays=False)
    constants = TRIED[method][0]
    assert {name: getattr(used, name) for name in constants} == constants


@pytest.mark.parametrize("method", TRIED)
def test_constants_reach_the_training(method):
    resolved = [
        resolve(
            dataclasses.replace(settings_of(method, 1.0, 8, 16), **constants),
            images=4_750,
            labelled=True,
            bf16_pays=False,
        )
        for constants in TRIED[method]
    ]
    assert [
        {name: getattr(config, name) for name in constants}
        for config, constants in zip(resolved, TRIED[method], strict=True)
    ] == list(TRIED[method])


def test_no_seed_is_one_of_the_grids():
    assert not set(SEEDS) & set(grid.SEEDS)
