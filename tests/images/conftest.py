"""Fixtures of the images room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


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


@pytest.fixture
def jpeg(awkward: ModuleType) -> bytes:
    """A small red JPEG."""
    return awkward.encode(awkward.colour_image("red", (8, 8)), "JPEG")
