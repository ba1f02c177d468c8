from __future__ import annotations

import lance
import numpy as np
import pytest

from spherequant.index import keys as keys_module
from spherequant.index.keys import KEY_INDEX, find_rows, follow_keys


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Upkeep runs where a test asks."""
    monkeypatch.setattr("spherequant.index.upkeep.VERSIONS_BETWEEN", 10_000)


def opened(index):
    return lance.dataset(str(index.folder / "items.lance"))


def pieces(index):
    return opened(index).stats.index_stats(KEY_INDEX)["num_indexed_rows_per_delta"]


def add(index, names):
    index.add(names, codes=np.zeros((len(names), 3), int))


@pytest.fixture(params=["through the index", "reading all"])
def way(request, monkeypatch):
    monkeypatch.setattr(keys_module, "_READ_FOR_ONE", 0 if "index" in request.param else 10**9)
    return request.param


def test_keys_are_found_wherever_they_lie(index, way, monkeypatch):
    monkeypatch.setattr(keys_module, "_LOOKUP_KEYS", 2)
    assert find_rows(opened(index), ["a"], ["id", "key"]).to_pylist() == []
    add(index, ["a", "it's", "日本", "d"])
    follow_keys(opened(index))
    add(index, ["new", "d"])  # of the indexed ones, "d" is written anew elsewhere
    index.remove(["a"])
    rows = find_rows(opened(index), ["a", "d", "new", "it's", "d", "none", "日本"], ["id", "key"])
    assert rows.schema.names == ["id", "key", "_rowaddr"]
    found = {row["key"]: row["id"] for row in rows.to_pylist()}
    assert found == {"it's": 1, "日本": 2, "d": 3, "new": 4}
    assert rows.num_rows == 4
    assert len(set(rows["_rowaddr"].to_pylist())) == 4


def test_the_index_is_used(index, monkeypatch):
    add(index, [f"k{i}" for i in range(2_000)])
    follow_keys(opened(index))
    plan = opened(index).scanner(columns=["id"], filter="key IN ('k1', 'k7')").explain_plan()
    assert "ScalarIndexQuery" in plan
    monkeypatch.setattr(keys_module, "_matching", None)  # would be called otherwise
    assert find_rows(opened(index), ["k5", "k6"], ["id"])["id"].to_pylist() == [5, 6]


def test_pieces_are_merged_size_class_by_size_class(index):
    written = 0
    for size in (1_000, *[10] * 30):
        add(index, [f"k{written + i}" for i in range(size)])
        written += size
        follow_keys(opened(index))
        assert len(pieces(index)) <= 6
        assert sum(pieces(index)) == written
    assert max(pieces(index)) == 1_000  # the large one was left alone
    follow_keys(opened(index))
    version = opened(index).version
    follow_keys(opened(index))
    assert opened(index).version == version  # nothing new, no commit
