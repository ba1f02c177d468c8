"""Merging what gathered beside the large segment of a snapshot, behind the readers.

A snapshot with a long tail or many dead items finds what any other finds, only slower. While
refreshes go on following it, a thread reads its version anew; a later refresh takes what came of
that and follows the rest of the way from there.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

from spherequant.index.segments import Items, follow, read_items

if TYPE_CHECKING:
    from collections.abc import Callable

    from spherequant.quantizer import Codebooks

    # Reads a version anew, calling what it is given between batches.
    Read = Callable[[Callable[[], object]], Items]

logger = logging.getLogger(__name__)


class Merging:
    """Makes the items of one version after the other. Its callers take turns."""

    def __init__(self, codebooks: Codebooks) -> None:
        self._codebooks = codebooks
        self._reading: _Reading | None = None

    @property
    def ready(self) -> bool:
        """Whether a merge has ended that ``items`` has not taken up yet."""
        return self._reading is not None and not self._reading.running

    def items(self, dataset: Any, before: Items | None) -> Items:
        """The items of a version: followed from a merge, or from those before, or read anew.

        Waits for a merge under way where too much changed to follow without it.

        Raises:
            FormatError: the codes cannot be those of the codebooks.
        """
        if self.ready:
            before = self._take()  # None where it failed: reading anew says why
        found = None if before is None else follow(before, dataset, self._codebooks)
        if found is None and self._reading is not None:
            merged = self._take()
            found = None if merged is None else follow(merged, dataset, self._codebooks)
        return read_items(dataset, self._codebooks) if found is None else found

    def start(self, read: Read) -> None:
        """Begin a merge, unless one is under way.

        Args:
            read: reads a version anew and keeps it from being cleaned away meanwhile.
        """
        if self._reading is not None:
            return
        self._reading = _Reading()
        try:
            self._reading.start(weakref.ref(self), read)
        except RuntimeError:
            self._reading = None  # no thread to be had now: a later refresh asks again

    def is_under_way(self, reading: _Reading) -> bool:
        """Whether this merge is still wanted."""
        return self._reading is reading

    def close(self) -> None:
        """Give up a merge under way."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.wait()

    def _take(self) -> Items | None:
        """What the merge made, once it has ended; None where it failed."""
        reading = self._reading
        if reading is None:
            return None
        items = reading.wait()
        self._reading = None
        return items


class _Reading:
    """A merge in a thread of its own."""

    def __init__(self) -> None:
        self._items: Items | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, owner: weakref.ref[Merging], read: Read) -> None:
        # Not a daemon: native code must not be cut off when the interpreter ends. It stops itself.
        self._thread = threading.Thread(
            target=self._run, args=(owner, read), name="spherequant-merge"
        )
        self._thread.start()

    def wait(self) -> Items | None:
        """The items, once the thread has ended; None where it failed."""
        if self._thread is not None:
            self._thread.join()
        return self._items

    def _run(self, owner: weakref.ref[Merging], read: Read) -> None:
        def go_on() -> None:
            merging = owner()
            wanted = merging is not None and merging.is_under_way(self)
            # Python joins this thread when it ends, after the main one is marked as ended.
            if not wanted or not threading.main_thread().is_alive():
                raise _AbandonedError

        try:
            self._items = read(go_on)
        except _AbandonedError:
            logger.debug("a merge was given up")
        except Exception as error:
            # Not lost: everything is read anew in the foreground then, which raises.
            logger.debug("a merge failed: %s", error)


class _AbandonedError(Exception):
    """Nobody waits for this merge any more."""
