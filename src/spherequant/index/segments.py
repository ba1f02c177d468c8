"""The items of one version of items.lance in memory, and how they follow it to the next version.

A version is held as segments: a large one, laid out for scanning, and at most one small one, the
tail, with what was added or changed since. Items that were removed or changed stay where they lie,
marked dead. To follow a new version, only the fragments of the data set that changed are read; when
the tail or the dead are many, it is time to read everything anew, which `merging` does behind the
readers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spherequant.errors import FormatError, InputError
from spherequant.index.scan import Layout, Part, build_layout, compile_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from spherequant.quantizer import Codebooks

Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Places = NDArray[np.uint32] | NDArray[np.uint64]

# A tail of this many items is scanned in microseconds; beyond, of this share of all items.
_LEAST_TAIL = 65_536
_TAIL_SHARE = 16
# When one item in so many is dead, the scan passes over them for nothing.
_DEAD_SHARE = 4
# Four times that tail, and twice so many dead, are not followed further: it would take longer than
# reading everything anew.
_LONG_TAIL = 4
_MANY_DEAD = 2
_SORTED_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class Fragment:
    """A file of the data set.

    Attributes:
        number: its id, never used again for other rows.
        rows: physical rows, dead ones included.
        files: names of its files: others, and it must be read again.
        deletions: its deletion file, "" for none: another, and some of its rows are gone.
    """

    number: int
    rows: int
    files: str
    deletions: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Items laid out for scanning. Positions count from 0 in the order of ids.

    Attributes:
        held_ids: int64 [n], ascending; None where the position is the id.
        layout: their codes.
        numbers: of the fragments that they were read from.
        starts: physical row of the first row of each fragment, counted over all of them.
        places: physical row of each position, counted alike; None where it is the position.
    """

    held_ids: Int64 | None
    layout: Layout
    numbers: Int64
    starts: Int64
    places: Places | None

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def ids(self) -> Int64:
        """Id of each position, int64 [n], ascending; made anew where none are held."""
        ids = np.arange(len(self)) if self.held_ids is None else self.held_ids
        ids.flags.writeable = False
        return ids

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        held = [array.nbytes for array in (self.held_ids, self.places) if array is not None]
        return self.layout.memory_bytes + sum(held)

    def positions(self, ids: Int64) -> Int64:
        """Position of each id, -1 where it is not here."""
        if self.held_ids is None:
            return np.where((ids >= 0) & (ids < len(self)), ids, -1)
        if not len(self):
            return np.full(ids.shape, -1, np.int64)
        positions = np.minimum(np.searchsorted(self.held_ids, ids), len(self) - 1)
        return np.where(self.held_ids[positions] == ids, positions, -1)

    def ids_at(self, positions: Int64) -> Int64:
        """Id of each of these positions."""
        return positions if self.held_ids is None else self.held_ids[positions]

    def addresses(self, positions: Int64) -> NDArray[np.uint64]:
        """Lance's row address of each position: fragment, then row, 32 bits each."""
        places = positions if self.places is None else self.places[positions].astype(np.int64)
        fragment = np.searchsorted(self.starts, places, side="right") - 1
        rows = (places - self.starts[fragment]).astype(np.uint64)
        return self.numbers[fragment].astype(np.uint64) << np.uint64(32) | rows

    def of_fragments(self, numbers: set[int]) -> Int64:
        """Positions of the items that lie in these fragments."""
        found = [np.empty(0, np.int64)]
        for place, number in enumerate(self.numbers.tolist()):
            if number not in numbers:
                continue
            first = self.starts[place]
            last = self.starts[place + 1] if place + 1 < len(self.starts) else None
            if self.places is None:
                found.append(np.arange(first, len(self) if last is None else last))
            else:
                inside = self.places >= first
                if last is not None:
                    inside &= self.places < last
                found.append(np.flatnonzero(inside))
        return np.sort(np.concatenate(found))


@dataclass(frozen=True, slots=True)
class Items:
    """All items of one version: segments, and which positions of each are alive (None for all)."""

    segments: tuple[Segment, ...]
    alive: tuple[Bools | None, ...]
    fragments: tuple[Fragment, ...]

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        masks = sum(mask.nbytes for mask in self.alive if mask is not None)
        return masks + sum(segment.memory_bytes for segment in self.segments)

    @property
    def crowded(self) -> bool:
        """Whether the tail or the dead are so many that reading everything anew pays."""
        main, alive = self.segments[0], self.alive[0]
        tail = sum(len(segment) for segment in self.segments[1:])
        dead = 0 if alive is None else len(alive) - int(np.count_nonzero(alive))
        return tail > _tail_limit(main) or dead * _DEAD_SHARE > len(main)

    def __len__(self) -> int:
        return sum(
            len(segment) if mask is None else int(np.count_nonzero(mask))
            for segment, mask in zip(self.segments, self.alive, strict=True)
        )

    def parts(self, allowed_ids: Int64 | None = None) -> list[Part]:
        """What to scan: living items, of these ids only unless None."""
        parts = []
        for segment, alive in zip(self.segments, self.alive, strict=True):
            mask = alive
            if allowed_ids is not None:
                positions = segment.positions(allowed_ids)
                mask = np.zeros(len(segment), np.bool_)
                mask[positions[positions >= 0]] = True
                if alive is not None:
                    mask &= alive
            allowed = None if mask is None else compile_filter(segment.layout, mask)
            parts.append(Part(segment.layout, segment.held_ids, allowed))
        return parts

    def sorted(self) -> tuple[Int64, Bytes]:
        """Ids of all items, int64 [N], ascending, and a copy of their codes, uint8 [N, M]."""
        if len(self.segments) == 1 and self.alive[0] is None:
            return self.segments[0].ids, self.segments[0].layout.codes()
        ids, codes = [], []
        for segment, alive in zip(self.segments, self.alive, strict=True):
            kept = slice(None) if alive is None else alive
            ids.append(segment.ids[kept])
            codes.append(segment.layout.codes()[kept])
        every = np.concatenate(ids)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(codes)[order]

    def addresses(self, ids: Int64) -> NDArray[np.uint64]:
        """Row address of each id.

        Raises:
            InputError: there is no living item of an id.
        """
        addresses = np.zeros(len(ids), np.uint64)
        missing = np.ones(len(ids), np.bool_)
        for segment, alive in zip(self.segments, self.alive, strict=True):
            positions = segment.positions(ids)
            here = positions >= 0
            if alive is not None:
                here[here] = alive[positions[here]]
            addresses[here] = segment.addresses(positions[here])
            missing &= ~here
        if missing.any():
            raise InputError(f"no item has the id {int(ids[missing][0])}.")
        return addresses


def _go_on() -> None:
    """What a reading that nobody stops asks between two batches."""


def read_items(dataset: Any, codebooks: Codebooks, between: Callable[[], object] = _go_on) -> Items:
    """Read all ids and codes of a version.

    Args:
        dataset: the version.
        codebooks: of the codes.
        between: called after each batch; what it raises ends the reading.

    Raises:
        FormatError: the codes cannot be those of the codebooks.
    """
    fragments = _fragments(dataset)
    ids, places = _read_ids(dataset, fragments, between)
    total = len(ids)
    order = None
    if (ids[1:] < ids[:-1]).any():  # an updated item moves to the end and keeps its id
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        places = _narrow(order, fragments) if places is None else places[order]
    held = None if count_up(ids) else ids
    del ids  # what is not held is freed before the codes are read
    layout = _read_layout(dataset, total, order, codebooks, between)
    segment = Segment(held, layout, *_table(fragments), places)
    return Items((segment,), (None,), fragments)


def count_up(ids: Int64) -> bool:
    """Whether these are 0, 1, 2, ..., seen without another array of their size."""
    return all(
        np.array_equal(some, np.arange(start, start + len(some)))
        for start in range(0, len(ids), _SORTED_ROWS)
        for some in [ids[start : start + _SORTED_ROWS]]
    )


def follow(before: Items, dataset: Any, codebooks: Codebooks) -> Items | None:
    """The items of a later version, read anew only where fragments changed.

    Returns:
        None where everything must be read anew: too much changed, or the version does not come
        after the one before (a folder that was restored from an older copy).

    Raises:
        FormatError: the codes cannot be those of the codebooks.
    """
    fragments = _fragments(dataset)
    old = {fragment.number: fragment for fragment in before.fragments}
    fresh, thinned = [], []
    for fragment in fragments:
        known = old.pop(fragment.number, None)
        if known is None or known.files != fragment.files:
            fresh.append(fragment)
        elif known.deletions != fragment.deletions:
            thinned.append(fragment)
    replaced = {f.number for f in fresh} | set(old)  # what is left in ``old`` is gone
    main = before.segments[0]
    if sum(fragment.rows for fragment in fresh) > _LONG_TAIL * _tail_limit(main):
        return None
    left = _read_fragments(dataset, thinned, ["id"])
    alive = [
        _still_alive(segment, mask, replaced, {f.number for f in thinned}, left["id"].to_numpy())
        for segment, mask in zip(before.segments, before.alive, strict=True)
    ]
    added = _read_fragments(dataset, fresh, ["id", "code"])
    tail, tail_alive = before.segments[1:], alive[1:]
    in_tail = added.num_rows + sum(int(np.count_nonzero(mask)) for mask in tail_alive)
    main_alive = alive[0]
    living = int(np.count_nonzero(main_alive))
    dead = len(main_alive) - living
    if (
        in_tail > _LONG_TAIL * _tail_limit(main)
        or dead * _DEAD_SHARE > _MANY_DEAD * len(main)
        or living + in_tail != dataset.count_rows()
    ):
        return None
    segments, masks = [main], [main_alive if dead else None]
    if in_tail:
        segments.append(_merged(tail, tail_alive, added, fragments, codebooks))
        masks.append(None)
    return Items(tuple(segments), tuple(masks), fragments)


def _tail_limit(main: Segment) -> int:
    return max(_LEAST_TAIL, len(main) // _TAIL_SHARE)


def _fragments(dataset: Any) -> tuple[Fragment, ...]:
    found = []
    for fragment in dataset.get_fragments():
        # Its to_json would write out the id of every row.
        facts = fragment.metadata
        files = json.dumps([file.path for file in facts.files])
        deletions = facts.deletion_file.json() if facts.deletion_file else ""
        found.append(Fragment(facts.id, facts.physical_rows, files, deletions))
    return tuple(found)


def _table(fragments: Sequence[Fragment]) -> tuple[Int64, Int64]:
    numbers = np.array([fragment.number for fragment in fragments], np.int64)
    rows = np.array([fragment.rows for fragment in fragments], np.int64)
    return numbers, np.cumsum(rows) - rows


def _read_ids(
    dataset: Any, fragments: Sequence[Fragment], between: Callable[[], object]
) -> tuple[Int64, Places | None]:
    """Ids in the order of rows, and their places where rows were deleted among them."""
    total = dataset.count_rows()
    deleted = any(fragment.deletions for fragment in fragments)
    ids = np.empty(total, np.int64)
    places = _narrow(np.empty(total, np.int64), fragments) if deleted else None
    done = 0
    for batch in dataset.scanner(
        columns=["id"], with_row_address=deleted, scan_in_order=True
    ).to_batches():
        ids[done : done + batch.num_rows] = batch["id"].to_numpy()
        if places is not None:
            addresses = batch["_rowaddr"].to_numpy()
            places[done : done + batch.num_rows] = _places(addresses, fragments)
        done += batch.num_rows
        between()
    if done != total:
        raise FormatError(f"items.lance holds {done} items where {total} were announced.")
    return ids, places


def _narrow(places: Int64, fragments: Sequence[Fragment]) -> Places:
    """Places in 32 bits where they fit."""
    rows = sum(fragment.rows for fragment in fragments)
    if rows < 1 << 32:
        return places.astype(np.uint32)
    return places.astype(np.uint64)


def _places(addresses: NDArray[np.uint64], fragments: Sequence[Fragment]) -> Int64:
    """Physical rows, counted over all fragments, from Lance's row addresses."""
    numbers, starts = _table(fragments)
    order = np.argsort(numbers)
    number = (addresses >> np.uint64(32)).astype(np.int64)
    fragment = order[np.searchsorted(numbers[order], number)]
    return starts[fragment] + (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _read_layout(
    dataset: Any,
    total: int,
    order: Int64 | None,
    codebooks: Codebooks,
    between: Callable[[], object],
) -> Layout:
    """The codes of all rows, laid out in this order of rows."""
    m = codebooks.n_codebooks

    def batches() -> Iterator[Bytes]:
        for batch in dataset.scanner(columns=["code"], scan_in_order=True).to_batches():
            yield _code_matrix(batch["code"], m)
            between()

    if order is None:
        return _laid_out(batches, total, codebooks)
    codes = np.empty((total, m), np.uint8)
    done = 0
    for batch in batches():
        codes[done : done + len(batch)] = batch
        done += len(batch)

    def in_order() -> Iterator[Bytes]:
        for start in range(0, total, _SORTED_ROWS):
            yield codes[order[start : start + _SORTED_ROWS]]
            between()

    return _laid_out(in_order, total, codebooks)


def _laid_out(batches: Callable[[], Iterable[Bytes]], total: int, codebooks: Codebooks) -> Layout:
    try:
        return build_layout(batches, total, codebooks)
    except InputError as error:
        raise FormatError(f"items.lance: {error} Restore the folder from a copy.") from error


def _code_matrix(column: Any, m: int) -> Bytes:
    matrix: Bytes = column.flatten().to_numpy().reshape(-1, m)
    return matrix


def _read_fragments(dataset: Any, fragments: Sequence[Fragment], columns: list[str]) -> Any:
    """Columns and row addresses of the living rows of these fragments."""
    numbers = {fragment.number for fragment in fragments}
    if not numbers:
        fields = [dataset.schema.field(name) for name in columns]
        return pa.schema([*fields, pa.field("_rowaddr", pa.uint64())]).empty_table()
    chosen = [f for f in dataset.get_fragments() if f.fragment_id in numbers]
    return dataset.scanner(columns=columns, fragments=chosen, with_row_address=True).to_table()


def _still_alive(
    segment: Segment, alive: Bools | None, replaced: set[int], thinned: set[int], left: Int64
) -> Bools:
    """Which positions live on: not those of fragments that are gone or replaced by others.

    Args:
        segment: of the version before.
        alive: which lived then, None for all.
        replaced: fragments none of whose rows is where it was.
        thinned: fragments that lost some rows.
        left: ids in the thinned fragments now.
    """
    mask = np.ones(len(segment), np.bool_) if alive is None else alive.copy()
    mask[segment.of_fragments(replaced)] = False
    positions = segment.of_fragments(thinned)
    mask[positions] &= np.isin(segment.ids_at(positions), left)
    return mask


def _merged(
    tail: Sequence[Segment],
    alive: Sequence[Bools],
    added: Any,
    fragments: Sequence[Fragment],
    codebooks: Codebooks,
) -> Segment:
    """One small segment of what lives in the tail and what was added."""
    m = codebooks.n_codebooks
    ids = [added["id"].to_numpy()]
    codes = [_code_matrix(added["code"].combine_chunks(), m)]
    addresses = [added["_rowaddr"].to_numpy()]
    for segment, mask in zip(tail, alive, strict=True):
        kept = np.flatnonzero(mask)
        ids.append(segment.ids_at(kept))
        codes.append(segment.layout.codes()[kept])
        addresses.append(segment.addresses(kept))
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    sorted_codes = np.concatenate(codes)[order]
    layout = _laid_out(lambda: [sorted_codes], len(every), codebooks)
    places = _narrow(_places(np.concatenate(addresses)[order], fragments), fragments)
    return Segment(every[order], layout, *_table(fragments), places)
