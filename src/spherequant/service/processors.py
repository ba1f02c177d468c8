"""Processors for the threads that embed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# As many as decode at most: the interpreter is one for all.
_MOST_WORKERS = 8


class Processors:
    """Shares the processors out among threads that pass images through a network.

    torch gives every thread that calls it a team of all processors. One image alone is embedded
    soonest so; of two teams at once each waits at every layer for members that run the other's.
    While uploads are decoded and answered beside them, threads with a processor each leave less of
    it idle than one thread with all.

    Attributes:
        total: threads that torch uses for one caller where nothing was shared.
        workers: threads that may embed at once: one where a GPU takes a batch after the other.
    """

    def __init__(self) -> None:
        import torch

        self.total = torch.get_num_threads()
        self.workers = 1 if torch.cuda.is_available() else min(_MOST_WORKERS, self.total)
        self._lock = threading.Lock()
        self._sharing = 0

    @contextmanager
    def share(self) -> Iterator[int]:
        """Let the calling thread use its share, among those that hold one now: how many threads."""
        with self._lock:
            self._sharing += 1
            share = max(1, self.total // self._sharing)
        try:
            with self._team_of(share):
                yield share
        finally:
            with self._lock:
                self._sharing -= 1

    @contextmanager
    def whole(self) -> Iterator[int]:
        """Let the calling thread use all: what is stored must not depend on the load."""
        with self._team_of(self.total):
            yield self.total

    @contextmanager
    def _team_of(self, count: int) -> Iterator[None]:
        """The size of the calling thread's teams; a new thread may have got another's."""
        import torch

        try:
            if torch.get_num_threads() != count:
                torch.set_num_threads(count)
            yield
        finally:
            if count != self.total:
                torch.set_num_threads(self.total)
