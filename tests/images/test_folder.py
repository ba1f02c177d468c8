"""A folder of images, read where it lies."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from spherequant.errors import InputError, SourceError
from spherequant.images import Limits, folder, open_source


def test_items_carry_what_a_sync_needs(make_folder):
    root = make_folder(["a/1.jpg", "b/2.jpg"])
    os.utime(root / "a/1.jpg", (5, 1234.5))
    with open_source(root) as source:
        assert (source.name, source.root) == ("photos", str(root.resolve()))
        item = source.items[0]
        assert (item.key, item.mtime) == ("a/1.jpg", 1234.5)
        assert item.size == (root / "a/1.jpg").stat().st_size
        assert source.read(item) == (root / "a/1.jpg").read_bytes()
        assert source.image(item).mode == "RGB"
        assert "2 images" in repr(source)


def test_spelling_of_the_path_does_not_matter(make_folder, tmp_path, monkeypatch):
    root = make_folder(["a/1.jpg", "b/2.jpg"])
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(root)
    roots = {open_source(spec).root for spec in ("photos", "./photos/", str(root), link)}
    assert roots == {str(root.resolve())}


def test_links(make_folder, tmp_path):
    root = make_folder(["a/1.jpg", "b/2.jpg"])
    outside = make_folder(["secret.jpg"], at="outside")
    (root / "a/inside.jpg").symlink_to(root / "b/2.jpg")
    (root / "a/out.jpg").symlink_to(outside / "secret.jpg")
    (root / "a/up.jpg").symlink_to("../../outside/secret.jpg")
    (root / "a/nowhere.jpg").symlink_to("gone.jpg")
    (root / "a/self.jpg").symlink_to("self.jpg")
    (root / "b/loop").symlink_to(root)
    (root / "b/outdir").symlink_to(outside)
    source = open_source(root)
    assert [item.key for item in source.items] == ["a/1.jpg", "a/inside.jpg", "b/2.jpg"]
    assert {(s.path, s.reason.partition(":")[0]) for s in source.skips} == {
        ("a/out.jpg", "a link that leads out of the source"),
        ("a/up.jpg", "a link that leads out of the source"),
        ("a/nowhere.jpg", "a link that leads nowhere"),
        ("a/self.jpg", "a link that leads nowhere"),
        ("b/loop", "a link to a folder"),
        ("b/outdir", "a link that leads out of the source"),
    }


def test_what_is_no_regular_file_is_not_opened(make_folder):
    root = make_folder(["a/1.jpg"])
    os.mkfifo(root / "a/pipe.jpg")
    source = open_source(root)
    assert [(s.path, s.reason) for s in source.skips] == [("a/pipe.jpg", "not a regular file")]


def test_names_that_are_not_utf8_are_reported(make_folder):
    root = make_folder(["a/1.jpg"])
    name = os.fsencode(root / "a") + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(b"x")
    source = open_source(root)
    assert [s.path for s in source.skips] == ["a/caf\ufffd.jpg"]
    assert "not valid UTF-8" in source.skips[0].reason


def test_decomposed_names_are_read_under_composed_keys(make_folder):
    root = make_folder([unicodedata.normalize("NFD", "é/ü.jpg")])
    source = open_source(root)
    assert [item.key for item in source.items] == ["é/ü.jpg"]
    assert source.image(source.items[0]).size == (8, 8)


def test_a_folder_that_cannot_be_listed_is_reported(make_folder, monkeypatch):
    root = make_folder(["a/1.jpg", "b/2.jpg"])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(root)
    assert [(s.path, s.reason) for s in source.skips] == [
        ("b/", "the folder cannot be listed: Permission denied")
    ]
    assert source.is_present("b/2.jpg")
    assert source.is_present("b/c/3.jpg")
    assert not source.is_present("bc/3.jpg")
    monkeypatch.setattr(os, "scandir", lambda path: refuse("b"))
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        open_source(root)


def test_what_may_be_a_folder_is_present_with_what_lies_below(make_folder, monkeypatch):
    root = make_folder(["a.jpg", "b.jpg"])
    status = folder._file_status

    def refuse(child, root):
        if child.name == "b.jpg":
            raise OSError(5, "Input/output error")
        return status(child, root)

    monkeypatch.setattr(folder, "_file_status", refuse)
    source = open_source(root)
    assert [s.path for s in source.skips] == ["b.jpg"]
    assert source.is_present("b.jpg")
    assert source.is_present("b.jpg/1.jpg")


def test_files_that_vanish_or_grow_are_reasons_not_crashes(make_folder):
    root = make_folder(["a.jpg", "b.jpg", "c.jpg"])
    source = open_source(root, limits=Limits(max_bytes=10_000))
    a, b, c = source.items
    (root / "a.jpg").unlink()
    with (root / "b.jpg").open("wb") as file:
        file.truncate(10_001)
    (root / "c.jpg").unlink()
    (root / "c.jpg").mkdir()
    with pytest.raises(InputError, match="gone since it was listed"):
        source.read(a)
    with pytest.raises(InputError, match="--max-megabytes 1"):
        source.read(b)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        source.read(c)


def test_limits_of_a_call_stand_in_for_the_sources(make_folder):
    source = open_source(make_folder(["a.jpg"]), limits=Limits(max_pixels=1))
    with pytest.raises(InputError, match="--max-pixels 64"):
        source.image(source.items[0])
    assert source.image(source.items[0], Limits()).size == (8, 8)


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x"}, {"a.jpg": b""}, {"a.jpg": b"x" * 50}])
def test_a_folder_without_a_readable_image_is_refused(tmp_path, files):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=r"no image in .*Give a folder, \.zip or \.tar"):
        open_source(tmp_path)


def test_an_unreadable_file_without_extension_is_reported(make_folder, monkeypatch):
    root = make_folder(["a.jpg", "b"])
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "b":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    source = open_source(root)
    assert [(s.path, s.reason) for s in source.skips] == [
        ("b", "cannot be read: Permission denied")
    ]
