from __future__ import annotations

import threading

import lance
import numpy as np
import pytest

from spherequant.errors import ConflictError, DuplicateKeyError
from spherequant.index import catalogue as catalogue_module
from spherequant.index import columns
from spherequant.index.catalogue import NEXT_ID, Catalogue, Change, Owner, Removal, Upsert
from spherequant.index.versions import Versions

FOLDER = Owner("photos", "/photos")
API = Owner()


@pytest.fixture
def catalogue(index):
    return open_catalogue(index)


@pytest.fixture
def path(index):
    return index.folder / "items.lance"


@pytest.fixture
def before_the_commit(monkeypatch):
    """Has something happen once, between a plan and its commit."""

    def arrange(happen):
        look_up = catalogue_module._look_up
        happened = []

        def late(dataset, keys):
            found = look_up(dataset, keys)
            if not happened:
                happened.append(None)
                happened[0] = happen()
            return found

        monkeypatch.setattr(catalogue_module, "_look_up", late)
        return happened

    return arrange


@pytest.fixture
def upsert(index):
    def make(keys, owner=API, first=0):
        codes = np.array([[(first + i) % 16, 0, 0] for i in range(len(keys))], np.uint8)
        rows = columns.Rows(
            keys, codes, [()] * len(keys), [{}] * len(keys), source=owner.name, root=owner.root
        )
        return Upsert(rows.table(index.header), owner)

    return make


def open_catalogue(index):
    return Catalogue(Versions(index.folder / "items.lance"))


def stored(path):
    rows = lance.dataset(str(path)).to_table(columns=["id", "key"]).to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["id"] for row in rows}


def test_the_columns_are_those_of_the_design(path):
    dataset = lance.dataset(str(path))
    names = "id key changed code labels source root size mtime digest phash thumbnail original"
    assert dataset.schema.names == names.split()
    assert dataset.data_storage_version == "2.1"
    assert dataset.has_stable_row_ids
    primary = dataset.schema.field("key").metadata
    assert primary == {b"lance-schema:unenforced-primary-key": b"true"}
    assert dataset.config()[NEXT_ID] == "0"


def test_a_group_is_one_commit_and_the_last_write_of_a_key_wins(catalogue, upsert, path):
    before = lance.dataset(str(path)).version
    outcomes = catalogue.commit(
        [upsert(["a", "b"]), upsert(["b", "c"], first=7), upsert(["a"], first=9)]
    )
    assert [ids.tolist() for ids in outcomes] == [[0, 1], [1, 2], [0]]
    assert catalogue.version == before + 2  # ids reserved, rows upserted
    rows = lance.dataset(str(path)).to_table(columns=["key", "code"]).to_pylist()
    assert {row["key"]: row["code"][0] for row in rows} == {"a": 9, "b": 7, "c": 8}


def test_writes_and_removals_keep_their_order(catalogue, upsert, path):
    outcomes = catalogue.commit(
        [upsert(["a"]), Removal(["a", "x"]), upsert(["a"]), Removal(["x"]), Removal(["a"])]
    )
    assert [o if isinstance(o, int) else o.tolist() for o in outcomes] == [[0], 1, [1], 0, 1]
    assert stored(path) == {}


def test_a_clash_fails_its_own_write_only(catalogue, upsert, path):
    catalogue.commit([upsert(["a"], FOLDER)])
    outcomes = catalogue.commit(
        [upsert(["b"]), upsert(["c", "a"]), upsert(["b"], FOLDER), upsert(["d"], FOLDER)]
    )
    assert outcomes[0].tolist() == [1]
    assert isinstance(outcomes[1], DuplicateKeyError)
    assert isinstance(outcomes[2], DuplicateKeyError)  # the first write of the group took it
    assert stored(path) == {"a": 0, "b": 1, "d": 2}


def test_a_removal_by_a_source_spares_what_is_not_its_own(catalogue, upsert, path):
    catalogue.commit([upsert(["a"], FOLDER), upsert(["b"])])
    assert catalogue.commit([Removal(["a", "b"], FOLDER)]) == [1]
    assert stored(path) == {"b": 1}


def test_a_plan_made_on_old_knowledge_is_made_anew(index, path, upsert, before_the_commit):
    catalogue, other = open_catalogue(index), open_catalogue(index)
    before_the_commit(lambda: other.commit([upsert(["new", "theirs"])]))
    outcomes = catalogue.commit([upsert(["ours", "new"], first=5)])
    ids = outcomes[0].tolist()
    assert stored(path) == {"new": ids[1], "theirs": 1, "ours": ids[0]}
    assert ids[1] == 0
    assert len(set(stored(path).values())) == 3


@pytest.mark.parametrize("filled", [0, 1, 5])
def test_of_two_plans_on_one_version_the_second_is_made_anew(
    index, path, upsert, before_the_commit, filled
):
    """Whatever files there are that both could name: none, one, or others than their own."""
    catalogue, other = open_catalogue(index), open_catalogue(index)
    for i in range(filled):
        other.commit([upsert([f"old {i}"])])
    other.commit([Removal(["old 0"])])
    before_the_commit(lambda: other.commit([upsert(["same"])]))
    (ids,) = catalogue.commit([upsert(["same"], first=5)])
    assert stored(path)["same"] == ids[0] == filled
    rows = lance.dataset(str(path)).to_table(filter="key = 'same'").to_pylist()
    assert [row["code"][0] for row in rows] == [5]


@pytest.mark.parametrize("write", ["upsert", "change"])
def test_all_items_may_be_replaced_at_once(index, path, upsert, before_the_commit, write):
    catalogue, other = open_catalogue(index), open_catalogue(index)
    other.commit([upsert(["a", "b"])])
    again = (
        upsert(["a", "b"], first=3)
        if write == "upsert"
        else Change(["a", "b"], [{"labels": ["x"]}, {"labels": []}])
    )
    if write == "upsert":
        before_the_commit(lambda: other.commit([upsert(["c"])]))
    (ids,) = catalogue.commit([again])
    assert ids.tolist() == [0, 1]
    assert stored(path) == {"a": 0, "b": 1} | ({"c": 2} if write == "upsert" else {})


@pytest.mark.parametrize("keys", [["k"], ["k", "new"]], ids=["no id reserved", "an id reserved"])
def test_the_id_of_an_item_removed_meanwhile_is_not_used_again(
    index, path, upsert, before_the_commit, keys
):
    catalogue, other = open_catalogue(index), open_catalogue(index)
    catalogue.commit([upsert(["k", "other"])])
    happened = before_the_commit(lambda: other.commit([Removal(["k"])]))
    (ids,) = catalogue.commit([upsert(keys)])
    assert happened == [[1]]
    assert stored(path) == {"other": 1, **dict(zip(keys, ids.tolist(), strict=True))}
    assert ids.min() >= 2  # 0 was k's


def test_a_removal_of_what_was_replaced_meanwhile_is_planned_anew(
    index, path, upsert, before_the_commit
):
    catalogue, other = open_catalogue(index), open_catalogue(index)
    catalogue.commit([upsert(["k", "other"])])
    before_the_commit(lambda: other.commit([upsert(["k"], first=3)]))
    assert catalogue.commit([Removal(["k"])]) == [1]
    assert stored(path) == {"other": 1}


def test_a_change_is_all_or_none_and_touches_nothing_else(catalogue, upsert, path):
    catalogue.commit([upsert(["a", "b", "c"]), upsert(["theirs"], FOLDER)])
    before = lance.dataset(str(path)).to_table().to_pylist()
    outcomes = catalogue.commit(
        [
            Change(["a", "b"], [{"labels": ["x"]}, {"labels": ["y", "z"]}]),
            Change(["a", "none", "gone"], [{"labels": []}] * 3),
            Change(["b"], [{"labels": ["last"]}]),
            Change(["theirs"], [{"labels": ["mine"]}]),
        ]
    )
    assert [outcomes[0].tolist(), outcomes[2].tolist()] == [[0, 1], [1]]
    assert outcomes[1].keys == ["none", "gone"]
    assert isinstance(outcomes[3], DuplicateKeyError)
    assert "source 'photos'" in str(outcomes[3])
    rows = {row["key"]: row for row in lance.dataset(str(path)).to_table().to_pylist()}
    for row in before:
        expected = {"a": ["x"], "b": ["last"]}.get(row["key"], [])
        now = rows[row["key"]]
        assert now["labels"] == expected
        assert (now["changed"] > row["changed"]) == (row["key"] in "ab")
        assert now | {"labels": [], "changed": None} == row | {"labels": [], "changed": None}


def test_a_writer_that_always_loses_says_so(catalogue, upsert, monkeypatch):
    monkeypatch.setattr("spherequant.index.catalogue.ATTEMPTS", 3)
    monkeypatch.setattr("time.sleep", lambda _: None)

    def lose(*_):
        raise ConflictError("x")

    monkeypatch.setattr(Catalogue, "_replace", lose)
    (outcome,) = catalogue.commit([upsert(["a"])])
    assert isinstance(outcome, ConflictError)
    assert "3 times in a row" in str(outcome)


def test_many_catalogues_never_give_an_id_twice(index, upsert):
    """Eight writers without a common lock; some keys are shared by all."""
    given = []

    def work(number):
        own = open_catalogue(index)
        for turn in range(4):
            keys = [f"own {number} {turn}", f"shared {turn}"]
            (ids,) = own.commit([upsert(keys)])
            given.append(dict(zip(keys, ids.tolist(), strict=True)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 32
    rows = lance.dataset(str(index.folder / "items.lance")).to_table(columns=["id", "key"])
    keys, ids = rows["key"].to_pylist(), rows["id"].to_pylist()
    assert len(keys) == len(set(keys)) == 8 * 4 + 4
    assert len(set(ids)) == len(ids)
    final = dict(zip(keys, ids, strict=True))
    assert all(final[key] == row_id for some in given for key, row_id in some.items())
