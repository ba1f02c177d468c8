"""Miniature copies of the benchmarks, with the structure of the published files."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from spherequant.images.benchmarks import Benchmark
from spherequant.images.coco import Coco, read_coco
from spherequant.images.hashing_lists import ListSizes, read_lists
from spherequant.images.mirflickr import MirFlickr, read_mirflickr
from spherequant.images.nuswide import NusWide, read_nuswide

if TYPE_CHECKING:
    from pathlib import Path

CONCEPTS = ("bear", "cat", "sky", "water")
CATEGORIES = ("cat", "dog", "teddy bear")
WNIDS = ("n01440764", "n02123394")

# Of 24 images, image i has concept c where i % (c + 2) == 0: 12 bear, 8 cat, 6 sky, 5 water.
NUSWIDE = NusWide(images=24, concepts=CONCEPTS, frequent=2, labelled=16)
LISTS = ListSizes(columns=2, test=2, train=(4,), labelled=10)

MINIATURES = {
    "nuswide-21": Benchmark(
        partial(read_nuswide, sizes=NUSWIDE),
        ListSizes(2, 2, (4,), 10),
        may_lack_images=True,
    ),
    "nuswide-81": Benchmark(
        partial(read_nuswide, sizes=NusWide(24, CONCEPTS, 4, 17)),
        ListSizes(4, 2, (4,), 10, CONCEPTS),
        may_lack_images=True,
    ),
    "imagenet-100": Benchmark(partial(read_lists, sizes=LISTS)),
    "coco": Benchmark(
        partial(read_coco, sizes=Coco({"2014": (4, 2), "2017": (5, 1)}, 5, CATEGORIES)),
        ListSizes(3, 1, (2,), 4, CATEGORIES),
    ),
    "mirflickr": Benchmark(partial(read_mirflickr, sizes=MirFlickr(6, ("baby", "sky"), 4))),
}


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def nuswide_names() -> list[str]:
    return [f"{CONCEPTS[i % 4]}/{i:04}_{900 + i}.jpg" for i in range(NUSWIDE.images)]


def make_nuswide(root: Path, image: bytes, *, flat: bool = False, ending: str = "\r\n") -> None:
    names = nuswide_names()
    lines = [name.replace("/", "\\") for name in names]
    write(root / "ImageList/Imagelist.txt", ending.join(lines) + ending)
    for c, concept in enumerate(CONCEPTS):
        flags = ["01"[i % (c + 2) == 0] for i in range(len(names))]
        write(root / f"Groundtruth/AllLabels/Labels_{concept}.txt", ending.join(flags) + ending)
    for name in names:
        write(root / "Flickr" / (name.rpartition("/")[2] if flat else name), image)


def list_line(path: str, classes: set[int], columns: int) -> str:
    return " ".join([path, *("01"[column in classes] for column in range(columns))])


def imagenet_rows() -> tuple[list[tuple[str, int]], ...]:
    """Path and class of the test, train and database lists; classes are not in alphabetic order."""
    test = [("val_image/ILSVRC2012_val_00000007.JPEG", 0)]
    test += [("val_image/ILSVRC2012_val_00000021.JPEG", 1)]
    database = [(f"image/{WNIDS[1 - c]}_{i}.JPEG", c) for c in (0, 1) for i in range(4)]
    return test, database[:2] + database[4:6], database


def make_imagenet(
    root: Path, image: bytes, *, start: str = "/home/someone/imagenet/", val_folders: bool = False
) -> None:
    test, train, database = imagenet_rows()
    for name, rows in (("test", test), ("train", train), ("database", database)):
        lines = [list_line(start + path, {c}, 2) for path, c in rows]
        write(root / f"{name}.txt", "\n".join(lines) + "\n")
    for path, c in test:
        folder = f"val/{WNIDS[1 - c]}" if val_folders else "val"
        write(root / folder / path.rpartition("/")[2], image)
    for path, c in database:
        write(root / "train" / WNIDS[1 - c] / path.rpartition("/")[2], image)


def coco_instances(split: str, count: int, year: str) -> dict:
    """Image i has category i % 4, of which the fourth stands for none."""
    start = f"COCO_{split}{year}_" if year == "2014" else ""
    ids = range(50, 50 + count)
    return {
        "info": {"year": int(year)},
        "images": [{"id": i, "file_name": f"{start}{split}{i:08}.jpg"} for i in ids],
        "annotations": [
            {"image_id": i, "category_id": 1 + (i - 50) % 4, "segmentation": [[1, 2, 3]]}
            for i in ids
            for _ in range(2)
            if (i - 50) % 4 < 3
        ],
        "categories": [{"id": c + 1, "name": name} for c, name in enumerate(CATEGORIES)],
    }


def make_coco(root: Path, image: bytes, year: str = "2014") -> None:
    for split, count in zip(("train", "val"), (4, 2) if year == "2014" else (5, 1), strict=True):
        data = coco_instances(split, count, year)
        write(root / f"annotations/instances_{split}{year}.json", json.dumps(data))
        for row in data["images"]:
            write(root / f"{split}{year}" / row["file_name"], image)


def make_mirflickr(root: Path, image: bytes) -> None:
    folder = root / "mirflickr25k_annotations_v080"
    write(folder / "baby.txt", "1\n2\n3\n")
    write(folder / "sky.txt", "3\r\n6\r\n")
    write(folder / "sky_r1.txt", "6\n")
    write(folder / "README.txt", "read me\n")
    for number in range(1, 7):
        write(root / f"mirflickr/im{number}.jpg", image)


MAKERS = {
    "nuswide-21": make_nuswide,
    "nuswide-81": make_nuswide,
    "imagenet-100": make_imagenet,
    "coco": make_coco,
    "mirflickr": make_mirflickr,
}
