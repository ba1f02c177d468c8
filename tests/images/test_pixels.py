"""The decoded training images in a temporary file."""

from __future__ import annotations

import gc
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from spherequant.errors import InputError, SpherequantError
from spherequant.images import Limits, PixelCache, open_source, scratch
from spherequant.system import SPARE_DISK


def square(image):
    return np.asarray(image.resize((8, 8)))


@pytest.fixture
def source():
    """Twelve images, each of one value; the third and the last cannot be read."""
    rows = [(f"{i:02}", np.full((9, 9, 3), 20 * i, np.uint8), str(i)) for i in range(12)]
    rows[2] = ("02", b"\xff\xd8\xff broken", "2")
    rows[11] = ("11", "gone.png", "11")
    return open_source(rows)


def test_rows_items_and_skips_agree(source, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    with PixelCache.fill(source, source.items, square, progress=seen.append) as cache:
        assert cache.pixels.shape == (10, 8, 8, 3)
        assert cache.pixels.dtype == np.uint8
        assert isinstance(cache.pixels, np.memmap)
        assert len(cache.items) == 10
        for row, item in zip(cache.pixels, cache.items, strict=True):
            assert np.all(row == 20 * int(item.labels[0]))
        assert [skip.path for skip in cache.skips] == ["02", "11"]
        assert seen == list(range(1, 13))
        assert not list(tmp_path.iterdir())  # the file has no name
    assert cache.pixels.shape == (0, 0, 0, 3)


def test_the_order_asked_for_is_kept(source):
    wanted = list(reversed(source.items))[3:8]
    with PixelCache.fill(source, wanted, square) as cache:
        assert list(cache.items) == wanted
        assert cache.pixels[:, 0, 0, 0].tolist() == [20 * int(i.labels[0]) for i in wanted]


def test_no_image_at_all(source):
    with PixelCache.fill(source, [source.items[2]], square) as cache:
        assert cache.pixels.shape == (0, 0, 0, 3)
        assert len(cache.skips) == 1
    with PixelCache.fill(source, [], square) as cache:
        assert len(cache.items) == 0


def test_limits_reach_the_decoder(source):
    with PixelCache.fill(source, source.items, square, limits=Limits(max_pixels=1)) as cache:
        assert len(cache.skips) == 12


def test_disk_space_is_given_back(source):
    def open_files():
        """Descriptors of files without a name; a mapping holds one of its own."""
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(link.readlink()).endswith("(deleted)") for link in links)

    before = open_files()
    cache = PixelCache.fill(source, source.items, square)
    assert open_files() == before + 2
    cache.close()
    cache.close()
    gc.collect()
    assert open_files() == before
    dropped = PixelCache.fill(source, source.items, square)
    del dropped
    gc.collect()
    assert open_files() == before

    def interrupt(_count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PixelCache.fill(source, source.items, square, progress=interrupt)
    gc.collect()
    assert open_files() == before


def test_a_disk_without_room_is_refused_before_writing(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=SPARE_DISK + 12 * 192 - 1)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        SpherequantError, match=r"need 0\.00 GB in .* point TMPDIR at a larger disk"
    ):
        PixelCache.fill(source, source.items, square)


def test_a_disk_that_fills_up_meanwhile_raises(source, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    with pytest.raises(SpherequantError, match="TMPDIR"):
        PixelCache.fill(source, source.items, square)


def test_a_directory_that_is_not_there(source, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SpherequantError, match=r"no temporary file can be made in .*gone"):
        PixelCache.fill(source, source.items, square)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda image: np.zeros((8, 9, 3), np.uint8),
        lambda image: np.zeros((8, 8), np.uint8),
        lambda image: np.zeros((8, 8, 3), np.float32),
    ],
)
def test_prepare_must_return_squares(source, prepare):
    with pytest.raises(ValueError, match=r"prepare must return uint8 \[S, S, 3\]"):
        PixelCache.fill(source, source.items, prepare)


def test_prepare_must_return_one_shape(source):
    def prepare(image):
        side = 8 if image.getpixel((0, 0)) == (0, 0, 0) else 9
        return np.zeros((side, side, 3), np.uint8)

    with pytest.raises(ValueError, match=r"'01', and uint8 \[8, 8, 3\] before") as caught:
        PixelCache.fill(source, source.items[:2], prepare)
    assert not isinstance(caught.value, InputError)
