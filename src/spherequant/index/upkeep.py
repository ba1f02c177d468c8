"""Compaction and cleaning of items.lance, behind the writers.

Small commits leave small files; now and then neighbours are merged, size class by size class, so
that a row is rewritten a few times in its life and not at every turn. Old versions are deleted when
they were superseded some time ago and no open snapshot holds them.

When upkeep is due is read from the folder, where every commit leaves a version: many short sessions
add up as one long one does.
"""

from __future__ import annotations

import logging
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import lance

from spherequant.errors import ConflictError, SpherequantError
from spherequant.index.faults import reported
from spherequant.index.keys import follow_keys
from spherequant.index.leases import leased_versions
from spherequant.index.replacing import oldest_fragment

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

# Versions (one a commit, and one for each reservation of ids) that call for upkeep.
VERSIONS_BETWEEN = 64
# Items written since the last upkeep that call for another: each look-up of a key reads their keys.
ITEMS_BETWEEN = 16_384
# A fragment is small below each of these sizes (rows); Lance's own default is the last.
SIZE_CLASSES = (1_024, 16_384, 262_144, 1_048_576)
CROWD = 16
# Share of deleted rows from which on a fragment is written anew.
_HOLES = 0.25
# Rows in memory at once, and about how many bytes they may have: originals are megabytes each.
_BATCH_ROWS, _BATCH_BYTES = 256, 64 << 20
# Between choosing the latest version and taking its lease a reader is unprotected; versions
# superseded less than this ago are left alone.
GRACE_SECONDS = 30.0


class Upkeep:
    """Runs ``tidy`` in a thread of its own whenever ``VERSIONS_BETWEEN`` versions have gathered."""

    def __init__(self, items: Path, leases: Path) -> None:
        self._items = items
        self._leases = leases
        # Versions that the last upkeep here had to leave: too young, or held by a snapshot.
        self._left = 0
        self._wrote = False
        self._items_since = 0
        self._thread: threading.Thread | None = None

    def note_commit(self, items: int) -> None:
        """Start the upkeep if it is due after a commit of so many items."""
        self._wrote = True
        self._items_since += items
        self._start_if_due()

    def close(self) -> None:
        """Wait for a running upkeep to end, and for another if one is due and commits were made."""
        self.wait()
        if self._wrote:
            self._start_if_due()
            self.wait()

    def _start_if_due(self) -> None:
        if self._thread and self._thread.is_alive():
            return
        versions = self._count_versions()
        self._left = min(self._left, versions)  # another process may have tidied
        if versions - self._left < VERSIONS_BETWEEN and self._items_since < ITEMS_BETWEEN:
            return
        # Not a daemon: Lance must not be cut off in the middle when the interpreter ends.
        thread = threading.Thread(target=self._run, name="spherequant-upkeep")
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had; the commit is made all the same
            logger.warning("upkeep of %s is put off: %s", self._items, error)
            return
        self._items_since, self._thread = 0, thread

    def wait(self) -> None:
        """Wait for a running upkeep to end."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            tidy(self._items, self._leases)
        except ConflictError:
            logger.debug("upkeep of %s gave way to a writer", self._items)
        except SpherequantError as error:
            logger.warning("upkeep of %s failed: %s", self._items, error)
        self._left = self._count_versions()

    def _count_versions(self) -> int:
        """Versions in the folder, by a listing of names; 0 where it cannot be read."""
        try:
            return sum(1 for _ in (self._items / "_versions").iterdir())
        except OSError:
            return 0  # what is wrong with the folder, the next read or write says


def tidy(items: Path, leases: Path, grace_seconds: float | None = None) -> None:
    """Merge small files and delete old versions that no snapshot holds.

    Args:
        items: path of items.lance.
        leases: folder of leases.
        grace_seconds: leave versions that were superseded less than this ago (default
            ``GRACE_SECONDS``).

    Raises:
        ConflictError: a writer committed first; nothing is lost, the next upkeep does it.
        SpherequantError: Lance or the disk reported an error.
    """
    grace = GRACE_SECONDS if grace_seconds is None else grace_seconds
    with reported(f"cannot tidy {items}"):
        dataset = lance.dataset(str(items))
        follow_keys(dataset)
        compact(dataset)
        old = _superseded(dataset, time.time() - grace) - leased_versions(leases)
        if old:
            dataset.cleanup_old_versions(versions=sorted(old), error_if_tagged_old_versions=False)


def compact(dataset: Any) -> None:
    """Merge the fragments of the first size class that is crowded, else drop what was deleted."""
    fragments = [fragment.metadata for fragment in dataset.get_fragments()]
    live = [f.physical_rows - (f.num_deletions or 0) for f in fragments]
    oldest = oldest_fragment(dataset)
    for size in SIZE_CLASSES:
        if sum(rows < size for rows in live) >= CROWD:
            # Every write names the oldest fragment, and would beat a merge of it to the commit.
            _merge(dataset, oldest, target_rows_per_fragment=size)
            return
    holes = {f.id for f in fragments if (f.num_deletions or 0) > _HOLES * f.physical_rows}
    if holes:
        # Of the oldest one when the others have none: that merge is the one that writers beat.
        spared = oldest if holes - {oldest} else None
        _merge(
            dataset,
            spared,
            target_rows_per_fragment=SIZE_CLASSES[0],
            materialize_deletions_threshold=_HOLES,
        )


def _merge(dataset: Any, spared: int | None, **options: Any) -> None:
    """Let Lance merge fragments as it plans to, all but one."""
    dataset.optimize.compact_files(
        batch_size=_batch_rows(dataset),
        excluded_fragment_ids=[] if spared is None else [spared],
        **options,
    )


def _batch_rows(dataset: Any) -> int:
    """How many rows to hold at once, by the file whose rows are the largest."""
    largest = max(
        (
            sum(file.file_size_bytes or 0 for file in fragment.files) // fragment.physical_rows
            for fragment in (each.metadata for each in dataset.get_fragments())
            if fragment.physical_rows
        ),
        default=0,
    )
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // (largest + 1)))


def _superseded(dataset: Any, before: float) -> set[int]:
    """Versions whose successor is older than ``before`` (seconds since the epoch)."""
    versions = sorted(dataset.versions(), key=lambda v: int(v["version"]))
    return {
        int(version["version"])
        for version, successor in pairwise(versions)
        if successor["timestamp"].timestamp() < before
    }
