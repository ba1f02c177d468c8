"""An immutable snapshot of an index that answers searches, and what a search returns.

A ``Searcher`` holds ids and codes in memory and reads all else from its own version of
items.lance, which its lease keeps from being cleaned away.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from spherequant.errors import FormatError, InputError, UnknownKeyError
from spherequant.index import columns
from spherequant.index.counts import Counts, count_values, countable
from spherequant.index.duplicates import (
    MAX_MEMBERS,
    DuplicateGroups,
    NearDuplicate,
    described,
    equal_files,
    near_groups,
    near_items,
)
from spherequant.index.faults import reported
from spherequant.index.filters import filtered, matching_ids
from spherequant.index.header import LEASES_FOLDER, Header
from spherequant.index.keys import find_rows, rows_at
from spherequant.index.leases import Lease, take_lease
from spherequant.index.originals import kept_originals
from spherequant.index.scan import Part, top_k
from spherequant.index.segments import Items, read_items
from spherequant.index.upkeep import GRACE_SECONDS
from spherequant.quantizer import Codebooks, inner_products, normalise_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from spherequant.index.versions import Versions

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Queries whose tables are in memory at once: 64 tables of 8 codebooks of 256 are 512 KiB.
_QUERY_BLOCK = 64
_CACHED_FILTERS = 64
# Bytes of cached filters: a bitmap takes an eighth of a byte for each item.
_CACHED_BYTES = 64 << 20
_MAX_RESULTS = 50_000_000
_SCAN_ROWS = 8_192
_ITEM_COLUMNS = (
    "id",
    "key",
    "changed",
    "code",
    "labels",
    "source",
    "root",
    "size",
    "mtime",
    "digest",
    "phash",
    "original",  # where it lies, not what it holds
)


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item as it is stored.

    Attributes:
        id: given once, never used again.
        key: the item's key.
        code: uint8 [M].
        labels: its labels, () when unlabelled.
        metadata: value of each of the user's columns, None where there is none.
        source: name of the source it came from, None when added by the API.
        root: root of that source.
        size: bytes of the encoded image.
        mtime: its time, seconds since the epoch.
        digest: sha256 hex of the encoded image.
        phash: perceptual hash, 64 bits; None for what was added without an image.
        changed: when it was last written, UTC.
        has_original: whether the index keeps the file itself.
    """

    id: int
    key: str
    code: NDArray[np.uint8]
    labels: tuple[str, ...]
    metadata: dict[str, columns.Value]
    source: str | None
    root: str | None
    size: int | None
    mtime: float | None
    digest: str | None
    phash: int | None
    changed: datetime
    has_original: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of one query. ``rank`` counts from 1."""

    rank: int
    id: int
    key: str
    score: float
    labels: tuple[str, ...]
    metadata: dict[str, columns.Value]


@dataclass(frozen=True)
class SearchResult:
    """What a search found. Keys, items and thumbnails are fetched when first asked for.

    Attributes:
        scores: float32 [Q, k], higher is better, -inf past the end.
        ids: int64 [Q, k], -1 past the end.
    """

    scores: Float32
    ids: Int64
    _searcher: Searcher = field(repr=False)

    @cached_property
    def keys(self) -> list[list[str | None]]:
        """Keys, [Q][k], None past the end."""
        rows = self._searcher.rows(self.ids, ["key"])
        return [[rows[i]["key"] if i >= 0 else None for i in row] for row in self.ids.tolist()]

    @cached_property
    def items(self) -> list[list[Hit]]:
        """For each query its hits, best first, with labels and metadata; nothing past the end."""
        names = self._searcher.header.metadata
        rows = self._searcher.rows(self.ids, ["key", "labels", *names])
        return [
            [
                Hit(
                    rank=rank,
                    id=i,
                    key=rows[i]["key"],
                    score=score,
                    labels=tuple(rows[i]["labels"] or ()),
                    metadata={name: rows[i][name] for name in names},
                )
                for rank, (i, score) in enumerate(zip(ids, scores, strict=True), start=1)
                if i >= 0
            ]
            for ids, scores in zip(self.ids.tolist(), self.scores.tolist(), strict=True)
        ]

    @cached_property
    def thumbnails(self) -> list[list[bytes | None]]:
        """For each query the JPEG thumbnails of its hits, None where there is none."""
        found = self._searcher.thumbnails(self.ids)
        return [[found[i] for i in row if i >= 0] for row in self.ids.tolist()]


class Searcher:
    """One version of an index, read once and never changed.

    Args:
        versions: opens items.lance.
        header: the index's header.
        codebooks: its codebooks.
        read: makes the items of a version of items.lance.
    """

    def __init__(
        self, versions: Versions, header: Header, codebooks: Codebooks, read: Callable[[Any], Items]
    ) -> None:
        self._codebooks = codebooks
        folder = versions.path.parent
        with reported(f"cannot read the index at {folder}"):
            self._dataset, lease = _open_leased(versions, folder / LEASES_FOLDER)
            if lease is not None:
                weakref.finalize(self, lease.release)
            self.header = columns.decided(header, self._dataset.schema)
            _check_schema(self._dataset.schema, self.header, folder)
            self._items = read(self._dataset)
        self._total = len(self._items)
        self._parts = self._items.parts()
        self._filters: OrderedDict[str, list[Part]] = OrderedDict()
        self._filters_lock = threading.Lock()

    @property
    def version(self) -> int:
        """Version of items.lance that this snapshot shows."""
        return int(self._dataset.version)

    @property
    def in_memory(self) -> Items:
        """Ids and codes, as they are held."""
        return self._items

    def read_anew(self, between: Callable[[], object]) -> Items:
        """Read the items of this version again, without a tail.

        Args:
            between: called after each batch; what it raises ends the reading.
        """
        with reported("cannot read the index"):
            return read_items(self._dataset, self._codebooks, between)

    @property
    def is_current(self) -> bool:
        """Whether no version has been committed since."""
        with reported("cannot read the index"):
            return int(self._dataset.latest_version) == self.version

    @property
    def memory_bytes(self) -> int:
        """Bytes of the arrays that the snapshot holds: codes, ids, places, what is dead."""
        return self._items.memory_bytes

    @property
    def ids(self) -> Int64:
        """Ids of all items, int64 [N], ascending."""
        return self._items.sorted()[0]

    def codes(self) -> NDArray[np.uint8]:
        """A copy of the codes of all items, uint8 [N, M], in the order of ``ids``."""
        return self._items.sorted()[1]

    def __len__(self) -> int:
        return self._total

    def search(
        self,
        query_QD: Float32,
        k: int = 10,
        *,
        where: str | None = None,
        min_score: float | None = None,
        rerank: int | None = None,
        exclude: Int64 | None = None,
    ) -> SearchResult:
        """Exact search with unit vectors.

        Args:
            query_QD: float32 [Q, D] unit vectors (``normalise_rows``).
            k: results for each query.
            where: filter expression; only items for which it is true are searched.
            min_score: results that score less are left out.
            rerank: take this many by code, then order them by the inner product with their kept
                vector; ``min_score`` then applies to that product.
            exclude: int64 [Q], an id not to return to that query, -1 for none.

        Raises:
            InputError: an argument cannot be used, or no vectors are kept to re-rank with.
        """
        k = _count("k", k)
        if len(query_QD) * k > _MAX_RESULTS:
            raise InputError(
                f"{len(query_QD):,} queries for {k:,} results each are more than "
                f"{_MAX_RESULTS:,} results; ask for fewer at once."
            )
        min_score = _check_min_score(min_score)
        taken = k if rerank is None else self._check_rerank(rerank, k)
        # More than N cannot be found: the rest of the k columns is padding.
        width = max(1, min(taken, len(self)))
        parts = self._parts if where is None else self._filtered(where)
        scores = np.full((len(query_QD), k), -np.inf, np.float32)
        ids = np.full((len(query_QD), k), -1, np.int64)
        for start in range(0, len(query_QD), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            found, found_ids = top_k(
                parts,
                self._codebooks.lookup_table(query_QD[block]),
                width,
                exclude=None if exclude is None else exclude[block],
                min_score=min_score if rerank is None else None,
            )
            if rerank is not None:
                found, found_ids = self._rerank(query_QD[block], found_ids, min_score)
            columns_filled = min(k, width)
            scores[block, :columns_filled] = found[:, :columns_filled]
            ids[block, :columns_filled] = found_ids[:, :columns_filled]
        return SearchResult(scores, ids, self)

    def items(self, keys: Sequence[str]) -> list[StoredItem | None]:
        """The items with these keys, None where a key is not stored."""
        stored = self._rows_by_key(keys, self._item_columns)
        return [self._stored_item(stored[key]) if key in stored else None for key in keys]

    def items_by_id(self, ids: Int64 | Sequence[int]) -> list[StoredItem]:
        """The items with these ids.

        Raises:
            InputError: an id is not in this snapshot.
        """
        if any(int(i) < 0 for i in ids):
            raise InputError(f"no item has the id {min(map(int, ids))}.")
        rows = self.rows(ids, self._item_columns)
        return [self._stored_item(rows[int(i)]) for i in ids]

    def latest(self, n: int = 20, *, where: str | None = None) -> list[StoredItem]:
        """The n items that were added or changed last; see ``Index.latest``."""
        n = _count("n", n)
        times, ids = np.empty(0, np.int64), np.empty(0, np.int64)
        for batch in self._scan(["id", "changed"], where):
            times = np.concatenate([times, batch["changed"].cast("int64").to_numpy()])
            ids = np.concatenate([ids, batch["id"].to_numpy()])
            if len(ids) > n:
                kept = np.lexsort((-ids, -times))[:n]
                times, ids = times[kept], ids[kept]
        return self.items_by_id(ids[np.lexsort((-ids, -times))])

    @property
    def columns(self) -> dict[str, str]:
        """Name and type of what filters can name."""
        hidden = {"code", "vector", "thumbnail", "original"}
        return {
            field.name: columns.type_name(field.type)
            for field in self._dataset.schema
            if field.name not in hidden
        }

    def counts(
        self, names: Sequence[str] | None = None, *, where: str | None = None, limit: int = 100
    ) -> dict[str, Counts]:
        """How many items have each value; see ``Index.counts``."""
        chosen = countable(self.header.metadata, names)
        if not chosen:
            return {}
        return count_values(self._scan(chosen, where), chosen, _count("limit", limit))

    def near_duplicates(
        self, keys: Sequence[str], *, max_distance: int = 4, limit: int = 100
    ) -> list[list[NearDuplicate]]:
        """Items that show nearly the same picture as these; see ``Index.near_duplicates``."""
        stored = self._rows_by_key(keys, ["id", "key", "phash", "digest"])
        missing = [key for key in keys if key not in stored]
        if missing:
            raise UnknownKeyError(missing)
        asked = [stored[key] for key in keys]
        found = near_items(
            self._scan(["id", "phash"], "phash IS NOT NULL"),
            [row["phash"] for row in asked],
            max_distance,
        )
        wanted = _count("limit", limit) + 1  # the item itself is among them
        nearest = [(ids[:wanted], distances[:wanted]) for ids, distances in found]
        every = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in nearest)])
        rows = self.rows(every, ["key", "digest"])
        return [
            [
                NearDuplicate(
                    id=i,
                    key=rows[i]["key"],
                    distance=distance,
                    exact=row["digest"] is not None and rows[i]["digest"] == row["digest"],
                )
                for i, distance in zip(ids.tolist(), distances.tolist(), strict=True)
                if i != row["id"]
            ][:limit]
            for row, (ids, distances) in zip(asked, nearest, strict=True)
        ]

    def duplicate_groups(
        self, *, max_distance: int | None = 4, where: str | None = None, limit: int = 100
    ) -> DuplicateGroups:
        """Groups of items that show nearly the same picture; see ``Index.duplicate_groups``."""
        limit = _count("limit", limit)
        if max_distance is None:
            groups = equal_files(self._scan(["id", "digest"], where))
        else:
            groups = near_groups(self._scan(["id", "phash"], where), max_distance)
        shown = [group[:MAX_MEMBERS] for group in groups[:limit]]
        rows = self.rows(np.concatenate([np.empty(0, np.int64), *shown]), ["key", "digest"])
        return described(groups, rows)

    def kept_original(self, number: int) -> bytes | None:
        """The original of the item with this id, None where the index keeps none.

        Raises:
            InputError: the id is not in this snapshot.
        """
        addresses = self._items.addresses(np.array([number], np.int64))
        with reported("cannot read items of the index"):
            return kept_originals(self._dataset, addresses)[0]

    def query_vectors(self, keys: Sequence[str]) -> tuple[Float32, Int64]:
        """What a search by key asks with: the kept vector, else the reconstruction, normalised.

        Returns:
            float32 [Q, D] unit vectors and the int64 [Q] ids of the items.

        Raises:
            UnknownKeyError: a key is not stored.
        """
        wanted = ["id", "key", "vector" if self.header.keep_vectors else "code"]
        stored = self._rows_by_key(keys, wanted)
        missing = [key for key in keys if key not in stored]
        if missing:
            raise UnknownKeyError(missing)
        ids = np.array([stored[key]["id"] for key in keys], np.int64)
        if self.header.keep_vectors:
            kept = np.array([stored[key]["vector"] for key in keys], np.float32)
            vectors = kept.reshape(-1, self.header.dim)
        else:
            codes = np.array([stored[key]["code"] for key in keys], np.uint8)
            vectors = self._codebooks.decode(codes.reshape(-1, self.header.n_codebooks))
        zero = np.flatnonzero(~vectors.any(axis=1))
        if len(zero):
            raise InputError(
                f"the code of {keys[zero[0]]!r} stands for a vector of length zero, which has no "
                "direction to search in: leave the key out."
            )
        return normalise_rows(vectors), ids

    def thumbnails(self, ids: Int64 | Sequence[int]) -> dict[int, bytes | None]:
        """JPEG thumbnails by id, None for an item without one.

        Raises:
            InputError: an id is not in this snapshot.
        """
        if not self.header.thumbnails:
            return dict.fromkeys(self.rows(ids, ["id"]))
        return {i: row["thumbnail"] for i, row in self.rows(ids, ["thumbnail"]).items()}

    def rows(self, ids: Int64 | Sequence[int], names: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Stored columns of items, by id. Ids of -1 are passed over.

        Raises:
            InputError: an id is not in this snapshot.
        """
        wanted = np.unique(np.asarray(ids, np.int64))
        return {
            int(row["id"]): row
            for row in self._take(wanted[wanted >= 0], list(dict.fromkeys(["id", *names])))
        }

    def scan(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Stored columns of every item, in no particular order, in bounded memory."""
        for batch in self._scan(names, None):
            yield from batch.to_pylist()

    @property
    def thumbnail_bytes(self) -> int:
        """Bytes that thumbnails take on disk, those of removed items not yet cleaned included."""
        if not self.header.thumbnails:
            return 0
        with reported("cannot read the statistics of the index"):
            sizes = {f.id: f.bytes_on_disk for f in self._dataset.stats.data_stats().fields}
            numbers = {f.name(): f.id() for f in self._dataset.lance_schema.fields()}
        return int(sizes.get(numbers["thumbnail"], 0))

    @property
    def original_bytes(self) -> int:
        """Bytes of all originals that are kept."""
        sizes = (
            pc.struct_field(some["original"], "size") for some in self._scan(["original"], None)
        )
        return sum(pc.sum(size, min_count=0).as_py() for size in sizes)

    @property
    def _item_columns(self) -> list[str]:
        return [*_ITEM_COLUMNS, *self.header.metadata]

    def _stored_item(self, row: dict[str, Any]) -> StoredItem:
        return StoredItem(
            id=row["id"],
            key=row["key"],
            code=np.array(row["code"], np.uint8),
            labels=tuple(row["labels"] or ()),
            metadata={name: row[name] for name in self.header.metadata},
            source=row["source"],
            root=row["root"],
            size=row["size"],
            mtime=row["mtime"],
            digest=row["digest"],
            phash=row["phash"],
            changed=row["changed"],
            has_original=bool((row["original"] or {}).get("size")),
        )

    def _rows_by_key(self, keys: Sequence[str], names: list[str]) -> dict[str, dict[str, Any]]:
        with reported("cannot read items of the index"):
            rows = find_rows(self._dataset, keys, names).to_pylist()
        return {row["key"]: row for row in rows}

    def _scan(self, names: Sequence[str], where: str | None) -> Iterator[Any]:
        """Columns of all items for which a filter is true, a batch at a time."""
        if where is None:
            with reported("cannot read items of the index"):
                yield from self._dataset.to_batches(columns=list(names), batch_size=_SCAN_ROWS)
        else:
            yield from filtered(self._dataset, where, names, list(self.columns))

    def _take(self, ids: Int64, names: list[str]) -> Iterator[dict[str, Any]]:
        """Stored columns of the items with these ids, in no particular order."""
        addresses = self._items.addresses(ids)
        with reported("cannot read items of the index"):
            yield from rows_at(self._dataset, addresses, names)

    def _filtered(self, where: str) -> list[Part]:
        """What to scan under a filter, from a cache bounded in number and bytes."""
        with self._filters_lock:
            parts = self._filters.get(where)
            if parts is not None:
                self._filters.move_to_end(where)
                return parts
        parts = self._items.parts(matching_ids(self._dataset, where, list(self.columns)))
        with self._filters_lock:
            self._filters[where] = parts
            held = sum(map(_bytes_of, self._filters.values()))
            while len(self._filters) > 1 and (
                len(self._filters) > _CACHED_FILTERS or held > _CACHED_BYTES
            ):
                held -= _bytes_of(self._filters.popitem(last=False)[1])
        return parts

    def _kept_vectors(self, ids: Int64) -> Float32:
        """Kept vectors of these items, float32 [n, D]."""
        rows = {row["id"]: row["vector"] for row in self._take(ids, ["id", "vector"])}
        vectors = np.array([rows[i] for i in ids.tolist()], np.float16)
        return vectors.astype(np.float32)

    def _check_rerank(self, rerank: int, k: int) -> int:
        if not self.header.keep_vectors:
            raise InputError(
                "this index keeps no vectors to re-rank with; make it with keep_vectors=True "
                "(--keep-vectors)."
            )
        rerank = _count("rerank", rerank)
        if rerank < k:
            raise InputError(f"rerank={rerank} must be at least k={k}: it picks from so many.")
        return rerank

    def _rerank(
        self, query_QD: Float32, ids_QR: Int64, min_score: float | None
    ) -> tuple[Float32, Int64]:
        """Order candidates by ⟨q, kept vector⟩ in float32: higher first, then the lower id."""
        scores = np.full(ids_QR.shape, -np.inf, np.float32)
        ids = np.full(ids_QR.shape, -1, np.int64)
        for query, candidates in enumerate(ids_QR):
            found = candidates[candidates >= 0]
            if not len(found):
                continue
            products = inner_products(query_QD[query : query + 1], self._kept_vectors(found))[0]
            if min_score is not None:
                found, products = found[products >= min_score], products[products >= min_score]
            order = np.lexsort((found, -products))
            scores[query, : len(order)] = products[order]
            ids[query, : len(order)] = found[order]
        return scores, ids


def _open_leased(versions: Versions, leases: Path) -> tuple[Any, Lease | None]:
    """The latest version and a lease on it, taken well before cleaning could touch the version."""
    while True:
        started = time.monotonic()
        dataset = versions.latest()
        lease = take_lease(leases, int(dataset.version))
        if lease is None or time.monotonic() - started < GRACE_SECONDS / 3:
            return dataset, lease
        lease.release()


def _check_schema(schema: Any, header: Header, folder: Path) -> None:
    expected = columns.schema(header)
    if schema.equals(expected):
        return
    wrong = {field.name for field in [*schema, *expected] if field not in schema}
    wrong |= set(schema.names) ^ set(expected.names)
    if expected.names != schema.names and set(schema.names) < set(expected.names):
        raise FormatError(
            f"{folder} was made by an earlier version and lacks {', '.join(sorted(wrong))}: make "
            "it anew with: spherequant index MODEL SOURCE --out INDEX"
        )
    raise FormatError(
        f"the columns of {folder / 'items.lance'} are not those that its index.json promises "
        f"({', '.join(sorted(wrong)) or 'another order'}); restore the folder from a copy."
    )


def _bytes_of(parts: list[Part]) -> int:
    return sum(0 if part.allowed is None else part.allowed.memory_bytes for part in parts)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is a whole number from 1; got {value!r}.")
    return int(value)


def _check_min_score(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise InputError(f"min_score is a number; got {value!r}.")
    if np.isnan(value):
        raise InputError("min_score is not a number (NaN).")
    return float(value)
