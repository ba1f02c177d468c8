"""A folder of images, read where it lies."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from spherequant.errors import InputError, SourceError
from spherequant.images.decoding import HEAD_BYTES
from spherequant.images.labels import label_items
from spherequant.images.listing import Entry, Listing, check_readable, list_images, nfc
from spherequant.images.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spherequant.images.items import Item, Limits


class FolderSource(Source):
    """The images under one folder, however deep.

    A link to a file is read when the file lies inside the folder. Links that lead out, lead
    nowhere, or lead to a folder are skipped and reported: what lies inside is listed once, where it
    lies.
    """

    def __init__(self, path: Path, labels: str, limits: Limits) -> None:
        root = path.resolve()
        listing: Listing[str] = Listing()
        try:
            list_images(walk_files(root, listing), _head, listing)
        except OSError as error:
            raise SourceError(f"{path} cannot be listed: {error.strerror}") from None
        check_readable(listing, _head, str(path))
        items, skips, note = label_items(
            listing,
            labels,
            archive=False,
            read=lambda entry: read_file(entry.place, limits),
        )
        self._places = {key: entry.place for key, entry in listing.images.items()}
        super().__init__(root.name or "root", str(root), items, skips, note, limits)
        self.present = listing.present

    def _read(self, item: Item, limits: Limits) -> bytes:
        return read_file(self._places[item.key], limits)


def read_file(path: str | os.PathLike[str], limits: Limits) -> bytes:
    """The bytes of a file, bounded before they are read.

    Raises:
        InputError: Gone, unreadable, or above the bound.
    """
    try:
        with Path(path).open("rb") as file:
            limits.check_bytes(os.fstat(file.fileno()).st_size)
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise InputError("gone since it was listed") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or 'input/output error'}") from None


def _head(entry: Entry[str]) -> bytes:
    try:
        with Path(entry.place).open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or 'input/output error'}") from None


def walk_files(root: Path, listing: Listing[str]) -> Iterator[Entry[str]]:
    """Regular files under ``root``; the others are skips of the listing."""
    waiting = [("", str(root))]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                children = list(found)
        except OSError as error:
            if not prefix:
                raise
            listing.skip(prefix, f"the folder cannot be listed: {error.strerror}")
            continue
        for child in children:
            path = prefix + child.name
            try:
                if child.is_dir(follow_symlinks=False):
                    if not child.name.startswith("."):
                        waiting.append((f"{path}/", child.path))
                    continue
                status = _file_status(child, root)
            except InputError as error:
                listing.skip(path, str(error))
            except OSError as error:
                listing.skip(path, f"cannot be read: {error.strerror}")
                listing.present.add(nfc(f"{path}/"))  # it may be a folder: its kind is not known
            else:
                yield Entry(path, status.st_size, status.st_mtime, child.path)


def _file_status(child: os.DirEntry[str], root: Path) -> os.stat_result:
    """Size and time of a regular file inside ``root``, or of the one that a link leads to."""
    if child.is_symlink():
        _check_link(Path(child.path), root)
    status = child.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file")
    return status


def _check_link(link: Path, root: Path) -> None:
    """Pass a link to a file inside ``root``."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        raise InputError("a link that leads nowhere") from None
    if not target.is_relative_to(root):
        raise InputError("a link that leads out of the source")
    if target.is_dir():
        raise InputError("a link to a folder: its images are listed once, where they lie")
