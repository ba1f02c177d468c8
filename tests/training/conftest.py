"""Small trainings that several modules of this room look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

from spherequant.images import open_source
from spherequant.training import Model, TrainConfig, train

Row = tuple[str, np.ndarray, tuple[str, ...] | None]

# A few seconds on one core: 360 digits, five passes of 16 x 16 pixels in float32.
QUICK = TrainConfig(
    bits=16, image_size=16, dim=16, epochs=5, batch_size=48, precision="float32", seed=0
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded by accident: as with HF_HUB_OFFLINE=1."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def digits() -> list[Row]:
    """Every digit of scikit-learn's set: key, uint8 [8, 8, 3], label."""
    with open_source("digits") as source:
        return [(item.key, np.asarray(source.image(item)), item.labels) for item in source.items]


@pytest.fixture(scope="session")
def some_digits(digits: list[Row]) -> list[Row]:
    """Every fifth of them."""
    return digits[::5]


@pytest.fixture(scope="session")
def digits_model(some_digits: list[Row]) -> Model:
    """A real model of 360 digits. Tests do not change it."""
    return train(some_digits, QUICK)


def images_of(rows: list[Row]) -> list[Any]:
    """The pictures alone."""
    return [image for _, image, _ in rows]
