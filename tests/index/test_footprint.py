from __future__ import annotations

from pathlib import Path

import pytest

from spherequant.index.footprint import bytes_on_disk


@pytest.fixture(params=[1, 2])
def vanishing(request, monkeypatch):
    """Files named ``vanishes`` are deleted when they are looked at for the first or second time."""
    stat = Path.stat
    looks = []

    def late(self, **options):
        if self.name == "vanishes":
            looks.append(self)
            if len(looks) == request.param:
                self.unlink()
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", late)
    return looks


def test_all_files_below_are_counted(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "a" / "b" / "two").write_bytes(b"22")
    assert bytes_on_disk(tmp_path) == 3


@pytest.mark.parametrize("vanishing", [1], indirect=True)
def test_a_file_that_vanishes_counts_nothing(tmp_path, vanishing):
    (tmp_path / "stays").write_bytes(b"123")
    (tmp_path / "vanishes").write_bytes(b"4567")
    assert bytes_on_disk(tmp_path) == 3
    assert vanishing


def test_a_folder_that_vanishes_counts_nothing(tmp_path):
    assert bytes_on_disk(tmp_path / "gone") == 0


def test_a_sync_is_reported_though_a_file_of_the_index_vanishes(
    photo_index, write_pictures, tmp_path, vanishing
):
    write_pictures(tmp_path / "photos", {"a.png": 1})
    (photo_index.folder / "items.lance" / "vanishes").touch()
    report = photo_index.sync(tmp_path / "photos")
    assert report.total == report.added == 1
    assert report.bytes_disk > 0
    assert vanishing
