"""Errors of Lance and of the file system, said in spherequant's words.

Lance reports from Rust: an ``OSError`` or ``ValueError`` without ``errno``, whose text ends in a
source path of the library. A user needs the cause and the cure, and none of that text.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spherequant.errors import ConflictError, FormatError, SpherequantError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CURES = {
    errno.ENOSPC: "free some space and run it again: what was committed is safe",
    errno.EDQUOT: "free some of the quota and run it again: what was committed is safe",
    errno.EFBIG: "raise the limit on file size (ulimit -f) and run it again",
    errno.EACCES: "check the owner and the permissions of the index's folder",
    errno.EPERM: "check the owner and the permissions of the index's folder",
    errno.EROFS: "the index lies on a read-only file system: copy it to one that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_RUST_PLACE = re.compile(r",?\s*/\S+\.rs:\d+(:\d+)?\.?")


def is_panic(error: BaseException) -> bool:
    """Whether Rust code panicked: PyO3 raises that as a ``BaseException`` of its own."""
    return type(error).__name__ == "PanicException"


def is_conflict(error: BaseException) -> bool:
    """Whether another writer's commit came first, so that planning again may succeed."""
    text = str(error).lower()
    return isinstance(error, OSError) and (
        "commit conflict" in text
        or "concurrent writers" in text
        or "incompatible with concurrent transaction" in text
    )


def _error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found.group(1)) if found else None


def translate(error: BaseException, action: str) -> SpherequantError:
    """What ``error``, met while doing ``action``, is called in this project."""
    if is_conflict(error):
        return ConflictError(f"{action}: another writer committed first; try again.")
    number = _error_number(error)
    if number is not None and number != errno.ENOENT:
        cure = _CURES.get(number, "look at the disk, then run it again: what was committed is safe")
        return SpherequantError(f"{action}: {os.strerror(number).lower()}; {cure}.")
    text = _RUST_PLACE.sub("", str(error)).splitlines()
    reason = text[0] if text else type(error).__name__
    if number == errno.ENOENT or "not found" in reason.lower():
        return FormatError(
            f"{action}: a file of the index is missing. The folder is incomplete or was changed by "
            "hand: copy it again, or make it anew."
        )
    return SpherequantError(f"{action}: {reason}")


@contextmanager
def reported(action: str) -> Iterator[None]:
    """Raise what Lance or the system raise inside as a ``SpherequantError`` that names ``action``.

    Raises:
        ConflictError: another writer committed first.
        FormatError: a file of the index is missing.
        SpherequantError: anything else that Lance or the system reported.
    """
    try:
        yield
    except SpherequantError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise translate(error, action) from error
    except BaseException as error:
        if is_panic(error):
            raise translate(error, action) from error
        raise
