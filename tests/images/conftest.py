"""Fixtures of the images room."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


def _load_awkward() -> ModuleType:
    """``tests/awkward.py``, by path: the test folders are no packages."""
    if "awkward" not in sys.modules:
        path = Path(__file__).parent.parent / "awkward.py"
        spec = importlib.util.spec_from_file_location("awkward", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["awkward"] = module
        spec.loader.exec_module(module)
    return sys.modules["awkward"]


@pytest.fixture(scope="session")
def awkward() -> ModuleType:
    """The module of awkward files, for its makers of images."""
    return _load_awkward()


@pytest.fixture
def awkward_folder(tmp_path: Path, awkward: ModuleType):
    """(folder, expectations) of the folder of awkward files."""
    folder = tmp_path / "awkward"
    return folder, awkward.make_awkward_folder(folder)


@pytest.fixture
def make_folder(tmp_path: Path, awkward: ModuleType):
    """``make_folder(names, at="photos")`` writes a small red JPEG under each name."""
    data = awkward.encode(awkward.colour_image("red", (8, 8)), "JPEG")

    def make(names, at: str = "photos") -> Path:
        root = tmp_path / at
        root.mkdir(parents=True, exist_ok=True)
        for name in names:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return root

    return make
