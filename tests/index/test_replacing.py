from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from spherequant.index.faults import is_conflict
from spherequant.index.replacing import oldest_fragment, remove_rows, replace_rows


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array(ids, pa.int64())})


@pytest.fixture
def path(tmp_path):
    lance.write_dataset(
        rows().slice(0), tmp_path / "d", enable_stable_row_ids=True, data_storage_version="2.1"
    )
    return str(tmp_path / "d")


def ids(path):
    return sorted(lance.dataset(path).to_table()["id"].to_pylist())


def where(path, *wanted):
    listed = ", ".join(map(str, wanted))
    found = lance.dataset(path).to_table(
        columns=["id"], filter=f"id IN ({listed})", with_row_address=True
    )
    assert found.num_rows == len(wanted)
    return found["_rowaddr"].to_numpy()


NONE = np.empty(0, np.uint64)


def test_rows_take_the_place_of_others(path):
    replace_rows(lance.dataset(path), rows(1, 2, 3), NONE)
    replace_rows(lance.dataset(path), rows(4), NONE)
    replace_rows(lance.dataset(path), rows(5, 6), where(path, 2, 4))
    assert ids(path) == [1, 3, 5, 6]
    committed = replace_rows(lance.dataset(path), rows(7), where(path, 1, 3, 5, 6))
    assert ids(path) == [7]
    assert committed.version == lance.dataset(path).version
    remove_rows(lance.dataset(path), where(path, 7))
    assert ids(path) == []
    assert oldest_fragment(lance.dataset(path)) is None


@pytest.mark.parametrize("before", [0, 1, 3], ids=["empty", "one file", "three files"])
@pytest.mark.parametrize("first", ["add", "replace", "remove", "the other adds to nothing"])
def test_of_two_commits_on_one_version_the_second_conflicts(path, before, first):
    for number in range(before):
        replace_rows(lance.dataset(path), rows(number), NONE)
    planned_on = lance.dataset(path)
    if first == "add" or not before:
        replace_rows(lance.dataset(path), rows(10), NONE)
    elif first == "replace":
        replace_rows(lance.dataset(path), rows(10), where(path, before - 1))
    elif first == "remove":
        remove_rows(lance.dataset(path), where(path, *range(before)))
    else:  # all gone and something new: the oldest file is another
        replace_rows(lance.dataset(path), rows(10), where(path, *range(before)))
    left = ids(path)
    with pytest.raises(OSError, match="conflict") as caught:
        replace_rows(planned_on, rows(11), NONE)
    assert is_conflict(caught.value)
    assert ids(path) == left


def test_what_does_not_change_rows_does_not_conflict(path):
    replace_rows(lance.dataset(path), rows(1), NONE)
    planned_on = lance.dataset(path)
    lance.dataset(path).update_config({"a": "b"})
    lance.dataset(path).create_scalar_index("id", "BTREE")
    replace_rows(planned_on, rows(2), NONE)
    assert ids(path) == [1, 2]
