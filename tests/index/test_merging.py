"""Merges happen behind the readers: refreshes go on, nothing is lost, nothing outlives its use."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from spherequant.errors import SpherequantError
from spherequant.index import Index, merging, searcher, segments
from spherequant.index.leases import leased_versions
from spherequant.index.upkeep import tidy

TAIL = 20


class Gate:
    """A reading of everything that waits until it is let through."""

    def __init__(self, read):
        self.read = read
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls = 0

    def __call__(self, dataset, codebooks, between):
        self.calls += 1
        self.begun.set()
        while not self.open.wait(0.01):
            between()
        return self.read(dataset, codebooks, between)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(segments.read_items)
    monkeypatch.setattr(searcher, "read_items", gate)
    monkeypatch.setattr(segments, "_LEAST_TAIL", TAIL)
    yield gate
    gate.open.set()


@pytest.fixture
def writer(index):
    add(index, 0, 300)
    return index


@pytest.fixture
def reader(writer):
    with Index.open(writer.folder) as opened:
        assert len(opened) == 300
        yield opened


def add(index, first, last):
    codes = np.random.default_rng(first).integers(0, 16, (last - first, 3), np.uint8)
    index.add([f"k{i}" for i in range(first, last)], codes=codes)


def forbid_reading(monkeypatch):
    def forbidden(*_):
        raise AssertionError("everything was read anew in the foreground")

    monkeypatch.setattr(merging, "read_items", forbidden)


def shape(index):
    return [len(segment.ids) for segment in index.searcher.in_memory.segments]


def merge_threads():
    return [thread for thread in threading.enumerate() if thread.name == "spherequant-merge"]


def join():
    for thread in merge_threads():
        thread.join(10)


def assert_same(index):
    with Index.open(index.folder) as anew:
        assert np.array_equal(index.searcher.ids, anew.searcher.ids)
        assert np.array_equal(index.searcher.codes(), anew.searcher.codes())
        keys = [f"k{i}" for i in (0, 7, 310)]
        assert [i and i.id for i in index.get(keys)] == [i and i.id for i in anew.get(keys)]


def test_refreshes_go_on_while_a_merge_is_under_way(writer, reader, gate, monkeypatch):
    forbid_reading(monkeypatch)
    add(writer, 300, 325)
    reader.refresh()
    assert gate.begun.wait(10)
    assert shape(reader) == [300, 25]
    before = reader.searcher
    add(writer, 325, 330)
    writer.remove(["k1", "k301"])
    reader.refresh()
    assert shape(reader) == [300, 29]
    gate.open.set()
    join()
    reader.refresh()  # nothing was committed: the merge itself is news
    assert shape(reader) == [325, 5]
    assert gate.calls == 1
    assert len(before) == 325
    assert np.array_equal(before.ids, np.arange(325))
    monkeypatch.undo()
    assert_same(reader)


def test_a_merge_keeps_its_version_from_being_cleaned(writer, reader, gate):
    add(writer, 300, 325)
    reader.refresh()
    assert gate.begun.wait(10)
    version = reader.searcher.version
    add(writer, 325, 326)
    reader.refresh()
    writer.close()
    tidy(writer.folder / "items.lance", writer.folder / "leases", grace_seconds=0)
    assert version in leased_versions(writer.folder / "leases")
    gate.open.set()
    join()
    reader.refresh()
    assert version not in leased_versions(writer.folder / "leases")
    assert_same(reader)


def test_a_tail_that_grows_too_long_waits_for_the_merge(writer, reader, gate, monkeypatch):
    forbid_reading(monkeypatch)
    add(writer, 300, 350)
    reader.refresh()
    assert gate.begun.wait(10)
    add(writer, 350, 390)
    threading.Timer(0.1, gate.open.set).start()
    reader.refresh()
    assert gate.open.is_set()
    assert shape(reader) == [350, 40]
    monkeypatch.undo()
    assert_same(reader)


def test_after_a_merge_that_failed_everything_is_read_in_the_foreground(
    writer, reader, gate, monkeypatch
):
    def broken(*_):
        raise OSError(5, "Input/output error")

    gate.read = broken
    add(writer, 300, 325)
    reader.refresh()
    gate.open.set()
    join()
    monkeypatch.setattr(merging, "read_items", broken)
    with pytest.raises(SpherequantError, match="input/output error"):
        reader.refresh()
    assert len(reader) == 325  # the snapshot still answers
    monkeypatch.undo()
    add(writer, 325, 326)
    reader.refresh()
    assert_same(reader)


def test_closing_ends_a_merge(writer, reader, gate):
    add(writer, 300, 325)
    reader.refresh()
    assert gate.begun.wait(10)
    reader.close()
    assert not merge_threads()


def test_a_merge_does_not_outlive_its_index(writer, gate):
    forgotten = Index.open(writer.folder)
    assert len(forgotten) == 300
    add(writer, 300, 325)
    forgotten.refresh()
    assert gate.begun.wait(10)
    del forgotten
    gc.collect()
    join()
    assert not merge_threads()
    gc.collect()
    version = writer.searcher.version
    assert leased_versions(writer.folder / "leases") == {version}


def test_a_merge_does_not_keep_the_process(writer, run_script):
    script = (
        "import threading, time\n"
        "from spherequant.index import Index, searcher, segments\n"
        "segments._LEAST_TAIL = 20\n"
        "def slow(dataset, codebooks, between):\n"
        "    print('begun', flush=True)\n"
        "    while True:\n"
        "        between()\n"
        "        time.sleep(0.01)\n"
        "searcher.read_items = slow\n"
        "index = Index.open(sys.argv[1])\n"
        "print(len(index), flush=True)\n"
        "sys.stdin.readline()\n"
        "index.refresh()\n"
    )
    process = run_script(script, writer.folder)
    assert process.stdout.readline() == "300\n"
    add(writer, 300, 325)
    started = time.monotonic()
    out, err = process.communicate("go\n", timeout=60)
    assert (process.returncode, out, err) == (0, "begun\n", "")
    assert time.monotonic() - started < 30
