from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from grid_records import Cell, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

CELL = Cell(
    protocol="cifar10-54k",
    method="dsq",
    bits=32,
    seed=0,
    settings={},
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
    maps={},
    ap={},
    queries="0" * 64,
    machine="2 threads",
    date="2026-11-22",
)


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    """Make a cell of the grid from the average precision of each query, by what was ranked."""

    def make(ap: dict[str, np.ndarray], **changes: object) -> Cell:
        return dataclasses.replace(
            CELL,
            maps={name: float(values.mean()) for name, values in ap.items()},
            ap={name: pack(values) for name, values in ap.items()},
            query_count=len(next(iter(ap.values()))),
            **changes,
        )

    return make
