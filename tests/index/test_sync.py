from __future__ import annotations

import io
import os
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from spherequant.errors import (
    DuplicateKeyError,
    InputError,
    RemovalRefusedError,
    SourceError,
)
from spherequant.images import Limits, open_source
from spherequant.index import Index, infer_metadata_columns


@pytest.fixture
def photos(tmp_path, write_pictures):
    """Six pictures in two labelled folders."""
    folder = tmp_path / "photos"
    write_pictures(folder, {f"{'cat' if i < 3 else 'dog'}/{i}.png": i for i in range(6)})
    return folder


def counts(report):
    return report.added, report.updated, report.removed, report.unchanged


def test_a_folder_is_indexed_and_found(photo_index, photos, picture, embedder):
    done = []
    report = photo_index.sync(photos, progress=lambda *args: done.append(args))
    assert counts(report) == (6, 0, 0, 0)
    assert report.total == len(photo_index) == 6
    assert report.skipped == report.notes == []
    assert report.bytes_per_item == 3
    assert report.bytes_memory >= 6 * 3
    assert report.bytes_thumbnails > 6 * 100
    assert report.bytes_disk > report.bytes_thumbnails
    assert report.seconds > 0
    assert done[-1] == (6, 6)
    items = photo_index.get(["cat/0.png", "dog/5.png"])
    assert [item.id for item in items] == [0, 5]  # source order
    assert items[0].labels == ("cat",)
    assert items[0].source == "photos"
    assert items[0].root == str(photos)
    assert items[0].size == (photos / "cat/0.png").stat().st_size
    expected = embedder.encoder.encode(embedder.embed([picture(5)]))[0]
    assert np.array_equal(items[1].code, expected)
    found = photo_index.search(images=[picture(4)], k=6, where="source = 'photos'")
    assert "dog/4.png" in found.keys[0]
    assert found.thumbnails[0][0].startswith(b"\xff\xd8")


def test_nothing_changed_embeds_nothing(photo_index, photos, embedder):
    photo_index.sync(photos)
    embedder.embedded = 0
    version = photo_index.searcher.version
    assert counts(photo_index.sync(photos)) == (0, 0, 0, 6)
    assert embedder.embedded == 0
    assert photo_index.searcher.version == version


def test_added_changed_and_gone(photo_index, photos, write_pictures, embedder):
    photo_index.sync(photos)
    old = photo_index.get(["cat/1.png"])[0]
    write_pictures(photos, {"cat/1.png": 77, "cat/new.png": 8})
    (photos / "dog/5.png").unlink()
    embedder.embedded = 0
    assert counts(photo_index.sync(photos)) == (1, 1, 1, 4)
    assert embedder.embedded == 2
    new = photo_index.get(["cat/1.png", "cat/new.png", "dog/5.png"])
    assert new[0].id == old.id
    assert new[0].digest != old.digest
    assert new[1].id == 6
    assert new[2] is None
    # An item that comes back is a new item.
    write_pictures(photos, {"dog/5.png": 5})
    photo_index.sync(photos)
    assert photo_index.get(["dog/5.png"])[0].id == 7


def test_a_touched_file_is_not_embedded_again(photo_index, photos, embedder):
    photo_index.sync(photos)
    os.utime(photos / "cat/1.png", (1, 1))
    embedder.embedded = 0
    assert counts(photo_index.sync(photos)) == (0, 0, 0, 6)
    assert embedder.embedded == 0
    assert photo_index.get(["cat/1.png"])[0].mtime == 1.0  # the next sync need not read it


def test_a_dry_run_writes_nothing(photo_index, photos, write_pictures, embedder):
    photo_index.sync(photos)
    write_pictures(photos, {"cat/1.png": 77, "cat/new.png": 8})
    (photos / "dog/5.png").unlink()
    embedder.embedded = 0
    version = photo_index.searcher.version
    report = photo_index.sync(photos, dry_run=True)
    assert counts(report) == (1, 1, 1, 4)
    assert report.total == 6
    assert embedder.embedded == 0
    assert photo_index.searcher.version == version


def test_a_second_source_never_removes_the_first(
    photo_index, photos, tmp_path, write_pictures, unit_rows
):
    write_pictures(tmp_path / "other", {f"{i}.png": i + 50 for i in range(4)})
    photo_index.add(["by hand"], vectors=unit_rows(1), labels=["mine"])
    photo_index.sync(photos)
    assert counts(photo_index.sync(tmp_path / "other")) == (4, 0, 0, 0)
    assert len(photo_index) == 11
    assert counts(photo_index.sync(photos)) == (0, 0, 0, 6)
    (tmp_path / "other" / "0.png").unlink()
    assert counts(photo_index.sync(tmp_path / "other")) == (0, 0, 1, 3)
    assert len(photo_index) == 10
    assert photo_index.get(["by hand"])[0].labels == ("mine",)


def test_a_vanished_folder_is_refused_not_emptied(photo_index, photos, tmp_path):
    photo_index.sync(photos)
    photos.rename(tmp_path / "gone")
    with pytest.raises(SourceError):
        photo_index.sync(photos)
    assert len(photo_index) == 6
    photos.mkdir()  # an unmounted disk leaves its empty mount point
    with pytest.raises((SourceError, RemovalRefusedError)):
        photo_index.sync(photos)
    assert len(photo_index) == 6


def test_removing_more_than_half_needs_leave(photo_index, photos):
    photo_index.sync(photos)
    for name in ("cat/0.png", "cat/1.png", "dog/3.png"):
        (photos / name).unlink()
    assert counts(photo_index.sync(photos, dry_run=True)) == (0, 0, 3, 3)  # exactly half
    (photos / "dog/4.png").unlink()
    with pytest.raises(RemovalRefusedError, match=r"4 of the 6 items.*--allow-removal"):
        photo_index.sync(photos)
    dry = photo_index.sync(photos, dry_run=True)
    assert counts(dry) == (0, 0, 4, 2)
    assert "4 of the 6 items" in dry.notes[0].reason
    assert "only with --allow-removal" in dry.notes[0].reason
    assert photo_index.sync(photos, dry_run=True, allow_removal=True).notes == []
    assert len(photo_index) == 6
    assert counts(photo_index.sync(photos, allow_removal=True)) == (0, 0, 4, 2)


def test_one_key_from_two_sources(photo_index, photos, tmp_path, write_pictures):
    photo_index.sync(photos)
    write_pictures(tmp_path / "copy", {"cat/0.png": 90, "dog/9.png": 91})
    with pytest.raises(DuplicateKeyError, match=r"'cat/0\.png'.*'photos'.*--source-name"):
        photo_index.sync(tmp_path / "copy")
    assert len(photo_index) == 6
    assert counts(photo_index.sync(tmp_path / "copy", name="second")) == (2, 0, 0, 0)
    assert photo_index.get(["second/cat/0.png"])[0].source == "second"
    assert counts(photo_index.sync(tmp_path / "copy", name="second")) == (0, 0, 0, 2)
    assert counts(photo_index.sync(photos)) == (0, 0, 0, 6)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\n"])
def test_impossible_source_names_are_refused(photo_index, photos, name):
    with pytest.raises(InputError, match="--source-name"):
        photo_index.sync(photos, name=name)


def test_a_key_of_the_api_is_not_taken_over(photo_index, photos, unit_rows):
    photo_index.add(["cat/0.png"], vectors=unit_rows(1))
    with pytest.raises(DuplicateKeyError, match="already taken by the API"):
        photo_index.sync(photos)
    photo_index.remove(["cat/0.png"])
    photo_index.sync(photos)
    with pytest.raises(DuplicateKeyError, match="already taken by source 'photos'"):
        photo_index.add(["new", "cat/0.png"], vectors=unit_rows(2))
    assert photo_index.get(["new"]) == [None]  # all or none


def test_bad_files_are_reported_and_shift_no_label(tmp_path, photo_index, write_pictures):
    folder = tmp_path / "awkward"
    write_pictures(folder, {f"p{i}.png": i for i in range(9)})
    (folder / "p1.png").write_bytes(b"not an image")
    data = (folder / "p4.png").read_bytes()
    (folder / "p4.png").write_bytes(data[: len(data) // 2])
    (folder / "p7.png").write_bytes(b"")
    rows = [f"p{i}.png,label{i}" for i in range(9)]
    (folder / "labels.csv").write_text("\n".join(["path,labels", *rows]))
    report = photo_index.sync(folder)
    assert {skip.path for skip in report.skipped} == {"p1.png", "p4.png", "p7.png"}
    assert all(skip.reason for skip in report.skipped)
    assert counts(report) == (6, 0, 0, 0)
    for i in (0, 2, 3, 5, 6, 8):
        assert photo_index.get([f"p{i}.png"])[0].labels == (f"label{i}",)
    assert len(photo_index) == 6


def test_an_item_whose_file_became_unreadable_stays(photo_index, photos):
    photo_index.sync(photos)
    before = photo_index.get(["cat/0.png"])[0]
    (photos / "cat/0.png").write_bytes(b"broken")
    for _ in range(2):
        report = photo_index.sync(photos)
        assert counts(report) == (0, 0, 0, 6)
        assert [skip.path for skip in report.skipped] == ["cat/0.png"]
        assert photo_index.get(["cat/0.png"])[0].digest == before.digest


@pytest.mark.parametrize("name", [None, "mine"])
def test_items_in_a_folder_that_cannot_be_listed_stay(photo_index, photos, monkeypatch, name):
    photo_index.sync(photos, name=name, labels="none")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    (photos / "dog/5.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        report = photo_index.sync(photos, name=name, labels="none")
    assert counts(report) == (0, 0, 1, 5)
    assert [skip.path for skip in report.skipped] == ["cat/"]


def test_a_row_of_labels_csv_keeps_no_item_whose_file_is_gone(
    photo_index, tmp_path, write_pictures
):
    folder = tmp_path / "table"
    write_pictures(folder, {f"{i}.png": i for i in range(4)})
    rows = [f"{i}.png,x" for i in range(4)]
    (folder / "labels.csv").write_text("\n".join(["path,labels", *rows]))
    photo_index.sync(folder)
    (folder / "3.png").unlink()
    report = photo_index.sync(folder)
    assert counts(report) == (0, 0, 1, 3)
    assert [skip.path for skip in report.skipped] == ["3.png"]


def test_a_decomposed_name_that_became_unreadable_stays(photo_index, photos, write_pictures):
    name = unicodedata.normalize("NFD", "é.png")
    write_pictures(photos / "cat", {name: 9})
    photo_index.sync(photos)
    (photos / "cat" / name).write_bytes(b"")
    report = photo_index.sync(photos)
    assert counts(report) == (0, 0, 0, 7)
    assert [skip.path for skip in report.skipped] == [f"cat/{name}"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_archive_removes_nothing(photo_index, tmp_path, picture, mode):
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, mode) as file:
        for i in range(20):
            data = io.BytesIO()
            picture(i, 64).save(data, format="PNG")
            info = tarfile.TarInfo(f"{i:02}.png")
            info.size, info.mtime = len(data.getvalue()), 1
            file.addfile(info, io.BytesIO(data.getvalue()))
    photo_index.sync(archive)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 7 // 10])
    report = photo_index.sync(archive)
    assert report.removed == 0
    assert len(photo_index) == report.total == 20
    assert any("nothing is removed" in skip.reason for skip in report.skipped)
    archive.write_bytes(whole)
    assert counts(photo_index.sync(archive)) == (0, 0, 0, 20)


def test_source_names_are_composed(photo_index, photos):
    photo_index.sync(photos, name=unicodedata.normalize("NFD", "é"))
    assert photo_index.get(["é/cat/0.png"])[0].source == "é"
    assert counts(photo_index.sync(photos, name="é")) == (0, 0, 0, 6)


def test_a_moved_folder_is_another_source_and_the_cure_of_the_guide_works(photo_index, photos):
    photo_index.sync(photos)
    moved = photos.rename(photos.with_name("moved"))
    with pytest.raises(DuplicateKeyError, match="already taken by source 'photos'"):
        photo_index.sync(moved)
    rows = photo_index.searcher.scan(["key", "root"])
    photo_index.remove([row["key"] for row in rows if row["root"] == str(photos)])
    assert counts(photo_index.sync(moved)) == (6, 0, 0, 0)
    assert len(photo_index) == 6


def test_labels_and_metadata_change_without_embedding(tmp_path, embedder, write_pictures, picture):
    folder = tmp_path / "table"
    write_pictures(folder, {f"{i}.png": i for i in range(4)})
    table = folder / "labels.csv"
    table.write_text("path,labels,city,year\n0.png,a|b,Rome,2019\n1.png,,,\n2.png,c,Oslo,2020\n")
    with open_source(folder) as source:
        columns = infer_metadata_columns(source.items)
    assert columns == {"city": "string", "year": "int64"}
    with Index.create(
        tmp_path / "i", embedder, metadata_columns=columns, keep_vectors=True
    ) as index:
        index.sync(folder)
        stored = index.get(["0.png", "1.png", "3.png"])
        assert [item.labels for item in stored] == [("a", "b"), (), ()]
        assert stored[0].metadata == {"city": "Rome", "year": 2019}
        assert stored[2].metadata == {"city": None, "year": None}
        table.write_text("path,labels,city,year\n0.png,b,Rome,2021\n2.png,c,Oslo,2020\n")
        embedder.embedded = 0
        small = index.thumbnails([0])
        before = index.search(images=[picture(0)], rerank=10)
        embedder.embedded = 0
        assert counts(index.sync(folder)) == (0, 1, 0, 3)
        assert embedder.embedded == 0
        after = index.get(["0.png"])[0]
        assert after.labels == ("b",)
        assert after.metadata == {"city": "Rome", "year": 2021}
        assert after.id == stored[0].id
        assert np.array_equal(after.code, stored[0].code)
        assert index.thumbnails([0]) == small
        again = index.search(images=[picture(0)], rerank=10)
        assert np.array_equal(again.scores, before.scores)
        assert counts(index.sync(folder)) == (0, 0, 0, 4)


def test_metadata_that_does_not_fit_is_null_and_noted(tmp_path, embedder, write_pictures):
    folder = tmp_path / "table"
    write_pictures(folder, {"0.png": 0, "1.png": 1})
    (folder / "labels.csv").write_text("path,labels,year,extra\n0.png,a,late,x\n1.png,b,7,y\n")
    with Index.create(tmp_path / "i", embedder, metadata_columns={"year": "int64"}) as index:
        report = index.sync(folder)
        assert counts(report) == (2, 0, 0, 0)
        assert index.get(["0.png"])[0].metadata == {"year": None}
        assert index.get(["1.png"])[0].metadata == {"year": 7}
        reasons = [(note.path, note.reason) for note in report.notes]
        late = "metadata 'year' not stored: 'late' is no int64, the type of its column"
        assert ("0.png", late) in reasons
        assert any("no such column" in reason for _, reason in reasons)
        assert counts(index.sync(folder)) == (0, 0, 0, 2)


def test_archives_lists_and_known_sets(photo_index, photos, tmp_path, picture, embedder):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, f"z/{path.relative_to(photos)}")
    assert counts(photo_index.sync(archive)) == (6, 0, 0, 0)
    assert counts(photo_index.sync(archive)) == (0, 0, 0, 6)
    rows = [(f"given{i}", picture(i), ["x"]) for i in range(3)]
    assert counts(photo_index.sync(rows)) == (3, 0, 0, 0)
    embedder.embedded = 0
    rows[1] = ("given1", picture(99), ["x"])  # the same size, and no time to go by
    assert counts(photo_index.sync(rows)) == (0, 1, 0, 2)
    assert embedder.embedded == 1
    with open_source(photos) as source:
        photo_index.sync(source)
        source.read(source.items[0])  # still open: it is the caller's


def test_a_vector_that_is_not_finite_skips_its_image(photo_index, photos, embedder, monkeypatch):
    embed = embedder.embed_prepared

    def broken(batch):
        out = embed(batch)
        out[1] = np.nan
        return out

    monkeypatch.setattr(embedder, "embed_prepared", broken)
    report = photo_index.sync(photos)
    assert counts(report) == (5, 0, 0, 0)
    assert [(skip.path, "finite" in skip.reason) for skip in report.skipped] == [
        ("cat/1.png", True)
    ]


def test_an_interrupted_sync_resumes(photo_index, photos, embedder, monkeypatch):
    monkeypatch.setattr("spherequant.index.sync.EMBED_ITEMS", 2)
    monkeypatch.setattr("spherequant.index.sync.COMMIT_ITEMS", 2)
    embed = embedder.embed_prepared

    def interrupted(batch):
        if embedder.embedded >= 4:
            raise KeyboardInterrupt
        return embed(batch)

    monkeypatch.setattr(embedder, "embed_prepared", interrupted)
    with pytest.raises(KeyboardInterrupt):
        photo_index.sync(photos)
    assert len(photo_index) == 4
    monkeypatch.setattr(embedder, "embed_prepared", embed)
    embedder.embedded = 0
    assert counts(photo_index.sync(photos)) == (2, 0, 0, 4)
    assert embedder.embedded == 2
    assert photo_index.searcher.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_index_of_codebooks_takes_no_images(index, photos):
    with pytest.raises(InputError, match="made from codebooks alone"):
        index.sync(photos)


@pytest.mark.parametrize("limits", [None, Limits(max_pixels=100)])
def test_the_bounds_of_an_open_source_hold(photo_index, photos, limits):
    """12 x 12 pixels, some of them of an array: its size is no number of encoded bytes."""
    with open_source(photos, limits=Limits(max_pixels=100)) as source:
        report = photo_index.sync(source, limits=limits)
    assert report.total == 0
    assert report.skipped
    assert all("pixels" in skip.reason for skip in report.skipped)


def test_given_bounds_win_over_those_of_an_open_source(photo_index, photos):
    with open_source(photos, limits=Limits(max_bytes=10)) as source:
        report = photo_index.sync(source, limits=Limits())
    assert report.added == len(source.items)
    assert not report.skipped


def test_an_array_has_no_encoded_bytes_to_bound(photo_index):
    large = [("a", np.zeros((40, 40, 3), np.uint8), None)]
    limits = Limits(max_bytes=40 * 40)
    assert photo_index.sync(large, limits=limits).added == 1


@pytest.mark.parametrize("mtime", [(1980, 1, 1, 0, 0, 0), (2020, 1, 1, 0, 0, 0)])
def test_a_change_in_a_reproducible_archive_is_found(photo_index, tmp_path, mtime):
    """Every file has the same time there; of BMPs the size is the same too."""

    def pack(level):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for name, value in (("a.bmp", level), ("b.bmp", 7)):
                data = io.BytesIO()
                Image.new("RGB", (12, 12), (value, 0, 0)).save(data, "BMP")
                archive.writestr(zipfile.ZipInfo(name, mtime), data.getvalue())

    pack(1)
    assert photo_index.sync(tmp_path / "photos.zip").added == 2
    pack(200)
    report = photo_index.sync(tmp_path / "photos.zip")
    assert (report.updated, report.unchanged) == (1, 1)


def test_labels_behind_the_cut_of_an_archive_stay(photo_index, tmp_path):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a/1.bmp", "b/2.bmp", "labels.csv"):
            data = io.BytesIO()
            if name.endswith("bmp"):
                Image.new("RGB", (12, 12), (len(name), 0, 0)).save(data, "BMP")
            else:
                data.write(b"path,labels\na/1.bmp,ant\nb/2.bmp,bee\n")
            info = tarfile.TarInfo(name)
            info.size, info.mtime = data.tell(), len(name) + ord(name[0])
            archive.addfile(info, io.BytesIO(data.getvalue()))
            end = archive.offset
    assert photo_index.sync(path).added == 2
    with tarfile.open(path) as archive:
        cut = archive.getmember("labels.csv").offset + 100
    assert cut < end
    path.write_bytes(path.read_bytes()[:cut])
    report = photo_index.sync(path)
    assert (report.updated, report.unchanged, report.removed) == (0, 2, 0)
    assert any("labels and metadata of 2 stored items stay" in one.reason for one in report.skipped)
    assert [item.labels for item in photo_index.get(["a/1.bmp", "b/2.bmp"])] == [("ant",), ("bee",)]
