"""What the tests of several rooms share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import awkward as awkward_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Bits of networks may depend on the number of threads: one, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def awkward() -> ModuleType:
    """The module of awkward files, for its makers of images."""
    return awkward_files
