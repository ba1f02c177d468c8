"""What a folder takes on disk, counted while others write in it."""

from __future__ import annotations

import os
from pathlib import Path


def bytes_on_disk(folder: Path) -> int:
    """Bytes of all files below ``folder``.

    Upkeep, here or in another process, may delete old versions meanwhile: a file or folder that
    vanishes during the walk counts nothing (``os.walk`` passes over vanished folders itself).
    """
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total
