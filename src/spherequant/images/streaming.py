"""Decoding in parallel and ahead, in order, within a stated amount of memory."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from PIL import Image

from spherequant.errors import InputError
from spherequant.images.items import Item, Skip
from spherequant.system import usable_processors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from spherequant.images.items import Limits
    from spherequant.images.source import Source

T = TypeVar("T")

_CHUNK_ITEMS = 32  # handing over one item costs about as much as decoding 32 x 32 pixels
_CHUNK_BYTES = 1 << 20
_CHUNKS_AHEAD = 64
_MOST_WORKERS = 16


def stream(
    source: Source,
    items: Iterable[Item],
    transform: Callable[[Item, Image.Image], T],
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    ahead_bytes: int = 256 << 20,
) -> Generator[tuple[Item, T] | Skip]:
    """Decode and transform items in parallel; yield outcomes in the order of ``items``.

    What fails, fails alone: an exception while reading, decoding or transforming one image becomes
    a `Skip` in its place. Threads start at the first outcome asked for and are gone when the
    iterator ends, is closed, or is dropped.

    Args:
        source: Where the items are read from.
        items: Any of the source's items, in any order.
        transform: Called in a worker thread with the item and its decoded RGB image.
        limits: Bounds on one image; the source's own when None.
        workers: Threads; the processors this process may use, at most 16, when None.
        ahead_bytes: Bound on files read, pictures being decoded and results that wait to be taken,
            together; passed by at most one picture and one file, when that alone is larger.

    Yields:
        ``(item, result)``, or the `Skip` of that item.
    """
    workers = max(1, workers or min(usable_processors(), _MOST_WORKERS))
    chunks = _chunks(list(items), workers)
    window: _Window[T] = _Window(len(chunks), ahead_bytes)
    job = _Job(source, transform, limits, chunks, window)
    threads = [
        threading.Thread(target=job.work, name=f"spherequant-decode-{i}", daemon=True)
        for i in range(min(workers, len(chunks)))
    ]
    try:
        for thread in threads:
            thread.start()
        for number, chunk in enumerate(chunks):
            for _ in chunk:
                yield window.collect(number)
    finally:
        window.stop()
        # At the interpreter's end daemon threads no longer run, and would be waited for for ever.
        if not sys.is_finalizing():
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    """What every worker does."""

    source: Source
    transform: Callable[[Item, Image.Image], T]
    limits: Limits | None
    chunks: Sequence[Sequence[Item]]
    window: _Window[T]

    def work(self) -> None:
        """Take chunks until there are none, or the reader has gone."""
        try:
            while (number := self.window.take()) is not None:
                for item in self.chunks[number]:
                    self._run(number, item)
        except _StoppedError:
            pass
        except BaseException as error:
            self.window.fail(error)

    def _run(self, number: int, item: Item) -> None:
        self.window.wait_for_room(number, item.size)
        reading, held = item.size, 0

        def reserve(size: int) -> None:
            nonlocal reading, held
            self.window.reserve(number, size, reading)
            reading, held = 0, held + size

        outcome: tuple[Item, T] | Skip
        kept = 0
        try:
            result = self.transform(item, self.source.image(item, self.limits, reserve))
            kept = _size(result)
            outcome = (item, result)
        except Exception as error:
            outcome = Skip(item.key, _reason(error))
        self.window.hand_over(number, outcome, kept, held, reading)


class _StoppedError(BaseException):
    """The reader has gone; no `Exception`, so that nothing on the way takes it for a bad image."""


class _Window(Generic[T]):
    """What the workers and the reader share: whose turn it is, and how much memory is taken.

    The chunk that the reader waits for is always read, and let through when no other picture is
    being decoded, so waiting for room cannot block itself.
    """

    def __init__(self, chunks: int, ahead_bytes: int) -> None:
        lock = threading.Lock()
        self._room = threading.Condition(lock)  # workers wait here
        self._ready = threading.Condition(lock)  # the reader waits here
        self._chunks = chunks
        self._ahead_bytes = ahead_bytes
        self._next = 0  # the first chunk that no worker has taken
        self._head = 0  # the chunk that the reader takes from, or waits for
        self._reading = 0  # bytes of files that were read and are not being decoded yet
        self._decoding = 0  # bytes of pictures in the making
        self._waiting = 0  # bytes of results not yet taken by the reader
        self._done: defaultdict[int, deque[tuple[tuple[Item, T] | Skip, int]]] = defaultdict(deque)
        self._stopped = False
        self._error: BaseException | None = None

    def take(self) -> int | None:
        """The next chunk for a worker, or None when none is left."""
        with self._room:
            self._wait(
                lambda: self._next >= self._chunks or self._next < self._head + _CHUNKS_AHEAD
            )
            if self._next >= self._chunks:
                return None
            self._next += 1
            return self._next - 1

    def wait_for_room(self, number: int, size: int) -> None:
        """Before a file of ``size`` bytes is read: wait until they fit."""
        with self._room:
            self._wait(
                lambda: (
                    self._taken() + size < self._ahead_bytes
                    or self._taken() == 0
                    or self._is_awaited(number)
                )
            )
            self._reading += size

    def reserve(self, number: int, size: int, reading: int) -> None:
        """Before pixels are decoded: wait until ``size`` bytes fit, ``reading`` of them its own."""
        with self._room:
            self._wait(lambda: self._fits(number, size - reading))
            self._reading -= reading
            self._decoding += size

    def hand_over(
        self, number: int, outcome: tuple[Item, T] | Skip, kept: int, held: int, reading: int
    ) -> None:
        """A picture is gone from memory, and its result waits for the reader."""
        with self._room:
            self._reading -= reading
            self._decoding -= held
            self._waiting += kept
            self._done[number].append((outcome, kept))
            if number == self._head:
                self._ready.notify()
            if held or reading:
                self._room.notify_all()

    def collect(self, number: int) -> tuple[Item, T] | Skip:
        """The reader's side: the next outcome of a chunk, or a worker's own failure."""
        with self._ready:
            if number != self._head:
                del self._done[self._head]  # empty by now
                self._head = number
            if not self._done[number]:
                self._room.notify_all()
                self._ready.wait_for(lambda: self._done[number] or self._error is not None)
            if self._error is not None:
                raise self._error
            outcome, kept = self._done[number].popleft()
            self._waiting -= kept
            self._room.notify_all()
            return outcome

    def fail(self, error: BaseException) -> None:
        """Something other than a bad image ended a worker."""
        with self._ready:
            self._error = error
            self._ready.notify()

    def stop(self) -> None:
        """Wake everyone; workers leave at their next step."""
        with self._room:
            self._stopped = True
            self._done.clear()
            self._room.notify_all()

    def _is_awaited(self, number: int) -> bool:
        return number == self._head and not self._done.get(number)

    def _taken(self) -> int:
        return self._reading + self._decoding + self._waiting

    def _fits(self, number: int, size: int) -> bool:
        if self._taken() + size <= self._ahead_bytes:
            return True
        return self._decoding == 0 and (self._waiting == 0 or self._is_awaited(number))

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._room.wait_for(lambda: self._stopped or condition())
        if self._stopped:
            raise _StoppedError


def _chunks(items: Sequence[Item], workers: int) -> list[Sequence[Item]]:
    """Runs of items for one worker: small images together, large ones alone."""
    most = max(1, min(_CHUNK_ITEMS, len(items) // (4 * workers)))
    chunks: list[Sequence[Item]] = []
    start, size = 0, 0
    for end, item in enumerate(items):
        if end > start and (end - start >= most or size + item.size > _CHUNK_BYTES):
            chunks.append(items[start:end])
            start, size = end, 0
        size += item.size
    if start < len(items):
        chunks.append(items[start:])
    return chunks


def _size(result: Any) -> int:
    """Bytes that a result keeps in memory, near enough."""
    if isinstance(result, np.ndarray):
        return int(result.nbytes)
    if isinstance(result, Image.Image):
        return 4 * result.width * result.height
    if isinstance(result, (tuple, list)):
        return sum(map(_size, result))
    return sys.getsizeof(result)


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
