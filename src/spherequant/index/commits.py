"""Grouped commits: writes that arrive together share one commit.

A commit costs about 10 ms and leaves files behind, whatever its size (1,500 commits of one row left
4,504 files). So a write waits a moment for company. There is no background thread: the first
writer to come leads, waits, commits what has gathered and wakes the others; who came meanwhile
makes the next group.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from spherequant.errors import SpherequantError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WAIT_SECONDS = 0.02
FULL_ITEMS = 1_000


class Sized(Protocol):
    """A write that knows how many items it touches."""

    @property
    def size(self) -> int:
        """Items that the write touches."""


WriteT = TypeVar("WriteT", bound=Sized)
ResultT = TypeVar("ResultT")


class _Entry(Generic[WriteT, ResultT]):
    """One write in the queue and, once done, its outcome."""

    __slots__ = ("arrived", "outcome", "write")

    def __init__(self, write: WriteT) -> None:
        self.write = write
        self.arrived = time.monotonic()
        self.outcome: ResultT | BaseException | None = None


class GroupCommit(Generic[WriteT, ResultT]):
    """Collects the writes of many threads and hands them to ``commit`` in groups, in order.

    Args:
        commit: takes a group and returns, for each write in it, its result or the exception
            that its caller gets. Called by one thread at a time. If it raises, every write of the
            group fails with that.
        wait_seconds: how long the first write of a group waits for company (``WAIT_SECONDS``).
        full_items: a group of so many items waits no longer (``FULL_ITEMS``).
    """

    def __init__(
        self,
        commit: Callable[[Sequence[WriteT]], Sequence[ResultT | BaseException]],
        wait_seconds: float | None = None,
        full_items: int | None = None,
    ) -> None:
        self._commit = commit
        self._wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
        self._full_items = FULL_ITEMS if full_items is None else full_items
        self._changed = threading.Condition()
        self._queue: list[_Entry[WriteT, ResultT]] = []
        self._leading = False

    def submit(self, write: WriteT) -> ResultT:
        """Commit ``write``, perhaps with others; returns when it is durable.

        Interrupted while it waits, the write is not made, unless a group took it before.

        Raises:
            Exception: what the commit reported for this write.
        """
        entry: _Entry[WriteT, ResultT] = _Entry(write)
        with self._changed:
            self._queue.append(entry)
            self._changed.notify_all()
            try:
                while entry.outcome is None and self._leading:
                    self._changed.wait()
                group = [] if entry.outcome is not None else self._gather()
            except BaseException:  # an interrupt: nobody is to make this write later
                if entry in self._queue:  # else a group has it already
                    self._queue.remove(entry)
                raise
        if group:
            self._lead(group)
        if isinstance(entry.outcome, BaseException):
            raise entry.outcome
        assert entry.outcome is not None  # noqa: S101  # the leader filled it in; for the checker
        return entry.outcome

    def _gather(self) -> list[_Entry[WriteT, ResultT]]:
        """Take the lead, wait for company, and take the queue. Called with the lock held."""
        self._leading = True
        try:
            deadline = self._queue[0].arrived + self._wait_seconds
            while sum(entry.write.size for entry in self._queue) < self._full_items:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
        except BaseException:  # an interrupt while waiting: let another thread lead
            self._leading = False
            self._changed.notify_all()
            raise
        group, self._queue = self._queue, []
        return group

    def _lead(self, group: list[_Entry[WriteT, ResultT]]) -> None:
        interrupted = SpherequantError("the commit was interrupted; it may or may not be made.")
        outcomes: Sequence[ResultT | BaseException] = [interrupted] * len(group)
        try:
            outcomes = self._commit([entry.write for entry in group])
        except Exception as error:  # every writer of the group gets it
            outcomes = [error] * len(group)
        finally:
            with self._changed:
                for entry, outcome in zip(group, outcomes, strict=True):
                    entry.outcome = outcome
                self._leading = False
                self._changed.notify_all()
