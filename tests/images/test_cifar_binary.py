"""CIFAR-10's binary version, in miniature."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from spherequant.errors import InputError, SourceError
from spherequant.images import Limits, decode, open_source
from spherequant.images import cifar_binary as module

NAMES = (*"abcdefghi", "truck")
FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(module, "IMAGES_A_FILE", 10)


@pytest.fixture
def files():
    """Image i of file f has the label i, and (f, i, 200) as its colour everywhere."""
    found = {"batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode()}
    for f, name in enumerate(FILES):
        records = np.empty((10, 3073), np.uint8)
        records[:, 0] = np.arange(10)
        records[:, 1:1025] = f
        records[:, 1025:2049] = np.arange(10)[:, None]
        records[:, 2049:] = 200
        found[name] = records.tobytes()
    return found


def write_folder(root, files):
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


def write_archive(path, files, kind=tarfile.REGTYPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return path


def test_folder_and_archive_are_the_same_set(tmp_path, files):
    folder = write_folder(tmp_path / "a/cifar10/cifar-10-batches-bin", files)
    archive = write_archive(tmp_path / "b/cifar10/cifar-10-binary.tar.gz", files)
    source = open_source("cifar10", cache_dir=tmp_path / "a")
    assert (source.name, source.root, len(source.items)) == ("cifar10", "cifar10:", 60)
    by_key = {item.key: item for item in source.items}
    item = by_key["cifar10/train/000023.png"]
    assert (item.labels, item.split) == (("d",), "train")
    assert by_key["cifar10/test/000009.png"].labels == ("truck",)
    pixels = np.asarray(source.image(item))
    assert pixels.shape == (32, 32, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[2, 3, 200]]
    assert np.array_equal(np.asarray(decode(source.read(item))), pixels)
    with pytest.raises(InputError, match="--max-pixels 1024"):
        source.image(item, Limits(max_pixels=1))
    sizes = []
    source.image(item, reserve=sizes.append)
    assert sizes == [4096]
    for spec in (f"cifar10:{folder}", f"cifar10:{archive}", f"cifar10:{archive.parent}"):
        other = open_source(spec)
        assert other.items == source.items
        assert other.read(item) == source.read(item)
    assert {i.labels for i in open_source(f"cifar10:{archive}", labels="none").items} == {()}


def test_files_that_are_not_the_published_ones(tmp_path, files):
    root = tmp_path / "cifar-10-batches-bin"
    for name, data, message in [
        ("test_batch.bin", files["test_batch.bin"][:-1], "only 30,729 bytes, not 30,730"),
        ("test_batch.bin", files["test_batch.bin"] + b"x", "more bytes, not 30,730"),
        ("data_batch_2.bin", b"\x0a" + files["test_batch.bin"][1:], "a label above 9"),
        ("batches.meta.txt", b"cat\n", "names 1 classes, not 10"),
    ]:
        write_folder(root, {**files, name: data})
        with pytest.raises(SourceError, match=message):
            open_source(f"cifar10:{root}")
    (root / "data_batch_3.bin").unlink()
    with pytest.raises(SourceError, match=r"data_batch_3\.bin cannot be read: No such file"):
        open_source(f"cifar10:{root}")


def test_archives_that_are_not_the_published_one(tmp_path, files):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, {name: files[name] for name in FILES})
    with pytest.raises(SourceError, match=r"lacks batches\.meta\.txt"):
        open_source(f"cifar10:{path}")
    write_archive(path, dict.fromkeys(files, b""), tarfile.SYMTYPE)
    with pytest.raises(SourceError, match=r"lacks data_batch_1\.bin"):
        open_source(f"cifar10:{path}")
    path.write_bytes(write_archive(path, files).read_bytes()[:-400])
    with pytest.raises(SourceError, match="is damaged"):
        open_source(f"cifar10:{path}")
    path.write_bytes(b"no archive")
    with pytest.raises(SourceError, match="is damaged"):
        open_source(f"cifar10:{path}")
    other = tmp_path / "cifar-10-python.tar.gz"
    other.write_bytes(b"")
    with pytest.raises(SourceError, match=r"is not cifar-10-binary\.tar\.gz\. Give that archive"):
        open_source(f"cifar10:{other}")


def test_the_python_version_goes_first(tmp_path, files):
    write_folder(tmp_path / "cifar-10-batches-bin", files)
    assert module.find_binary(tmp_path) == tmp_path / "cifar-10-batches-bin"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert module.find_binary(tmp_path) is None
    assert module.find_binary(tmp_path / "gone") is None
