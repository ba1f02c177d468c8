"""Images inside .zip and .tar: read in place, safe against what an archive may claim."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import threading
import tracemalloc
import zipfile
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spherequant.errors import InputError, SourceError
from spherequant.images import Limits, archives, make_split, open_source
from spherequant.training.model import item_hashes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def jpeg(awkward):
    return awkward.encode(awkward.colour_image("red", (8, 8)), "JPEG")


TAR_END = bytes(20 * tarfile.BLOCKSIZE)


def member(name: str, data: bytes) -> bytes:
    """A file of a .tar: its header, and its bytes to the end of their last block."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def write_zip(path: Path, members, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def write_tar(path: Path, members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1000
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_of_every_method(tmp_path, jpeg, method):
    info = zipfile.ZipInfo("b/2.jpg", (2020, 1, 2, 3, 4, 6))
    info.compress_type = method
    path = write_zip(tmp_path / "set.zip", [("a/1.jpg", jpeg), (info, jpeg)], compression=method)
    with open_source(path) as source:
        assert (source.name, source.root) == ("set", str(path.resolve()))
        assert [(i.key, i.labels, i.size) for i in source.items] == [
            ("a/1.jpg", ("a",), len(jpeg)),
            ("b/2.jpg", ("b",), len(jpeg)),
        ]
        assert source.items[1].mtime == 1577934246.0  # 2020-01-02 03:04:06 UTC
        assert source.read(source.items[1]) == jpeg
        assert source.image(source.items[1]).size == (8, 8)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_tar_of_every_compression(tmp_path, jpeg, suffix):
    mode = {"tar": "w", "tgz": "w:gz"}.get(suffix, "w:" + suffix.removeprefix("tar."))
    path = write_tar(tmp_path / f"set.{suffix}", [("b/2.jpg", jpeg), ("a/1.jpg", jpeg)], mode)
    with open_source(path) as source:
        assert source.name == "set"
        # One time of all is what packing gave them, and none.
        assert [(i.key, i.mtime) for i in source.items] == [("a/1.jpg", 0), ("b/2.jpg", 0)]
        assert source.read(source.items[0]) == jpeg


def test_an_archive_is_known_by_its_content(tmp_path, jpeg):
    zipped = write_zip(tmp_path / "mystery.dat", [("a.jpg", jpeg)])
    assert open_source(zipped).name == "mystery.dat"
    tarred = write_tar(tmp_path / "mystery", [("a.jpg", jpeg)], "w:xz")
    assert len(open_source(tarred).items) == 1
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg)
    with pytest.raises(SourceError, match="give the folder that holds"):
        open_source(picture)


UNSAFE = ["../up.jpg", "a/../../up.jpg", "/etc/abs.jpg", "C:\\x.jpg"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_members_that_would_leave_are_skipped(tmp_path, jpeg, write):
    path = write(tmp_path / "x", [("a/ok.jpg", jpeg), *((name, jpeg) for name in UNSAFE)])
    source = open_source(path)
    assert [item.key for item in source.items] == ["a/ok.jpg"]
    assert sorted(s.path for s in source.skips) == sorted(UNSAFE)
    assert all("'..'" in s.reason or "absolute" in s.reason for s in source.skips)


def test_links_in_archives_are_skipped(tmp_path, jpeg):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped = write_zip(tmp_path / "x.zip", [("a.jpg", jpeg), (link, "a.jpg")])
    tarred = write_tar(tmp_path / "x.tar", [("a.jpg", jpeg)])
    with tarfile.open(tarred, "a") as archive:
        for name, kind in [("hard.jpg", tarfile.LNKTYPE), ("soft.jpg", tarfile.SYMTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        pipe = tarfile.TarInfo("pipe.jpg")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    assert [s.path for s in open_source(zipped).skips] == ["link.jpg"]
    source = open_source(tarred)
    assert [(s.path, s.reason) for s in source.skips] == [
        ("hard.jpg", "a link inside an archive is not followed"),
        ("pipe.jpg", "not a regular file"),
        ("soft.jpg", "a link inside an archive is not followed"),
    ]


def test_two_members_of_one_name(tmp_path, jpeg, awkward):
    other = awkward.encode(awkward.colour_image("blue", (5, 5)), "JPEG")
    path = write_tar(tmp_path / "x.tar", [("a.jpg", jpeg), ("./a.jpg", other)])
    source = open_source(path)
    assert len(source.items) == 1
    assert source.read(source.items[0]) == jpeg
    assert [s.path for s in source.skips] == ["a.jpg"]


def test_damage_inside_a_zip_is_a_skip_of_that_member(tmp_path, jpeg):
    path = write_zip(tmp_path / "x.zip", [(f"{i}.jpg", jpeg) for i in range(3)])
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("1.jpg").header_offset
    data[place + 100] ^= 0xFF
    path.write_bytes(data)
    source = open_source(path)
    assert source.read(source.items[0]) == jpeg
    with pytest.raises(InputError, match="its checksum does not match"):
        source.read(source.items[1])
    assert source.read(source.items[2]) == jpeg


def test_a_member_whose_header_is_gone(tmp_path, jpeg):
    path = write_zip(tmp_path / "x.zip", [("0.jpg", jpeg), ("1.jpg", jpeg)])
    data = bytearray(path.read_bytes())
    data[:4] = b"XXXX"
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + data[4:])  # still opened as a .zip
    source = open_source(path)
    with pytest.raises(InputError, match="damaged in the archive"):
        source.read(source.items[0])
    assert source.read(source.items[1]) == jpeg


def test_encrypted_and_unknown_methods_are_skips(tmp_path, jpeg):
    path = write_zip(tmp_path / "x.zip", [("a.jpg", jpeg), ("b.jpg", jpeg), ("c", jpeg)])
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    first = data.index(b"PK\x01\x02")
    data[first + 8] |= 1  # a.jpg: encrypted
    data[directory + 10] = 99  # b.jpg: a method of its own
    path.write_bytes(data)
    source = open_source(path)
    assert [item.key for item in source.items] == ["c"]
    assert [(s.path, s.reason.partition(":")[0]) for s in source.skips] == [
        ("a.jpg", "encrypted"),
        ("b.jpg", "packed by a method that is not read; pack the archive again"),
    ]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_unpacks_without_a_bound_is_passed_over(tmp_path, jpeg, method):
    """Some hundred bytes of bzip2 would take gigabytes before the first is seen."""
    info = zipfile.ZipInfo("bomb.jpg")
    info.compress_type = method
    path = write_zip(tmp_path / "x.zip", [("a.jpg", jpeg), (info, jpeg + bytes(1 << 20))])
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert [skip.path for skip in source.skips] == ["bomb.jpg"]


@pytest.mark.parametrize("time", ["inf", "nan", "-1", "1e300"])
def test_a_time_that_is_none_in_a_tar_is_zero(tmp_path, jpeg, time):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mtime in (("a.jpg", time), ("b.jpg", "1600000000.5")):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg)
            info.pax_headers = {"mtime": mtime}
            archive.addfile(info, io.BytesIO(jpeg))
    with open_source(path) as source:
        assert [item.mtime for item in source.items] == [0.0, 1_600_000_000.5]


def test_headers_of_a_tar_without_end(tmp_path, jpeg):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", jpeg)])
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 4
    header = long_name.tobuf(tarfile.GNU_FORMAT) + b"name" + bytes(tarfile.BLOCKSIZE - 4)
    path.write_bytes(path.read_bytes()[: 2 * tarfile.BLOCKSIZE] + header * 3_000)
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert not source.complete
        assert "damaged or cut off after 1 members" in source.skips[-1].reason


def test_a_tar_whose_header_leads_back_ends(tmp_path, jpeg):
    path = tmp_path / "x.tar"
    back = tarfile.TarInfo("b.jpg")
    back.size = -tarfile.BLOCKSIZE
    path.write_bytes(member("a.jpg", jpeg) + back.tobuf(tarfile.GNU_FORMAT) + TAR_END)
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert not source.complete


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_of_a_tar_takes_no_more_memory_than_a_name(tmp_path, jpeg, kind):
    path = tmp_path / "x.tar.gz"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 64 << 20
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(member("a.jpg", jpeg) + header.tobuf(tarfile.GNU_FORMAT))
        packed.write(b"a" * header.size)
        packed.write(member("b.jpg", jpeg) + TAR_END)
    tracemalloc.start()
    with open_source(path) as source:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [item.key for item in source.items] == ["a.jpg"]
        assert not source.complete
    assert peak < 16 << 20


def test_a_name_beyond_all_bounds_is_skipped(tmp_path, jpeg):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", jpeg), ("b" * 5_000 + ".jpg", jpeg)])
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert "more than 4,096 bytes" in source.skips[0].reason
        assert len(source.skips[0].path) < 4_200


@pytest.mark.parametrize("name", [".", "./"])
def test_a_member_without_a_name_is_no_item(tmp_path, jpeg, name):
    info = tarfile.TarInfo("x")
    info.name, info.size = name, len(jpeg)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info, io.BytesIO(jpeg))
        info.name = "a.jpg"
        archive.addfile(info, io.BytesIO(jpeg))
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert [skip.reason for skip in source.skips] == ["a file without a name: rename it"]


def test_a_member_of_a_tar_beyond_every_file(tmp_path, jpeg):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.jpg", {}), ("b.jpg", {"size": str(10**20)})):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg)
            info.pax_headers = headers
            archive.addfile(info, io.BytesIO(jpeg))
    with open_source(path) as source:
        assert source.read(source.items[0]) == jpeg
        assert not source.complete
        for item in source.items[1:]:
            with pytest.raises(InputError):
                source.read(item)


def test_a_name_with_a_nul_is_no_key(tmp_path, jpeg):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.jpg", {}), ("b.jpg", {"path": "b\0.jpg"})):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg)
            info.pax_headers = headers
            archive.addfile(info, io.BytesIO(jpeg))
    with open_source(path) as source:
        assert [item.key for item in source.items] == ["a.jpg"]
        assert "NUL" in source.skips[0].reason


def test_a_cut_zip_is_refused_with_the_cure(tmp_path, jpeg):
    path = write_zip(tmp_path / "x.zip", [("a.jpg", jpeg)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"not a readable \.zip .*download it again"):
        open_source(path)


def test_a_zip_that_lies_about_sizes_is_bounded(tmp_path):
    path = tmp_path / "x.zip"
    bomb = b"\xff\xd8\xff" + bytes(50_000_000)
    write_zip(path, [("bomb.jpg", bomb), ("lie.jpg", bomb)], compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")  # the size it unpacks to
    path.write_bytes(data)
    source = open_source(path, limits=Limits(max_bytes=1 << 20))
    with pytest.raises(InputError, match="--max-megabytes 48"):
        source.read(source.items[0])
    with pytest.raises(InputError, match=r"damaged in the archive"):
        source.read(source.items[1])


def test_a_cut_tar_is_read_as_far_as_it_goes(tmp_path, jpeg):
    path = write_tar(tmp_path / "x.tar", [(f"{i}.jpg", jpeg) for i in range(4)])
    with tarfile.open(path) as archive:
        last = archive.getmembers()[3]
    data = path.read_bytes()

    path.write_bytes(data[: last.offset_data + 10])  # inside the last image
    source = open_source(path)
    with pytest.raises(InputError, match="truncated: the archive ends inside this file"):
        source.read(source.items[3])
    assert source.read(source.items[2]) == jpeg

    path.write_bytes(data[: last.offset + 100])  # inside the last header
    source = open_source(path)
    assert len(source.items) == 3
    assert [(s.path, s.reason) for s in source.skips] == [
        ("x.tar", "damaged or cut off after 3 members")
    ]
    assert not source.complete
    path.write_bytes(data)
    assert open_source(path).complete


@pytest.mark.parametrize(
    "compress", [gzip.compress, partial(bz2.compress, compresslevel=1), lzma.compress]
)
def test_a_cut_compressed_tar_is_read_as_far_as_it_goes(tmp_path, awkward, compress):
    import numpy as np
    from PIL import Image

    noise_NHWC = np.random.default_rng(0).integers(0, 256, (80, 64, 64, 3), np.uint8)
    images = [awkward.encode(Image.fromarray(noise), "PNG") for noise in noise_NHWC]
    members = [(f"{i:03}.png", image) for i, image in enumerate(images)]
    plain = write_tar(tmp_path / "plain.tar", members)
    path = tmp_path / "x.tar.z"
    packed = compress(plain.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    source = open_source(path)
    assert 5 < len(source.items) < 80
    assert source.read(source.items[0]) == images[0]
    assert "damaged" in " ".join(s.reason for s in source.skips)
    assert not source.complete


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b" + b"x" * 50, bytes(100), b"no archive" * 99])
def test_what_is_no_tar_is_refused(tmp_path, data):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        open_source(path)


def test_unpacking_never_fills_the_disk(tmp_path, jpeg, monkeypatch):
    path = write_tar(tmp_path / "x.tgz", [("a.jpg", jpeg)], "w:gz")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SourceError, match=r"no room in .* point TMPDIR at a larger disk"):
        open_source(path)
    gc.collect()  # a file left open would warn here


def test_what_unpacks_beyond_all_bounds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_UNPACKED_BYTES", 1 << 20)
    path = write_tar(tmp_path / "x.tgz", [("a.jpg", bytes(8 << 20))], "w:gz")
    with pytest.raises(SourceError, match=r"unpacks to more than .* unpack it yourself"):
        open_source(path)
    gc.collect()  # a file left open would warn here


def test_the_unpacked_copy_has_no_name(tmp_path, jpeg, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with open_source(write_tar(tmp_path / "x.tgz", [("a.jpg", jpeg)], "w:gz")) as source:
        assert source.read(source.items[0]) == jpeg
        assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_closed_archive_says_so(tmp_path, jpeg, write):
    source = open_source(write(tmp_path / "x", [("a.jpg", jpeg)]))
    source.close()
    with pytest.raises(InputError, match="closed"):
        source.read(source.items[0])


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_many_threads_read_one_archive(tmp_path, awkward, write):
    members = [(f"{i:03}.jpg", b"\xff\xd8\xff" + bytes([i]) * (100 + i)) for i in range(100)]
    source = open_source(write(tmp_path / "x", members))
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            wrong.extend(
                item.key
                for item, (_, data) in zip(source.items, members, strict=True)
                if source.read(item) != data
            )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_labels_and_wrappers_in_archives(tmp_path, jpeg, write):
    table = b"path,labels,camera\nimages/1.jpg,cat|dog,x\n"
    members = [("labels.csv", table), ("images/1.jpg", jpeg), ("__MACOSX/images/._1.jpg", b"x")]
    wrapped = [(f"set/{name}", data) for name, data in members]
    for prefix, found in [("", members), ("set/", wrapped)]:
        source = open_source(write(tmp_path / "x", found))
        (item,) = source.items
        assert (item.key, item.labels) == (f"{prefix}images/1.jpg", ("cat", "dog"))
        assert dict(item.metadata) == {"camera": "x"}
        assert not source.skips


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_folder_and_its_archive_hold_the_same_images(tmp_path, jpeg, write):
    """Their keys differ by the wrapping folder; what was trained on must be known in both."""
    names = [f"{label}/{number}.jpg" for label in ("ant", "bee") for number in range(30)]
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(jpeg)
    archive = write(tmp_path / "packed", [(f"photos/{name}", jpeg) for name in names])
    with open_source(tmp_path / "photos") as folder, open_source(archive) as packed:
        assert [item.key for item in packed.items] == [f"photos/{i.key}" for i in folder.items]
        assert [item.identity for item in packed.items] == [item.key for item in folder.items]
        assert np.array_equal(item_hashes(packed.items), item_hashes(folder.items))
        splits = [make_split(source.items, "holdout", 0) for source in (folder, packed)]
        assert np.array_equal(splits[0].queries, splits[1].queries)
        assert np.array_equal(splits[0].validation, splits[1].validation)


def test_an_empty_archive_is_refused(tmp_path):
    with pytest.raises(SourceError, match="it is empty"):
        open_source(write_zip(tmp_path / "x.zip", []))
    with pytest.raises(SourceError, match=r"x\.tar: it is empty|not a readable"):
        open_source(write_tar(tmp_path / "x.tar", []))


def test_times_that_are_none_are_zero():
    assert archives._utc_seconds((1980, 0, 0, 0, 0, 0)) == 0.0


def test_separators_of_windows_in_a_zip(tmp_path, jpeg):
    path = write_zip(tmp_path / "x.zip", [("cat\\1.jpg", jpeg), ("dog\\2.jpg", jpeg)])
    with open_source(path) as source:
        assert [(item.key, item.labels) for item in source.items] == [
            ("cat/1.jpg", ("cat",)),
            ("dog/2.jpg", ("dog",)),
        ]
        assert source.read(source.items[1]) == jpeg
