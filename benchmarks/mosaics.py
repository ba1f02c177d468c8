"""Images of several labels, made of images of one: mosaics of CIFAR-10 in a folder with a table.

A mosaic has 2 x 2 tiles of 32 pixels. One to four images of different classes take tiles at random;
the other tiles are grey. Tiles of `train/` come from CIFAR-10's training images and tiles of
`test/` from its test images, so no query shares a pixel with what was trained on. Images of a class
are dealt like cards: none comes a second time before every other has come once.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TILE = 32  # pixels
PLACES = ((0, 0), (TILE, 0), (0, TILE), (TILE, TILE))
GREY = (124, 124, 124)
# Shares of mosaics with one, two, three and four labels: with more of the many, most pairs of
# mosaics would share a label, and any ranking would look good.
SHARES = (0.4, 0.3, 0.2, 0.1)
TABLE = "labels.csv"


def write_mosaics(archive: Path, folder: Path, counts: Mapping[str, int], seed: int = 0) -> None:
    """Write `SPLIT/NNNNN.png` for each split, and `labels.csv`, unless the table is there already.

    Args:
        archive: a .zip of `SPLIT/CLASS/NAME` images of 32 pixels.
        folder: to write into; the table comes last, so a folder that has one is whole.
        counts: mosaics of each split.
        seed: of the mosaics.
    """
    if (folder / TABLE).exists():
        return
    rows: list[tuple[str, str]] = []
    with zipfile.ZipFile(archive) as images:
        for number, (split, count) in enumerate(counts.items()):
            rng = np.random.default_rng((seed, number))
            dealt = _dealt(images, split, rng)
            (folder / split).mkdir(parents=True, exist_ok=True)
            for mosaic in range(count):
                path = f"{split}/{mosaic:05d}.png"
                labels = _write_mosaic(images, folder / path, dealt, rng)
                rows.append((path, "|".join(labels)))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "labels"), *rows])
    (folder / TABLE).write_text(text.getvalue(), encoding="utf-8")


def _dealt(
    images: zipfile.ZipFile, split: str, rng: np.random.Generator
) -> dict[str, Iterator[str]]:
    """Names of images without end, for each class."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images.namelist()):
        parts = name.split("/")
        if parts[0] == split and len(parts) == 3 and parts[2]:
            names[parts[1]].append(name)
    return {
        label: chain.from_iterable(repeat([of[i] for i in rng.permutation(len(of))]))
        for label, of in sorted(names.items())
    }


def _write_mosaic(
    images: zipfile.ZipFile,
    file: Path,
    dealt: Mapping[str, Iterator[str]],
    rng: np.random.Generator,
) -> list[str]:
    """Write one mosaic; return its labels."""
    count = 1 + int(rng.choice(len(SHARES), p=SHARES))
    labels = sorted(rng.choice(sorted(dealt), count, replace=False).tolist())
    mosaic = Image.new("RGB", (2 * TILE, 2 * TILE), GREY)
    for label, place in zip(labels, rng.permutation(len(PLACES))[:count], strict=True):
        with Image.open(io.BytesIO(images.read(next(dealt[label])))) as tile:
            mosaic.paste(tile.convert("RGB"), PLACES[place])
    mosaic.save(file, compress_level=1)
    return labels
