"""Arrays too large for memory, in a temporary file that has no name and is wholly reserved."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import SpherequantError
from spherequant.system import SPARE_DISK

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


def scratch_array(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    what: str,
    *,
    otherwise: str = "",
) -> tuple[NDArray[Any], IO[bytes]]:
    """Return an array that memory maps from a new temporary file (TMPDIR), and the file.

    The file has no name from the start: the system frees it when the process ends, however it ends.
    Its disk is reserved before anything is written, because a mapped page that the disk has no room
    for ends the process (SIGBUS) instead of raising.

    Args:
        shape: of the array; not empty.
        dtype: of the array.
        what: what is kept there, plural, for messages.
        otherwise: what else the user can do when the disk has no room.

    Returns:
        the array, zeros, and the open file; the array outlives its closing.

    Raises:
        SpherequantError: the disk has no room, or no file can be made.
    """
    folder = tempfile.gettempdir()
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    try:
        free = shutil.disk_usage(folder).free
        no_room = (
            f"{what} need {size / 1e9:.2f} GB in {folder}, where "
            f"{max(0, free - SPARE_DISK) / 1e9:.2f} GB may be used: point TMPDIR at a larger disk"
            + otherwise
        )
        if free < size + SPARE_DISK:
            raise SpherequantError(no_room)
        file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - the caller closes it
            prefix="spherequant-", dir=folder
        )
    except OSError as error:
        raise SpherequantError(
            f"no temporary file can be made in {folder} ({error.strerror}): "
            "point TMPDIR at a directory that can be written"
        ) from None
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape), file
    except OSError:
        file.close()
        raise SpherequantError(no_room) from None
