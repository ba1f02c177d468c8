"""The file that an item was made from: kept in the index, or where its source still has it.

Whoever may search may ask for originals, so only what was indexed is given out: a file inside the
item's own source, without following a link out of it, whose sha256 is the one that is stored.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spherequant.errors import InputError, OriginalError, SourceError
from spherequant.images import Limits
from spherequant.images.archives import open_archive
from spherequant.images.listing import nfc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from spherequant.images import Item, Source
    from spherequant.index.searcher import StoredItem

_OPEN_ARCHIVES = 2


def kept_originals(dataset: Any, addresses: NDArray[np.uint64]) -> list[bytes | None]:
    """The originals in these rows, None where none is kept."""
    files = dataset.take_blobs("original", addresses=addresses.tolist())
    return [None if file is None else file.readall() for file in files]


class SourceFiles:
    """Reads files of items from their sources. Safe in many threads.

    Args:
        limits: bounds on the bytes of one file.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._archives: OrderedDict[tuple[str, int, int], _Archive] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, item: StoredItem) -> bytes:
        """The file that an item was read from.

        Raises:
            OriginalError: the item came from no file, or the file is gone, changed since, too large
                or not inside the source.
        """
        if item.root is None or not Path(item.root).is_absolute() or item.digest is None:
            raise OriginalError(f"the file of {item.key!r} was not kept, and it came from none.")
        root = Path(item.root)
        reason = "its source is gone"
        for name in _names_in_source(item):
            try:
                data = self._folder_file(root, name) if root.is_dir() else self._member(root, name)
            except (InputError, OSError) as error:
                reason = _plain(error)
                continue
            if sha256(data).hexdigest() == item.digest:
                return data
            reason = "it was changed since; bring the index up to date"
        raise OriginalError(f"the file of {item.key!r} cannot be had: {reason}.")

    def close(self) -> None:
        """Close the archives that are open."""
        with self._lock:
            while self._archives:
                self._archives.popitem()[1].source.close()

    def _folder_file(self, root: Path, name: str) -> bytes:
        """A regular file inside a folder.

        Raises:
            InputError: there is none, it lies outside, or it is too large.
            OSError: it cannot be read.
        """
        root = root.resolve(strict=True)
        path = _as_on_disk(root, name).resolve(strict=True)
        if not path.is_relative_to(root):
            raise InputError("it lies outside of its source")
        # Not to wait for a writer, where the name has become a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("it is no regular file")
            self._limits.check_bytes(status.st_size)
            return file.read(self._limits.max_bytes)

    def _member(self, root: Path, name: str) -> bytes:
        """A member of an archive.

        Raises:
            InputError: there is none, or it cannot be read.
            OSError: the archive cannot be read.
        """
        archive = self._archive(root)
        item = archive.items.get(name)
        if item is None:
            raise InputError("it is gone")
        self._limits.check_bytes(item.size)
        return archive.source.read(item)

    def _archive(self, path: Path) -> _Archive:
        """An archive, listed once as long as the file is the same."""
        status = path.stat()
        known = (str(path), status.st_mtime_ns, status.st_size)
        with self._lock:
            archive = self._archives.get(known)
            if archive is None:
                archive = _Archive(open_archive(path, "none", self._limits))
                self._archives[known] = archive
                while len(self._archives) > _OPEN_ARCHIVES:
                    self._archives.popitem(last=False)  # closed when no reader has it any more
            self._archives.move_to_end(known)
            return archive


class _Archive:
    """An open archive and its items by key."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: dict[str, Item] = {item.key: item for item in source.items}


def _names_in_source(item: StoredItem) -> list[str]:
    """What the key may be called in the source: itself, or behind the name that prefixes keys."""
    prefix = f"{item.source}/"
    names = [item.key]
    if item.key.startswith(prefix):
        names.insert(0, item.key.removeprefix(prefix))
    return names


def _as_on_disk(root: Path, name: str) -> Path:
    """The path of a key, whose folders and file may have their names in another Unicode form.

    Raises:
        InputError: the name is none of a file inside a folder.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise InputError("it lies outside of its source")
    path = root
    for part in parts:
        below = path / part
        path = below if os.path.lexists(below) else next(_alike(path, part), below)
    return path


def _alike(folder: Path, name: str) -> Iterator[Path]:
    """What a folder holds whose name is the same in Unicode NFC."""
    with os.scandir(folder) as found:
        yield from (Path(entry.path) for entry in found if nfc(entry.name) == name)


def _plain(error: InputError | OSError) -> str:
    """A reason without the path, which is not everyone's to see."""
    if isinstance(error, FileNotFoundError):
        return "it is gone"
    if isinstance(error, SourceError):
        return "its archive cannot be read"
    if isinstance(error, OSError):
        return f"it cannot be read ({(error.strerror or 'input/output error').lower()})"
    return str(error).rstrip(".")


def digests_and_sizes(
    originals: Sequence[bytes | None],
) -> tuple[list[str | None], list[int | None]]:
    """sha256 in hex and bytes of each file, None where there is none."""
    return (
        [None if data is None else sha256(data).hexdigest() for data in originals],
        [None if data is None else len(data) for data in originals],
    )
