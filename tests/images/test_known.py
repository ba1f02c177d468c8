"""Known sets: scikit-learn's digits, and torchvision's own formats made by hand."""

from __future__ import annotations

import hashlib
import pickle
import struct
import urllib.error

import numpy as np
import pytest

from spherequant.errors import InputError, LabelError, SourceError
from spherequant.images import KNOWN_SETS, Limits, decode, open_source
from spherequant.images.known import default_cache


def test_digits():
    with open_source("digits") as source:
        assert (source.name, source.root) == ("digits", "digits:")
        assert len(source.items) == 1797
        assert {label for item in source.items for label in item.labels} == set("0123456789")
        assert {item.split for item in source.items} == {None}
        assert source.label_note.startswith("10 labels of digits: 0, 1, 2")
        keys = [item.key for item in source.items]
        assert keys == sorted(keys)
        assert "digits/0/0000.png" in keys  # the first digit of the set is a zero
        item = next(item for item in source.items if item.key == "digits/0/0000.png")
        assert source.read(item).startswith(b"\x89PNG")
        assert item.size == len(source.read(item))
        pixels = np.asarray(source.image(item))
        assert pixels.shape == (8, 8, 3)
        assert pixels[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0, 0, 5, 13, 9, 1 of 16


def test_digits_without_labels_and_with_impossible_ones():
    assert {item.labels for item in open_source("digits", labels="none").items} == {()}
    for mode in ("folders", "csv"):
        with pytest.raises(LabelError, match="--labels auto or none"):
            open_source("digits", labels=mode)


def write_mnist(root, counts) -> np.ndarray:
    """MNIST's idx files under ``root``; every pixel of image i is i."""
    folder = root / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in counts.items():
        images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, count, 28, 28) + images.tobytes()
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 2049, count) + labels.tobytes()
        )


def test_a_torchvision_set_from_its_own_files(tmp_path):
    write_mnist(tmp_path, {"train": 25, "t10k": 12})
    source = open_source("mnist", cache_dir=tmp_path)
    assert (source.name, source.root) == ("mnist", "mnist:")
    assert len(source.items) == 37
    by_key = {item.key: item for item in source.items}
    item = by_key["mnist/train/000013.png"]
    assert (item.labels, item.split) == (("3 - three",), "train")
    assert by_key["mnist/test/000011.png"].split == "test"
    pixels = np.asarray(source.image(item))
    assert pixels.shape == (28, 28, 3)
    assert np.all(pixels == 13)
    assert np.array_equal(np.asarray(decode(source.read(item))), pixels)
    assert source.read(item) == source.read(item)
    with pytest.raises(InputError, match="--max-pixels 784"):
        source.image(item, Limits(max_pixels=1))
    sizes = []
    source.image(item, reserve=sizes.append)
    assert sizes == [4 * 784]


def test_cifar10_from_its_pickled_batches(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def put(name, value) -> str:
        data = pickle.dumps(value)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(count):
        return {"data": np.zeros((count, 3072), np.uint8), "labels": [i % 10 for i in range(count)]}

    names = [f"class{i}" for i in range(10)]
    train, test = put("data_batch_1", batch(20)), put("test_batch", batch(10))
    meta = {**CIFAR10.meta, "md5": put("batches.meta", {"label_names": names})}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", train]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", test]])
    monkeypatch.setattr(CIFAR10, "meta", meta)

    source = open_source("CIFAR-10", cache_dir=tmp_path)
    assert len(source.items) == 30
    assert {label for item in source.items for label in item.labels} == set(names)
    assert sum(item.split == "test" for item in source.items) == 10
    unlabelled = open_source("cifar10:", labels="none", cache_dir=tmp_path)
    assert {item.labels for item in unlabelled.items} == {()}
    assert unlabelled.label_note == "no labels, as asked"


def test_the_order_of_a_file_system_numbers_nothing(tmp_path, make_folder, monkeypatch):
    names = ["a/abbey/sun_b.jpg", "a/abbey/sun_a.jpg", "l/lake/natural/sun_c.jpg"]
    folder = make_folder(names, at="sun397/SUN397")
    (folder / "ClassName.txt").write_text("/a/abbey\n/l/lake/natural\n")
    found = {}
    for order in (1, -1):
        listed = [folder / name for name in names][::order]
        monkeypatch.setattr(type(folder), "rglob", lambda *_, listed=listed: iter(listed))
        source = open_source("sun397", cache_dir=tmp_path)
        monkeypatch.undo()
        found[order] = [(item.key, item.labels, source.read(item)) for item in source.items]
    assert found[1] == found[-1]
    assert [labels for _, labels, _ in found[1]] == [("abbey",), ("abbey",), ("lake/natural",)]


def test_a_set_of_files_without_splits(tmp_path, make_folder):
    make_folder(["Forest/1.jpg", "River/1.jpg"], at="eurosat/eurosat/2750")
    source = open_source("eurosat", cache_dir=tmp_path)
    assert [(i.key, i.labels, i.split) for i in source.items] == [
        ("eurosat/000000.png", ("Forest",), None),
        ("eurosat/000001.png", ("River",), None),
    ]
    (tmp_path / "eurosat/eurosat/2750/River/1.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="torchvision cannot read it"):
        source.image(source.items[1])


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("Temporary failure in name resolution"),
        RuntimeError("Error downloading train-images-idx3-ubyte.gz"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_no_network_names_the_cure_and_keeps_stdout_clean(tmp_path, monkeypatch, capsys, failure):
    from torchvision.datasets import MNIST

    def download(self):
        print("Downloading ...")  # noqa: T201 - as torchvision does
        raise failure

    monkeypatch.setattr(MNIST, "download", download)
    with pytest.raises(SourceError) as caught:
        open_source("mnist", cache_dir=tmp_path)
    message = str(caught.value)
    assert "mnist is not in" in message
    assert "could not be downloaded" in message
    assert "put torchvision's files of MNIST into that folder" in message
    assert capsys.readouterr().out == ""


def test_every_name_is_a_torchvision_set_of_that_constructor():
    import inspect

    from torchvision import datasets

    from spherequant.images.benchmarks import BENCHMARKS
    from spherequant.images.known import _TORCHVISION

    assert ("digits", *_TORCHVISION, *BENCHMARKS) == KNOWN_SETS
    for kind, splits in _TORCHVISION.values():
        parameters = inspect.signature(getattr(datasets, kind)).parameters
        assert {"root", "download"} <= set(parameters)
        for arguments in splits.values():
            assert set(arguments) <= set(parameters)


def test_the_folder_of_a_set_after_a_colon(tmp_path):
    write_mnist(tmp_path, {"train": 3, "t10k": 2})
    assert len(open_source(f"mnist:{tmp_path / 'mnist'}").items) == 5
    with pytest.raises(SourceError, match="digits comes with scikit-learn"):
        open_source(f"digits:{tmp_path}")


def test_where_downloads_go(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "spherequant"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "spherequant"
