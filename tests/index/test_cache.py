"""An index opened from its cache is the index; whatever else the file holds, nothing breaks."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spherequant.errors import SpherequantError
from spherequant.index import Index, cache, merging, scan
from spherequant.index.cache import load_cache, save_cache
from spherequant.index.upkeep import tidy

FUZZ = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Several checksums an array, as large files have."""
    monkeypatch.setattr(cache, "_CHUNK", 512)


def add(index, first, last, seed=0):
    shape = (last - first, index.header.n_codebooks)
    codes = np.random.default_rng([seed, first]).integers(0, 16, shape, np.uint8)
    index.add([f"k{i}" for i in range(first, last)], codes=codes)


def without_cache(folder):
    """The index as a copy without the file shows it."""
    copy = folder.with_name("plain")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("cache.bin", "leases"))
    return Index.open(copy)


def answers(index):
    queries = np.random.default_rng(1).normal(size=(2, index.header.dim))
    found = [index.search(vectors=queries, k=30, where=where) for where in (None, "id % 3 = 1")]
    return [
        index.searcher.ids,
        index.searcher.codes(),
        *(part for result in found for part in (result.ids, result.scores, result.keys)),
    ]


def assert_same(folder):
    with Index.open(folder) as cached, without_cache(folder) as plain:
        for one, other in zip(answers(cached), answers(plain), strict=True):
            assert np.array_equal(one, other)


@pytest.fixture(params=["flat", "buckets", "lists"])
def full(request, tmp_path, monkeypatch, make_codebooks):
    """An index with a tail, dead items and a cache."""
    from spherequant.quantizer import Codebooks

    if request.param != "flat":
        monkeypatch.setattr(scan, "BUCKETS_FROM", 1)
    array = make_codebooks().array[: 2 if request.param == "lists" else None]
    with Index.create(tmp_path / "index", Codebooks(array)) as index:
        add(index, 0, 200)
        len(index)
        add(index, 190, 230, seed=1)
        index.remove(["k0", "k70", "k205"])
        assert [mask is None for mask in index.searcher.in_memory.alive] == [False, True]
        index.write_cache()
        yield index


def assert_equal_items(one, other):
    assert one.fragments == other.fragments
    for a, b in zip(one.alive, other.alive, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b)
    for a, b in zip(one.segments, other.segments, strict=True):
        assert a.layout.books == b.layout.books
        for left, right in zip(a.layout.arrays(), b.layout.arrays(), strict=True):
            assert np.array_equal(left, right)
        for name in ("ids", "numbers", "starts", "places"):
            left, right = getattr(a, name), getattr(b, name)
            assert (left is None) == (right is None)
            assert left is None or (left.dtype == right.dtype and np.array_equal(left, right))


def test_items_come_back_as_they_were(full):
    items = full.searcher.in_memory
    assert_equal_items(load_cache(full.folder / "cache.bin", full.header, full.codebooks), items)


def test_opening_reads_the_cache(full, monkeypatch):
    assert_same(full.folder)
    monkeypatch.setattr(merging, "read_items", None)
    with Index.open(full.folder) as index:
        assert len(index) == 227


def test_ids_without_gaps_take_no_memory(index):
    add(index, 0, 100)
    index.write_cache()
    found = load_cache(index.folder / "cache.bin", index.header, index.codebooks)
    assert [segment.held_ids for segment in found.segments] == [None]
    assert_equal_items(found, index.searcher.in_memory)


def test_places_of_64_bits(full):
    items = full.searcher.in_memory
    main, *rest = items.segments
    wide = replace(main, places=np.arange(len(main.ids), dtype=np.uint64))
    items = replace(items, segments=(wide, *rest))
    save_cache(full.folder / "cache.bin", items, full.header, full.codebooks)
    assert_equal_items(load_cache(full.folder / "cache.bin", full.header, full.codebooks), items)


def test_an_empty_index(index, monkeypatch):
    index.write_cache()
    monkeypatch.setattr(merging, "read_items", None)
    with Index.open(index.folder) as opened:
        assert len(opened) == 0
    add(index, 0, 5)
    with Index.open(index.folder) as opened:
        assert len(opened) == 5


def test_an_older_cache_is_followed(full, monkeypatch):
    add(full, 225, 240, seed=2)
    full.remove(["k3", "k220"])
    assert_same(full.folder)
    with monkeypatch.context() as context:
        context.setattr(merging, "read_items", None)
        with Index.open(full.folder) as opened:
            assert len(opened) == 235
    tidy(full.folder / "items.lance", full.folder / "leases", grace_seconds=0)
    assert_same(full.folder)
    full.remove([f"k{i}" for i in range(150)])
    assert_same(full.folder)  # too much is gone: read anew


@pytest.mark.parametrize("seed", [0, 1])
def test_random_histories(full, seed, caplog):
    rng = np.random.default_rng(seed)
    for step in range(12):
        first = int(rng.integers(0, 300))
        last = first + int(rng.integers(1, 15))
        match rng.integers(0, 4):
            case 0 | 1:
                add(full, first, last, seed=step)
            case 2:
                full.remove([f"k{i}" for i in range(first, last)])
            case _:
                tidy(full.folder / "items.lance", full.folder / "leases", grace_seconds=0)
        if rng.random() < 0.4:
            full.refresh()
            full.write_cache()
            items = full.searcher.in_memory
            assert_equal_items(
                load_cache(full.folder / "cache.bin", full.header, full.codebooks), items
            )
        assert_same(full.folder)
    assert "passed over" not in caplog.text


def test_a_cache_of_a_version_that_was_undone(full):
    saved = full.folder.with_name("saved")
    shutil.copytree(full.folder / "items.lance", saved)
    full.remove(["k5"])
    full.write_cache()
    shutil.rmtree(full.folder / "items.lance")
    shutil.copytree(saved, full.folder / "items.lance")
    with Index.open(full.folder) as index:
        assert index.get(["k5"])[0].id in index.searcher.ids
    with Index.open(full.folder) as index:
        index.remove(["k6"])
    assert_same(full.folder)


def test_the_cache_of_another_index_with_the_same_codebooks(full, tmp_path):
    with Index.create(tmp_path / "other", full.codebooks) as other:
        add(other, 0, 200, seed=5)
        add(other, 190, 230, seed=6)
        other.remove(["k1", "k71", "k206"])
        shutil.copy(full.folder / "cache.bin", other.folder)
    assert_same(tmp_path / "other")


def test_the_cache_of_another_model_is_passed_over(full, tmp_path, make_codebooks, caplog):
    with Index.create(tmp_path / "other", make_codebooks(1)) as other:
        add(other, 0, 20)
    shutil.copy(full.folder / "cache.bin", other.folder)
    assert_same(tmp_path / "other")
    assert "cache.bin is passed over: it belongs to another index" in caplog.text


def test_the_file_is_like_the_others(full):
    mode = stat.S_IMODE((full.folder / "cache.bin").stat().st_mode)
    assert mode == stat.S_IMODE((full.folder / "index.json").stat().st_mode)
    assert not list(full.folder.glob("*.partial"))


def test_what_killed_writers_left_is_deleted(full):
    old, young = (full.folder / f"cache.bin.{name}.partial" for name in ("old", "young"))
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    young.write_bytes(b"x")
    full.write_cache()
    assert not old.exists()
    assert young.exists()


def test_a_full_disk_leaves_the_cache_as_it_was(full, run_script):
    """A limit on file size stands in for a full disk: the kernel refuses the same writes."""
    before = (full.folder / "cache.bin").read_bytes()
    script = (
        "import resource, signal\n"
        "from spherequant.errors import SpherequantError\n"
        "from spherequant.index import Index\n"
        "index = Index.open(sys.argv[1])\n"
        "len(index)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    index.write_cache()\n"
        "except SpherequantError as error:\n"
        "    print(error)\n"
    )
    out, err = run_script(script, full.folder).communicate(timeout=60)
    assert "cannot write" in out, err
    assert "file too large" in out
    assert (full.folder / "cache.bin").read_bytes() == before
    assert not list(full.folder.glob("*.partial"))


def test_two_writers_at_once(full):
    items = full.searcher.in_memory
    path = full.folder / "cache.bin"

    def write():
        for _ in range(15):
            save_cache(path, items, full.header, full.codebooks)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert load_cache(path, full.header, full.codebooks) is not None
    assert not list(full.folder.glob("*.partial"))


def test_where_nothing_can_be_written(full, monkeypatch):
    monkeypatch.setattr(full, "folder", full.folder / "missing")
    with pytest.raises(SpherequantError, match="cannot write"):
        full.write_cache()


def test_a_cache_that_cannot_be_read_is_passed_over(full, caplog):
    (full.folder / "cache.bin").unlink()
    (full.folder / "cache.bin").mkdir()
    assert_same(full.folder)
    assert "passed over" in caplog.text


def test_a_cut_file_is_passed_over(full):
    path = full.folder / "cache.bin"
    data = path.read_bytes()
    for size in {*range(0, len(data), 97), 40, 63, 64, 65, len(data) - 1, len(data) - 64}:
        path.write_bytes(data[:size])
        assert load_cache(path, full.header, full.codebooks) is None
    path.write_bytes(data + bytes(64))
    assert load_cache(path, full.header, full.codebooks) is None
    assert_same(full.folder)


@FUZZ
@given(place=st.integers(0), value=st.integers(1, 255))
def test_a_byte_that_flipped_is_noticed(full, place, value):
    path = full.folder / "cache.bin"
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= value
    spoiled = path.with_name("spoiled")
    spoiled.write_bytes(data)
    found = load_cache(spoiled, full.header, full.codebooks)
    if found is not None:  # between two arrays nothing is stored
        assert_equal_items(found, full.searcher.in_memory)


@pytest.fixture
def _any_checksum(full, monkeypatch):
    """Files whose checksums always fit, as one who means harm can make them."""
    monkeypatch.setattr(cache, "crc32", lambda _: 0)
    full.write_cache()


def assert_harmless(full, data):
    """Whatever the file holds, the index opens, answers and follows."""
    (full.folder / "cache.bin").write_bytes(data)
    with Index.open(full.folder) as index:
        queries = np.random.default_rng(1).normal(size=(1, full.header.dim))
        index.search(vectors=queries, k=300)
        add(full, 0, 1, seed=int(index.searcher.version))
        index.refresh()
        index.search(vectors=queries, k=3)


@settings(FUZZ, max_examples=60)
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=3))
@pytest.mark.usefixtures("_any_checksum")
def test_bytes_with_checksums_that_fit_do_no_harm(full, places):
    data = bytearray((full.folder / "cache.bin").read_bytes())
    saved = bytes(data)
    for place, value in places:
        data[min(int(place * len(data)), len(data) - 1)] ^= value
    found = load_cache_of(full, data)
    if found is not None:
        assert_harmless(full, data)
    (full.folder / "cache.bin").write_bytes(saved)


def load_cache_of(full, data):
    path = full.folder / "spoiled"
    path.write_bytes(data)
    return load_cache(path, full.header, full.codebooks)


def described(data):
    """The description of a file and all that follows it, aligned."""
    (length,) = struct.unpack_from("<Q", data, 24)
    return json.loads(data[64 : 64 + length]), data[-(-(64 + length) // 64) * 64 :]


def file_of(text, arrays):
    """A file with another description."""
    padded = text + bytes(-(64 + len(text)) % 64)
    size = 64 + len(padded) + len(arrays)
    prelude = struct.pack("<16sIIQQ24x", b"SPHEREQUANTCACHE", 2, 0, len(text), size)
    return prelude + padded + arrays


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=2), values),
    max_leaves=6,
)


def places_of(value, path=()):
    """Every path into parsed JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else pairs:
        yield from places_of(inner, (*path, key))


@settings(FUZZ, max_examples=150)
@given(choice=st.integers(0), value=anything | st.integers(0, 300))
@pytest.mark.usefixtures("_any_checksum")
def test_a_description_of_anything_does_no_harm(full, choice, value):
    saved = (full.folder / "cache.bin").read_bytes()
    description, arrays = described(saved)
    paths = list(places_of(description))
    path = paths[choice % len(paths)]
    changed = {"top": description}
    inner = changed
    for key in ("top", *path)[:-1]:
        inner = inner[key]
    inner[("top", *path)[-1]] = value
    data = file_of(json.dumps(changed["top"]).encode(), arrays)
    if load_cache_of(full, data) is not None:
        assert_harmless(full, data)
    (full.folder / "cache.bin").write_bytes(saved)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"nul", b"1e999", b"9" * 5000])
@pytest.mark.usefixtures("_any_checksum")
def test_a_description_that_is_no_json(full, text, caplog):
    assert load_cache_of(full, file_of(text, bytes(64))) is None
    assert "passed over" in caplog.text


@pytest.mark.parametrize("items", [1 << 20, 1 << 33, 1 << 80])
@pytest.mark.usefixtures("_any_checksum")
def test_nothing_is_allocated_for_more_than_the_file_holds(full, items, monkeypatch):
    description, arrays = described((full.folder / "cache.bin").read_bytes())
    description["segments"][0][0] = items
    monkeypatch.setattr(cache, "_Room", None)
    assert load_cache_of(full, file_of(json.dumps(description).encode(), arrays)) is None
