from __future__ import annotations

import logging

import lance
import numpy as np
import pytest

from spherequant.errors import ConflictError, SpherequantError
from spherequant.index import Index, upkeep
from spherequant.index.upkeep import Upkeep, tidy


def add_one_by_one(index, n, start=0):
    for i in range(start, start + n):
        index.add([f"k{i}"], codes=np.array([[i % 16, i // 16 % 16, 0]]))


def files(index):
    return len(list((index.folder / "items.lance" / "data").iterdir()))


def versions(index):
    return len(lance.dataset(str(index.folder / "items.lance")).version_refs())


def deleted_rows(index):
    dataset = lance.dataset(str(index.folder / "items.lance"))
    return sum(f.metadata.num_deletions or 0 for f in dataset.get_fragments())


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Commits of one writer after the other wait for no company; upkeep runs where a test asks."""
    monkeypatch.setattr("spherequant.index.commits.WAIT_SECONDS", 0.0)
    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 10_000)


@pytest.fixture
def items(index):
    return index.folder / "items.lance", index.folder / "leases"


def test_small_files_are_merged_and_old_versions_deleted(index, items):
    add_one_by_one(index, 40)
    index.remove([f"k{i}" for i in range(5)])
    before = [index.get([f"k{i}"])[0] for i in range(5, 40)]
    assert files(index) >= 40
    index.close()
    tidy(*items, grace_seconds=0)
    assert files(index) == 2  # the oldest file, which every write names, is left alone
    assert versions(index) == 1
    after = [index.get([f"k{i}"])[0] for i in range(5, 40)]
    assert [i.id for i in after] == [i.id for i in before]
    assert all(np.array_equal(a.code, b.code) for a, b in zip(after, before, strict=True))
    assert index.add(["new"], codes=[[0, 0, 0]]).tolist() == [40]


def test_versions_superseded_just_now_are_left_alone(index, items):
    add_one_by_one(index, 3)
    index.close()
    before = versions(index)
    tidy(*items, grace_seconds=60)
    assert versions(index) == before + 1  # the keys were indexed


def test_an_open_snapshot_keeps_its_version(index, items):
    add_one_by_one(index, 20)
    result = index.search(vectors=np.ones(16), k=20)
    snapshot = index.searcher
    index.remove([f"k{i}" for i in range(10)])
    add_one_by_one(index, 20, start=20)
    assert index.searcher is not snapshot
    tidy(*items, grace_seconds=0)
    tidy(*items, grace_seconds=0)
    # Everything is still read from the files of the old version.
    assert sorted(result.keys[0]) == sorted(f"k{i}" for i in range(20))
    assert len(snapshot.items([f"k{i}" for i in range(20)])) == 20
    again = snapshot.search(np.full((1, 16), 0.25, np.float32), 20, where="id < 10")
    assert sorted(again.ids[0][:10].tolist()) == list(range(10))
    version = snapshot.version
    held = {v["version"] for v in lance.dataset(str(items[0])).version_refs()}
    assert version in held
    del snapshot, result, again
    tidy(*items, grace_seconds=0)
    held = {v["version"] for v in lance.dataset(str(items[0])).version_refs()}
    assert version not in held


def test_a_snapshot_of_another_process_keeps_its_version(index, items, run_script):
    add_one_by_one(index, 3)
    script = (
        "from spherequant.index import Index\n"
        "with Index.open(sys.argv[1]) as index:\n"
        "    print(len(index), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print([item.id for item in index.get(['k0', 'k1', 'k2'])], flush=True)\n"
    )
    with run_script(script, index.folder) as reader:
        assert reader.stdout.readline() == "3\n"
        index.remove(["k0", "k1", "k2"])
        tidy(*items, grace_seconds=0)
        reader.stdin.write("go\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "[0, 1, 2]\n", reader.stderr.read()
        assert reader.wait(timeout=30) == 0


def test_upkeep_runs_behind_the_writers(index, monkeypatch):
    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 20)
    # Not 0: a writer may still read the version before the one that was just committed.
    monkeypatch.setattr(upkeep, "GRACE_SECONDS", 0.1)
    # How many turns give way to a writer is up to the machine; in the end one gets through.
    n = 0
    while n < 1_000 and not (versions(index) < n and files(index) < n):
        add_one_by_one(index, 5, start=n)
        n += 5
    index.close()
    assert n < 1_000
    assert len(index) == n
    assert [item.id for item in index.get([f"k{i}" for i in range(n)])] == list(range(n))


def test_many_short_sessions_are_tidied_as_one_long_one(index, monkeypatch):
    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 20)
    monkeypatch.setattr(upkeep, "GRACE_SECONDS", 0.0)
    index.close()
    for i in range(30):
        with Index.open(index.folder) as session:
            add_one_by_one(session, 1, start=i)
    assert versions(index) <= 20 + 2
    assert files(index) < 30
    index.refresh()
    assert [item.id for item in index.get([f"k{i}" for i in range(30)])] == list(range(30))


def test_versions_that_must_stay_do_not_call_for_upkeep_again(index, monkeypatch):
    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 20)
    runs = []
    monkeypatch.setattr(upkeep, "tidy", lambda *_: runs.append(True))  # leaves all there is
    add_one_by_one(index, 25)
    index.close()
    index.close()
    assert len(runs) == 2
    with Index.open(index.folder) as reader:
        assert len(reader) == 25
    assert len(runs) == 2  # who only reads does not tidy


def test_large_files_are_not_rewritten_at_every_turn(index, items, monkeypatch):
    monkeypatch.setattr(upkeep, "SIZE_CLASSES", (4, 100))
    monkeypatch.setattr(upkeep, "CROWD", 3)
    index.add([f"big{i}" for i in range(50)], codes=np.zeros((50, 3), int))
    (first,) = (index.folder / "items.lance" / "data").iterdir()
    add_one_by_one(index, 3)
    index.close()
    tidy(*items, grace_seconds=0)
    left = list((index.folder / "items.lance" / "data").iterdir())
    assert first in left
    assert len(left) == 2


def test_a_file_with_many_deleted_rows_is_written_anew(index, items):
    add_one_by_one(index, 1)  # the oldest file, which is left alone
    index.add([f"more{i}" for i in range(20)], codes=np.zeros((20, 3), int))
    index.remove([f"more{i}" for i in range(4)])
    index.close()
    tidy(*items, grace_seconds=0)
    assert deleted_rows(index) == 4  # a fifth: not worth it yet
    index.remove([f"more{i}" for i in range(4, 10)])
    index.close()
    tidy(*items, grace_seconds=0)
    assert deleted_rows(index) == 0
    assert index.get(["k0", "more9", "more10"])[1] is None
    assert [item.id for item in index.get(["k0", "more10", "more19"])] == [0, 11, 20]


def test_many_items_call_for_upkeep_too(index, monkeypatch):
    monkeypatch.setattr(upkeep, "ITEMS_BETWEEN", 5)
    runs = []
    monkeypatch.setattr(upkeep, "tidy", lambda *_: runs.append(True))
    for i in range(6):
        index.add([f"a{i}", f"b{i}"], codes=np.zeros((2, 3), int))
        index._upkeep.wait()
    assert len(runs) == 2  # after six items, and after twelve


@pytest.mark.parametrize(
    ("error", "level"), [(ConflictError("x"), None), (SpherequantError("x"), "WARNING")]
)
def test_a_failed_upkeep_disturbs_no_writer(items, monkeypatch, caplog, error, level):
    def broken(*_):
        raise error

    monkeypatch.setattr(upkeep, "tidy", broken)
    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 1)
    keeper = Upkeep(*items)
    with caplog.at_level(logging.INFO):
        keeper.note_commit(1)
        keeper.wait()
    assert [record.levelname for record in caplog.records] == ([level] if level else [])


def test_a_commit_stands_when_no_thread_can_be_started(index, monkeypatch, caplog):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(upkeep, "VERSIONS_BETWEEN", 1)
    with monkeypatch.context() as patched:
        patched.setattr(upkeep.threading.Thread, "start", none_left)
        add_one_by_one(index, 3)
    assert len(index) == 3
    assert "put off" in caplog.text
    add_one_by_one(index, 1, start=3)
    index.close()
    assert len(caplog.records) == 3  # the fourth found a thread
