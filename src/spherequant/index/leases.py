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
        self._process = os.getpid()

    def lock(self) -> bool:
        """Lock the file; whether it is still there then.

        Raises:
            OSError: the file system has no locks.
        """
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return os.fstat(self._descriptor).st_nlink > 0

    def release(self) -> None:
        """Give the version up. Safe to call twice; a forked process only drops its copy."""
        if self._descriptor >= 0:
            if self._process == os.getpid():
                self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Close the file, and leave it there."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def take_lease(folder: Path, version: int) -> Lease | None:
    """Claim ``version``; None where nothing can be written (a read-only copy) or locked."""
    path = folder / f"{version}-{uuid.uuid4().hex}.lease"
    while True:
        try:
            folder.mkdir(exist_ok=True)
            lease = Lease(path, os.open(path, os.O_CREAT | os.O_RDWR, 0o666))
        except OSError:
            return None
        try:
            if lease.lock():
                return lease
        except OSError:  # a file system without locks
            lease.release()
            return None
        lease.close()  # cleaning came between creating and locking: once more


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
    except OSError:  # it is locked, or nothing can be locked there: believe it
        return False
    finally:
        os.close(descriptor)
    return True
