"""``Index``: a folder of codes and what is known of each item, kept, changed and searched."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spherequant.errors import (
    DuplicateKeyError,
    FingerprintError,
    FormatError,
    InputError,
    UnknownKeyError,
)
from spherequant.images import Limits, Skip, Source, open_source
from spherequant.index.arguments import (
    as_array,
    check_images,
    check_keys,
    check_length,
    first_repeat,
)
from spherequant.index.cache import load_cache, save_cache
from spherequant.index.catalogue import Catalogue, Change, Removal, Upsert, Write
from spherequant.index.columns import columns_of_values, decided, infer_metadata_columns
from spherequant.index.commits import GroupCommit
from spherequant.index.creation import create_folder
from spherequant.index.embedder import (
    BatchEmbedder,
    Embedder,
    check_embedder,
    in_batches,
    load_embedder,
)
from spherequant.index.faiss_files import Kind, write_faiss
from spherequant.index.faults import reported
from spherequant.index.footprint import Footprint, bytes_on_disk
from spherequant.index.header import (
    CACHE_FILE,
    CODEBOOKS_FILE,
    HEADER_FILE,
    ITEMS_FOLDER,
    LEASES_FOLDER,
    MODEL_FOLDER,
    Header,
    file_sha256,
    read_header,
)
from spherequant.index.incoming import Incoming, check_vectors, make_changes
from spherequant.index.merging import Merging
from spherequant.index.originals import SourceFiles
from spherequant.index.searcher import Searcher, SearchResult, StoredItem
from spherequant.index.sync import Outcome, Progress, Sync, SyncReport, check_source_name
from spherequant.index.upkeep import Upkeep
from spherequant.index.versions import Versions
from spherequant.quantizer import Codebooks, Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike

    from spherequant.index.counts import Counts
    from spherequant.index.duplicates import DuplicateGroups, NearDuplicate
    from spherequant.index.segments import Items

Ids = NDArray[np.int64]


class Index:
    """An index in a folder. Made with ``create`` or ``open``; safe to use from many threads.

    Reads see the index as it was when this object last looked: at its own last write, or at
    ``refresh``. They never wait for a writer.
    """

    def __init__(self, folder: Path, model: Embedder | Codebooks | None = None) -> None:
        self.folder = folder
        self.header = read_header(folder)
        codebooks = folder / MODEL_FOLDER / CODEBOOKS_FILE
        with reported(f"cannot read {codebooks}"):
            if file_sha256(codebooks) != self.header.codebooks_sha256:
                raise FormatError(
                    f"{codebooks} is not the file that the index was made with: every stored code "
                    "would mean something else. Restore the folder from a copy."
                )
        self.codebooks: Codebooks = Codebooks.load(codebooks)
        told = (self.header.n_codebooks, self.header.n_codewords, self.header.dim)
        if told != self.codebooks.array.shape:
            raise FormatError(
                f"{folder / HEADER_FILE} is damaged (M, K, D are {self.codebooks.array.shape}, not "
                f"{told}); restore it from a copy."
            )
        self._given: Embedder | None = None
        if model is not None:
            self._check_model(model)
        self._versions = Versions(folder / ITEMS_FOLDER)
        if self.header.undecided:
            with reported(f"cannot open {folder}"):
                self.header = decided(self.header, self._versions.latest().schema)
        self._catalogue = Catalogue(self._versions)
        self._upkeep = Upkeep(folder / ITEMS_FOLDER, folder / LEASES_FOLDER)
        self._commits: GroupCommit[Write, Any] = GroupCommit(self._commit)
        self._files = SourceFiles()
        self._merging = Merging(self.codebooks)
        self._written = 0
        self._searcher: Searcher | None = None
        self._searcher_lock = threading.Lock()

    @classmethod
    def create(
        cls,
        directory: str | PathLike[str],
        model: Embedder | Codebooks,
        *,
        metadata_columns: Mapping[str, str] | None = None,
        keep_vectors: bool = False,
        thumbnails: bool = True,
    ) -> Self:
        """Make a new, empty index.

        Args:
            directory: where; must not exist or be an empty folder.
            model: a model, or codebooks alone for one's own vectors. The index keeps a copy.
            metadata_columns: name -> ``"int64"``, ``"float64"`` or ``"string"`` of further
                columns, fixed from here on. None leaves them to the first metadata that comes, with
                ``add``, ``update`` or ``sync``; when that is in, no more can be added.
            keep_vectors: keep each item's vector in float16 (2 D bytes), for ``rerank``.
            thumbnails: keep a JPEG thumbnail of each image.

        Raises:
            InputError: something is already there, or the model's embeddings are not normalised.
            ConfigError: a metadata column cannot be used.
        """
        folder = Path(directory).absolute()
        create_folder(
            folder,
            model,
            metadata_columns,
            keep_vectors=keep_vectors,
            thumbnails=thumbnails,
        )
        return cls(folder, model)

    @classmethod
    def open(
        cls, directory: str | PathLike[str], model: Embedder | Codebooks | None = None
    ) -> Self:
        """Open an index.

        Args:
            directory: the index.
            model: the model to embed images with, if it is at hand; else the index loads its own
                copy when images come.

        Raises:
            FormatError: no index is there, it is damaged, or a newer version wrote it.
            FingerprintError: ``model`` is not the one that the index was made with.
        """
        return cls(Path(directory).absolute(), model)

    def close(self) -> None:
        """Let go of the snapshot, and leave the folder tidy if this object wrote to it."""
        with self._searcher_lock:
            self._searcher = None
            self._merging.close()
        self._upkeep.close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.searcher)

    @property
    def ntotal(self) -> int:
        """Items in the index, as ``len``."""
        return len(self)

    @property
    def fingerprint(self) -> str:
        """sha256 hex of everything that changes a code."""
        return self.header.fingerprint

    @property
    def searcher(self) -> Searcher:
        """The current snapshot: this object's own writes are in it."""
        current = self._searcher
        if current is not None and current.version >= self._written:
            return current
        with self._searcher_lock:
            if self._searcher is None or self._searcher.version < self._written:
                self._searcher = self._snapshot()
            return self._searcher

    def refresh(self) -> None:
        """See what other writers have committed. Searches under way keep their snapshot.

        Only what changed is read. Where much has changed since everything was read, that is done
        again in a thread, and a later refresh takes it up.
        """
        with self._searcher_lock:
            current = self._searcher
            if current is None or not current.is_current or self._merging.ready:
                self._searcher = self._snapshot()

    def _snapshot(self) -> Searcher:
        """The latest version, read from where the current snapshot stands."""
        current = self._searcher
        if current is None:
            before = load_cache(self.folder / CACHE_FILE, self.header, self.codebooks)
        else:
            before = current.in_memory

        def read(dataset: Any) -> Items:
            return self._merging.items(dataset, before)

        snapshot = Searcher(self._versions, self.header, self.codebooks, read)
        self.header = snapshot.header
        if current is not None and snapshot.in_memory.crowded:
            self._merging.start(snapshot.read_anew)
        return snapshot

    def write_cache(self) -> None:
        """Keep what this object sees in ``cache.bin``, from which the index then opens faster.

        An older cache still helps: what changed since is read from the items. When most of them
        have changed, or small files of the items were merged into large ones, it helps no more, and
        nothing but time is lost. Deleting the file is always safe.

        Raises:
            SpherequantError: the file cannot be written; one that was there stays as it was.
        """
        items = self.searcher.in_memory
        save_cache(self.folder / CACHE_FILE, items, self.header, self.codebooks)

    def export_faiss(self, path: str | PathLike[str], kind: Kind = "residual") -> None:
        """Write the items as an index of FAISS, which then finds the same ids by inner product.

        Args:
            path: the file to write.
            kind: ``residual`` for an IndexResidualQuantizer, ``lifted`` for an IndexPQ behind a
                transform, which FAISS searches faster. Neither can add items.

        Raises:
            MissingDependencyError: FAISS is not installed.
            SpherequantError: the file cannot be written.
        """
        searcher = self.searcher
        write_faiss(path, self.codebooks, searcher.ids, searcher.codes(), kind)

    def add(
        self,
        keys: Sequence[str],
        *,
        images: Iterable[Any] | None = None,
        codes: ArrayLike | None = None,
        vectors: ArrayLike | None = None,
        originals: Sequence[bytes | None] | None = None,
        labels: Sequence[str | Sequence[str]] | None = None,
        metadata: Sequence[Mapping[str, object] | None] | None = None,
    ) -> Ids:
        """Add items, or replace those whose key is known (they keep their id). All or none.

        Given twice, the same items are replaced by themselves. Of two calls at once with one key,
        one replaces what the other wrote.

        Args:
            keys: n keys, without repeats; stored in Unicode NFC.
            images: n images (PIL of any mode, or uint8 arrays as `Model.embed` takes), or
            codes: uint8 [n, M], or
            vectors: float [n, D]; rows are normalised. With ``images``, what the model gave for
                them, which are then not embedded again.
            originals: with ``images``, the bytes of each one's file, or None. They are kept, and
                give the items' size and digest.
            labels: for each item its labels, or one label; none when left out.
            metadata: for each item a mapping from column to value; none when left out. The first
                that come bring their columns with them, unless ``create`` was given those.

        Returns:
            The ids, int64 [n], once the items are durable.

        Raises:
            InputError: lengths differ, a value cannot be stored, or it is not said what the items
                are, or twice.
            DuplicateKeyError: a key comes twice, or belongs to a source that is kept by ``sync``.
        """
        keys = _check_unique(keys, "add")
        header, columns = self._with_columns(_columns_of(metadata, keys))
        incoming = Incoming(header, lambda: self._encoder, lambda: self._embedder)
        rows = incoming.rows(
            keys,
            images=images,
            codes=codes,
            vectors=vectors,
            originals=originals,
            labels=labels,
            metadata=metadata,
        )
        if not keys:
            return np.empty(0, np.int64)
        return self._submit(Upsert(rows.table(header), columns=columns))

    def update(
        self,
        keys: Sequence[str],
        *,
        labels: Sequence[str | Sequence[str]] | None = None,
        metadata: Sequence[Mapping[str, object] | None] | None = None,
    ) -> Ids:
        """Give stored items other labels or metadata; all else stays. All or none.

        Args:
            keys: n keys, without repeats.
            labels: for each item its labels from now on, or one label; they stay when left out.
            metadata: for each item a mapping from column to value; columns that it does not name
                stay.

        Returns:
            The ids, int64 [n], once the change is durable.

        Raises:
            UnknownKeyError: no item has one of the keys.
            InputError: lengths differ, a value cannot be stored, or there is nothing to change.
            DuplicateKeyError: a key comes twice, or belongs to a source that is kept by ``sync``.
        """
        keys = _check_unique(keys, "update")
        header, columns = self._with_columns(_columns_of(metadata, keys))
        values = make_changes(header, keys, labels, metadata)
        if not keys:
            return np.empty(0, np.int64)
        return self._submit(Change(keys, values, columns=columns))

    def remove(self, keys: Sequence[str]) -> int:
        """Remove items by key, whatever their source; unknown keys are passed over.

        An item whose file is still in a source comes back, with a new id, at the next sync.

        Returns:
            How many items were removed.
        """
        keys = check_keys(keys)
        return int(self._commits.submit(Removal(keys))) if keys else 0

    def get(self, keys: Sequence[str]) -> list[StoredItem | None]:
        """The items with these keys, None where a key is not in the index."""
        return self.searcher.items(check_keys(keys))

    def search(
        self,
        *,
        vectors: ArrayLike | None = None,
        images: Iterable[Any] | None = None,
        keys: Sequence[str] | None = None,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        rerank: int | None = None,
        include_self: bool = False,
    ) -> SearchResult:
        """The k items of highest score for each query: exact, ties by the lower id.

        Args:
            vectors: float [Q, D] (or [D] for one query); rows are normalised, or
            images: Q images, or
            keys: keys of items to search with: their kept vector, else their normalised
                reconstruction.
            k: results for each query.
            where: SQL filter expression over the columns, such as
                ``array_has(labels, 'cat') AND size > 1000``.
            min_score: leave out results that score less.
            rerank: order this many best codes by the inner product with their kept vectors.
            include_self: in a search by key, let the item itself be found.

        Raises:
            InputError: not exactly one kind of query, or one that cannot be used.
            UnknownKeyError: no item has one of the keys.
        """
        if sum(given is not None for given in (vectors, images, keys)) != 1:
            raise InputError("search needs exactly one of vectors, images and keys.")
        searcher = self.searcher
        exclude = None
        if keys is not None:
            queries, ids = searcher.query_vectors(check_keys(keys))
            exclude = None if include_self else ids
        elif vectors is not None:
            array = as_array(vectors, "vectors")
            queries = check_vectors(array[None] if array.ndim == 1 else array, self.header.dim)
        else:
            # Not as a list: the model takes a batch at a time, and so holds few decoded pictures.
            pictures = check_images(images)
            queries = self._embedder.embed(pictures, query=True)
        return searcher.search(
            queries, k, where=where, min_score=min_score, rerank=rerank, exclude=exclude
        )

    def thumbnails(self, ids: Sequence[int] | Ids) -> dict[int, bytes | None]:
        """JPEG thumbnails by id, None for an item without one.

        Raises:
            InputError: an id is not in the index.
        """
        return self.searcher.thumbnails(ids)

    def original(self, key: str) -> bytes:
        """The bytes of the file that an item was made from.

        They come from the index where they were kept (``add(originals=...)``), else from the item's
        own source, never from outside of it, and only as they were when the item was stored.

        Raises:
            UnknownKeyError: no item has the key.
            OriginalError: the file was not kept and is not in the source, or no longer the same.
        """
        (checked,) = check_keys([key])
        searcher = self.searcher
        (item,) = searcher.items([checked])
        if item is None:
            raise UnknownKeyError([checked])
        kept = searcher.kept_original(item.id) if item.has_original else None
        return self._files.read(item) if kept is None else kept

    def latest(self, n: int = 20, *, where: str | None = None) -> list[StoredItem]:
        """The n items that were added or changed last, the last one first.

        Args:
            n: how many at most.
            where: filter expression, as of ``search``; only items for which it is true.

        Raises:
            InputError: the filter cannot be used.
        """
        return self.searcher.latest(n, where=where)

    def __repr__(self) -> str:
        """One line, of what index.json tells: nothing is read."""
        return f"<Index: {self.folder}, {8 * self.header.n_codebooks} bits>"

    @property
    def columns(self) -> dict[str, str]:
        """Name and type of what filters (``where``) can name."""
        return self.searcher.columns

    def counts(
        self, names: Sequence[str] | None = None, *, where: str | None = None, limit: int = 100
    ) -> dict[str, Counts]:
        """How many items have each label, and each value of metadata.

        Args:
            names: columns to count; the labels and all metadata but float64 when left out.
            where: filter expression, as of ``search``; only items for which it is true.
            limit: values of each column, those that most items have.

        Raises:
            InputError: a column cannot be counted, or the filter cannot be used.
        """
        return self.searcher.counts(names, where=where, limit=limit)

    def near_duplicates(
        self, keys: Sequence[str], *, max_distance: int = 4, limit: int = 100
    ) -> list[list[NearDuplicate]]:
        """For each item those that show nearly the same picture, the nearest first.

        Args:
            keys: of the items asked for.
            max_distance: bits of 64 in which perceptual hashes may differ.
            limit: most to return for each.

        Returns:
            One list a key, without the item itself; empty for an item without a hash (one that was
            added as a vector or a code). Reads 8 bytes an item, once for all keys.

        Raises:
            UnknownKeyError: no item has one of the keys.
        """
        return self.searcher.near_duplicates(
            check_keys(keys), max_distance=max_distance, limit=limit
        )

    def duplicate_groups(
        self, *, max_distance: int | None = 4, where: str | None = None, limit: int = 100
    ) -> DuplicateGroups:
        """Items that show nearly the same picture, in groups; see ``index.duplicates``.

        Args:
            max_distance: bits of 64 in which perceptual hashes of neighbours may differ; None for
                groups of files that are equal to the byte.
            where: filter expression, as of ``search``; only items for which it is true.
            limit: groups to return, the largest first.
        """
        return self.searcher.duplicate_groups(max_distance=max_distance, where=where, limit=limit)

    def footprint(self) -> Footprint:
        """How many items there are, and what they take in memory and on disk."""
        searcher = self.searcher
        with reported(f"cannot measure {self.folder}"):
            bytes_disk = bytes_on_disk(self.folder)
        return Footprint(
            items=len(searcher),
            bytes_per_item=self.header.n_codebooks,
            bytes_memory=searcher.memory_bytes,
            bytes_disk=bytes_disk,
            bytes_thumbnails=searcher.thumbnail_bytes,
            bytes_originals=searcher.original_bytes,
        )

    def sync(
        self,
        source: str | PathLike[str] | Source | Iterable[Any],
        *,
        name: str | None = None,
        labels: str = "auto",
        allow_removal: bool = False,
        dry_run: bool = False,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> SyncReport:
        """Bring the index up to date with a source: add, update and remove that source's items.

        Items of other sources, and items added by ``add``, are never touched. Work is committed
        as it is done; an interrupted sync resumes where it stopped when run again.

        Args:
            source: anything ``open_source`` takes.
            name: name of the source, prefixed to its keys (``"name/key"``).
            labels: how labels are read, see ``open_source``.
            allow_removal: let more than half of the source's items be removed.
            dry_run: compare and report, write nothing.
            limits: bounds on one image; None for those of an open source, or the usual.
            progress: called with (images done, images in all).

        Raises:
            SourceError: the source is missing or empty.
            DuplicateKeyError: a key is already taken by another source.
            RemovalRefusedError: more than half of the source's items are gone.
        """
        started = time.monotonic()
        check_source_name(name)
        opened = open_source(source, labels=labels, limits=limits or Limits())
        limits = limits or opened.limits  # an open source has bounds of its own
        with opened if opened is not source else nullcontext():
            self.refresh()
            header, columns = self._with_columns(lambda: infer_metadata_columns(opened.items))
            run = Sync(opened, name, header, columns, lambda: self._encoder, limits)
            plan = run.plan(self.searcher)
            if not allow_removal:
                run.check_removal(plan, dry_run=dry_run)
            outcome = plan.outcome()
            if not dry_run:
                outcome = run.apply(plan, lambda: self._embedder, self._commits.submit, progress)
        return self._report(outcome, run.notes, time.monotonic() - started)

    def _with_columns(
        self, metadata: Callable[[], Mapping[str, str]] | None
    ) -> tuple[Header, dict[str, str]]:
        """The header with the columns that metadata may still bring, and those columns alone.

        Nothing is written: a write takes its columns with it.

        Args:
            metadata: gives name -> type of all columns that are needed; None without metadata.
        """
        if metadata is None or not self.header.undecided:
            return self.header, {}
        if not self.header.metadata:
            self.refresh()
        header = self.header
        if header.metadata and len(self):
            return header, {}
        found = metadata()
        columns = {name: found[name] for name in found if name not in header.metadata}
        return replace(header, metadata=header.metadata | columns), columns

    def _submit(self, write: Upsert | Change) -> Ids:
        """Make a write durable; its ids."""
        ids: Ids = self._commits.submit(write)
        if write.columns:
            self.refresh()  # the header has them now
        return ids

    @cached_property
    def _encoder(self) -> Encoder:
        encoder: Encoder = Encoder.load(self.folder / MODEL_FOLDER / CODEBOOKS_FILE)
        return encoder

    @cached_property
    def _embedder(self) -> BatchEmbedder:
        """The model, loaded when the first images come."""
        if self.header.encoder != "model":
            raise InputError(
                "this index was made from codebooks alone, without a network: it takes vectors or "
                "codes, no images."
            )
        if self._given is not None:
            return in_batches(self._given)
        model = load_embedder(self.folder / MODEL_FOLDER)
        if model.fingerprint != self.header.fingerprint:
            raise FingerprintError(
                f"the model in {self.folder / MODEL_FOLDER} is not the one that the index was "
                "made with: its codes would not match. Restore the folder from a copy."
            )
        return model

    def _check_model(self, model: Embedder | Codebooks) -> None:
        """Accept a model that makes the stored codes, and keep it for images."""
        if isinstance(model, Codebooks):
            if not np.array_equal(model.array, self.codebooks.array):
                raise FingerprintError(
                    f"the codebooks are not those of the index {self.folder}: its codes would mean "
                    "something else. A new model means a new index beside the old one."
                )
            return
        check_embedder(model)
        if model.fingerprint != self.header.fingerprint:
            raise FingerprintError(
                f"the index {self.folder} was made with another model (fingerprint "
                f"{self.header.fingerprint[:12]}, this one has {model.fingerprint[:12]}): their "
                "codes do not compare. A new model means a new index beside the old one."
            )
        self._given = model

    def _commit(self, writes: Sequence[Write]) -> list[Any]:
        try:
            return self._catalogue.commit(writes)
        finally:
            self._written = self._catalogue.version
            self._upkeep.note_commit(sum(write.size for write in writes))

    def _report(self, outcome: Outcome, notes: list[Skip], seconds: float) -> SyncReport:
        taken = self.footprint()
        return SyncReport(
            total=taken.items,
            added=outcome.added,
            updated=outcome.updated,
            removed=outcome.removed,
            unchanged=outcome.unchanged,
            skipped=outcome.skipped,
            notes=notes,
            bytes_per_item=taken.bytes_per_item,
            bytes_memory=taken.bytes_memory,
            bytes_disk=taken.bytes_disk,
            bytes_thumbnails=taken.bytes_thumbnails,
            seconds=seconds,
        )


def _columns_of(
    metadata: Sequence[Mapping[str, object] | None] | None, keys: Sequence[str]
) -> Callable[[], dict[str, str]] | None:
    """What gives name -> type of the metadata of ``add`` and ``update``."""
    if metadata is None:
        return None
    check_length("metadata", metadata, len(keys))
    return partial(columns_of_values, metadata, keys)


def _check_unique(keys: Sequence[str], verb: str) -> list[str]:
    """Keys as they are stored.

    Raises:
        InputError: one cannot be stored.
        DuplicateKeyError: one comes twice.
    """
    checked = check_keys(keys)
    repeated = first_repeat(checked)
    if repeated is not None:
        raise DuplicateKeyError(f"the key {repeated!r} comes twice in one call of {verb}.")
    return checked
