"""An index brought up to date with a source of images.

A sync judges only the items of its own source, known by name and root. An item is

- *unchanged* when size and time are as stored, or else the digest is;
- *changed* when the digest differs: it is embedded again and keeps its id;
- *gone* when its key is no longer listed. A file that is there but cannot be read is not gone, nor
  is what lies in a folder that cannot be listed or behind the cut of a damaged archive: the stored
  item stays, and what could not be read is reported as skipped.

Work is committed as it is done, so an interrupted sync resumes: what was committed is unchanged at
the next run. Removals come last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import InputError, RemovalRefusedError
from spherequant.images import (
    Item,
    Limits,
    Skip,
    Source,
    perceptual_hash,
    stream,
    thumbnail,
)
from spherequant.images.listing import nfc
from spherequant.index.catalogue import Change, Owner, Removal, Upsert, clash
from spherequant.index.columns import Rows, Value, parse_text
from spherequant.index.keys import chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.index.embedder import BatchEmbedder
    from spherequant.index.header import Header
    from spherequant.index.searcher import Searcher
    from spherequant.quantizer import Encoder

Progress = Callable[[int, int], None]
Commit = Callable[[Upsert | Change | Removal], Any]

# Images embedded at once: 256 of 224 px are 38 MB.
EMBED_ITEMS = 256
# A commit is made after so many items, so many bytes of thumbnails or so many seconds: a killed
# sync loses no more than that.
COMMIT_ITEMS = 4_096
COMMIT_BYTES = 64 << 20
COMMIT_SECONDS = 3.0
_DIGEST_THREADS = 4
_DIGESTS_AHEAD = 64
_NOTHING = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did (or, dry, would do).

    Attributes:
        total: items in the index afterwards, of all sources.
        added: new items. In a dry run files are not decoded: bad ones count here.
        updated: items whose image, labels or metadata changed.
        removed: items whose file is gone.
        unchanged: items of this source that stay as they are.
        skipped: files that could not be used, and why.
        notes: metadata values that were not stored, and why; in a dry run also that the sync would
            be refused.
        bytes_per_item: bytes of a code, M.
        bytes_memory: bytes that a searcher of this index holds in memory.
        bytes_disk: bytes of all files of the index.
        bytes_thumbnails: bytes of the thumbnails among them.
        seconds: wall time.
    """

    total: int
    added: int
    updated: int
    removed: int
    unchanged: int
    skipped: list[Skip]
    notes: list[Skip]
    bytes_per_item: int
    bytes_memory: int
    bytes_disk: int
    bytes_thumbnails: int
    seconds: float


@dataclass(slots=True)
class Plan:
    """What has to be done to bring the items of one source up to date.

    Attributes:
        new: listed items that are not stored, by their key in the source.
        changed: stored items whose image differs, by their key in the source.
        relabel: by stored key, items whose image is the same and whose labels, metadata, size or
            time are not.
        relabelled: how many of those have other labels or metadata.
        gone: stored keys whose file is gone.
        unchanged: items that stay as they are.
        left: how many of those are listed with other labels or metadata.
        stored: items of this source in the index before.
        skipped: files passed over while listing or comparing.
    """

    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    relabel: dict[str, Item] = field(default_factory=dict)
    relabelled: int = 0
    gone: list[str] = field(default_factory=list)
    unchanged: int = 0
    left: int = 0
    stored: int = 0
    skipped: list[Skip] = field(default_factory=list)

    def outcome(self, bad: Sequence[Skip] = (), removed: int | None = None) -> Outcome:
        """What comes of the plan when the files in ``bad`` could not be embedded."""
        lost = {skip.path for skip in bad}
        return Outcome(
            added=len(self.new - lost),
            updated=len(self.changed - lost) + self.relabelled,
            removed=len(self.gone) if removed is None else removed,
            unchanged=self.unchanged + len(self.changed & lost),
            skipped=[*self.skipped, *bad],
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of a sync; see ``SyncReport``."""

    added: int
    updated: int
    removed: int
    unchanged: int
    skipped: list[Skip]


class Sync:
    """One run of one source against one snapshot of an index.

    Args:
        source: the open source.
        name: prefix of the keys and name of the source; None for the source's own name, without
            a prefix.
        header: the index's header, with ``columns``.
        columns: name -> type of columns that the source's metadata brings with it.
        encoder: gives what makes the codes; called only when there are images to embed.
        limits: bounds on one image.
    """

    def __init__(
        self,
        source: Source,
        name: str | None,
        header: Header,
        columns: Mapping[str, str],
        encoder: Callable[[], Encoder],
        limits: Limits,
    ) -> None:
        name = None if name is None else nfc(name)
        self.owner = Owner(source.name if name is None else name, source.root)
        self._prefix = "" if name is None else f"{name}/"
        self._source = source
        self._header = header
        self._columns = columns
        self._encoder = encoder
        self._limits = limits
        self.notes: list[Skip] = []
        folders = any(skip.path.endswith("/") for skip in source.skips)
        self._listed_in_full = source.complete and not folders

    def plan(self, searcher: Searcher) -> Plan:
        """Compare the source's listing with what is stored.

        Raises:
            DuplicateKeyError: a listed key is stored for another source.
        """
        listed = {self._prefix + item.key: item for item in self._source.items}
        plan = Plan(skipped=list(self._source.skips))
        doubtful: list[tuple[Item, dict[str, Any]]] = []
        missing = 0
        names = ["key", "source", "root", "size", "mtime", "digest", "labels"]
        names += [name for name in self._header.metadata if name not in self._columns]
        for row in searcher.scan(names):
            item = listed.get(row["key"])
            owner = Owner(row["source"], row["root"])
            if owner != self.owner:
                if item is not None:
                    raise clash([row["key"]], owner, self.owner)
                continue
            plan.stored += 1
            if item is not None:
                del listed[row["key"]]
                # Where no time is known, an equal size says nothing.
                if item.mtime and (item.size, item.mtime) == (row["size"], row["mtime"]):
                    self._judge_same(item, row, plan)
                else:
                    doubtful.append((item, row))
            elif self._may_be_there(row["key"]):
                plan.unchanged += 1
                missing += 1
            else:
                plan.gone.append(row["key"])
        if missing and not self._source.complete:
            reason = (
                f"not listed in full, so nothing is removed: {missing:,} stored items that were "
                "not found in it stay"
            )
            plan.skipped.append(Skip(self._source.root, reason))
        plan.new = {item.key for item in listed.values()}
        self._compare_digests(doubtful, plan)
        if plan.left:
            reason = (
                f"not listed in full, so the labels and metadata of {plan.left:,} stored items "
                "stay as they are"
            )
            plan.skipped.append(Skip(self._source.root, reason))
        return plan

    def _may_be_there(self, key: str) -> bool:
        """Whether a stored item that is not listed may still have its file."""
        if not self._source.complete:
            return True
        return key.startswith(self._prefix) and self._source.is_present(
            key.removeprefix(self._prefix)
        )

    def check_removal(self, plan: Plan, *, dry_run: bool) -> None:
        """Refuse a plan that would remove more than half of the source; note it in a dry run.

        Raises:
            RemovalRefusedError: names the option that lifts the refusal.
        """
        if len(plan.gone) * 2 <= plan.stored:
            return
        what = (
            f"{len(plan.gone):,} of the {plan.stored:,} items of {self.owner} are gone, for "
            f"example {plan.gone[0]!r}."
        )
        cure = "with --allow-removal (allow_removal=True)"
        if not dry_run:
            raise RemovalRefusedError(
                f"{what} Nothing was changed. If that is right, run it again {cure}."
            )
        self.notes.append(Skip(self._source.root, f"{what} They are removed only {cure}."))

    def apply(
        self,
        plan: Plan,
        embedder: Callable[[], BatchEmbedder],
        commit: Commit,
        progress: Progress | None,
    ) -> Outcome:
        """Do what the plan says, committing as it goes.

        Args:
            plan: from ``plan``.
            embedder: gives the model; called only when there are images to embed.
            commit: makes a write durable.
            progress: called with (images done, images in all).
        """
        bad: list[Skip] = []
        for keys in chunks(list(plan.relabel), COMMIT_ITEMS):
            values = [self._values(plan.relabel[key]) for key in keys]
            commit(Change(keys, values, self.owner, self._columns))
        wanted = plan.new | plan.changed
        if wanted:
            items = [item for item in self._source.items if item.key in wanted]
            for rows in self._embedded(items, embedder(), bad, progress):
                commit(Upsert(rows.table(self._header), self.owner, self._columns))
        removed = 0
        for keys in chunks(plan.gone, COMMIT_ITEMS):
            removed += commit(Removal(keys, self.owner))
        return plan.outcome(bad, removed)

    def _judge_same(self, item: Item, row: dict[str, Any], plan: Plan) -> None:
        """Sort in an item whose image is as stored.

        Of a source that is not listed in full, what gives labels may be missing: they stay.
        """
        values = {name: row.get(name) for name in self._header.metadata}
        stored = tuple(row["labels"] or ()), values
        told = tuple(item.labels), self._metadata(item, note=False)
        if stored != told and not self._listed_in_full:
            plan.unchanged += 1
            plan.left += 1
            return
        relabelled = stored != told
        plan.relabelled += relabelled
        plan.unchanged += not relabelled
        if relabelled or (item.size, item.mtime) != (row["size"], row["mtime"]):
            plan.relabel[row["key"]] = item

    def _metadata(self, item: Item, *, note: bool = True) -> dict[str, Value]:
        """The item's metadata in the columns' types; what does not fit is null and noted."""
        values: dict[str, Value] = dict.fromkeys(self._header.metadata)
        for name, text in item.metadata.items():
            kind = self._header.metadata.get(name)
            if kind is None:
                reason = "the index has no such column; the first metadata fixed them"
            else:
                try:
                    values[name] = parse_text(text, kind)
                    continue
                except ValueError as error:
                    reason = f"{error}, the type of its column"
            if note:
                self.notes.append(Skip(item.key, f"metadata {name!r} not stored: {reason}"))
        return values

    def _compare_digests(self, doubtful: list[tuple[Item, dict[str, Any]]], plan: Plan) -> None:
        """Read items of another or an unknown time, and sort them in by their digest."""

        def digest(item: Item) -> str | InputError:
            try:
                return sha256(self._source.read(item, self._limits)).hexdigest()
            except InputError as error:
                return error

        with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
            for some in chunks(doubtful, _DIGESTS_AHEAD):
                found = pool.map(digest, [item for item, _ in some])
                for (item, row), result in zip(some, found, strict=True):
                    if isinstance(result, InputError):
                        plan.skipped.append(Skip(item.key, str(result)))
                        plan.unchanged += 1
                    elif result == row["digest"]:
                        self._judge_same(item, row, plan)
                    else:
                        plan.changed.add(item.key)

    def _values(self, item: Item) -> dict[str, Any]:
        """What a stored item takes over from the listing."""
        listed = {"labels": list(item.labels), "size": item.size, "mtime": item.mtime}
        return listed | self._metadata(item)

    def _embedded(
        self,
        items: list[Item],
        embedder: BatchEmbedder,
        skipped: list[Skip],
        progress: Progress | None,
    ) -> Iterator[Rows]:
        """Rows of the items' images, in order, in groups worth a commit; bad ones are skipped."""
        pending = _Pending()
        waiting: list[_Seen] = []
        done = 0
        for seen in self._seen(items, embedder):
            done += 1
            if isinstance(seen, Skip):
                skipped.append(seen)
            else:
                waiting.append(seen)
            if len(waiting) >= EMBED_ITEMS:
                pending.take(*self._encode(waiting, embedder, skipped))
                waiting = []
                if progress:
                    progress(done, len(items))
            if pending.is_due():
                yield self._rows(pending)
                pending = _Pending()
        if waiting:
            pending.take(*self._encode(waiting, embedder, skipped))
        if progress:
            progress(done, len(items))
        if pending.seen:
            yield self._rows(pending)

    def _seen(self, items: list[Item], embedder: BatchEmbedder) -> Iterator[_Seen | Skip]:
        """Images read, decoded and prepared in workers, in order."""
        hashing = _Hashing(self._source, self._limits)
        thumbnails = self._header.thumbnails

        def transform(_: Item, image: Image.Image) -> tuple[NDArray[np.uint8], bytes | None, int]:
            small = thumbnail(image) if thumbnails else None
            return embedder.prepare(image), small, perceptual_hash(image)

        for result in stream(hashing, items, transform, limits=self._limits):
            if isinstance(result, Skip):
                yield result
            else:
                item, (prepared, small, phash) = result
                yield _Seen(item, prepared, small, phash, hashing.digests.pop(item.key))

    def _encode(
        self, seen: list[_Seen], embedder: BatchEmbedder, skipped: list[Skip]
    ) -> tuple[list[_Seen], NDArray[np.float32], NDArray[np.uint8]]:
        """Vectors and codes; an image whose vector is not finite is skipped."""
        vectors = embedder.embed_prepared(np.stack([one.prepared for one in seen]))
        good = [bool(np.isfinite(row).all()) for row in vectors]
        kept = []
        for one, fine in zip(seen, good, strict=True):
            if fine:
                kept.append(replace(one, prepared=_NOTHING))
            else:
                skipped.append(Skip(one.item.key, "the network gave no finite vector for it"))
        return kept, vectors[good], self._encoder().encode(vectors[good])

    def _rows(self, pending: _Pending) -> Rows:
        items = [one.item for one in pending.seen]
        return Rows(
            keys=[self._prefix + item.key for item in items],
            codes=np.concatenate(pending.codes),
            labels=[item.labels for item in items],
            metadata=[self._metadata(item) for item in items],
            vectors=np.concatenate(pending.vectors),
            thumbnails=[one.thumbnail for one in pending.seen],
            sizes=[item.size for item in items],
            mtimes=[item.mtime for item in items],
            digests=[one.digest for one in pending.seen],
            phashes=[one.phash for one in pending.seen],
            source=self.owner.name,
            root=self.owner.root,
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image that was decoded: what is left of it."""

    item: Item
    prepared: NDArray[np.uint8]
    thumbnail: bytes | None
    phash: int
    digest: str


class _Pending:
    """Encoded items that wait for their commit."""

    def __init__(self) -> None:
        self.seen: list[_Seen] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.codes: list[NDArray[np.uint8]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def take(
        self, seen: list[_Seen], vectors: NDArray[np.float32], codes: NDArray[np.uint8]
    ) -> None:
        self.seen += seen
        self.vectors.append(vectors)
        self.codes.append(codes)
        self._bytes += sum(len(one.thumbnail or b"") for one in seen)

    def is_due(self) -> bool:
        return bool(self.seen) and (
            len(self.seen) >= COMMIT_ITEMS
            or self._bytes >= COMMIT_BYTES
            or time.monotonic() - self._since >= COMMIT_SECONDS
        )


class _Hashing(Source):
    """A source that remembers the digest of what it reads, so that no image is read twice."""

    def __init__(self, inner: Source, limits: Limits) -> None:
        super().__init__(inner.name, inner.root, inner.items, inner.skips, inner.label_note, limits)
        self._inner = inner
        self.digests: dict[str, str] = {}

    def _read(self, item: Item, limits: Limits) -> bytes:
        data = self._inner.read(item, limits)
        self.digests[item.key] = sha256(data).hexdigest()
        return data


def check_source_name(name: str | None) -> None:
    """Refuse a name that could not prefix keys.

    Raises:
        InputError: empty, or with a slash or control characters.
    """
    if name is None:
        return
    if not isinstance(name, str) or not name.strip() or "/" in name or not name.isprintable():
        raise InputError(f"--source-name is a plain name without '/'; got {name!r}.")
