"""Images of several labels that are made of images of one."""

from __future__ import annotations

import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mosaics import GREY, TILE, write_mosaics
from spherequant.images import make_split, open_source

CLASSES = {"a": 10, "b": 60, "c": 110, "d": 160, "e": 210}
IMAGES = 4  # of each class and split


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Images of one grey each, which names class, split and number."""
    path = tmp_path_factory.mktemp("mosaics") / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for at, split in enumerate(("train", "test")):
            for label, level in CLASSES.items():
                for number in range(IMAGES):
                    tile = Image.new("RGB", (TILE, TILE), (level + number, at, 7))
                    with file.open(f"{split}/{label}/{number}.png", "w") as entry:
                        tile.save(entry, "PNG")
    return path


def tiles(path):
    """Class, split and number of the tiles that are not empty."""
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (2 * TILE, 2 * TILE, 3)
    found = []
    for y in (0, TILE):
        for x in (0, TILE):
            tile = pixels[y : y + TILE, x : x + TILE].reshape(-1, 3)
            assert (tile == tile[0]).all()
            if tuple(tile[0]) != GREY:
                level, split, _ = tile[0].tolist()
                found.append((level // 10 * 10, split, level % 10))
    return found


def test_mosaics(archive, tmp_path):
    write_mosaics(archive, tmp_path, {"train": 40, "test": 10}, seed=1)
    with open_source(tmp_path) as source:
        assert Counter(item.split for item in source.items) == {"train": 40, "test": 10}
        assert {len(item.labels) for item in source.items} == {1, 2, 3, 4}
        dealt: Counter[tuple[int, int]] = Counter()
        for item in source.items:
            shown = tiles(tmp_path / item.key)
            assert {level for level, _, _ in shown} == {CLASSES[label] for label in item.labels}
            assert len(shown) == len(item.labels)
            assert {split for _, split, _ in shown} == {0 if item.split == "train" else 1}
            dealt.update((level, number) for level, split, number in shown if split == 0)
        for level in CLASSES.values():
            of_class = [dealt[level, number] for number in range(IMAGES)]
            assert max(of_class) - min(of_class) <= 1, "dealt like cards"
        assert len(make_split(source.items).queries) == 10


def test_equal_seeds_give_equal_mosaics(archive, tmp_path):
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_mosaics(archive, tmp_path / folder, {"train": 5}, seed)
    tables = [(tmp_path / name / "labels.csv").read_text() for name in ("one", "two", "three")]
    assert tables[0] == tables[1] != tables[2]
    names = [tmp_path / name / "train/00004.png" for name in ("one", "two")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_whole_folder_is_left_alone(archive, tmp_path):
    write_mosaics(archive, tmp_path, {"train": 3})
    (tmp_path / "train/00000.png").write_bytes(b"kept")
    write_mosaics(archive, tmp_path, {"train": 3})
    assert (tmp_path / "train/00000.png").read_bytes() == b"kept"
