"""An index that many ask and change at once.

Searches go against one snapshot, a ``Searcher``, that is replaced whole. After each commit of this
process the new snapshot is taken up before the write is acknowledged: whatever search begins then
sees it, and no search ever waits for a snapshot to be made.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import InputError
from spherequant.images import decode
from spherequant.index import Index, Searcher, StoredItem, load_embedder
from spherequant.index.arguments import check_keys
from spherequant.quantizer import normalise_rows
from spherequant.service.problems import Problem, not_found
from spherequant.service.schemas import Column, Columns, Hit, LabelCount, Labels
from spherequant.service.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.index import Embedder
    from spherequant.service.metrics import Metrics
    from spherequant.service.settings import Settings

# Queries that are searched together, and images that are embedded together.
_SEARCHES = 64
_EMBEDDINGS = 64
_LOOKUPS = 256
# Searches of like depth share a scan: a deep one must not make its neighbours deep.
_DEPTHS = (32, 256, 2_048)


@dataclass(frozen=True, slots=True)
class Query:
    """One search: with a unit vector float32 [D], or with the key of an item."""

    vector: NDArray[np.float32] | None
    key: str | None
    k: int
    offset: int = 0
    where: str | None = None
    min_score: float | None = None
    rerank: int | None = None

    @property
    def depth(self) -> int:
        """Results to be found, those passed over included."""
        return self.offset + self.k

    @property
    def shared(self) -> tuple[Any, ...]:
        """Searches that agree in this share one scan."""
        return self.where, self.rerank, sum(self.depth > depth for depth in _DEPTHS)


@dataclass(frozen=True, slots=True)
class Page:
    """Results of one search, and how many items were searched."""

    hits: list[Hit]
    total: int


@dataclass(frozen=True, slots=True)
class _LookUp:
    key: str
    thumbnail: bool


class _BatchedEmbedder:
    """The model, as the index sees it, whose passes are shared with the searches' images."""

    def __init__(self, model: Embedder, embed: Callable[[Sequence[Any]], Any]) -> None:
        self._model = model
        self._embed = embed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_prepared(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack(self._embed(list(batch)))


class Engine:
    """Everything that the routes ask of an index.

    Args:
        folder: the index.
        settings: bounds.
        metrics: told what happens.
    """

    def __init__(self, folder: Path, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.model: Embedder | None = None
        self.index = Index.open(folder)
        self.header = self.index.header
        if self.header.encoder == "model":
            self.model = load_embedder(folder / "model")
            self._embedding: Stage[Any, Any] = Stage(
                "embed",
                self._embed,
                metrics,
                limit=settings.max_uploads,
                size=_EMBEDDINGS,
                wait_seconds=settings.gather_seconds,
            )
            self.index = Index.open(folder, _BatchedEmbedder(self.model, self._embed_for_index))
        self._searcher = self.index.searcher
        self._searcher_lock = threading.Lock()
        self._decoding: Stage[bytes, Image.Image] = Stage(
            "decode",
            self._decode,
            metrics,
            limit=settings.max_uploads,
            workers=settings.decoders,
        )
        self._searching: Stage[Query, Page] = Stage(
            "search", self._search, metrics, limit=settings.max_asks, size=_SEARCHES
        )
        self._filtering: Stage[Query, Page] = Stage(
            "filtered search", self._search, metrics, limit=settings.max_asks, size=_SEARCHES
        )
        self._lookups: Stage[_LookUp, Any] = Stage(
            "look-up", self._look_up, metrics, limit=settings.max_asks, size=_LOOKUPS
        )
        self._writing: Stage[Callable[[], Any], Any] = Stage(
            "write",
            self._write,
            metrics,
            limit=settings.max_writes,
            workers=settings.writers,
        )
        self._show(self._searcher)

    @property
    def searcher(self) -> Searcher:
        """The snapshot that is searched now."""
        return self._searcher

    def warm_up(self) -> None:
        """Make the first pass through the network, which is slower than the others."""
        if self.model is not None:
            from PIL import Image

            self._embed([self.model.prepare(Image.new("RGB", (64, 64)))])

    def close(self) -> None:
        """Finish what was accepted, then let go of the index."""
        for stage in (
            self._decoding,
            self._writing,
            *([self._embedding] if self.model else []),
            self._searching,
            self._filtering,
            self._lookups,
        ):
            stage.close()
        self.index.close()

    # Images

    async def vector_of(self, data: bytes) -> NDArray[np.float32]:
        """The unit vector of an encoded image, float32 [D].

        Raises:
            Problem: the index takes no images, or this is none that can be used.
        """
        model = self._model()
        image = await self._decoding.run(data)
        prepared = model.prepare(image)
        vector: NDArray[np.float32] = await self._embedding.run(prepared)
        return vector

    def _model(self) -> Embedder:
        if self.model is None:
            raise Problem(422, "This index has no network: it takes vectors, no images.")
        return self.model

    def _decode(self, batch: Sequence[bytes]) -> list[Image.Image]:
        return [decode(data) for data in batch]

    def _embed(self, prepared: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        assert self.model is not None  # noqa: S101  # for the checker: the stage exists with it
        return list(self.model.embed_prepared(np.stack(prepared)))

    def _embed_for_index(self, prepared: Sequence[NDArray[np.uint8]]) -> list[Any]:
        waiting = [self._embedding.submit(pixels) for pixels in prepared]
        return [future.result() for future in waiting]

    # Searches

    async def search(self, query: Query) -> Page:
        """Search one snapshot, together with what else waits.

        Raises:
            Problem: no item has the key.
            InputError: the query cannot be answered.
        """
        stage = self._searching if query.where is None else self._filtering
        return await stage.run(query)

    def unit(self, vector: Sequence[float]) -> NDArray[np.float32]:
        """A vector of a request as float32 [D] of length one.

        Raises:
            Problem: of another dimension, or zero.
        """
        dim = self.header.dim
        if len(vector) != dim:
            raise Problem(422, f"A vector has {dim} numbers here; got {len(vector)}.")
        try:
            unit: NDArray[np.float32] = normalise_rows(np.array([vector], np.float64))[0]
        except InputError:
            raise Problem(422, "The vector is zero, or out of range.") from None
        return unit

    def _search(self, batch: Sequence[Query]) -> list[Page | BaseException]:
        searcher = self._searcher
        outcomes: list[Page | BaseException | None] = [None] * len(batch)
        vectors, own = self._query_vectors(searcher, batch, outcomes)
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, query in enumerate(batch):
            if outcomes[number] is None:
                groups[query.shared].append(number)
        found: dict[int, tuple[list[int], list[float]]] = {}
        started = time.monotonic()
        for numbers in groups.values():
            try:
                found.update(_scan(searcher, batch, numbers, vectors, own))
            except Exception as error:  # of this group alone: a filter that cannot be used
                for number in numbers:
                    outcomes[number] = error
        self.metrics.stage_seconds.labels("scan").observe(time.monotonic() - started)
        started = time.monotonic()
        pages = _fetch(searcher, batch, found)
        self.metrics.stage_seconds.labels("fetch").observe(time.monotonic() - started)
        return [pages[n] if outcome is None else outcome for n, outcome in enumerate(outcomes)]

    def _query_vectors(
        self,
        searcher: Searcher,
        batch: Sequence[Query],
        outcomes: list[Page | BaseException | None],
    ) -> tuple[dict[int, NDArray[np.float32]], dict[int, int]]:
        """For each query its vector and the id to leave out; a key that is not there fails it."""
        vectors = {n: query.vector for n, query in enumerate(batch) if query.vector is not None}
        own: dict[int, int] = {}
        asked = {n: query.key for n, query in enumerate(batch) if query.key is not None}
        if not asked:
            return vectors, own
        keys = list(dict.fromkeys(asked.values()))
        present = [
            key for key, item in zip(keys, searcher.items(keys), strict=True) if item is not None
        ]
        rows, ids = searcher.query_vectors(present) if present else (np.empty((0, 0)), [])
        places = {key: place for place, key in enumerate(present)}
        for number, key in asked.items():
            if key in places:
                vectors[number] = rows[places[key]]
                own[number] = int(ids[places[key]])
            else:
                outcomes[number] = not_found(key)
        return vectors, own

    # The collection

    async def labels(self) -> Labels:
        """Every label with its count."""
        return await asyncio.to_thread(self._count_labels)

    def _count_labels(self) -> Labels:
        counts: Counter[str] = Counter()
        unlabelled = 0
        for row in self._searcher.scan(["labels"]):
            counts.update(set(row["labels"] or ()))
            unlabelled += not row["labels"]
        told = [LabelCount(label=label, count=count) for label, count in counts.most_common()]
        return Labels(labels=told, unlabelled=unlabelled)

    def columns(self) -> Columns:
        """The columns that a filter can name."""
        ours = {"key": "string", "labels": "list<string>", "source": "string", "size": "int64"}
        return Columns(
            columns=[
                Column(name=name, type=kind, metadata=name in self.header.metadata)
                for name, kind in {**ours, **self.header.metadata}.items()
            ]
        )

    # Items

    async def item(self, key: str) -> StoredItem:
        """The item with this key.

        Raises:
            Problem: there is none.
        """
        found: StoredItem = await self._lookups.run(_LookUp(_plain(key), thumbnail=False))
        return found

    async def thumbnail(self, key: str) -> bytes | None:
        """The thumbnail of an item, None where it has none.

        Raises:
            Problem: no item has the key.
        """
        found: bytes | None = await self._lookups.run(_LookUp(_plain(key), thumbnail=True))
        return found

    async def put_image(
        self, key: str, data: bytes, labels: Sequence[str], metadata: dict[str, Any]
    ) -> int:
        """Add or replace an item; returns its id once it is durable."""
        self._model()
        image = await self._decoding.run(data)
        return await self._put(key, labels, metadata, images=[image])

    async def put_vector(
        self, key: str, vector: NDArray[np.float32], labels: Sequence[str], metadata: dict[str, Any]
    ) -> int:
        """Add or replace an item; returns its id once it is durable."""
        return await self._put(key, labels, metadata, vectors=vector[None])

    async def _put(
        self, key: str, labels: Sequence[str], metadata: dict[str, Any], **given: Any
    ) -> int:
        def add() -> int:
            ids = self.index.add([key], labels=[list(labels)], metadata=[metadata], **given)
            self.metrics.written.labels("put").inc()
            return int(ids[0])

        number: int = await asyncio.shield(self._writing.run(add))
        return number

    async def remove(self, keys: Sequence[str]) -> int:
        """Remove items; returns how many there were, once that is durable."""

        def remove() -> int:
            count = self.index.remove(keys)
            self.metrics.written.labels("delete").inc(count)
            return count

        count: int = await asyncio.shield(self._writing.run(remove))
        return count

    def refresh(self) -> None:
        """Take up what other processes have committed."""
        self.index.refresh()
        self._show(self.index.searcher)

    def _write(self, batch: Sequence[Callable[[], Any]]) -> list[Any]:
        done = [write() for write in batch]
        self._show(self.index.searcher)  # before the write is acknowledged
        return done

    def _show(self, searcher: Searcher) -> None:
        """Search this snapshot from now on, unless a later one is."""
        with self._searcher_lock:
            if searcher.version >= self._searcher.version:
                self._searcher = searcher
        self.metrics.items.set(len(self._searcher))
        self.metrics.version.set(self._searcher.version)

    def _look_up(self, batch: Sequence[_LookUp]) -> list[Any]:
        searcher = self._searcher
        keys = list(dict.fromkeys(asked.key for asked in batch))
        items = {key: item for key, item in zip(keys, searcher.items(keys), strict=True) if item}
        wanted = {items[a.key].id for a in batch if a.thumbnail and a.key in items}
        thumbnails = searcher.thumbnails(sorted(wanted)) if wanted else {}
        return [
            not_found(asked.key)
            if asked.key not in items
            else thumbnails[items[asked.key].id]
            if asked.thumbnail
            else items[asked.key]
            for asked in batch
        ]


def _plain(key: str) -> str:
    return check_keys([key])[0]


def _scan(
    searcher: Searcher,
    batch: Sequence[Query],
    numbers: Sequence[int],
    vectors: dict[int, NDArray[np.float32]],
    own: dict[int, int],
) -> dict[int, tuple[list[int], list[float]]]:
    """One scan for searches that share it: for each its page of ids and scores."""
    queries = [batch[number] for number in numbers]
    floors = [query.min_score for query in queries if query.min_score is not None]
    result = searcher.search(
        np.stack([vectors[number] for number in numbers]),
        max(query.depth for query in queries),
        where=queries[0].where,
        rerank=queries[0].rerank,
        # The lowest of all; what is below a search's own is cut from its page.
        min_score=min(floors) if len(floors) == len(queries) else None,
        exclude=np.array([own.get(number, -1) for number in numbers], np.int64),
    )
    found = {}
    for row, (number, query) in enumerate(zip(numbers, queries, strict=True)):
        page = slice(query.offset, query.depth)
        ids, scores = result.ids[row, page], result.scores[row, page]
        kept = ids >= 0
        if query.min_score is not None:
            kept &= scores >= np.float32(query.min_score)
        found[number] = ids[kept].tolist(), scores[kept].tolist()
    return found


def _fetch(
    searcher: Searcher,
    batch: Sequence[Query],
    found: dict[int, tuple[list[int], list[float]]],
) -> dict[int, Page]:
    """Keys, labels and metadata of all that was found, read at once."""
    names = list(searcher.header.metadata)
    wanted = sorted({i for ids, _ in found.values() for i in ids})
    rows = searcher.rows(wanted, ["key", "labels", *names]) if wanted else {}
    total = len(searcher)
    return {
        number: Page(
            [
                Hit.model_construct(
                    rank=rank,
                    key=rows[i]["key"],
                    score=score,
                    labels=rows[i]["labels"] or [],
                    metadata={name: rows[i][name] for name in names},
                )
                for rank, (i, score) in enumerate(
                    zip(ids, scores, strict=True), start=batch[number].offset + 1
                )
            ],
            total,
        )
        for number, (ids, scores) in found.items()
    }
