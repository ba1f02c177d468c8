"""items.lance: every item of the index, changed only here.

*Ids* are given once. The next free id stands in the dataset's configuration
(``spherequant.next_id``), and a writer reserves ids by raising it: Lance refuses the second of two
commits that change one configuration key, so no id is reserved twice, and removing the highest id
does not free it. A writer that dies after reserving leaves a gap, never a double.

*Keys* are unique. A write looks its keys up in one version and is planned on that; of two writes
that were planned on one version, the second to commit meets a conflict, and is planned anew.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spherequant.errors import (
    ConflictError,
    DuplicateKeyError,
    InputError,
    SpherequantError,
    UnknownKeyError,
)
from spherequant.index.columns import (
    CHANGED,
    OURS,
    TYPES,
    Value,
    type_name,
    with_nulls,
)
from spherequant.index.faults import reported
from spherequant.index.header import LANCE_STORAGE
from spherequant.index.keys import create_key_index, find_rows, rows_at
from spherequant.index.originals import kept_originals
from spherequant.index.replacing import remove_rows, replace_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from spherequant.index.versions import Versions

NEXT_ID = "spherequant.next_id"
ATTEMPTS = 30
# Rows that are written anew together, and the most bytes of their files beside a single larger one.
_CHANGED_ROWS, _CHANGED_BYTES = 64, 32 << 20

Ids = NDArray[np.int64]
Outcomes = list["Ids | int | BaseException"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Where an item comes from: a source's name and root, or neither (added by the API)."""

    name: str | None = None
    root: str | None = None

    def __str__(self) -> str:
        return "the API" if self.name is None else f"source {self.name!r} ({self.root})"


@dataclass(frozen=True, slots=True)
class Upsert:
    """Items to add, or to replace where their key is known.

    Attributes:
        table: every column of the schema but ``id`` and ``changed``; keys are unique.
        owner: whose items these are.
        columns: name -> type of columns of the user that come with it, where they may still.
    """

    table: pa.Table
    owner: Owner = Owner()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Items in the write."""
        return int(self.table.num_rows)


@dataclass(frozen=True, slots=True)
class Change:
    """Other values for stored items of one owner.

    Attributes:
        keys: of the items, without repeats. All of them are there, or nothing is changed; of a
            source's items those that are gone are passed over.
        values: for each the columns to set, the others stay.
        owner: whose items these are.
        columns: as of ``Upsert``.
    """

    keys: Sequence[str]
    values: Sequence[Mapping[str, Value | Sequence[str]]]
    owner: Owner = Owner()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Items in the write."""
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Removal:
    """Keys to remove. With an ``owner``, only where the item is still that owner's."""

    keys: Sequence[str]
    owner: Owner | None = None

    @property
    def size(self) -> int:
        """Keys in the write."""
        return len(self.keys)


Write = Upsert | Change | Removal


def create_catalogue(path: Path, schema: pa.Schema) -> None:
    """Write an empty items.lance with the given schema."""
    with reported(f"cannot create {path}"):
        dataset = lance.write_dataset(
            schema.empty_table(),
            str(path),
            mode="create",
            data_storage_version=LANCE_STORAGE,
            enable_stable_row_ids=True,
        )
        create_key_index(dataset)
        dataset.update_config({NEXT_ID: "0"})


class Catalogue:
    """The writing side of items.lance in this process. ``commit`` runs in one thread at a time."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._action = f"cannot write to the index at {versions.path.parent}"
        #: Version of the last commit made here, 0 before the first.
        self.version = 0

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """Make the writes durable, in order.

        Args:
            writes: consecutive writes of one kind share one commit.

        Returns:
            For each upsert or change the ids of its rows, int64 [n]; for each removal how many
            items it removed; or the exception that the caller of that write gets.
        """
        outcomes: Outcomes = []
        for kind, run in groupby(writes, key=type):
            group = list(run)
            try:
                outcomes += self._commit_alike(kind, group)
            except Exception as error:  # earlier groups are durable, and keep their outcomes
                outcomes += [error] * len(group)
        return outcomes

    def _commit_alike(self, kind: type, group: list[Any]) -> Outcomes:
        """One commit of writes of one kind, tried until no other writer comes between."""
        attempts: dict[type, Callable[[list[Any]], Outcomes]] = {
            Upsert: partial(self._try_upsert, reserved={}),
            Change: self._try_change,
            Removal: self._try_remove,
        }
        for _ in _attempts():
            with suppress(ConflictError):
                return attempts[kind](group)
        raise ConflictError(
            f"{self._action}: other writers committed first {ATTEMPTS} times in a row. Run it "
            "again, or let fewer processes write at once."
        )

    def _add_columns(self, planned_on: Any, columns: Mapping[str, str]) -> bool:
        """Add the columns that writes bring with them; whether there were any to add.

        Stored items have null in them. Call it when nothing else stands in the writes' way: the
        columns stay.
        """
        missing = [name for name in columns if name not in planned_on.schema.names]
        if not missing:
            return False
        with reported(self._action):
            planned_on.add_columns(pa.schema([(name, TYPES[columns[name]]) for name in missing]))
        return True

    def _try_upsert(self, writes: list[Upsert], reserved: dict[str, int]) -> Outcomes:
        """Plan on the latest version and commit; ``reserved`` keeps ids between attempts."""
        with reported(self._action):
            planned_on = self._versions.latest()
            keys = [write.table["key"].to_pylist() for write in writes]
            stored = _look_up(planned_on, (key for some in keys for key in some))
        owners = {key: place.owner for key, place in stored.items()}
        refused: dict[int, BaseException] = {}
        columns: dict[str, str] = {}
        for number, write in enumerate(writes):
            foreign = [key for key in keys[number] if owners.get(key, write.owner) != write.owner]
            if foreign:
                refused[number] = clash(foreign, owners[foreign[0]], write.owner)
            elif unfit := _unfit(write.columns, columns, planned_on):
                refused[number] = unfit
            else:
                owners.update(dict.fromkeys(keys[number], write.owner))
                columns |= write.columns
        accepted = [number for number in range(len(writes)) if number not in refused]
        if self._add_columns(planned_on, columns):
            return self._try_upsert(writes, reserved)
        ids = {key: place.id for key, place in stored.items()}
        wanted = [key for n in accepted for key in keys[n] if key not in ids]
        ids.update(self._reserve(dict.fromkeys(wanted), reserved))
        if accepted:
            stored_as = planned_on.schema
            rows = _last_of_each([with_nulls(writes[n].table, stored_as) for n in accepted])
            kept = rows["key"].to_pylist()
            gone = [stored[key].address for key in kept if key in stored]
            self._replace(planned_on, _completed(rows, [ids[key] for key in kept]), gone)
        return [
            refused[n] if n in refused else np.array([ids[key] for key in keys[n]], np.int64)
            for n in range(len(writes))
        ]

    def _reserve(self, keys: Iterable[str], reserved: dict[str, int]) -> dict[str, int]:
        """An id for each new key: those reserved in an earlier attempt, else fresh ones."""
        keys = list(keys)
        fresh = [key for key in keys if key not in reserved]
        if fresh:
            with reported(self._action):
                latest = self._versions.latest()
                start = int(latest.config()[NEXT_ID])
                latest.update_config({NEXT_ID: str(start + len(fresh))})
            reserved.update(zip(fresh, range(start, start + len(fresh)), strict=True))
        return {key: reserved[key] for key in keys}

    def _try_change(self, writes: list[Change]) -> Outcomes:
        """Write items anew with other values, all else as it is stored."""
        with reported(self._action):
            planned_on = self._versions.latest()
            wanted = [key for write in writes for key in write.keys]
            names = [name for name in planned_on.schema.names if name != "original"]
            found = find_rows(planned_on, wanted, ["key"])
            stored_rows = rows_at(planned_on, found["_rowaddr"].to_numpy(), names)
            rows = {row["key"]: row for row in stored_rows}
        outcomes: Outcomes = []
        columns: dict[str, str] = {}
        refusals: list[SpherequantError | None] = []
        for write in writes:
            refusals.append(_refusal(write, rows) or _unfit(write.columns, columns, planned_on))
            columns |= {} if refusals[-1] else write.columns
        if self._add_columns(planned_on, columns):
            return self._try_change(writes)
        changed: dict[str, None] = {}
        for write, refusal in zip(writes, refusals, strict=True):
            if refusal is not None:
                outcomes.append(refusal)
                continue
            there = [number for number, key in enumerate(write.keys) if key in rows]
            for number in there:
                rows[write.keys[number]] |= write.values[number]
                changed[write.keys[number]] = None
            outcomes.append(np.array([rows[write.keys[n]]["id"] for n in there], np.int64))
        if changed:
            addresses = dict(
                zip(found["key"].to_pylist(), found["_rowaddr"].to_pylist(), strict=True)
            )
            gone = np.array([addresses[key] for key in changed], np.uint64)
            stored = [rows[key] for key in changed]
            self._replace(planned_on, _rewritten(planned_on, stored, gone), gone)
        return outcomes

    def _replace(
        self,
        planned_on: Any,
        rows: pa.Table | pa.RecordBatchReader,
        gone: Sequence[int] | NDArray[np.uint64],
    ) -> None:
        with reported(self._action):
            committed = replace_rows(planned_on, rows, np.array(gone, np.uint64))
            self.version = int(committed.version)

    def _try_remove(self, writes: list[Removal]) -> Outcomes:
        with reported(self._action):
            planned_on = self._versions.latest()
            stored = _look_up(planned_on, (key for write in writes for key in write.keys))
            doomed: dict[int, int] = {}
            counts: Outcomes = []
            for write in writes:
                before = len(doomed)
                found = (stored[key] for key in write.keys if key in stored)
                doomed |= {p.id: p.address for p in found if write.owner in (None, p.owner)}
                counts.append(len(doomed) - before)
            if doomed:
                gone = np.array(list(doomed.values()), np.uint64)
                self.version = int(remove_rows(planned_on, gone).version)
        return counts


@dataclass(frozen=True, slots=True)
class _Place:
    """A stored item: its id, whose it is, and the address of its row."""

    id: int
    owner: Owner
    address: int


def _look_up(dataset: Any, keys: Iterable[str]) -> dict[str, _Place]:
    """Those keys that are stored."""
    rows = find_rows(dataset, list(keys), ["key", "id", "source", "root"])
    return {
        row["key"]: _Place(row["id"], Owner(row["source"], row["root"]), row["_rowaddr"])
        for row in rows.to_pylist()
    }


def _last_of_each(tables: list[pa.Table]) -> pa.Table:
    """All rows; of a key that comes twice, the last."""
    table = pa.concat_tables(tables)
    last = {key: row for row, key in enumerate(table["key"].to_pylist())}
    if len(last) == table.num_rows:
        return table
    return table.take(pa.array(sorted(last.values())))


def _completed(table: pa.Table, ids: list[int]) -> pa.Table:
    """The rows with what is known only when they are committed: id and time."""
    now = pa.array([datetime.now(UTC)] * len(ids), CHANGED.type)
    table = table.add_column(
        0, pa.field("id", pa.int64(), nullable=False), pa.array(ids, pa.int64())
    )
    return table.add_column(1 + table.schema.names.index("key"), CHANGED, now)


def _rewritten(
    dataset: Any, rows: list[dict[str, Any]], addresses: NDArray[np.uint64]
) -> pa.RecordBatchReader:
    """Stored rows, changed, with the originals that lie at their old addresses, a few at a time."""
    now = datetime.now(UTC)

    def batches() -> Iterator[pa.RecordBatch]:
        for part in _bounded([row["size"] or 0 for row in rows]):
            originals = kept_originals(dataset, addresses[part])
            complete = [
                row | {"changed": now, "original": original}
                for row, original in zip(rows[part], originals, strict=True)
            ]
            yield pa.RecordBatch.from_pylist(complete, schema=dataset.schema)

    return pa.RecordBatchReader.from_batches(dataset.schema, batches())


def _bounded(sizes: Sequence[int]) -> Iterator[slice]:
    """Rows to hold at once, of files of these sizes in bytes."""
    start, held = 0, 0
    for end, size in enumerate(sizes):
        if end > start and (end - start == _CHANGED_ROWS or held + size > _CHANGED_BYTES):
            yield slice(start, end)
            start, held = end, 0
        held += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _refusal(write: Change, rows: Mapping[str, Any]) -> SpherequantError | None:
    """Why the items cannot be changed, None where they can."""
    unknown = [key for key in write.keys if key not in rows]
    if unknown and write.owner == Owner():
        return UnknownKeyError(unknown)
    for key in write.keys:
        if key not in rows:
            continue
        owner = Owner(rows[key]["source"], rows[key]["root"])
        if owner != write.owner and write.owner == Owner():
            return DuplicateKeyError(
                f"the item {key!r} belongs to {owner}, where its labels and metadata come from. "
                "Change them there, and bring the index up to date again."
            )
        if owner != write.owner:
            return clash([key], owner, write.owner)
    return None


def _unfit(
    columns: Mapping[str, str], coming: Mapping[str, str], dataset: Any
) -> InputError | None:
    """Why columns cannot come with a write any more, None where they can.

    Args:
        columns: name -> type of the write's.
        coming: of those that writes before it in the same commit bring.
        dataset: what is stored.
    """
    stored: pa.Schema = dataset.schema
    missing = [name for name in columns if name not in stored.names]
    if missing and set(stored.names).difference(OURS) and dataset.count_rows():
        return InputError(
            f"metadata {missing[0]!r} has no column here: another writer has decided on the "
            f"columns, which are {', '.join(sorted(set(stored.names).difference(OURS)))}."
        )
    for name, kind in columns.items():
        theirs = coming.get(name, kind) if name in missing else type_name(stored.field(name).type)
        if theirs != kind:
            return InputError(
                f"metadata {name!r} is {kind} here, and another writer has made its column "
                f"{theirs}."
            )
    return None


def _attempts() -> Iterator[int]:
    """Numbers of attempts, each later one after a random pause that grows to half a second."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, min(0.5, 0.002 * 2**attempt)))  # noqa: S311  # a pause, no secret
        yield attempt


def clash(keys: list[str], theirs: Owner, ours: Owner) -> DuplicateKeyError:
    """The refusal of keys that another owner has; nothing of the write was stored."""
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    cure = (
        "Use another key, or remove the item first"
        if ours.name is None
        else "Give this source a name of its own, which prefixes its keys (--source-name NAME)"
    )
    return DuplicateKeyError(
        f"the key {keys[0]!r}{more} is already taken by {theirs}; it cannot also come from {ours}. "
        f"Nothing was changed. {cure}."
    )
