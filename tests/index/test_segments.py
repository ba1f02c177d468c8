"""A snapshot that follows the index finds what one that reads everything anew finds."""

from __future__ import annotations

import shutil
import time
import tracemalloc

import numpy as np
import pytest

from spherequant.errors import InputError
from spherequant.index import Index, merging, searcher, segments
from spherequant.index.upkeep import tidy


@pytest.fixture
def codebooks_MKD():
    return np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)


@pytest.fixture
def pair(tmp_path, codebooks_MKD):
    """A writer and a reader of one index."""
    from spherequant.quantizer import Codebooks

    with Index.create(tmp_path / "index", Codebooks(codebooks_MKD)) as writer:
        add(writer, 0, 300)
        with Index.open(tmp_path / "index") as reader:
            assert len(reader) == 300
            yield writer, reader


def add(index, first, last, seed=0):
    codes = np.random.default_rng([seed, first]).integers(0, 16, (last - first, 3), np.uint8)
    index.add([f"k{i}" for i in range(first, last)], codes=codes, labels=["a"] * (last - first))


def assert_follows(reader):
    """The reader, having followed, equals a snapshot that read everything."""
    queries = np.random.default_rng(1).normal(size=(3, 16))
    reader.refresh()
    followed = reader.searcher
    with Index.open(reader.folder) as anew:
        assert len(reader) == len(anew)
        assert np.array_equal(followed.ids, anew.searcher.ids)
        assert np.array_equal(followed.codes(), anew.searcher.codes())
        for where in (None, "id % 3 = 1", "id < 4", "array_has(labels, 'b')"):
            one = reader.search(vectors=queries, k=40, where=where)
            other = anew.search(vectors=queries, k=40, where=where)
            assert np.array_equal(one.ids, other.ids)
            assert np.array_equal(one.scores, other.scores)
            assert one.keys == other.keys
        keys = [f"k{i}" for i in (0, 7, 299, 310)]
        for one, other in zip(reader.get(keys), anew.get(keys), strict=True):
            assert (one is None) == (other is None)
            assert one is None or (one.id == other.id and np.array_equal(one.code, other.code))


def test_random_histories(pair, monkeypatch):
    writer, reader = pair
    monkeypatch.setattr(segments, "_LEAST_TAIL", 15)
    rng = np.random.default_rng(2)
    full_reads, merges = [], []
    real = segments.read_items

    def merged(*arguments):
        merges.append(1)
        time.sleep(rng.random() / 20)  # some refreshes come before it is done, and follow on
        return real(*arguments)

    monkeypatch.setattr(merging, "read_items", lambda *a: full_reads.append(1) or real(*a))
    monkeypatch.setattr(searcher, "read_items", merged)
    steps, compared = 60, 1
    for step in range(steps):
        first = int(rng.integers(0, 400))
        last = first + int(rng.integers(1, 12))
        match rng.integers(0, 4):
            case 0 | 1:
                add(writer, first, last, seed=step)  # new ones, and others that change
            case 2:
                writer.remove([f"k{i}" for i in range(first, last)])
            case 3 if step % 3 == 0:
                tidy(writer.folder / "items.lance", writer.folder / "leases", grace_seconds=0)
            case _:
                writer.add([f"k{first}"], codes=[[1, 2, 3]], labels=["b"])
        if rng.random() < 0.7:
            assert_follows(reader)
            compared += 1
    assert_follows(reader)
    assert len(merges) > 3
    assert len(full_reads) - compared < steps / 10


@pytest.fixture
def _no_full_read(pair, monkeypatch):
    def forbidden(*_):
        raise AssertionError("everything was read anew")

    monkeypatch.setattr(merging, "read_items", forbidden)
    monkeypatch.setattr(searcher, "read_items", forbidden)


@pytest.mark.usefixtures("_no_full_read")
def test_only_what_changed_is_read(pair, monkeypatch):
    writer, reader = pair
    seen = []
    real = segments._read_fragments

    def counted(dataset, fragments, columns):
        table = real(dataset, fragments, columns)
        seen.append((columns, table.num_rows))
        return table

    monkeypatch.setattr(segments, "_read_fragments", counted)
    add(writer, 300, 305)
    reader.refresh()
    assert seen == [(["id"], 0), (["id", "code"], 5)]
    seen.clear()
    writer.remove(["k302"])
    reader.refresh()
    assert seen == [(["id"], 4), (["id", "code"], 0)]
    assert len(reader) == 304
    assert reader.get(["k302"]) == [None]
    assert reader.get(["k304"])[0].id == 304


@pytest.mark.usefixtures("_no_full_read")
def test_a_changed_item_keeps_its_place_among_ties(pair):
    writer, reader = pair
    writer.add(["k5", "k299", "new"], codes=[[9, 9, 9]] * 3)
    reader.refresh()
    best = reader.codebooks.decode([[9, 9, 9]])
    found = reader.search(vectors=best, k=300)
    tied = found.ids[0][found.scores[0] == found.scores[0][found.ids[0] == 300][0]]
    assert [i for i in tied.tolist() if i in (5, 299, 300)] == [5, 299, 300]


@pytest.mark.usefixtures("_no_full_read")
def test_a_snapshot_stays_as_it_was(pair):
    writer, reader = pair
    before = reader.searcher
    ids = before.ids.copy()
    writer.remove(["k1"])
    add(writer, 300, 310)
    reader.refresh()
    assert reader.searcher is not before
    assert np.array_equal(before.ids, ids)
    assert before.rows([1], ["key"]) == {1: {"id": 1, "key": "k1"}}
    with pytest.raises(InputError, match="id 1"):
        reader.searcher.rows([1], ["key"])


def test_a_tail_too_long_to_follow_is_read_anew(pair, monkeypatch):
    writer, reader = pair
    monkeypatch.setattr(segments, "_LEAST_TAIL", 20)
    add(writer, 300, 390)
    assert_follows(reader)
    assert len(reader.searcher.in_memory.segments) == 1


def test_a_folder_that_was_restored_from_an_older_copy(pair, tmp_path):
    writer, reader = pair
    writer.remove(["k1"])
    shutil.copytree(writer.folder / "items.lance", tmp_path / "copy")
    writer.remove(["k2"])
    reader.refresh()
    shutil.rmtree(writer.folder / "items.lance")
    shutil.copytree(tmp_path / "copy", writer.folder / "items.lance")
    with Index.open(writer.folder) as other:
        other.remove(["k3"])
        add(other, 300, 303)
    assert_follows(reader)
    assert reader.get(["k2"])[0].id == 2


def test_many_dead_items_are_dropped(pair):
    writer, reader = pair
    writer.remove([f"k{i}" for i in range(200)])
    assert_follows(reader)
    assert len(reader.searcher.in_memory.segments[0].ids) == 100


def test_an_index_that_was_emptied_and_filled(pair):
    writer, reader = pair
    writer.remove([f"k{i}" for i in range(300)])
    assert_follows(reader)
    assert len(reader) == 0
    assert (reader.search(vectors=np.ones(16)).ids == -1).all()
    add(writer, 0, 3)
    assert_follows(reader)


def held(index):
    """Which segments hold their ids."""
    return [segment.held_ids is not None for segment in index.searcher.in_memory.segments]


def test_following_makes_no_array_of_all_ids(pair):
    writer, reader = pair
    add(writer, 300, 40_000)
    reader.refresh()
    items = reader.searcher.in_memory
    tracemalloc.start()
    assert not items.crowded
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000


def test_ids_without_gaps_take_no_memory(pair):
    writer, reader = pair
    (main,) = reader.searcher.in_memory.segments
    assert main.held_ids is None
    assert main.memory_bytes == main.layout.memory_bytes
    assert np.array_equal(main.ids, np.arange(300))
    assert main.positions(np.array([-1, 0, 299, 300])).tolist() == [-1, 0, 299, -1]
    writer.remove(["k7", "k299"])
    add(writer, 300, 310)
    assert_follows(reader)
    assert held(reader) == [False, True]


def test_ids_with_gaps_are_held(pair):
    writer, reader = pair
    writer.remove(["k7"])
    assert_follows(reader)
    with Index.open(reader.folder) as anew:
        (main,) = anew.searcher.in_memory.segments
        assert held(anew) == [True]
        assert main.memory_bytes == main.layout.memory_bytes + (8 + 4) * 299
        assert main.positions(np.array([-1, 6, 7, 8, 300])).tolist() == [-1, 6, -1, 7, -1]


def test_ids_that_count_up_in_another_order_of_rows(pair):
    writer, reader = pair
    add(writer, 5, 6, seed=1)  # an update: the item lies last, its id stays
    assert_follows(reader)
    with Index.open(reader.folder) as anew:
        assert held(anew) == [False]


def test_counting_up_is_seen_across_pieces(monkeypatch):
    monkeypatch.setattr(segments, "_SORTED_ROWS", 4)
    for n in (0, 1, 4, 9):
        ids = np.arange(n)
        assert segments.count_up(ids)
        for changed in range(n):
            other = ids.copy()
            other[changed] += 1
            assert not segments.count_up(other)
