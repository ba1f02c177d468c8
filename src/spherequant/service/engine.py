"""An index that many ask and change at once.

Searches go against one snapshot, a ``Searcher``, that is replaced whole. After each commit of this
process the new snapshot is taken up before the write is acknowledged: whatever search begins then
sees it, and no search ever waits for a snapshot to be made.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spherequant.errors import DuplicateKeyError, InputError
from spherequant.images import Limits, decode
from spherequant.index import Index, Searcher, StoredItem, load_embedder
from spherequant.index.arguments import check_keys
from spherequant.index.header import MODEL_FOLDER, read_header
from spherequant.quantizer import normalise_rows
from spherequant.service.problems import Problem, not_found
from spherequant.service.processors import Processors
from spherequant.service.room import Room
from spherequant.service.scanning import Page, Query, search_together
from spherequant.service.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.service.metrics import Metrics
    from spherequant.service.settings import Settings

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# Most tasks of one batch.
_SEARCHES = 64
_EMBEDDINGS = 32
_LOOKUPS = 256
# Threads that read originals from the disk, and what may wait for them and for counting.
_READERS = 2
_MOST_WAITING = 64
_CACHED_ANSWERS = 64
# At the end, for threads that only read.
_LEAVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Upload:
    """An encoded image that was sent.

    Attributes:
        data: the bytes of its file.
        stored: whether the picture itself is needed, for a thumbnail, beside its embedding.
    """

    data: bytes
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded upload.

    Attributes:
        pixels: uint8 [S, S, 3], what the network sees of it.
        image: the picture itself where it is to be stored, else None.
        bytes_taken: memory to give back once it is stored.
    """

    pixels: NDArray[np.uint8]
    image: Image.Image | None
    bytes_taken: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An item's image file.

    Attributes:
        data: its bytes.
        digest: their sha256, in hex.
    """

    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    pixels: NDArray[np.uint8]
    query: bool


_SLOW_UPLOAD = 4  # times what a slowly decoded pixel counts elsewhere: others wait meanwhile


@dataclass(frozen=True, slots=True)
class _LookUp:
    key: str
    thumbnail: bool = False


class TooManyPixelsError(InputError):
    """An image of more pixels than are taken."""


class _UploadLimits(Limits):
    """Bounds on an uploaded image, said to who sent it."""

    __slots__ = ()

    def check_pixels(self, width: int, height: int, weight: int = 1) -> None:
        if weight > 1:
            weight *= _SLOW_UPLOAD
        most = self.max_pixels // weight
        if width * height > most:
            such = "of such a format " if weight > 1 else ""
            raise TooManyPixelsError(
                f"The image has {width} x {height} pixels; at most {most:,} {such}are taken."
            )
        super().check_pixels(width, height, weight)


class Engine:
    """Everything that the routes ask of an index.

    Args:
        folder: the index.
        settings: bounds.
        metrics: told what happens.

    Attributes:
        index: the index; it is read and written through the engine's stages only.
        model: embeds images; None for an index of vectors without a network.
    """

    def __init__(self, folder: Path, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        takes_images = read_header(folder).encoder == "model"
        self.model = load_embedder(folder / MODEL_FOLDER) if takes_images else None
        self.index = Index.open(folder, self.model)
        self.header = self.index.header
        self._processors = Processors() if self.model is not None else None
        self._searcher = self.index.searcher
        self._searcher_lock = threading.Lock()
        self._limits = _UploadLimits(settings.max_pixels, settings.max_image_bytes)
        self._room = Room(settings.max_decoded_bytes)
        self._answers: dict[tuple[Any, ...], Any] = {}
        self._answers_lock = threading.Lock()
        self._make_stages()
        self._show(self._searcher)

    def _make_stages(self) -> None:
        bounds, metrics = self.settings, self.metrics
        asks, uploads = bounds.max_asks, bounds.max_uploads
        self._decoding: Stage[Upload, Picture] = Stage(
            "decode", self._decode, metrics, limit=uploads, workers=bounds.decoders
        )
        self._embedding: Stage[_Prepared, NDArray[np.float32]] = Stage(
            "embed",
            self._embed,
            metrics,
            limit=2 * uploads,
            size=_EMBEDDINGS,
            wait_seconds=bounds.gather_seconds,
            workers=self._processors.workers if self._processors else 1,
        )
        self._writing: Stage[Callable[[], Any], Any] = Stage(
            "write", self._write, metrics, limit=bounds.max_writes, workers=bounds.writers
        )
        # Filters may take long to compile; searches without one need not wait for them.
        self._searching: Stage[Query, Page] = Stage(
            "search", self._search, metrics, limit=asks, size=_SEARCHES
        )
        self._filtering: Stage[Query, Page] = Stage(
            "filtered search", self._search, metrics, limit=asks, size=_SEARCHES
        )
        self._looking_up: Stage[_LookUp, Any] = Stage(
            "look-up", self._look_up, metrics, limit=asks, size=_LOOKUPS
        )
        self._reading: Stage[str, ImageFile] = Stage(
            "original", self._read, metrics, limit=_MOST_WAITING, workers=_READERS
        )
        self._refreshing: Stage[None, Searcher] = Stage(
            "refresh", self._refresh, metrics, limit=_MOST_WAITING, size=_MOST_WAITING
        )
        self._counting: Stage[Callable[[Searcher], Any], Any] = Stage(
            "count", self._count, metrics, limit=_MOST_WAITING
        )
        self._grouping: Stage[Callable[[Searcher], Any], Any] = Stage(
            "group", self._count, metrics, limit=_MOST_WAITING
        )
        # In the order in which work passes through them: they are closed in that order.
        self._storing: tuple[Stage[Any, Any], ...] = (
            self._decoding,
            self._embedding,
            self._writing,
        )
        self._asking: tuple[Stage[Any, Any], ...] = (
            self._searching,
            self._filtering,
            self._looking_up,
            self._reading,
            self._refreshing,
            self._counting,
            self._grouping,
        )

    @property
    def searcher(self) -> Searcher:
        """The snapshot that is searched now."""
        return self._searcher

    def warm_up(self) -> None:
        """Make the first pass through the network, which is slower than the others."""
        if self.model is not None:
            from PIL import Image

            pixels = self.model.prepare(Image.new("RGB", (64, 64)))
            self._embed([_Prepared(pixels, query=False), _Prepared(pixels, query=True)])

    def close(self) -> None:
        """Finish the writes that were accepted, then let go of the index.

        What only reads, and may take minutes, is broken off: nobody waits for it any more.
        """
        for stage in self._storing:
            stage.close()
        end = time.monotonic() + _LEAVE_SECONDS
        for stage in self._asking:
            stage.close(max(0.0, end - time.monotonic()))
        self.index.close()

    # Images

    async def vector_of(self, data: bytes) -> NDArray[np.float32]:
        """The unit vector of an encoded image, float32 [D].

        Raises:
            Problem: the index takes no images, or this is none that can be used.
        """
        self.check_takes_images()
        picture = await self._decoding.run(Upload(data))
        return await self._embedding.run(_Prepared(picture.pixels, query=True))

    def check_takes_images(self) -> None:
        """Refuse an image where there is no network.

        Raises:
            Problem: the index takes vectors alone.
        """
        if self.model is None:
            raise Problem(422, "This index has no network: it takes vectors, no images.")

    def _decode(self, batch: Sequence[Upload]) -> list[Picture | BaseException]:
        return [self._decoded(upload) for upload in batch]

    def _decoded(self, upload: Upload) -> Picture | BaseException:
        assert self.model is not None  # noqa: S101  # uploads are refused without one
        taken = 0

        def reserve(count: int) -> None:
            nonlocal taken
            self._room.take(count)
            taken = count

        try:
            image = decode(upload.data, self._limits, reserve)
            picture = Picture(
                self.model.prepare(image),
                image if upload.stored else None,
                taken if upload.stored else 0,
            )
        except InputError as error:
            self._room.give_back(taken)
            return _unusable(error)
        except BaseException:
            self._room.give_back(taken)
            raise
        self._room.give_back(taken - picture.bytes_taken)
        return picture

    def _embed(self, batch: Sequence[_Prepared]) -> list[NDArray[np.float32]]:
        assert self.model is not None  # noqa: S101  # nothing is prepared without one
        assert self._processors is not None  # noqa: S101  # they come with the model
        found: dict[int, NDArray[np.float32]] = {}
        for query in (True, False):
            rows = [row for row, prepared in enumerate(batch) if prepared.query is query]
            if rows:
                pixels = np.stack([batch[row].pixels for row in rows])
                with self._processors.share() if query else self._processors.whole():
                    embedded = self.model.embed_prepared(pixels, query=query)
                found |= zip(rows, embedded, strict=True)
        return [found[row] for row in range(len(batch))]

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
            raise Problem(422, "The vector is zero, or has numbers out of range.") from None
        return unit

    def _search(self, batch: Sequence[Query]) -> list[Page | BaseException]:
        return search_together(self._searcher, batch, self.metrics)

    # Items

    async def item(self, key: str) -> StoredItem:
        """The item with this key.

        Raises:
            Problem: there is none.
        """
        found: StoredItem = await self._looking_up.run(_LookUp(key))
        return found

    async def thumbnail(self, key: str) -> bytes | None:
        """The thumbnail of an item, None where it has none.

        Raises:
            Problem: no item has the key.
        """
        found: bytes | None = await self._looking_up.run(_LookUp(key, thumbnail=True))
        return found

    async def original(self, key: str) -> ImageFile:
        """An item's image file.

        Raises:
            UnknownKeyError: no item has the key.
            OriginalError: they are not to be had.
        """
        return await self._reading.run(key)

    def _look_up(self, batch: Sequence[_LookUp]) -> list[Any]:
        searcher = self._searcher
        keys = list(dict.fromkeys(asked.key for asked in batch))
        stored = zip(keys, searcher.items(keys), strict=True)
        items = {key: item for key, item in stored if item is not None}
        wanted = {items[a.key].id for a in batch if a.thumbnail and a.key in items}
        thumbnails = searcher.thumbnails(sorted(wanted)) if wanted else {}
        found: list[Any] = []
        for asked in batch:
            item = items.get(asked.key)
            if item is None:
                found.append(not_found(asked.key))
            else:
                found.append(thumbnails[item.id] if asked.thumbnail else item)
        return found

    def _read(self, batch: Sequence[str]) -> list[ImageFile]:
        files = [self.index.original(key) for key in batch]
        return [ImageFile(data, sha256(data).hexdigest()) for data in files]

    # Writes

    async def put_image(
        self, key: str, data: bytes, labels: Sequence[str], metadata: Mapping[str, Any]
    ) -> int:
        """Add or replace an item; its id, once it is durable.

        Not to be cancelled: what was decoded is to be stored, and its memory given back.

        Raises:
            Problem: this is no image that can be used, or the key is a synced source's.
            InputError: labels or metadata do not fit.
        """
        self.check_takes_images()
        picture = await self._decoding.run(Upload(data, stored=True))
        try:
            vector = await self._embedding.run(_Prepared(picture.pixels, query=False))
            return await self._put(
                key,
                labels,
                metadata,
                images=[picture.image],
                vectors=vector[None],
                originals=[data] if self.settings.keep_originals else None,
            )
        finally:
            self._room.give_back(picture.bytes_taken)

    async def put_vector(
        self,
        key: str,
        vector: NDArray[np.float32],
        labels: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> int:
        """Add or replace an item; its id, once it is durable.

        Raises:
            Problem: the key is a synced source's.
            InputError: labels or metadata do not fit.
        """
        return await self._put(key, labels, metadata, vectors=vector[None])

    async def _put(
        self, key: str, labels: Sequence[str], metadata: Mapping[str, Any], **given: Any
    ) -> int:
        def add() -> int:
            ids = self.index.add([key], labels=[list(labels)], metadata=[metadata], **given)
            return int(ids[0])

        return await self._commit("put", key, add)

    async def update(
        self, key: str, labels: Sequence[str] | None, metadata: Mapping[str, Any] | None
    ) -> int:
        """Change labels or metadata of an item; its id, once that is durable.

        Raises:
            Problem: no item has the key, or it is a synced source's.
            InputError: labels or metadata do not fit.
        """

        def change() -> int:
            ids = self.index.update(
                [key],
                labels=None if labels is None else [list(labels)],
                metadata=None if metadata is None else [metadata],
            )
            return int(ids[0])

        return await self._commit("update", key, change)

    async def remove(self, keys: Sequence[str]) -> int:
        """Remove items; how many there were, once that is durable."""
        return await self._commit("delete", "", lambda: self.index.remove(keys))

    async def _commit(self, kind: str, key: str, write: Callable[[], int]) -> int:
        """Make a write. Once a thread has begun it, it is finished, whoever waits for it."""

        def commit() -> int:
            try:
                number = write()
            except DuplicateKeyError:
                raise Problem(
                    409,
                    f"The key {key!r} belongs to a source that is kept by 'spherequant index': "
                    "change it there, or use another key.",
                ) from None
            self.metrics.written.labels(kind).inc(number if kind == "delete" else 1)
            return number

        number: int = await asyncio.shield(self._writing.run(commit))
        return number

    def _write(self, batch: Sequence[Callable[[], Any]]) -> list[Any]:
        done = [write() for write in batch]
        try:
            self._show(self.index.searcher)  # before the write is acknowledged
        except Exception as error:  # it is durable all the same, and a later refresh shows it
            logger.warning("what was written cannot be shown yet: %s", type(error).__name__)
        return done

    async def refresh(self) -> Searcher:
        """Take up what other processes have committed; the snapshot that is searched then."""
        return await self._refreshing.run(None)

    def _refresh(self, batch: Sequence[None]) -> list[Searcher]:
        self.index.refresh()
        self._show(self.index.searcher)
        return [self._searcher] * len(batch)

    def _show(self, searcher: Searcher) -> None:
        """Search this snapshot from now on, unless a later one is."""
        with self._searcher_lock:
            if searcher.version >= self._searcher.version:
                self._searcher = searcher
            self.metrics.items.set(len(self._searcher))
            self.metrics.version.set(self._searcher.version)

    # The collection

    async def count(
        self,
        question: tuple[Any, ...],
        answer: Callable[[Searcher], ResultT],
        *,
        slow: bool = False,
    ) -> ResultT:
        """What takes a pass over all items: worked out once for each version, one at a time.

        Args:
            question: what is asked, to find the answer again.
            answer: gives it, of a snapshot.
            slow: whether it takes so long that others should not wait behind it.
        """

        def remembered(searcher: Searcher) -> ResultT:
            asked = (searcher.version, *question)
            with self._answers_lock:
                if asked in self._answers:
                    known: ResultT = self._answers[asked]
                    return known
            found = answer(searcher)
            with self._answers_lock:  # two stages answer
                while len(self._answers) >= _CACHED_ANSWERS:
                    del self._answers[next(iter(self._answers))]
                self._answers[asked] = found
            return found

        counted: ResultT = await (self._grouping if slow else self._counting).run(remembered)
        return counted

    def _count(self, batch: Sequence[Callable[[Searcher], Any]]) -> list[Any]:
        return [count(self._searcher) for count in batch]


def plain_key(key: str) -> str:
    """A key as it is stored.

    Raises:
        InputError: it cannot be a key.
    """
    return check_keys([key])[0]


def _unusable(error: InputError) -> Problem:
    """What is told of an image that cannot be decoded, without what a decoder said of it."""
    if isinstance(error, TooManyPixelsError):
        return Problem(413, str(error))
    return Problem(422, f"The image cannot be used: {str(error).partition(' (')[0]}.")
