"""Images inside a .zip or .tar, read in place.

A compressed .tar has no random access: it is unpacked once, as one stream, into an unnamed
temporary file that is gone with the process.
"""

from __future__ import annotations

import bz2
import calendar
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from spherequant.errors import InputError, SourceError
from spherequant.images.decoding import HEAD_BYTES
from spherequant.images.items import Skip
from spherequant.images.labels import label_items
from spherequant.images.listing import Entry, Listing, check_readable, list_images, printable
from spherequant.images.source import Source
from spherequant.system import SPARE_DISK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spherequant.images.items import Item, Limits

_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_BROKEN_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError)
_BROKEN_MEMBER = (
    *_BROKEN_STREAM,
    zipfile.BadZipFile,
    struct.error,
    UnicodeDecodeError,
    ValueError,
)
_ENDLESS = (RecursionError, OverflowError)  # of headers without end, and places beyond all files
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others without a bound
_ENCRYPTED = 0x1
_SUFFIX = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_TAR_END = bytes(tarfile.BLOCKSIZE)
_HEADER_BYTES = 1 << 20  # of one long name or extended header; tarfile would read any announced
_UNPACK_BYTES = 1 << 20
# What a compressed .tar may unpack to: images shrink little, and a temporary folder may be memory.
_UNPACKED_BYTES, _UNPACKED_RATIO = 1 << 30, 100
_LAST_TIME = 253_402_300_800.0  # the year 10,000
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a .zip can tell, of files without one


def open_archive(path: Path, labels: str, limits: Limits) -> Source:
    """Open a .zip or .tar, told apart by its first bytes rather than its name.

    Raises:
        SourceError: Neither of them, or damaged beyond listing.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZipSource(path, labels, limits)
    if _opener(head) or head[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        return TarSource(path, labels, limits)
    raise SourceError(
        f"{path} is neither a folder nor a .zip or .tar archive; give the folder that holds the "
        "images, or an archive of it"
    )


class ZipSource(Source):
    """The images of a .zip. Times in it have no zone and are read as UTC."""

    def __init__(self, path: Path, labels: str, limits: Limits) -> None:
        root = str(path.resolve())
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_BROKEN_MEMBER, NotImplementedError) as error:
            raise SourceError(
                f"{path} is not a readable .zip ({error}): copy or download it again"
            ) from None
        try:
            listing: Listing[zipfile.ZipInfo] = Listing()
            list_images(_zip_entries(self._zip, listing), self._head, listing)
            check_readable(listing, self._head, str(path))
            _forget_equal_times(listing)
            items, skips, note = label_items(
                listing, labels, archive=True, read=lambda entry: self._member(entry.place, limits)
            )
        except BaseException:
            self._zip.close()
            raise
        self._places = {key: entry.place for key, entry in listing.images.items()}
        super().__init__(_SUFFIX.sub("", path.name), root, items, skips, note, limits)
        self.present = listing.present

    def _read(self, item: Item, limits: Limits) -> bytes:
        return self._member(self._places[item.key], limits)

    def _head(self, entry: Entry[zipfile.ZipInfo]) -> bytes:
        return self._bytes(entry.place, HEAD_BYTES)

    def _member(self, info: zipfile.ZipInfo, limits: Limits) -> bytes:
        limits.check_bytes(info.file_size)
        data = self._bytes(info, info.file_size + 1)  # one more: the checksum is judged at the end
        if len(data) != info.file_size:
            raise InputError("damaged in the archive: not of the size that its directory tells")
        return data

    def _bytes(self, info: zipfile.ZipInfo, count: int) -> bytes:
        """Up to ``count`` unpacked bytes. The lock: ZipFile counts its readers without one."""
        try:
            with self._lock:
                member = self._zip.open(info)
            try:
                return member.read(count)
            finally:
                with self._lock:
                    member.close()
        except NotImplementedError:
            raise InputError(
                "packed by a method that is not read; pack the archive again"
            ) from None
        except _BROKEN_MEMBER as error:
            raise InputError(_member_reason(error)) from None

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


class TarSource(Source):
    """The images of a .tar, plain or compressed by gzip, bzip2 or xz."""

    def __init__(self, path: Path, labels: str, limits: Limits) -> None:
        root = str(path.resolve())
        listing: Listing[tuple[int, int]] = Listing()
        self._file = _open_tar(path, listing)
        weakref.finalize(self, self._file.close)  # a source that is dropped closes quietly
        try:
            list_images(_tar_entries(self._file, path, listing), self._head, listing)
            check_readable(listing, self._head, str(path))
            _forget_equal_times(listing)
            items, skips, note = label_items(
                listing,
                labels,
                archive=True,
                read=lambda entry: self._member(entry.place, limits),
            )
        except BaseException:
            self._file.close()
            raise
        self._places = {key: entry.place for key, entry in listing.images.items()}
        super().__init__(_SUFFIX.sub("", path.name), root, items, skips, note, limits)
        self.present = listing.present
        self.complete = listing.complete

    def _read(self, item: Item, limits: Limits) -> bytes:
        return self._member(self._places[item.key], limits)

    def _head(self, entry: Entry[tuple[int, int]]) -> bytes:
        offset, size = entry.place
        return self._bytes(offset, min(size, HEAD_BYTES))

    def _member(self, place: tuple[int, int], limits: Limits) -> bytes:
        offset, size = place
        limits.check_bytes(size)
        data = self._bytes(offset, size)
        if len(data) != size:
            raise InputError("truncated: the archive ends inside this file")
        return data

    def _bytes(self, offset: int, size: int) -> bytes:
        """Read at a place; `os.pread` moves no shared position, so threads need no lock."""
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OverflowError:
            raise InputError("truncated: the archive ends before this file") from None
        except (OSError, ValueError):
            raise InputError("the archive cannot be read, or was closed") from None

    def close(self) -> None:
        """Close the archive; a temporary copy of it is deleted by this."""
        self._file.close()


def _zip_entries(
    archive: zipfile.ZipFile, listing: Listing[zipfile.ZipInfo]
) -> Iterator[Entry[zipfile.ZipInfo]]:
    # Some programs for Windows write its separator, which the format does not allow.
    theirs = not any("/" in info.filename for info in archive.infolist())
    for info in archive.infolist():
        name = info.filename.replace("\\", "/") if theirs else info.filename
        if name.endswith("/"):
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            listing.skip(name, "a link inside an archive is not followed")
        elif info.flag_bits & _ENCRYPTED:
            listing.skip(name, "encrypted: unpack the archive with its password")
        elif info.compress_type not in _BOUNDED:
            listing.skip(name, "packed by a method that is not read; pack the archive again")
        else:
            yield Entry(name, info.file_size, _utc_seconds(info.date_time), info)


@lru_cache(maxsize=4096)
def _utc_seconds(date_time: tuple[int, int, int, int, int, int]) -> float:
    if date_time == _NO_TIME:
        return 0.0
    try:
        return float(calendar.timegm(date_time))
    except ValueError:  # month or day 0, which some programs write
        return 0.0


def _forget_equal_times(listing: Listing[Any]) -> None:
    """Take one time of all images for none: who packs reproducibly gives every file the same."""
    entries = listing.images.values()
    if len(entries) > 1 and len({entry.mtime for entry in entries}) == 1:
        for entry in entries:
            entry.mtime = 0.0


def _tar_entries(
    file: IO[bytes], path: Path, listing: Listing[tuple[int, int]]
) -> Iterator[Entry[tuple[int, int]]]:
    bounded: Any = _BoundedReads(file)  # of the methods of a file, those that tarfile calls
    try:
        archive = tarfile.open(fileobj=bounded, mode="r:")  # noqa: SIM115 - the file is closed by its owner
    except (tarfile.TarError, *_BROKEN_MEMBER, *_ENDLESS) as error:
        raise SourceError(f"{path} is not a readable .tar ({error}): copy it again") from None
    count, read_to = 0, 0
    while True:
        try:
            info = archive.next()
        except (tarfile.TarError, *_BROKEN_MEMBER, *_ENDLESS):
            info = None
        # A size below zero leads back to a header that was read: there would be no end.
        backwards = info is not None and archive.offset <= read_to
        if info is None or backwards:
            # the reader ends in silence at a damaged or cut header, too
            if backwards or not _ends_at(file, archive.offset):
                listing.complete = False
                reason = f"damaged or cut off after {count} members"
                listing.skips.append(Skip(printable(path.name), reason))
            return
        count, read_to = count + 1, archive.offset
        archive.members = []  # type: ignore[attr-defined]  # unlisted in its stubs; it would keep all
        if info.isdir():
            continue
        name = info.name.removeprefix("./")  # `tar cf x.tar .` writes it
        if info.issym() or info.islnk():
            listing.skip(name, "a link inside an archive is not followed")
        elif not info.isreg() or info.issparse():
            listing.skip(name, "not a regular file")
        else:
            mtime = float(info.mtime)
            # A header may tell any number, and "inf".
            known = mtime if 0 <= mtime < _LAST_TIME else 0.0
            yield Entry(name, info.size, known, (info.offset_data, info.size))


class _BoundedReads:
    """A file that gives a reader of headers no more than a header can need."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        if count > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        return self._file.read(count)


def _ends_at(file: IO[bytes], offset: int) -> bool:
    try:
        return os.pread(file.fileno(), tarfile.BLOCKSIZE, offset) == _TAR_END
    except OverflowError:  # a header told a size beyond every file
        return False


def _open_tar(path: Path, listing: Listing[tuple[int, int]]) -> IO[bytes]:
    """A seekable plain .tar: the file itself, or what a compressed one unpacks to."""
    with path.open("rb") as file:
        opener = _opener(file.read(8))
    if opener is None:
        return path.open("rb")
    spool = tempfile.TemporaryFile(prefix="spherequant-")  # noqa: SIM115 - kept by the source
    try:
        with opener(path, "rb") as packed:
            while block := _unpack(packed, path, listing):
                _check_disk(len(block), path)
                _check_unpacked(spool.tell() + len(block), path)
                spool.write(block)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


def _unpack(packed: IO[bytes], path: Path, listing: Listing[tuple[int, int]]) -> bytes:
    """The next block of a compressed stream; where it is damaged, it ends, and says so."""
    try:
        # read1: what comes before the damage is returned, not lost with the rest of a large read
        block: bytes = packed.read1(_UNPACK_BYTES)  # type: ignore[attr-defined]  # all three have it
    except _BROKEN_STREAM:
        listing.complete = False
        reason = "the compressed archive is damaged; read as far as it goes"
        listing.skips.append(Skip(printable(path.name), reason))
        return b""
    return block


def _opener(head: bytes):  # type: ignore[no-untyped-def]  # three openers of three signatures
    return next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)


def _check_unpacked(size: int, path: Path) -> None:
    most = _UNPACKED_BYTES + _UNPACKED_RATIO * path.stat().st_size
    if size > most:
        raise SourceError(
            f"{path} unpacks to more than {most:,} bytes, {_UNPACKED_RATIO} times its size: if "
            "that is right, unpack it yourself to a plain .tar or a folder"
        )


def _check_disk(size: int, path: Path) -> None:
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size + SPARE_DISK:
        raise SourceError(
            f"no room in {folder} to unpack {path}: unpack it yourself to a plain .tar or a "
            "folder, or point TMPDIR at a larger disk"
        )


def _member_reason(error: BaseException) -> str:
    text = str(error)
    if "CRC" in text:
        return "damaged in the archive: its checksum does not match"
    if "closed" in text:
        return "the archive was closed"
    return "damaged in the archive: it cannot be unpacked"
