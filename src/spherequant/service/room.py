"""Memory that decoded images may take together."""

from __future__ import annotations

import threading


class Room:
    """Bytes that threads take before they decode, and give back when they are done.

    Args:
        limit: bytes that may be taken at once. One image that needs more than all of it is decoded
            alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait until so many bytes are free, and take them."""
        with self._changed:
            while self._taken and self._taken + count > self._limit:
                self._changed.wait()
            self._taken += count

    def give_back(self, count: int) -> None:
        """Free so many bytes."""
        with self._changed:
            self._taken -= count
            self._changed.notify_all()
