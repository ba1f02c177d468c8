"""What the tests of several rooms share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import awkward as awkward_files

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="session")
def awkward() -> ModuleType:
    """The module of awkward files, for its makers of images."""
    return awkward_files
