"""What an index takes in memory and on disk, counted while others write in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an index takes.

    Attributes:
        items: in the index.
        bytes_per_item: bytes of a code, M.
        bytes_memory: bytes that a searcher holds in memory.
        bytes_disk: bytes of all files.
        bytes_thumbnails: bytes of the thumbnails among them.
        bytes_originals: bytes of the files that were kept.
    """

    items: int
    bytes_per_item: int
    bytes_memory: int
    bytes_disk: int
    bytes_thumbnails: int
    bytes_originals: int


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
