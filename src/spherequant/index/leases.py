"""Which versions of items.lance an open snapshot still needs, across processes.

A snapshot holds a locked file in ``leases/`` named after its version. The lock falls when the
process ends, however it ends, so a lease left by a killed process is known to be dead: cleaning
takes its lock and deletes the file.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Lease:
    """A claim on one version, held until ``release`` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the version up. Safe to call twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        self._path.unlink(missing_ok=True)
        os.close(descriptor)


def take_lease(folder: Path, version: int) -> Lease | None:
    """Claim ``version``; None where the index cannot be written (a read-only copy)."""
    path = folder / f"{version}-{uuid.uuid4().hex}.lease"
    try:
        while True:
            folder.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink > 0:
                return Lease(path, descriptor)
            os.close(descriptor)  # cleaning came between creating and locking: once more
    except OSError:
        return None


def leased_versions(folder: Path) -> set[int]:
    """Versions that live snapshots hold; leases of dead processes are deleted on the way."""
    held = set()
    for path in folder.glob("*-*.lease"):
        version = path.name.partition("-")[0]
        if not version.isdecimal():
            continue
        if _delete_if_dead(path):
            continue
        held.add(int(version))
    return held


def _delete_if_dead(path: Path) -> bool:
    """Delete a lease that no process holds, under its lock; whether it was dead."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # another user's file: believe it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
