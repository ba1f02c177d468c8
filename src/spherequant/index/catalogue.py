"""items.lance: every item of the index, changed only here.

*Ids* are given once. The next free id stands in the dataset's configuration
(``spherequant.next_id``), and a writer reserves ids by raising it: Lance refuses the second of two
commits that change one configuration key, so no id is reserved twice, and removing the highest id
does not free it. A writer that dies after reserving leaves a gap, never a double.

*Keys* are unique. Upserts are Lance merge-inserts on the primary key: of two writers who insert one
new key, the second meets a conflict, looks again, and updates. An update applies only where the
stored id is the planned one, so that a plan made on old knowledge changes nothing and is made anew.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

# Lance logs to stderr what it then also raises.
os.environ.setdefault("LANCE_LOG", "error")

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spherequant.errors import ConflictError, DuplicateKeyError, SpherequantError
from spherequant.index.faults import reported
from spherequant.index.header import LANCE_STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

NEXT_ID = "spherequant.next_id"
ATTEMPTS = 30
# Bounds the text of one filter: about 100 bytes a key.
_LOOKUP_KEYS = 2_000
_DELETE_IDS = 10_000

Ids = NDArray[np.int64]
T = TypeVar("T")


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
        table: every column of the schema but ``id``; keys are unique.
        owner: whose items these are.
    """

    table: pa.Table
    owner: Owner = Owner()

    @property
    def size(self) -> int:
        """Items in the write."""
        return int(self.table.num_rows)


@dataclass(frozen=True, slots=True)
class Removal:
    """Keys to remove. With an ``owner``, only where the item is still that owner's."""

    keys: Sequence[str]
    owner: Owner | None = None

    @property
    def size(self) -> int:
        """Keys in the write."""
        return len(self.keys)


def quote(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


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
        dataset.update_config({NEXT_ID: "0"})


class Catalogue:
    """The writing side of items.lance in this process. ``commit`` runs in one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._action = f"cannot write to the index at {path.parent}"
        with reported(f"cannot open {path}"):
            self._dataset = lance.dataset(str(path))

    @property
    def version(self) -> int:
        """Version of the last commit made or seen here."""
        return int(self._dataset.version)

    def commit(self, writes: Sequence[Upsert | Removal]) -> list[Ids | int | BaseException]:
        """Make the writes durable, in order.

        Args:
            writes: consecutive upserts share one commit, and so do consecutive removals.

        Returns:
            For each upsert the ids of its rows, int64 [n]; for each removal how many items it
            removed; or the exception that the caller of that write gets.
        """
        outcomes: list[Ids | int | BaseException] = []
        for kind, run in groupby(writes, key=type):
            group = list(run)
            try:
                outcomes += self._upsert(group) if kind is Upsert else self._remove(group)  # type: ignore[arg-type]  # groupby keeps one kind
            except SpherequantError as error:
                outcomes += [error] * len(group)
        return outcomes

    def _upsert(self, writes: list[Upsert]) -> list[Ids | int | BaseException]:
        reserved: dict[str, int] = {}
        for _ in self._attempts():
            try:
                return self._try_upsert(writes, reserved)
            except ConflictError:
                continue
        raise self._defeat()

    def _try_upsert(
        self, writes: list[Upsert], reserved: dict[str, int]
    ) -> list[Ids | int | BaseException]:
        """Plan on the latest version and commit; ``reserved`` keeps ids between attempts."""
        with reported(self._action):
            self._dataset.checkout_latest()
            planned_on = self.version
            keys = [write.table["key"].to_pylist() for write in writes]
            stored = self._lookup(key for some in keys for key in some)
        owners = {key: owner for key, (_, owner) in stored.items()}
        refused: dict[int, BaseException] = {}
        for number, write in enumerate(writes):
            foreign = [key for key in keys[number] if owners.get(key, write.owner) != write.owner]
            if foreign:
                refused[number] = _clash(foreign, owners[foreign[0]], write.owner)
            else:
                owners.update(dict.fromkeys(keys[number], write.owner))
        accepted = [number for number in range(len(writes)) if number not in refused]
        ids = {key: row_id for key, (row_id, _) in stored.items()}
        wanted = [key for n in accepted for key in keys[n] if key not in ids]
        ids.update(self._reserve(dict.fromkeys(wanted), reserved, planned_on))
        if accepted:
            self._merge([writes[number].table for number in accepted], ids)
        return [
            refused[n] if n in refused else np.array([ids[key] for key in keys[n]], np.int64)
            for n in range(len(writes))
        ]

    def _reserve(
        self, keys: Iterable[str], reserved: dict[str, int], planned_on: int
    ) -> dict[str, int]:
        """An id for each new key: those reserved in an earlier attempt, else fresh ones.

        Raises:
            ConflictError: another writer's commit came between version ``planned_on`` and the
                reservation. Lance moves the dataset past it without a word, and a merge would then
                insert an item that was found in the look-up and removed since, with its old id.
                The reserved ids are kept for the next attempt.
        """
        keys = list(keys)
        fresh = [key for key in keys if key not in reserved]
        if fresh:
            with reported(self._action):
                start = int(self._dataset.config()[NEXT_ID])
                self._dataset.update_config({NEXT_ID: str(start + len(fresh))})
            reserved.update(zip(fresh, range(start, start + len(fresh)), strict=True))
        if self.version != planned_on + bool(fresh):
            raise ConflictError("another writer committed since the look-up.")
        return {key: reserved[key] for key in keys}

    def _merge(self, tables: list[pa.Table], ids: dict[str, int]) -> None:
        """One merge-insert of all rows; of a key that comes twice, the last row."""
        table = pa.concat_tables(tables)
        last = {key: row for row, key in enumerate(table["key"].to_pylist())}
        if len(last) < table.num_rows:
            table = table.take(pa.array(sorted(last.values())))
        column = pa.array([ids[key] for key in table["key"].to_pylist()], pa.int64())
        table = table.add_column(0, pa.field("id", pa.int64(), nullable=False), column)
        with reported(self._action):
            done = (
                self._dataset.merge_insert("key")
                .when_matched_update_all("source.id = target.id")
                .when_not_matched_insert_all()
                .conflict_retries(0)  # a conflict means: look again, plan again
                .execute(table)
            )
        if done["num_inserted_rows"] + done["num_updated_rows"] != table.num_rows:
            raise ConflictError("a key was given another id meanwhile.")

    def _remove(self, writes: list[Removal]) -> list[Ids | int | BaseException]:
        for _ in self._attempts():
            try:
                return self._try_remove(writes)
            except ConflictError:
                continue
        raise self._defeat()

    def _try_remove(self, writes: list[Removal]) -> list[Ids | int | BaseException]:
        with reported(self._action):
            self._dataset.checkout_latest()
            stored = self._lookup(key for write in writes for key in write.keys)
            doomed: set[int] = set()
            counts: list[Ids | int | BaseException] = []
            for write in writes:
                before = len(doomed)
                found = (stored[key] for key in write.keys if key in stored)
                doomed |= {i for i, owner in found if write.owner in (None, owner)}
                counts.append(len(doomed) - before)
            for some in _chunks(sorted(doomed), _DELETE_IDS):
                listed = ", ".join(map(str, some))
                self._dataset.delete(f"id IN ({listed})", conflict_retries=0)
        return counts

    def _lookup(self, keys: Iterable[str]) -> dict[str, tuple[int, Owner]]:
        """Id and owner of those keys that are stored."""
        found: dict[str, tuple[int, Owner]] = {}
        for some in _chunks(list(dict.fromkeys(keys)), _LOOKUP_KEYS):
            listed = ", ".join(map(quote, some))
            rows = self._dataset.to_table(
                columns=["key", "id", "source", "root"], filter=f"key IN ({listed})"
            )
            columns = (rows[name].to_pylist() for name in ("key", "id", "source", "root"))
            for key, row_id, source, root in zip(*columns, strict=True):
                found[key] = (row_id, Owner(source, root))
        return found

    def _attempts(self) -> Iterator[int]:
        """Numbers of attempts, each later one after a random pause that grows to half a second."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(0.5, 0.002 * 2**attempt)))  # noqa: S311  # a pause, no secret
            yield attempt

    def _defeat(self) -> ConflictError:
        return ConflictError(
            f"{self._action}: other writers committed first {ATTEMPTS} times in a row. Run it "
            "again, or let fewer processes write at once."
        )


def _clash(keys: list[str], theirs: Owner, ours: Owner) -> DuplicateKeyError:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    cure = (
        "Use another key, or remove the item first"
        if ours.name is None
        else "Give this source a name of its own, which prefixes its keys (--source-name NAME)"
    )
    return DuplicateKeyError(
        f"the key {keys[0]!r}{more} is already taken by {theirs}; it cannot also come from {ours}. "
        f"{cure}."
    )


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
