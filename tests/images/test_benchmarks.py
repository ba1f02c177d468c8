"""Benchmarks from files as their publishers ship them, on miniature copies."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest

from miniatures import MAKERS, MINIATURES, list_line, make_coco, make_imagenet, write
from spherequant.errors import LabelError, SourceError
from spherequant.images import open_source
from spherequant.images.benchmarks import BENCHMARKS, Benchmark
from spherequant.images.coco import CATEGORIES
from spherequant.images.mirflickr import CONCEPTS as MIRFLICKR_CONCEPTS
from spherequant.images.nuswide import CONCEPTS, NusWide, read_nuswide


@pytest.fixture(autouse=True)
def _miniatures(monkeypatch):
    for name, benchmark in MINIATURES.items():
        monkeypatch.setitem(BENCHMARKS, name, benchmark)


@pytest.fixture
def make(tmp_path, jpeg):
    """``make(name, ...)`` writes a miniature and returns its folder."""

    def run(name, **options):
        root = tmp_path / name
        MAKERS[name](root, jpeg, **options)
        return root

    return run


def labels_of(source):
    return {item.key: item.labels for item in source.items}


@pytest.mark.parametrize("name", MINIATURES)
def test_each_set_opens_by_name_and_its_images_are_read(name, make, tmp_path, monkeypatch):
    make(name)
    monkeypatch.setenv("SPHEREQUANT_DATA", str(tmp_path))
    with open_source(name) as source:
        assert (source.name, source.root, source.warnings) == (name, f"{name}:", ())
        keys = [item.key for item in source.items]
        assert keys == sorted(set(keys))
        assert all(key.startswith(f"{name}/") for key in keys)
        assert all(item.labels and item.size and item.mtime for item in source.items)
        assert {source.image(item).size for item in source.items} == {(8, 8)}
        assert "WARNING" not in source.label_note
    assert {item.labels for item in open_source(name, labels="none").items} == {()}
    for spec in (f"{name}:{tmp_path / name}", f"{name.replace('-', '_').upper()}:"):
        assert labels_of(open_source(spec)) == labels_of(source)
    with pytest.raises(LabelError, match="--labels auto or none"):
        open_source(name, labels="csv")


@pytest.mark.parametrize("name", MINIATURES)
def test_a_folder_that_is_not_there(name, tmp_path):
    with pytest.raises(SourceError) as caught:
        open_source(name, cache_dir=tmp_path)
    assert f"{name} is looked for in the folder {tmp_path / name}" in str(caught.value)
    assert f"{name}:FOLDER" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "first", "origin"),
    [
        ("nuswide-21", "ImageList/Imagelist.txt", "ImageList.zip"),
        ("nuswide-81", "Groundtruth/AllLabels/Labels_water.txt", "Groundtruth.zip"),
        ("imagenet-100", "test.txt", "the lists of HashNet's code"),
        ("coco", "annotations/instances_val2014.json", "annotations_trainval2014.zip"),
        (
            "mirflickr",
            "mirflickr25k_annotations_v080/sky.txt",
            "mirflickr25k_annotations_v080.zip",
        ),
    ],
)
def test_every_missing_file_is_named_where_it_belongs(name, first, origin, make, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(SourceError) as caught:
        open_source(name, cache_dir=tmp_path)
    assert f"\n  {tmp_path / name / first}  (from {origin})" in str(caught.value)
    assert "docs/benchmarks.md shows the tree" in str(caught.value)
    root = make(name)
    (root / first).unlink()
    with pytest.raises(SourceError, match=r"1 of the \d files that describe the images are miss"):
        open_source(name, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["imagenet-100", "coco", "mirflickr"])
def test_missing_images_of_a_fixed_set_are_an_error(name, make, tmp_path):
    root = make(name)
    gone = sorted(path for path in root.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(SourceError, match=r"2 of the \d+ images are missing: ") as caught:
        open_source(name, cache_dir=tmp_path)
    for path in gone:
        assert path.name in str(caught.value)
    assert f"any folder below {root} will do" in str(caught.value)


def test_missing_images_of_nuswide_are_a_loud_warning(make, tmp_path, jpeg):
    root = make("nuswide-81")
    for path in ("bear/0000_900.jpg", "cat/0021_921.jpg", "sky/0002_902.jpg", "sky/0006_906.jpg"):
        (root / "Flickr" / path).unlink()
    source = open_source("nuswide-81", cache_dir=tmp_path)
    (warning,) = source.warnings
    assert warning.startswith(
        f"nuswide-81: 4 of the 17 images are missing: {root}/Flickr/bear/0000_900.jpg, "
    )
    assert "sky/0006_906.jpg, ... (any folder" in warning
    assert source.label_note.endswith(f"WARNING: {warning}")
    assert len(source.items) == 13
    assert not source.complete  # a sync removes nothing
    shutil.rmtree(root / "Flickr")
    with pytest.raises(SourceError, match="17 of the 17 images are missing"):
        open_source("nuswide-81", cache_dir=tmp_path)


def test_nuswide(make, tmp_path):
    make("nuswide-21")
    make("nuswide-81", flat=True, ending="\n")
    some = open_source("nuswide-21", cache_dir=tmp_path)
    every = open_source("nuswide-81", cache_dir=tmp_path)
    assert (len(some.items), len(every.items)) == (16, 17)
    assert labels_of(some)["nuswide-21/bear/0000_900.jpg"] == ("bear", "cat")
    assert labels_of(every)["nuswide-81/bear/0000_900.jpg"] == ("bear", "cat", "sky", "water")
    assert {item.split for item in every.items} == {None}
    assert some.label_note.startswith("2 labels of nuswide-21: bear, cat;")
    assert "8 of 24 images without one of these labels left out" in some.label_note
    assert every.label_note.startswith("4 labels of nuswide-81: bear, cat, sky, water;")


def test_nuswide_files_that_are_not_the_published_ones(make, tmp_path):
    root = make("nuswide-21")
    labels = root / "Groundtruth/AllLabels/Labels_sky.txt"
    whole = labels.read_bytes()
    for data, message in [
        (whole[:-3], r"Labels_sky\.txt has 23 lines; the published file has 24\. Unpack it again"),
        (b"1\n2\n" + whole, "Labels_sky.txt line 2: expected 0 or 1, found b'2'"),
    ]:
        labels.write_bytes(data)
        with pytest.raises(LabelError, match=message):
            open_source("nuswide-21", cache_dir=tmp_path)
    labels.write_bytes(whole.replace(b"0", b"1"))
    (warning,) = open_source("nuswide-21", cache_dir=tmp_path).warnings
    assert "24 images with one of the 2 concepts, where the published set has 16" in warning
    names = root / "ImageList/Imagelist.txt"
    lines = names.read_bytes().split(b"\r\n")
    names.write_bytes(b"\r\n".join([*lines[:5], lines[0], *lines[6:]]))
    with pytest.raises(LabelError, match=r"line 6: bear/0000_900\.jpg is named a second time"):
        open_source("nuswide-21", cache_dir=tmp_path)


def test_lists_stand_in_for_the_publishers_files(make, tmp_path, jpeg):
    root = make("nuswide-81")
    names = [f"{i}_{i}_m.jpg" for i in range(10)]
    lines = [list_line(f"./data/nuswide_81/images/{n}", {i % 4}, 4) for i, n in enumerate(names)]
    for name, rows in (("test", lines[:2]), ("train", lines[2:6]), ("database", lines[2:])):
        write(root / f"{name}.txt", "\n".join(rows))
    for name in names:
        write(root / "images" / name, jpeg)
    source = open_source("nuswide-81", cache_dir=tmp_path)
    assert labels_of(source)["nuswide-81/3_3_m.jpg"] == ("water",)
    assert [item.split for item in source.items] == ["test"] * 2 + ["train"] * 4 + [None] * 4
    (root / "train.txt").unlink()
    with pytest.raises(SourceError, match="1 of the 3 files"):
        open_source("nuswide-81", cache_dir=tmp_path)


@pytest.mark.parametrize("val_folders", [False, True])
def test_imagenet(tmp_path, jpeg, val_folders):
    make_imagenet(tmp_path / "imagenet-100", jpeg, val_folders=val_folders)
    source = open_source("imagenet-100", cache_dir=tmp_path)
    assert [item.key for item in source.items][-1].endswith("/ILSVRC2012_val_00000021.JPEG")
    assert [item.split for item in source.items].count("test") == 2
    assert [item.split for item in source.items].count("train") == 4


def test_coco(make, tmp_path, jpeg):
    root = make("coco")
    source = open_source("coco", cache_dir=tmp_path)
    assert labels_of(source) == {
        "coco/train2014/COCO_train2014_train00000050.jpg": ("cat",),
        "coco/train2014/COCO_train2014_train00000051.jpg": ("dog",),
        "coco/train2014/COCO_train2014_train00000052.jpg": ("teddy bear",),
        "coco/val2014/COCO_val2014_val00000050.jpg": ("cat",),
        "coco/val2014/COCO_val2014_val00000051.jpg": ("dog",),
    }
    assert [item.split for item in source.items] == ["train"] * 3 + ["val"] * 2
    assert "(COCO 2014); 1 images without a label left out" in source.label_note
    make_coco(root, jpeg, "2017")
    assert "(COCO 2014)" in open_source("coco", cache_dir=tmp_path).label_note
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}2014.json").unlink()
    assert "(COCO 2017)" in open_source("coco", cache_dir=tmp_path).label_note


def twice(data):
    data["images"][1]["file_name"] = data["images"][0]["file_name"]


def outside(data):
    data["images"][1]["file_name"] = "../secret.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["images"].pop(3), "names 3 images; the published file has 4"),
        (lambda data: data["images"].pop(0), r"not in the format .* \(KeyError: 50\)"),
        (lambda data: data.pop("categories"), "not in the format of COCO's instances"),
        (lambda data: data["categories"].pop(), "not in the format"),
        (lambda data: data["categories"].append({"id": 9, "name": "fox"}), "has 4 categories"),
        (lambda data: data.update(images=5), "not in the format"),
        (twice, "names an image twice"),
        (outside, "line 2: '../secret.jpg' has '..'"),
    ],
)
def test_coco_annotations_that_are_not_the_published_ones(make, tmp_path, change, message):
    path = make("coco") / "annotations/instances_train2014.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(LabelError, match=message):
        open_source("coco", cache_dir=tmp_path)


@pytest.mark.parametrize("data", [b"", b"[", b"\xff", b"[]", b"[" * 100_000])
def test_coco_annotations_that_are_no_json(make, tmp_path, data):
    (make("coco") / "annotations/instances_train2014.json").write_bytes(data)
    with pytest.raises(LabelError, match="not in the format of COCO's instances"):
        open_source("coco", cache_dir=tmp_path)


def test_mirflickr(make, tmp_path):
    root = make("mirflickr")
    source = open_source("mirflickr", cache_dir=tmp_path)
    assert labels_of(source) == {
        "mirflickr/im1.jpg": ("baby",),
        "mirflickr/im2.jpg": ("baby",),
        "mirflickr/im3.jpg": ("baby", "sky"),
        "mirflickr/im6.jpg": ("sky",),
    }
    assert "2 images without a label left out" in source.label_note
    for text in ("0", "7", "x", "-1", "²", "9" * 5000):
        write(root / "mirflickr25k_annotations_v080/sky.txt", f"3\n{text}\n")
        with pytest.raises(LabelError, match=r"sky\.txt line 2: .* 1 to 6, found"):
            open_source("mirflickr", cache_dir=tmp_path)


def test_links(make, tmp_path, jpeg):
    root = make("mirflickr")
    write(tmp_path / "outside/im1.jpg", jpeg)
    first = root / "mirflickr/im1.jpg"
    first.unlink()
    first.symlink_to(tmp_path / "outside/im1.jpg")
    with pytest.raises(SourceError) as caught:
        open_source("mirflickr", cache_dir=tmp_path)
    assert "1 of the 6 images are missing" in str(caught.value)
    assert "passed over, such as mirflickr/im1.jpg: a link that leads out" in str(caught.value)
    first.unlink()
    write(root / "elsewhere/1.jpg", jpeg)
    first.symlink_to(root / "elsewhere/1.jpg")
    assert len(open_source("mirflickr", cache_dir=tmp_path).items) == 4
    (tmp_path / "linked").symlink_to(root)
    assert len(open_source(f"mirflickr:{tmp_path / 'linked'}").items) == 4


def test_the_public_sizes(monkeypatch):
    monkeypatch.undo()
    assert list(BENCHMARKS) == ["nuswide-21", "nuswide-81", "imagenet-100", "coco", "mirflickr"]
    for names, count in ((CONCEPTS, 81), (CATEGORIES, 80), (MIRFLICKR_CONCEPTS, 24)):
        assert len(names) == count
        assert list(names) == sorted(names)
    assert CATEGORIES.index("person") == 49  # as in HashNet's lists
    sizes = {name: one.lists for name, one in BENCHMARKS.items()}
    assert (sizes["nuswide-81"].columns, sizes["nuswide-81"].labelled) == (81, 173_692)
    assert (sizes["nuswide-21"].columns, sizes["nuswide-21"].labelled) == (21, 195_834)


def test_nuswide_takes_the_21_most_frequent_of_its_81_concepts(tmp_path, monkeypatch, jpeg):
    """Image i has concept c where i % (c + 1) is 0, c counted from the last in the alphabet."""
    sizes = NusWide(images=60, concepts=CONCEPTS, frequent=21, labelled=60)
    benchmark = Benchmark(partial(read_nuswide, sizes=sizes))
    monkeypatch.setitem(BENCHMARKS, "nuswide-21", benchmark)
    write(tmp_path / "Imagelist.txt", "\r".join(f"actor\\{i:04}.jpg" for i in range(60)))
    for c, concept in enumerate(reversed(CONCEPTS)):
        flags = ["01"[i % (c + 1) == 0] for i in range(60)]
        write(tmp_path / f"AllLabels/Labels_{concept}.txt", "\r".join(flags))
    for i in range(60):
        write(tmp_path / f"{i:04}.jpg", jpeg)
    source = open_source(f"nuswide-21:{tmp_path}")
    assert source.warnings == ()
    counts = {name: -(-60 // (c + 1)) for c, name in enumerate(reversed(CONCEPTS))}
    expected = sorted(counts, key=lambda name: (-counts[name], name))[:21]
    assert {label for item in source.items for label in item.labels} == set(expected)
    assert source.items[0].labels == tuple(sorted(expected))
