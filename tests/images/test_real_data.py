"""Real image sets, where SPHEREQUANT_DATA names their folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from spherequant.images import Skip, make_split, open_source, stream
from spherequant.images.benchmarks import BENCHMARKS, Benchmark
from spherequant.images.coco import Coco, read_coco

pytestmark = pytest.mark.data


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("SPHEREQUANT_DATA")
    if not folder:
        pytest.skip("SPHEREQUANT_DATA names no folder of image sets")
    return Path(folder)


def test_cifar10(data):
    with open_source(data / "cifar10.zip") as source:
        assert source.name == "cifar10"
        assert len(source.items) == 60_000
        assert not source.skips
        assert Counter(item.split for item in source.items) == {"train": 50_000, "test": 10_000}
        assert len({item.labels for item in source.items}) == 10
        assert source.label_note.startswith("10 folder names as labels: airplane, automobile")
        for protocol, database in [("54k", 54_000), ("59k", 59_000), ("full", 50_000)]:
            assert len(make_split(source.items, f"cifar10-{protocol}").database) == database
        some = source.items[:: 60_000 // 500]
        found = list(stream(source, some, lambda _, image: np.asarray(image), workers=2))
        assert [outcome[0] for outcome in found] == list(some)
        assert {outcome[1].shape for outcome in found} == {(32, 32, 3)}


def test_tiny_imagenet(data):
    with open_source(data / "tiny-imagenet.zip") as source:
        assert {item.split for item in source.items} == {"train", "val"}
        assert all(len(item.labels) == 1 for item in source.items)
        assert [(skip.path, skip.reason) for skip in source.skips] == [
            ("classes.txt", "not an image")
        ]
        split = make_split(source.items, "unseen-classes")
        classes = {item.labels for item in source.items}
        assert len(split.unseen_classes) == -(-len(classes) // 4)


def test_tinycoco(data):
    with open_source(data / "tinycoco-multilabel.zip") as source:
        assert len(source.items) == 97
        assert not source.skips
        item = source.items[0]
        assert item.key == "images/000000005802.jpg"
        assert item.labels == ("backpack", "bottle", "bowl", "cup", "knife", "person")
        assert max(len(item.labels) for item in source.items) > 3
        assert source.label_note.startswith("labels.csv: ")
        found = list(stream(source, source.items, lambda _, image: image.mode, workers=2))
        assert not any(isinstance(outcome, Skip) for outcome in found)
        assert {outcome[1] for outcome in found} == {"RGB"}


def test_tinycoco_laid_out_as_coco_2017(data, tmp_path, monkeypatch):
    """The same images and labels, through COCO's own folders and annotation files."""
    with open_source(data / "tinycoco-multilabel.zip") as source:
        labels = {item.key.rpartition("/")[2]: item.labels for item in source.items}
        names = sorted({name for row in labels.values() for name in row})
        for split, items in (("train", source.items[:90]), ("val", source.items[90:])):
            images = [{"id": i, "file_name": Path(item.key).name} for i, item in enumerate(items)]
            for image, item in zip(images, items, strict=True):
                file = tmp_path / f"{split}2017" / str(image["file_name"])
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(source.read(item))
            annotations = [
                {"image_id": i, "category_id": names.index(name)}
                for i, item in enumerate(items)
                for name in item.labels
            ]
            categories = [{"id": c, "name": name} for c, name in enumerate(names)]
            file = tmp_path / f"annotations/instances_{split}2017.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(
                json.dumps({"images": images, "annotations": annotations, "categories": categories})
            )
    sizes = Coco({"2014": (1, 1), "2017": (90, 7)}, 97, tuple(names))
    monkeypatch.setitem(BENCHMARKS, "coco", Benchmark(partial(read_coco, sizes=sizes)))
    with open_source(f"coco:{tmp_path}") as source:
        assert source.warnings == ()
        assert {item.key.rpartition("/")[2]: item.labels for item in source.items} == labels
        assert Counter(item.split for item in source.items) == {"train": 90, "val": 7}
        assert source.image(source.items[0]).mode == "RGB"
        split = make_split(source.items)
        assert (len(split.queries), len(split.database)) == (7, 90)
