"""What every room asks of the machine: its processors, its disks, libraries that may be missing."""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spherequant.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SPARE_DISK = 256 << 20  # bytes that temporary files leave free for everyone else
_ABANDONED_SECONDS = 3_600.0
_SAFETENSORS_OS_ERROR = re.compile(r"os error (\d+)")


def usable_processors() -> int:
    """Return how many processors this process may run on."""
    # macOS and Windows have no affinity.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside another to write to; what was written then takes the other's place.

    A process killed meanwhile, a full disk or an error leaves the file that was there. Several may
    write at once: the last stays. What killed writers left is deleted an hour on.

    Args:
        path: of the file to replace, which need not exist.

    Raises:
        OSError: nothing was written, or it cannot be moved or brought to the disk.
    """
    target = Path(path)
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.partial")
    sweep_abandoned(_drafts(target))
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(target)
    except Exception as error:
        number = _SAFETENSORS_OS_ERROR.search(str(error))
        if type(error).__name__ != "SafetensorError" or number is None:
            raise
        # safetensors tells of a full disk by an error of its own.
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(target)) from error
    finally:
        draft.unlink(missing_ok=True)


def forget(path: Path) -> None:
    """Delete a file that this process alone writes, and what killed ones left of it."""
    path.unlink(missing_ok=True)
    sweep_abandoned(_drafts(path), 0.0)


def sweep_abandoned(drafts: Iterable[Path], seconds: float | None = None) -> None:
    """Delete files and folders that killed writers left, known by their age.

    Args:
        drafts: of whoever may have been killed; others may be writing theirs.
        seconds: that one was not touched for; None for an hour.
    """
    seconds = _ABANDONED_SECONDS if seconds is None else seconds
    for draft in drafts:
        with suppress(FileNotFoundError):  # another writer is done with it
            if time.time() - draft.stat().st_mtime < seconds:
                continue
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink()


def _drafts(target: Path) -> Iterator[Path]:
    return target.parent.glob(f"{glob.escape(target.name)}.*.partial")


def is_of_the_gpu(error: BaseException) -> bool:
    """Whether torch tells of the GPU, its memory above all, and not of what it was given."""
    return type(error).__name__ in {"OutOfMemoryError", "AcceleratorError"}


def require_faiss(purpose: str) -> Any:
    """Return the faiss module.

    Args:
        purpose: what needs it, for the message.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("faiss-cpu", "faiss", purpose) from error
    return faiss
