from __future__ import annotations

import threading

import lance
import numpy as np
import pytest

from spherequant.errors import ConflictError, DuplicateKeyError
from spherequant.index import columns
from spherequant.index.catalogue import NEXT_ID, Catalogue, Owner, Removal, Upsert

FOLDER = Owner("photos", "/photos")
API = Owner()


@pytest.fixture
def catalogue(index):
    return Catalogue(index.folder / "items.lance")


@pytest.fixture
def upsert(index):
    def make(keys, owner=API, first=0):
        codes = np.array([[(first + i) % 16, 0, 0] for i in range(len(keys))], np.uint8)
        rows = columns.Rows(
            keys, codes, [()] * len(keys), [{}] * len(keys), source=owner.name, root=owner.root
        )
        return Upsert(rows.table(index.header), owner)

    return make


def stored(catalogue):
    rows = lance.dataset(str(catalogue.path)).to_table(columns=["id", "key"]).to_pylist()
    return {row["key"]: row["id"] for row in rows}


def test_the_columns_are_those_of_the_design(catalogue):
    dataset = lance.dataset(str(catalogue.path))
    names = "id key code labels source root size mtime digest thumbnail"
    assert dataset.schema.names == names.split()
    assert dataset.data_storage_version == "2.1"
    assert dataset.has_stable_row_ids
    primary = dataset.schema.field("key").metadata
    assert primary == {b"lance-schema:unenforced-primary-key": b"true"}
    assert dataset.config()[NEXT_ID] == "0"


def test_a_group_is_one_commit_and_the_last_write_of_a_key_wins(catalogue, upsert):
    before = catalogue.version
    outcomes = catalogue.commit(
        [upsert(["a", "b"]), upsert(["b", "c"], first=7), upsert(["a"], first=9)]
    )
    assert [ids.tolist() for ids in outcomes] == [[0, 1], [1, 2], [0]]
    assert catalogue.version == before + 2  # ids reserved, rows upserted
    rows = lance.dataset(str(catalogue.path)).to_table(columns=["key", "code"]).to_pylist()
    assert {row["key"]: row["code"][0] for row in rows} == {"a": 9, "b": 7, "c": 8}


def test_writes_and_removals_keep_their_order(catalogue, upsert):
    outcomes = catalogue.commit(
        [upsert(["a"]), Removal(["a", "x"]), upsert(["a"]), Removal(["x"]), Removal(["a"])]
    )
    assert [o if isinstance(o, int) else o.tolist() for o in outcomes] == [[0], 1, [1], 0, 1]
    assert stored(catalogue) == {}


def test_a_clash_fails_its_own_write_only(catalogue, upsert):
    catalogue.commit([upsert(["a"], FOLDER)])
    outcomes = catalogue.commit(
        [upsert(["b"]), upsert(["c", "a"]), upsert(["b"], FOLDER), upsert(["d"], FOLDER)]
    )
    assert outcomes[0].tolist() == [1]
    assert isinstance(outcomes[1], DuplicateKeyError)
    assert isinstance(outcomes[2], DuplicateKeyError)  # the first write of the group took it
    assert stored(catalogue) == {"a": 0, "b": 1, "d": 2}


def test_a_removal_by_a_source_spares_what_is_not_its_own(catalogue, upsert):
    catalogue.commit([upsert(["a"], FOLDER), upsert(["b"])])
    assert catalogue.commit([Removal(["a", "b"], FOLDER)]) == [1]
    assert stored(catalogue) == {"b": 1}


def test_a_plan_made_on_old_knowledge_is_made_anew(catalogue, upsert, monkeypatch):
    other = Catalogue(catalogue.path)
    lookup = Catalogue._lookup
    raced = []

    def late(self, keys):
        found = lookup(self, keys)
        if self is catalogue and not raced:
            raced.append(True)
            other.commit([upsert(["new", "theirs"])])
        return found

    monkeypatch.setattr(Catalogue, "_lookup", late)
    outcomes = catalogue.commit([upsert(["ours", "new"], first=5)])
    ids = outcomes[0].tolist()
    assert stored(catalogue) == {"new": ids[1], "theirs": 1, "ours": ids[0]}
    assert ids[1] == 0
    assert len(set(stored(catalogue).values())) == 3


@pytest.mark.parametrize("keys", [["k"], ["k", "new"]], ids=["no id reserved", "an id reserved"])
def test_the_id_of_an_item_removed_meanwhile_is_not_used_again(
    catalogue, upsert, monkeypatch, keys
):
    catalogue.commit([upsert(["k", "other"])])
    other = Catalogue(catalogue.path)
    lookup = Catalogue._lookup
    raced = []

    def late(self, wanted):
        found = lookup(self, wanted)
        if self is catalogue and not raced:
            raced.append(other.commit([Removal(["k"])]))
        return found

    monkeypatch.setattr(Catalogue, "_lookup", late)
    (ids,) = catalogue.commit([upsert(keys)])
    assert raced == [[1]]
    assert stored(catalogue) == {"other": 1, **dict(zip(keys, ids.tolist(), strict=True))}
    assert ids.min() >= 2  # 0 was k's


def test_a_writer_that_always_loses_says_so(catalogue, upsert, monkeypatch):
    monkeypatch.setattr("spherequant.index.catalogue.ATTEMPTS", 3)
    monkeypatch.setattr("time.sleep", lambda _: None)

    def lose(*_):
        raise ConflictError("x")

    monkeypatch.setattr(Catalogue, "_merge", lose)
    (outcome,) = catalogue.commit([upsert(["a"])])
    assert isinstance(outcome, ConflictError)
    assert "3 times in a row" in str(outcome)


def test_many_catalogues_never_give_an_id_twice(index, upsert):
    """Eight writers without a common lock; some keys are shared by all."""
    given = []

    def work(number):
        own = Catalogue(index.folder / "items.lance")
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
