from __future__ import annotations

import pytest

import grid
from grid_rates import FACTORS, SEED, settings_of


@pytest.mark.parametrize("method", grid.OBJECTIVES)
def test_rates_are_multiples_of_the_recipes(method):
    rates = {factor: settings_of(method, factor, 8, 16).learning_rate for factor in FACTORS}
    recipe = 0.06 * (237 / 512) ** 0.5  # 4,750 images make batches of 237
    assert rates == {factor: pytest.approx(factor * recipe, rel=1e-3) for factor in FACTORS}


def test_the_seed_is_none_of_the_grids():
    assert SEED not in grid.SEEDS


def test_methods_differ_in_their_objective_only():
    settings = [settings_of(method, 2.0, 8, 16).to_dict() for method in grid.OBJECTIVES]
    assert {values.pop("objective") for values in settings} == set(grid.OBJECTIVES)
    assert all(values == settings[0] for values in settings)
