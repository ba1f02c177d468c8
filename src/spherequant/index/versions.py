"""Versions of items.lance, opened with caches that all of them share, bounded in bytes.

Lance keeps what it read of its indexes and of the files' ends. A version that is opened by itself
begins with nothing and fills caches of several gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lance

from spherequant.index.faults import reported

if TYPE_CHECKING:
    from pathlib import Path

# The index of 1M keys of 30 characters takes 34 MB when all of it is in memory. What versions leave
# that are gone goes only when there is no more room: a busy writer fills both in minutes.
_INDEX_BYTES = 128 << 20
_METADATA_BYTES = 32 << 20


class Versions:
    """Opens one data set again and again. Safe in many threads.

    Args:
        path: items.lance.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reported(f"cannot open {path}"):
            self._session = lance.dataset(
                str(path),
                index_cache_size_bytes=_INDEX_BYTES,
                metadata_cache_size_bytes=_METADATA_BYTES,
            ).session()

    def latest(self) -> Any:
        """The data set as it is now."""
        return lance.dataset(str(self.path), session=self._session)
