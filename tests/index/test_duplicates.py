from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import InputError, UnknownKeyError
from spherequant.index import Index, duplicates
from spherequant.index.duplicates import equal_files, near_groups, near_items


def batches(ids, values, name="phash", size=7):
    kind = pa.uint64() if name == "phash" else pa.string()
    table = pa.table({"id": pa.array(ids, pa.int64()), name: pa.array(values, kind)})
    return table.to_batches(max_chunksize=size)


def slow_groups(ids, hashes, most):
    """Connected components by comparing all pairs."""
    group = {i: {i} for i, value in zip(ids, hashes, strict=True) if value is not None}
    value_of = dict(zip(ids, hashes, strict=True))
    for a, b in combinations(group, 2):
        if (value_of[a] ^ value_of[b]).bit_count() <= most and group[a] is not group[b]:
            group[a] |= group[b]
            for member in group[a]:
                group[member] = group[a]
    found = {id(some): sorted(some) for some in group.values() if len(some) > 1}
    return sorted(found.values(), key=lambda some: (-len(some), some[0]))


# Near each other, so that there are groups at all: few bits set, of few places.
HASHES = st.lists(
    st.none()
    | st.sets(st.sampled_from([0, 1, 7, 8, 21, 40, 62, 63]), max_size=5).map(
        lambda bits: sum(1 << bit for bit in bits)
    ),
    max_size=25,
)


@given(hashes=HASHES, most=st.integers(0, 6))
@settings(deadline=None, max_examples=60)
def test_groups_are_those_of_all_pairs(hashes, most):
    ids = [3 * i for i in range(len(hashes))]
    found = near_groups(batches(ids, hashes), most)
    assert [group.tolist() for group in found] == slow_groups(ids, hashes, most)


@pytest.mark.parametrize("most", [1, 4, duplicates.MAX_GROUP_DISTANCE])
def test_no_pair_within_the_distance_is_missed(most, monkeypatch):
    monkeypatch.setattr(duplicates, "_PAIRS", 5)  # and groups are joined many times
    rng = np.random.default_rng(most)
    firsts = rng.integers(0, 1 << 64, 60, np.uint64).tolist()
    seconds = [
        value ^ sum(1 << int(bit) for bit in rng.choice(64, most, replace=False))
        for value in firsts
    ]
    found = near_groups(batches(range(120), firsts + seconds), most)
    assert [group.tolist() for group in found] == [[i, i + 60] for i in range(60)]
    assert near_groups(batches(range(120), firsts + seconds), most - 1) == []


def test_the_number_of_bands_follows_the_number_of_hashes():
    few, many = (len(duplicates._masks(n, 4)) for n in (1_000, 10_000_000))
    assert few < many
    for mask in duplicates._masks(10_000_000, 4):
        assert int(mask).bit_count() >= 20


def test_equal_files_are_grouped_by_digest():
    digests = ["ab" * 32, None, "cd" * 32, "ab" * 32, None, "ef" * 32, "cd" * 32, "ab" * 32]
    found = equal_files(batches(range(8), digests, "digest", 3))
    assert [group.tolist() for group in found] == [[0, 3, 7], [2, 6]]
    assert equal_files([]) == near_groups([], 4) == []


def test_near_items_come_by_distance_then_id():
    values = [0b111, 0, 0b1, 0b10, None, 1 << 63, 0b1111_1111]
    (found, nothing) = near_items(batches(range(7), [*values[:4], 7, *values[5:]]), [0, None], 3)
    assert [found[0].tolist(), found[1].tolist()] == [[1, 2, 3, 5, 0, 4], [0, 1, 1, 1, 3, 3]]
    assert nothing[0].tolist() == []


@pytest.mark.parametrize("most", [-1, 65, 2.0, True, None])
def test_impossible_distances_are_refused(most):
    with pytest.raises(InputError, match="max_distance"):
        near_items([], [], most)
    with pytest.raises(InputError, match="from 0 to 10"):
        near_groups([], most)


@pytest.fixture
def filled(tmp_path, embedder, picture):
    with Index.create(tmp_path / "i", embedder, metadata_columns={"n": "int64"}) as index:
        index.add(
            ["a", "b", "c", "d"],
            images=[picture(1), picture(1), picture(2), picture(1)],
            originals=[b"one", b"one", None, b"other"],
            metadata=[{"n": i} for i in range(4)],
        )
        index.add(["code"], vectors=np.ones((1, 16)))
        yield index


def test_an_item_has_its_near_duplicates(filled):
    found = filled.near_duplicates(["a", "code", "d"], max_distance=0)
    assert [(near.key, near.distance, near.exact) for near in found[0]] == [
        ("b", 0, True),
        ("d", 0, False),
    ]
    assert found[1] == []
    assert [near.key for near in found[2]] == ["a", "b"]
    assert [near.key for near in filled.near_duplicates(["d"], limit=1)[0]] == ["a"]
    with pytest.raises(UnknownKeyError, match="no item has the key 'x'"):
        filled.near_duplicates(["a", "x"])


def test_a_collection_has_its_groups(filled):
    near = filled.duplicate_groups()
    assert [(group.size, [m.key for m in group.members]) for group in near.groups] == [
        (3, ["a", "b", "d"])
    ]
    assert (near.total, near.items) == (1, 3)
    exact = filled.duplicate_groups(max_distance=None)
    assert [[m.key for m in group.members] for group in exact.groups] == [["a", "b"]]
    assert filled.duplicate_groups(where="n > 1").total == 0
    with pytest.raises(InputError, match="limit"):
        filled.duplicate_groups(limit=0)


def test_only_some_groups_and_members_are_named(filled, monkeypatch, picture):
    monkeypatch.setattr("spherequant.index.searcher.MAX_MEMBERS", 2)
    monkeypatch.setattr(duplicates, "MAX_MEMBERS", 2)
    filled.add(["e", "f"], images=[picture(2), picture(2)])
    found = filled.duplicate_groups(limit=1)
    assert [(group.size, len(group.members)) for group in found.groups] == [(3, 2)]
    assert (found.total, found.items) == (2, 6)
