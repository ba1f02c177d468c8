"""``Index``: a folder of codes and what is known of each item, kept, changed and searched."""

from __future__ import annotations

import glob
import shutil
import threading
import time
import uuid
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

import spherequant
from spherequant.errors import DuplicateKeyError, FingerprintError, FormatError, InputError
from spherequant.images import Limits, Skip, Source, open_source, thumbnail
from spherequant.index import columns
from spherequant.index.arguments import (
    check_images,
    check_keys,
    check_labels,
    check_length,
    first_repeat,
    picture,
)
from spherequant.index.cache import load_cache, save_cache
from spherequant.index.catalogue import Catalogue, Removal, Upsert, create_catalogue
from spherequant.index.commits import GroupCommit
from spherequant.index.embedder import Embedder, load_embedder
from spherequant.index.faiss_files import Kind, write_faiss
from spherequant.index.faults import reported
from spherequant.index.footprint import bytes_on_disk
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
from spherequant.index.merging import Merging
from spherequant.index.searcher import Searcher, SearchResult, StoredItem
from spherequant.index.sync import Outcome, Progress, Sync, SyncReport, check_source_name
from spherequant.index.upkeep import Upkeep
from spherequant.quantizer import Codebooks, Encoder, normalise_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from spherequant.index.segments import Items

# Images of one ``add`` that are prepared at once.
_PREPARE_ITEMS = 256
_ABANDONED_SECONDS = 3_600.0

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
        self._given: Embedder | None = None
        if model is not None:
            self._check_model(model)
        self._catalogue = Catalogue(folder / ITEMS_FOLDER)
        self._upkeep = Upkeep(folder / ITEMS_FOLDER, folder / LEASES_FOLDER)
        self._commits: GroupCommit[Upsert | Removal, Any] = GroupCommit(self._commit)
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
                columns, fixed from here on; see ``infer_metadata_columns``.
            keep_vectors: keep each item's vector in float16 (2 D bytes), for ``rerank``.
            thumbnails: keep a JPEG thumbnail of each image.

        Raises:
            InputError: something is already there, or the model's embeddings are not normalised.
            ConfigError: a metadata column cannot be used.
        """
        folder = Path(directory).absolute()
        names = columns.check_metadata_columns(metadata_columns or {})
        if not getattr(model, "normalised", True):  # only the package's own models have a choice
            raise InputError(
                "this model was trained without normalising its embeddings (objective no-norm): "
                "an index ranks by the inner product of unit vectors, which would be wrong for "
                "it. Such a model is for `evaluate` only; train with another objective."
            )
        if (folder / HEADER_FILE).exists():
            raise InputError(f"{folder} is already an index: open it, or choose another folder.")
        with reported(f"cannot create {folder}"):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise InputError(f"{folder} exists and is not empty: choose another folder.")
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep_abandoned(folder)
            # Built beside its place and renamed, so that a killed creation leaves no half index.
            partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:12]}")
            try:
                partial.mkdir()
                header = _store_model(
                    partial / MODEL_FOLDER, model, names, keep_vectors, thumbnails
                )
                create_catalogue(partial / ITEMS_FOLDER, columns.schema(header))
                (partial / LEASES_FOLDER).mkdir()
                header.write(partial)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
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

        snapshot = Searcher(self.folder, self.header, self.codebooks, read)
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
        labels: Sequence[str | Sequence[str]] | None = None,
        metadata: Sequence[Mapping[str, object] | None] | None = None,
    ) -> Ids:
        """Add items, or replace those whose key is known (they keep their id). All or none.

        Args:
            keys: n keys, without repeats; stored in Unicode NFC.
            images: n images (PIL of any mode, or uint8 arrays [H, W, 3]), or
            codes: uint8 [n, M], or
            vectors: float [n, D]; rows are normalised.
            labels: for each item its labels, or one label; none when left out.
            metadata: for each item a mapping from column to value; none when left out.

        Returns:
            The ids, int64 [n], once the items are durable.

        Raises:
            InputError: lengths differ, a value cannot be stored, or not exactly one of images,
                codes and vectors is given.
            DuplicateKeyError: a key comes twice, or belongs to a source that is kept by ``sync``.
        """
        keys = check_keys(keys)
        repeated = first_repeat(keys)
        if repeated is not None:
            raise DuplicateKeyError(f"the key {repeated!r} comes twice in one call of add.")
        rows = self._rows(keys, images, codes, vectors, labels, metadata)
        if not keys:
            return np.empty(0, np.int64)
        ids: Ids = self._commits.submit(Upsert(rows.table(self.header)))
        return ids

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
        """
        if sum(given is not None for given in (vectors, images, keys)) != 1:
            raise InputError("search needs exactly one of vectors, images and keys.")
        searcher = self.searcher
        exclude = None
        if keys is not None:
            queries, ids = searcher.query_vectors(check_keys(keys))
            exclude = None if include_self else ids
        elif vectors is not None:
            array = np.asarray(vectors)
            queries = self._check_vectors(array[None] if array.ndim == 1 else array)
        else:
            # Not as a list: the model takes a batch at a time, and so holds few decoded pictures.
            pictures = check_images(images)
            queries = self._embedder.embed(pictures)
        return searcher.search(
            queries, k, where=where, min_score=min_score, rerank=rerank, exclude=exclude
        )

    def thumbnails(self, ids: Sequence[int] | Ids) -> dict[int, bytes | None]:
        """JPEG thumbnails by id, None for an item without one.

        Raises:
            InputError: an id is not in the index.
        """
        return self.searcher.thumbnails(ids)

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
            limits: bounds on one image.
            progress: called with (images done, images in all).

        Raises:
            SourceError: the source is missing or empty.
            DuplicateKeyError: a key is already taken by another source.
            RemovalRefusedError: more than half of the source's items are gone.
        """
        started = time.monotonic()
        check_source_name(name)
        limits = limits or Limits()
        opened = open_source(source, labels=labels, limits=limits)
        with opened if opened is not source else nullcontext():
            self.refresh()
            searcher = self.searcher
            run = Sync(opened, name, self.header, limits)
            plan = run.plan(searcher)
            if not allow_removal:
                run.check_removal(plan)
            outcome = plan.outcome()
            if not dry_run:
                outcome = run.apply(
                    plan, searcher, lambda: self._embedder, self._commits.submit, progress
                )
        return self._report(outcome, run.notes, time.monotonic() - started)

    @cached_property
    def _encoder(self) -> Encoder:
        encoder: Encoder = Encoder.load(self.folder / MODEL_FOLDER / CODEBOOKS_FILE)
        return encoder

    @cached_property
    def _embedder(self) -> Embedder:
        """The model, loaded when the first images come."""
        if self.header.encoder != "model":
            raise InputError(
                "this index was made from codebooks alone, without a network: it takes vectors or "
                "codes, no images."
            )
        if self._given is not None:
            return self._given
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
        if model.fingerprint != self.header.fingerprint:
            raise FingerprintError(
                f"the index {self.folder} was made with another model (fingerprint "
                f"{self.header.fingerprint[:12]}, this one has {model.fingerprint[:12]}): their "
                "codes do not compare. A new model means a new index beside the old one."
            )
        self._given = model

    def _rows(
        self,
        keys: list[str],
        images: Iterable[Any] | None,
        codes: ArrayLike | None,
        vectors: ArrayLike | None,
        labels: Sequence[str | Sequence[str]] | None,
        metadata: Sequence[Mapping[str, object] | None] | None,
    ) -> columns.Rows:
        """The arguments of ``add``, checked and encoded."""
        if sum(given is not None for given in (images, codes, vectors)) != 1:
            raise InputError("add needs exactly one of images, codes and vectors.")
        unit: NDArray[np.float32] | None = None
        small: list[bytes | None] | None = None
        tags = check_labels(labels, keys)
        values = self._check_metadata(metadata, keys)
        if images is not None:
            unit, small = self._embed(check_images(images), len(keys))
        elif vectors is not None:
            unit = self._check_vectors(np.asarray(vectors))
        if unit is not None:
            check_length("vectors or images", len(unit), len(keys))
            made = self._encoder.encode(unit)
        else:
            made = self._check_codes(np.asarray(codes))
            check_length("codes", len(made), len(keys))
            if self.header.keep_vectors:
                raise InputError(
                    "this index keeps vectors, which codes do not give: add vectors or images."
                )
        return columns.Rows(keys, made, tags, values, vectors=unit, thumbnails=small)

    def _embed(
        self, images: Iterable[Any], count: int
    ) -> tuple[NDArray[np.float32], list[bytes | None]]:
        """Vectors and thumbnails of images, a few hundred in memory at a time."""
        embedder = self._embedder
        vectors: list[NDArray[np.float32]] = [np.empty((0, self.header.dim), np.float32)]
        small: list[bytes | None] = []
        prepared: list[NDArray[np.uint8]] = []
        for image in images:
            shown = picture(image)
            prepared.append(embedder.prepare(shown))
            small.append(thumbnail(shown) if self.header.thumbnails else None)
            if len(small) > count:
                raise InputError(f"add was given {count} keys and more images than that.")
            if len(prepared) == _PREPARE_ITEMS:
                vectors.append(embedder.embed_prepared(np.stack(prepared)))
                prepared = []
        if prepared:
            vectors.append(embedder.embed_prepared(np.stack(prepared)))
        return np.concatenate(vectors), small

    def _check_vectors(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        dim = self.header.dim
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise InputError(f"vectors have the shape [n, {dim}] here; got {list(vectors.shape)}.")
        if vectors.dtype.kind not in "fiu":
            raise InputError(f"vectors are numbers; got {vectors.dtype}.")
        if not len(vectors):
            return np.empty((0, dim), np.float32)
        unit: NDArray[np.float32] = normalise_rows(vectors)
        return unit

    def _check_codes(self, codes: NDArray[Any]) -> NDArray[np.uint8]:
        width, n_codewords = self.header.n_codebooks, self.header.n_codewords
        if codes.ndim != 2 or codes.shape[1] != width:
            raise InputError(f"codes have the shape [n, {width}] here; got {list(codes.shape)}.")
        if codes.dtype.kind not in "iu":
            raise InputError(f"codes are whole numbers (uint8); got {codes.dtype}.")
        if codes.size and (codes.min() < 0 or codes.max() >= n_codewords):
            raise InputError(f"a code byte lies in 0..{n_codewords - 1}; got {codes.max()}.")
        return codes.astype(np.uint8)

    def _check_metadata(
        self, metadata: Sequence[Mapping[str, object] | None] | None, keys: list[str]
    ) -> list[dict[str, columns.Value]]:
        if metadata is None:
            return [{} for _ in keys]
        check_length("metadata", len(metadata), len(keys))
        types = self.header.metadata
        checked = []
        for key, values in zip(keys, metadata, strict=True):
            unknown = [name for name in values or {} if name not in types]
            if unknown:
                raise InputError(
                    f"metadata {unknown[0]!r} of {key!r} has no column here; the columns, fixed "
                    f"when the index was made, are: {', '.join(types) or 'none'}."
                )
            checked.append(
                {
                    name: columns.check_value(name, value, types[name], key)
                    for name, value in (values or {}).items()
                }
            )
        return checked

    def _commit(self, writes: Sequence[Upsert | Removal]) -> list[Any]:
        try:
            return self._catalogue.commit(writes)
        finally:
            self._written = self._catalogue.version
            self._upkeep.note_commit()

    def _report(self, outcome: Outcome, notes: list[Skip], seconds: float) -> SyncReport:
        searcher = self.searcher
        with reported(f"cannot measure {self.folder}"):
            bytes_disk = bytes_on_disk(self.folder)
        return SyncReport(
            total=len(searcher),
            added=outcome.added,
            updated=outcome.updated,
            removed=outcome.removed,
            unchanged=outcome.unchanged,
            skipped=outcome.skipped,
            notes=notes,
            bytes_per_item=self.header.n_codebooks,
            bytes_memory=searcher.memory_bytes,
            bytes_disk=bytes_disk,
            bytes_thumbnails=searcher.thumbnail_bytes,
            seconds=seconds,
        )


def _store_model(
    folder: Path,
    model: Embedder | Codebooks,
    metadata: dict[str, str],
    keep_vectors: bool,
    thumbnails: bool,
) -> Header:
    """Write the index's own copy of the model, and the header that describes it."""
    if isinstance(model, Codebooks):
        folder.mkdir()
        model.save(folder / CODEBOOKS_FILE)
        codebooks = model
    else:
        model.save(folder)
        codebooks = model.codebooks
    digest = file_sha256(folder / CODEBOOKS_FILE)
    return Header(
        fingerprint=digest if isinstance(model, Codebooks) else model.fingerprint,
        codebooks_sha256=digest,
        encoder="codebooks" if isinstance(model, Codebooks) else "model",
        n_codebooks=codebooks.n_codebooks,
        n_codewords=codebooks.n_codewords,
        dim=codebooks.dim,
        keep_vectors=bool(keep_vectors),
        thumbnails=bool(thumbnails),
        metadata=metadata,
        created_by=f"spherequant {spherequant.__version__}",
    )


def _sweep_abandoned(folder: Path) -> None:
    """Delete what creations of this index left behind that were killed long ago."""
    for partial in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
