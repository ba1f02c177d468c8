"""Worker threads that take tasks in batches from a bounded queue.

A request passes several stages: its image is decoded, embedded with others, searched with others.
Each stage has a few threads and a bound on what waits; who comes when it is full is told so at
once, instead of waiting for longer and longer.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from spherequant.errors import SpherequantError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spherequant.service.metrics import Metrics

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


# For a thread that was told to break off, and may be in native code.
_BREAK_SECONDS = 5.0


class BusyError(SpherequantError):
    """A queue is full, or the service is shutting down."""


class _Waiting(Generic[TaskT, ResultT]):
    __slots__ = ("arrived", "future", "task")

    def __init__(self, task: TaskT) -> None:
        self.task = task
        self.arrived = time.monotonic()
        self.future: Future[ResultT] = Future()


class Stage(Generic[TaskT, ResultT]):
    """Threads that do one kind of work.

    Args:
        name: of the stage, in the metrics.
        work: takes a batch and returns, for each task in it, its result or the exception that its
            caller gets. If it raises, every task of the batch fails with that.
        metrics: told how long batches take, how large they are, and how much waits.
        limit: tasks that may wait; one more is refused.
        size: most tasks of a batch.
        wait_seconds: how long the first task of a batch waits for company while a thread is free.
            A batch that gathered while all were at work waits no longer.
        workers: threads.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[TaskT]], Sequence[ResultT | BaseException]],
        metrics: Metrics,
        *,
        limit: int,
        size: int = 1,
        wait_seconds: float = 0.0,
        workers: int = 1,
    ) -> None:
        self.name = name
        self._work = work
        self._metrics = metrics
        self._limit = limit
        self._size = size
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._queue: deque[_Waiting[TaskT, ResultT]] = deque()
        self._closed = False
        metrics.queue_depth.labels(name).set_function(lambda: len(self._queue))
        # Daemons: a process whose service was never closed must still be able to end.
        self._threads = [
            threading.Thread(target=self._run, name=f"spherequant-{name}-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: TaskT) -> Future[ResultT]:
        """Put a task in the queue.

        Raises:
            BusyError: the queue is full, or the stage was closed.
        """
        return self._enter(task).future

    async def run(self, task: TaskT) -> ResultT:
        """Have a task done. One that is cancelled before a thread takes it leaves the queue.

        Raises:
            BusyError: the queue is full, or the stage was closed.
        """
        waiting = self._enter(task)
        try:
            return await asyncio.wrap_future(waiting.future)
        except asyncio.CancelledError:
            with self._changed, suppress(ValueError):  # a thread has it
                self._queue.remove(waiting)
            raise

    def close(self, seconds: float | None = None) -> None:
        """Finish what was accepted, accept nothing more, and end the threads.

        Args:
            seconds: how long to wait for that; what is not finished then is broken off.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if seconds is None:
            for thread in self._threads:
                thread.join()
        else:
            self._close_by(time.monotonic() + seconds)

    def _close_by(self, end: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            while self._queue:
                self._queue.popleft().future.cancel()
        left = [thread for thread in self._threads if thread.is_alive()]
        for thread in left:
            _break_off(thread)
        end = time.monotonic() + _BREAK_SECONDS
        for thread in left:
            thread.join(max(0.0, end - time.monotonic()))

    def _enter(self, task: TaskT) -> _Waiting[TaskT, ResultT]:
        waiting: _Waiting[TaskT, ResultT] = _Waiting(task)
        with self._changed:
            if self._closed or len(self._queue) >= self._limit:
                self._metrics.refused.labels(self.name).inc()
                raise BusyError(f"the queue {self.name!r} is full.")
            self._queue.append(waiting)
            self._changed.notify()
        return waiting

    def _run(self) -> None:
        while batch := self._take():
            begun = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if begun:
                self._do(begun)

    def _take(self) -> list[_Waiting[TaskT, ResultT]]:
        """The next batch; empty when the stage was closed and nothing is left."""
        with self._changed:
            while True:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return []
                if self._gathered():
                    count = min(self._size, len(self._queue))
                    return [self._queue.popleft() for _ in range(count)]

    def _gathered(self) -> bool:
        """Wait for company; False when another thread took what was there. The lock is held."""
        first = self._queue[0]
        while len(self._queue) < self._size and not self._closed:
            left = first.arrived + self._wait_seconds - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
            if not self._queue or self._queue[0] is not first:
                return False
        return True

    def _do(self, batch: list[_Waiting[TaskT, ResultT]]) -> None:
        started = time.monotonic()
        self._metrics.waited.labels(self.name).observe(started - batch[0].arrived)
        self._metrics.batch_size.labels(self.name).observe(len(batch))
        outcomes: Sequence[ResultT | BaseException]
        try:
            outcomes = self._work([waiting.task for waiting in batch])
        except Exception as error:  # every caller of the batch gets it
            outcomes = [error] * len(batch)
        except BaseException as error:  # broken off, or a library's panic: the loop must not end
            panic = SpherequantError(f"the stage {self.name!r} broke off: {type(error).__name__}.")
            panic.__cause__ = error
            outcomes = [panic.with_traceback(error.__traceback__)] * len(batch)
        self._metrics.stage_seconds.labels(self.name).observe(time.monotonic() - started)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)


def _break_off(thread: threading.Thread) -> None:
    """Have a thread raise ``SystemExit`` when it runs Python next.

    A thread that is at work in native code when the interpreter ends would abort the process.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    )
