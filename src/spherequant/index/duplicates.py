"""Pictures that are nearly the same, by the Hamming distance of perceptual hashes; equal files.

To group a collection, hashes that differ in at most d bits must be found without comparing all
pairs. Cut into m bands, two such hashes agree in at least m - d of them (each differing bit spoils
one band). So for each choice of m - d bands the hashes are sorted by those bits, and only hashes
that agree there are compared: C(m, d) sorts, and on N random hashes N² / 2^(1 + b) comparisons in
each, b bits of 64 being chosen. m is taken where that costs least. (The idea of G. S. Manku,
A. Jain and A. Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007, section 3.)

Neighbours of neighbours share a group, so its ends may differ in more than d bits. Memory: 60 bytes
an item and a bounded number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Int64 = NDArray[np.int64]
    Hashes = NDArray[np.uint64]

BITS = 64
# Beyond, grouping a million items takes minutes, and what is found has little in common.
MAX_GROUP_DISTANCE = 10
MAX_MEMBERS = 100
# Measured: nanoseconds to sort one hash, and to compare a pair.
_SORT_NS, _PAIR_NS = 120, 15
_MOST_BANDS = 5  # more than the distance
_PAIRS = 1 << 22
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """An item that shows nearly the same picture as another.

    Attributes:
        id: of the item.
        key: of the item.
        distance: bits of 64 in which the hashes differ.
        exact: whether both were made from files that are equal to the byte.
    """

    id: int
    key: str
    distance: int
    exact: bool


@dataclass(frozen=True, slots=True)
class GroupMember:
    """An item of a group; members of one digest were made from equal files."""

    id: int
    key: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Items that show nearly the same picture.

    Attributes:
        size: how many they are.
        members: the first ``MAX_MEMBERS`` of them by id.
    """

    size: int
    members: list[GroupMember]


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """Groups of a collection.

    Attributes:
        groups: the largest ones, as many as were asked for.
        total: how many groups there are.
        items: how many items all groups have.
    """

    groups: list[DuplicateGroup]
    total: int
    items: int


def near_items(
    batches: Iterable[Any], hashes: Sequence[int | None], max_distance: int
) -> list[tuple[Int64, Int64]]:
    """For each hash the items within a distance of it, the nearest first, then by id.

    Args:
        batches: Arrow batches with ``id`` and ``phash``, none of them null.
        hashes: what to compare with; None finds nothing.
        max_distance: in bits.

    Returns:
        For each hash ids and distances, int64 [n].

    Raises:
        InputError: the distance cannot be used.
    """
    _check_distance(max_distance, BITS)
    found: list[list[tuple[Int64, Int64]]] = [[] for _ in hashes]
    for batch in batches:
        ids, stored = batch["id"].to_numpy(), batch["phash"].to_numpy()
        for value, one in zip(hashes, found, strict=True):
            if value is not None:
                distances = distance(stored, np.uint64(value))
                near = distances <= max_distance
                one.append((ids[near], distances[near].astype(np.int64)))
    return [_nearest_first(one) for one in found]


def near_groups(batches: Iterable[Any], max_distance: int) -> list[Int64]:
    """Groups of at least two items whose hashes are chained by small distances.

    Args:
        batches: Arrow batches with ``id`` and ``phash``; items without a hash are in no group.
        max_distance: between neighbours, in bits.

    Returns:
        Ids of each group, ascending; the largest group first, then by the lowest id.

    Raises:
        InputError: the distance cannot be used.
    """
    _check_distance(max_distance, MAX_GROUP_DISTANCE)
    ids, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for batch in batches:
        filled = batch.filter(batch["phash"].is_valid())
        ids.append(filled["id"].to_numpy())
        hashes.append(filled["phash"].to_numpy())
    # Equal hashes are one: a thousand black pictures are compared with the others once.
    unique, which = np.unique(np.concatenate(hashes), return_inverse=True)
    labels = np.arange(len(unique))
    waiting: list[tuple[Int64, Int64]] = []
    for pairs in _close_pairs(unique, max_distance):
        waiting.append(pairs)
        if sum(len(first) for first, _ in waiting) > _PAIRS:
            labels, waiting = _joined(labels, waiting), []
    labels = _joined(labels, waiting)
    return _groups(np.concatenate(ids), labels[which])


def equal_files(batches: Iterable[Any]) -> list[Int64]:
    """Groups of at least two items that were made from equal files.

    Args:
        batches: Arrow batches with ``id`` and ``digest``.

    Returns:
        As of ``near_groups``. Compares 128 bits of the digest.
    """
    ids, digests = [np.empty(0, np.int64)], [np.empty((0, 2), np.uint64)]
    for batch in batches:
        filled = batch.filter(batch["digest"].is_valid())
        ids.append(filled["id"].to_numpy())
        halves = bytes.fromhex("".join(digest[:32] for digest in filled["digest"].to_pylist()))
        digests.append(np.frombuffer(halves, np.uint64).reshape(-1, 2))
    both = np.concatenate(digests)
    order = np.lexsort((both[:, 1], both[:, 0]))
    new = np.ones(len(both), np.bool_)
    new[1:] = (both[order[1:]] != both[order[:-1]]).any(axis=1)
    labels = np.empty(len(both), np.int64)
    labels[order] = np.cumsum(new) - 1
    return _groups(np.concatenate(ids), labels)


def described(groups: Sequence[Int64], rows: Mapping[int, Mapping[str, Any]]) -> DuplicateGroups:
    """Groups with keys and digests, from the rows of those that are to be shown."""
    shown = [
        DuplicateGroup(
            len(group),
            [
                GroupMember(i, rows[i]["key"], rows[i]["digest"])
                for i in group[:MAX_MEMBERS].tolist()
            ],
        )
        for group in groups
        if int(group[0]) in rows
    ]
    return DuplicateGroups(shown, len(groups), sum(map(len, groups)))


def distance(hashes: Hashes, other: Hashes | np.uint64) -> NDArray[np.uint8]:
    """Bits in which hashes differ, uint8 [n]."""
    words = _ONES[(hashes ^ other).view(np.uint16)].reshape(-1, 4)
    bits: NDArray[np.uint8] = words.sum(axis=1, dtype=np.uint8)
    return bits


def _close_pairs(hashes: Hashes, max_distance: int) -> Iterator[tuple[Int64, Int64]]:
    """Positions of hashes within a distance of each other; a pair may come more than once."""
    if max_distance == 0 or len(hashes) < 2:
        return
    for mask in _masks(len(hashes), max_distance):
        bits = hashes & mask
        order = np.argsort(bits)
        bits, sorted_hashes = bits[order], hashes[order]
        # Comparing each with the next, then with the one after, as long as their bits agree.
        first = np.flatnonzero(bits[1:] == bits[:-1])
        step = 1
        while len(first):
            for start in range(0, len(first), _PAIRS):
                some = first[start : start + _PAIRS]
                near = distance(sorted_hashes[some], sorted_hashes[some + step]) <= max_distance
                yield order[some[near]], order[some[near] + step]
            step += 1
            first = first[first + step < len(bits)]
            first = first[bits[first] == bits[first + step]]


def _masks(count: int, max_distance: int) -> list[np.uint64]:
    """The bits to agree in, for each choice of bands, by the cheapest number of bands."""
    chosen = min(range(1, _MOST_BANDS + 1), key=lambda k: _cost(count, max_distance, k))
    bands = max_distance + chosen
    edges = [BITS * band // bands for band in range(bands + 1)]
    values = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(some)) for some in combinations(values, chosen)]


def _cost(count: int, max_distance: int, chosen: int) -> float:
    """Nanoseconds that grouping so many random hashes takes."""
    bands = max_distance + chosen
    pairs = count**2 / 2 ** (1 + BITS * chosen / bands)
    return comb(bands, chosen) * (_SORT_NS * count + _PAIR_NS * pairs)


def _joined(labels: Int64, pairs: Sequence[tuple[Int64, Int64]]) -> Int64:
    """Labels of groups, those that a pair connects made one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return labels
    first = labels[np.concatenate([some for some, _ in pairs])]
    second = labels[np.concatenate([some for _, some in pairs])]
    size = len(labels)
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(size, size))
    joined: Int64 = connected_components(graph, directed=False)[1][labels]
    return joined


def _groups(ids: Int64, labels: Int64) -> list[Int64]:
    """Ids of each label that at least two have."""
    order = np.lexsort((ids, labels))
    ids, labels = ids[order], labels[order]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    sizes = np.diff(np.append(starts, len(labels)))
    groups = [
        ids[start : start + size]
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True)
    ]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _nearest_first(parts: Sequence[tuple[Int64, Int64]]) -> tuple[Int64, Int64]:
    ids = np.concatenate([np.empty(0, np.int64), *(some for some, _ in parts)])
    distances = np.concatenate([np.empty(0, np.int64), *(some for _, some in parts)])
    order = np.lexsort((ids, distances))
    return ids[order], distances[order]


def _check_distance(value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InputError(f"max_distance is a whole number from 0 to {most}; got {value!r}.")
