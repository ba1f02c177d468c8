from __future__ import annotations

import os
import shutil
import tarfile
import unicodedata
import zipfile
from hashlib import sha256

import lance
import pytest

from spherequant.errors import InputError, OriginalError, UnknownKeyError
from spherequant.images import Limits
from spherequant.index import Index
from spherequant.index.originals import SourceFiles


@pytest.fixture
def photos(tmp_path, write_pictures):
    write_pictures(tmp_path / "photos", {"a/1.png": 1, "a/2.png": 2, "b/3.png": 3})
    return tmp_path / "photos"


def test_kept_bytes_come_back_with_size_and_digest(photo_index, picture):
    photo_index.add(
        ["kept", "not"], images=[picture(1), picture(2)], originals=[b"\0file" * 9, None]
    )
    kept, other = photo_index.get(["kept", "not"])
    assert (kept.size, kept.digest) == (45, sha256(b"\0file" * 9).hexdigest())
    assert (kept.has_original, other.has_original, other.digest) == (True, False, None)
    assert photo_index.original("kept") == b"\0file" * 9
    assert photo_index.footprint().bytes_originals == 45
    with pytest.raises(OriginalError, match="not kept"):
        photo_index.original("not")
    with pytest.raises(UnknownKeyError, match="'none'") as caught:
        photo_index.original("none")
    assert caught.value.keys == ["none"]


def test_kept_bytes_survive_changes_and_upkeep(photo_index, picture, monkeypatch):
    from spherequant.index import upkeep

    monkeypatch.setattr(upkeep, "CROWD", 2)
    for i in range(6):
        photo_index.add([f"{i}"], images=[picture(i)], originals=[bytes([i]) * 100_000])
    photo_index.update(["2", "3"], labels=["x", "y"])
    photo_index.remove(["4"])
    upkeep.tidy(photo_index.folder / "items.lance", photo_index.folder / "leases", 0)
    photo_index.refresh()
    for i in (0, 1, 2, 3, 5):
        assert photo_index.original(f"{i}") == bytes([i]) * 100_000
    photo_index.add(["2"], images=[picture(9)])
    with pytest.raises(OriginalError):
        photo_index.original("2")


def test_large_files_are_written_anew_a_few_at_a_time(photo_index, picture, monkeypatch):
    """With each item that is changed goes its file, and files are megabytes."""
    from spherequant.index import catalogue

    monkeypatch.setattr(catalogue, "_CHANGED_BYTES", 250_000)
    read = []
    kept = catalogue.kept_originals
    monkeypatch.setattr(
        catalogue, "kept_originals", lambda data, at: read.append(len(at)) or kept(data, at)
    )
    keys = [f"{i}" for i in range(5)]
    files = [bytes([i]) * 100_000 for i in range(5)]
    photo_index.add(keys, images=[picture(i) for i in range(5)], originals=files)
    photo_index.update(keys, labels=["x"] * 5)
    assert read == [2, 2, 1]
    assert [photo_index.original(key) for key in keys] == files
    assert [item.labels for item in photo_index.get(keys)] == [("x",)] * 5


def test_upkeep_holds_few_rows_of_large_files(photo_index, picture, monkeypatch):
    from spherequant.index import upkeep

    photo_index.add([f"{i}" for i in range(4)], images=[picture(i) for i in range(4)])
    dataset = lance.dataset(str(photo_index.folder / "items.lance"))
    assert upkeep._batch_rows(dataset) == 256
    big = [bytes([i]) * 400_000 for i in range(4)]
    photo_index.add([f"big {i}" for i in range(4)], images=[picture(1)] * 4, originals=big)
    monkeypatch.setattr(upkeep, "_BATCH_BYTES", 1_000_000)
    dataset = lance.dataset(str(photo_index.folder / "items.lance"))
    assert upkeep._batch_rows(dataset) < 10


@pytest.mark.parametrize("bad", ["text", b"", 5])
def test_originals_are_bytes_of_images(photo_index, picture, unit_rows, bad):
    with pytest.raises(InputError, match="original of 'a'"):
        photo_index.add(["a"], images=[picture(1)], originals=[bad])
    with pytest.raises(InputError, match="give the images too"):
        photo_index.add(["a"], vectors=unit_rows(1), originals=[b"x"])
    with pytest.raises(InputError, match="2 given for 1"):
        photo_index.add(["a"], images=[picture(1)], originals=[b"x", b"y"])


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_files_are_read_in_their_source(tmp_path, photo_index, photos, kind, name):
    source = photos
    if kind == "zip":
        source = tmp_path / "p.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in photos.rglob("*.png"):
                archive.write(path, path.relative_to(photos))
    elif kind != "folder":
        source = tmp_path / f"p.{kind}"
        with tarfile.open(source, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(photos, ".")
    photo_index.sync(source, name=name)
    prefix = "" if name is None else f"{name}/"
    for key in ("a/1.png", "a/2.png", "b/3.png"):
        assert photo_index.original(prefix + key) == (photos / key).read_bytes()
    if kind != "folder":
        source.write_bytes(b"no archive any more")
    else:
        shutil.rmtree(source)
    with pytest.raises(OriginalError, match="cannot be had"):
        photo_index.original(f"{prefix}a/1.png")


def test_changed_and_gone_files_are_told(photo_index, photos):
    photo_index.sync(photos)
    (photos / "a/1.png").write_bytes(b"other")
    (photos / "a/2.png").unlink()
    with pytest.raises(OriginalError, match="changed since"):
        photo_index.original("a/1.png")
    with pytest.raises(OriginalError, match="gone") as caught:
        photo_index.original("a/2.png")
    assert str(photos) not in str(caught.value)


def test_links_out_of_the_source_are_not_followed(photo_index, photos, tmp_path):
    photo_index.sync(photos)
    shutil.move(photos / "a", tmp_path / "outside")
    (photos / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(OriginalError, match="outside of its source"):
        photo_index.original("a/1.png")  # though it is the file that was indexed
    (photos / "b/3.png").rename(photos / "inside.png")
    (photos / "b/3.png").symlink_to(photos / "inside.png")
    assert photo_index.original("b/3.png") == (photos / "inside.png").read_bytes()


def test_a_pipe_is_not_waited_for(photo_index, photos):
    photo_index.sync(photos)
    (photos / "a/1.png").unlink()
    os.mkfifo(photos / "a/1.png")
    with pytest.raises(OriginalError, match="no regular file"):
        photo_index.original("a/1.png")


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", "a//1.png", "./x"])
def test_no_key_leads_out(photo_index, photos, tmp_path, key):
    """Even if someone wrote such a key into the index, with the right digest."""
    (tmp_path / "secret").write_bytes(b"s")
    photo_index.sync(photos)
    (item,) = photo_index.get(["a/1.png"])
    from dataclasses import replace

    forged = replace(item, key=key, digest=sha256(b"s").hexdigest())
    with pytest.raises(OriginalError, match="outside of its source"):
        SourceFiles().read(forged)


def test_names_in_another_unicode_form_are_found(photo_index, tmp_path, write_pictures):
    write_pictures(tmp_path / "p", {unicodedata.normalize("NFD", "é/ü.png"): 1, "x/y.png": 2})
    photo_index.sync(tmp_path / "p")
    assert photo_index.original("é/ü.png") == next((tmp_path / "p").rglob("u*.png")).read_bytes()


def test_large_files_are_refused(photo_index, photos):
    photo_index.sync(photos)
    (item,) = photo_index.get(["a/1.png"])
    with pytest.raises(OriginalError, match="above the bound"):
        SourceFiles(Limits(max_bytes=10)).read(item)


def test_sets_and_given_images_have_no_files(photo_index, picture):
    photo_index.sync([("k", picture(1), "x")])
    with pytest.raises(OriginalError, match="came from none"):
        photo_index.original("k")


def test_few_archives_stay_open(tmp_path, embedder, photos):
    with Index.create(tmp_path / "i", embedder) as index:
        for number in range(4):
            path = tmp_path / f"{number}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(photos / "a/1.png", "a.png")
            index.sync(path, name=f"{number}")
        for number in range(4):
            assert index.original(f"{number}/a.png") == (photos / "a/1.png").read_bytes()
        assert len(index._files._archives) == 2
