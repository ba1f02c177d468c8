"""cache.bin: the items of one version as they lie in memory, so that opening lays nothing out.

The file may be missing, of an older version or damaged: what does not fit is passed over, and what
fits is only where following begins. Its checksums are against damage, not malice; but whatever it
holds, no search reads outside its arrays. docs/format.md specifies it.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from spherequant.index.faults import reported
from spherequant.index.scan import LayoutImage, numbers_of
from spherequant.index.segments import Fragment, Items, Places, Segment, count_up
from spherequant.system import replacing, usable_processors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from spherequant.index.header import Header
    from spherequant.quantizer import Codebooks

logger = logging.getLogger(__name__)

_MAGIC = b"SPHEREQUANTCACHE"
_VERSION = 2
# Magic, version, CRC-32 and length of the description, length of the file.
_PRELUDE = struct.Struct("<16sIIQQ24x")
_ALIGNMENT = 64
_CHUNK = 16 << 20
# Lance counts fragments, and the rows of each, in 32 bits.
_LANCE_LIMIT = 1 << 32


def save_cache(path: Path, items: Items, header: Header, codebooks: Codebooks) -> None:
    """Write the items of a version; ``path`` is replaced whole or not at all.

    Raises:
        SpherequantError: the file cannot be written.
    """
    arrays = [
        array
        for segment, alive in zip(items.segments, items.alive, strict=True)
        for array in _arrays(segment, alive)
    ]
    with ThreadPoolExecutor(usable_processors()) as pool:
        checksums = list(pool.map(crc32, _chunks(arrays)))
    description = json.dumps(
        {
            **_identity(header, codebooks),
            "fragments": [astuple(fragment) for fragment in items.fragments],
            "segments": [
                _Sizes.of(segment, alive).as_json()
                for segment, alive in zip(items.segments, items.alive, strict=True)
            ],
            "checksums": checksums,
        }
    ).encode()
    start = _aligned(_PRELUDE.size + len(description))
    size = start + sum(_aligned(array.nbytes) for array in arrays)
    prelude = _PRELUDE.pack(_MAGIC, _VERSION, crc32(description), len(description), size)
    with reported(f"cannot write {path}"), replacing(path) as draft, draft.open("xb") as file:
        file.write(prelude + description)
        for array in arrays:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(array.data)
        file.truncate(size)


def load_cache(path: Path, header: Header, codebooks: Codebooks) -> Items | None:
    """The items that were saved, None where there is no file or it does not fit.

    What comes back are the items of some version of some index with these codebooks: ``follow``
    finds by the names of Lance's files what of them is still so.
    """
    try:
        with path.open("rb") as file:
            return _load(file, header, codebooks)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is passed over: %s. It can be deleted or written anew.", path, error)
        return None


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the sizes of a segment's arrays follow from.

    Attributes:
        items: n.
        fragments: that they were read from.
        books: of its buckets, None where it is flat.
        place_bytes: of each place: 4, 8, or 0 for none.
        masked: whether some of it may be dead.
    """

    items: int
    fragments: int
    books: tuple[int, int] | None
    place_bytes: int
    masked: bool

    @classmethod
    def of(cls, segment: Segment, alive: NDArray[np.bool_] | None) -> _Sizes:
        place_bytes = 0 if segment.places is None else segment.places.itemsize
        books = segment.layout.books
        return cls(len(segment), len(segment.numbers), books, place_bytes, alive is not None)

    @classmethod
    def from_json(cls, value: object, n_codebooks: int) -> _Sizes:
        """Sizes that are possible.

        Raises:
            ValueError: these are none.
        """
        match value:
            case [int(items), int(fragments), books, (0 | 4 | 8) as place_bytes, bool(masked)]:
                pair = None if books is None else _book_pair(books, n_codebooks)
                if items >= 0 and fragments >= (items > 0):
                    return cls(int(items), int(fragments), pair, int(place_bytes), masked)
        raise ValueError("it describes no items")

    def as_json(self) -> list[object]:
        return list(astuple(self))

    def in_bytes(self, m: int, k: int) -> list[int]:
        """Size of each array, in their order."""
        n = self.items
        buckets = 0 if self.books is None else k if self.books[0] == self.books[1] else k * k
        return [
            -(-n // 64) * 64 * m,
            0 if self.books is None else 4 * n,
            0 if self.books is None else 4 * (buckets + 1),
            8 * n,
            8 * self.fragments,
            8 * self.fragments,
            self.place_bytes * n,
            -(-n // 8) * self.masked,
        ]


def _arrays(segment: Segment, alive: NDArray[np.bool_] | None) -> list[NDArray[Any]]:
    """All arrays of a segment, contiguous."""
    empty = np.empty(0, np.uint8)
    return [
        *segment.layout.arrays(),
        np.ascontiguousarray(segment.ids),
        segment.numbers,
        segment.starts,
        empty if segment.places is None else np.ascontiguousarray(segment.places),
        empty if alive is None else np.packbits(alive, bitorder="little"),
    ]


class _Room:
    """Arrays for a segment, to be read into."""

    def __init__(self, sizes: _Sizes, numbers_MK: NDArray[np.uint8]) -> None:
        self._sizes = sizes
        n, fragments = sizes.items, sizes.fragments
        self._image = LayoutImage(n, numbers_MK, *(sizes.books or (-1, -1)))
        self._ids = np.empty(n, np.int64)
        self._numbers, self._starts = np.empty(fragments, np.int64), np.empty(fragments, np.int64)
        placed = n if sizes.place_bytes else 0
        self._places: Places = np.empty(placed, np.uint32)
        if sizes.place_bytes == 8:
            self._places = np.empty(placed, np.uint64)
        self._bits = np.empty(-(-n // 8) * sizes.masked, np.uint8)

    def arrays(self) -> list[NDArray[Any]]:
        own = [self._ids, self._numbers, self._starts, self._places, self._bits]
        return [*self._image.arrays(), *own]

    def segment(self) -> Segment:
        """The segment that was read.

        Raises:
            ValueError: there can be none such.
        """
        layout = self._image.finish(usable_processors())
        ids, starts = self._ids, self._starts
        counted = count_up(ids)
        if not counted and (ids[0] < 0 or not (ids[1:] > ids[:-1]).all()):
            raise ValueError("its ids do not rise")
        if len(starts) and (starts[0] != 0 or (starts[1:] < starts[:-1]).any()):
            raise ValueError("its fragments do not follow each other")
        places = self._places if self._sizes.place_bytes else None
        return Segment(None if counted else ids, layout, self._numbers, starts, places)

    def alive(self) -> NDArray[np.bool_] | None:
        if not self._sizes.masked:
            return None
        return np.unpackbits(self._bits, count=self._sizes.items, bitorder="little").view(np.bool_)


def _load(file: BinaryIO, header: Header, codebooks: Codebooks) -> Items:
    """The items in a file.

    Raises:
        ValueError: it holds none that fit.
        OSError: it cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    prelude = file.read(_PRELUDE.size)
    if len(prelude) < _PRELUDE.size:
        raise ValueError("it is cut off")
    magic, version, checksum, length, told = _PRELUDE.unpack(prelude)
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError("it is no cache that this version reads")
    if told != size or length > size:
        raise ValueError("it is cut off")
    text = file.read(length)
    if crc32(text) != checksum:
        raise ValueError("it is damaged")
    description = json.loads(text)
    expected = _identity(header, codebooks)
    if not isinstance(description, dict) or any(
        description.get(name) != value for name, value in expected.items()
    ):
        raise ValueError("it belongs to another index")
    fragments = _fragments(description.get("fragments"))
    m, k = header.n_codebooks, header.n_codewords
    listed = description.get("segments")
    if not isinstance(listed, list) or not 1 <= len(listed) <= 2:
        raise ValueError("it describes no items")
    every = [_Sizes.from_json(value, m) for value in listed]
    start = _aligned(_PRELUDE.size + length)
    ends = start + sum(_aligned(array) for sizes in every for array in sizes.in_bytes(m, k))
    if ends != size:  # nothing is allocated before this is known
        raise ValueError("it describes other arrays than it holds")
    rooms = [_Room(sizes, numbers_of(codebooks)) for sizes in every]
    arrays = [array for room in rooms for array in room.arrays()]
    _read(file.fileno(), start, arrays, description.get("checksums"))
    items = Items(
        tuple(room.segment() for room in rooms), tuple(room.alive() for room in rooms), fragments
    )
    _check(items)
    return items


def _read(descriptor: int, start: int, arrays: Sequence[NDArray[Any]], checksums: object) -> None:
    """Fill arrays from a file, on all CPUs.

    Raises:
        ValueError: a checksum differs.
    """
    offsets: list[int] = []
    for array in arrays:
        offsets += range(start, start + array.nbytes, _CHUNK)
        start += _aligned(array.nbytes)
    if not isinstance(checksums, list) or len(checksums) != len(offsets):
        raise ValueError("it describes other arrays than it holds")

    def read(chunk: memoryview, offset: int, checksum: object) -> None:
        done = 0
        while done < len(chunk):
            count = os.preadv(descriptor, [chunk[done:]], offset + done)
            if count == 0:
                raise ValueError("it is cut off")
            done += count
        if crc32(chunk) != checksum:
            raise ValueError("it is damaged")

    with ThreadPoolExecutor(usable_processors()) as pool:
        for _ in pool.map(read, _chunks(arrays), offsets, checksums):
            pass


def _check(items: Items) -> None:
    """Refuse items that belong to no version.

    Raises:
        ValueError: a living item lies in none of the fragments, or in two segments.
    """
    rows = {fragment.number: fragment.rows for fragment in items.fragments}
    living = []
    for segment, alive in zip(items.segments, items.alive, strict=True):
        numbers, starts = segment.numbers.tolist(), segment.starts.tolist()
        end = len(segment)
        if segment.places is None:
            inside = not starts or starts[-1] <= end
        else:
            inside = True
            end = int(segment.places.max(initial=0)) + 1
        sizes = np.diff([*starts, end]).tolist()
        if not inside or any(
            size > rows.get(number, _LANCE_LIMIT)
            for number, size in zip(numbers, sizes, strict=True)
        ):
            raise ValueError("its fragments do not hold its items")
        mask = np.ones(len(segment), np.bool_) if alive is None else alive
        if mask[segment.of_fragments(set(numbers) - set(rows))].any():
            raise ValueError("its items lie in no fragment")
        living.append((segment, mask))
    (main, main_alive), *others = living
    for tail, alive in others:
        positions = main.positions(tail.ids_at(np.flatnonzero(alive)))
        if main_alive[positions[positions >= 0]].any():
            raise ValueError("an id stands twice")


def _identity(header: Header, codebooks: Codebooks) -> dict[str, object]:
    """What must be the same where the cache is read."""
    return {
        "schema": header.schema,
        "fingerprint": header.fingerprint,
        "codebooks_sha256": header.codebooks_sha256,
        "n_codebooks": header.n_codebooks,
        "n_codewords": header.n_codewords,
        "numbers": crc32(numbers_of(codebooks).tobytes()),
        "byte_order": sys.byteorder,
    }


def _fragments(value: object) -> tuple[Fragment, ...]:
    """Fragments from JSON.

    Raises:
        ValueError: these are none.
    """
    found = []
    for fragment in value if isinstance(value, list) else [None]:
        match fragment:
            case [int(number), int(rows), str(files), str(deletions)] if (
                0 <= number < _LANCE_LIMIT and 0 <= rows < _LANCE_LIMIT
            ):
                found.append(Fragment(number, rows, files, deletions))
            case _:
                raise ValueError("it describes no fragments")
    return tuple(found)


def _book_pair(value: object, n_codebooks: int) -> tuple[int, int]:
    match value:
        case [int(first), int(second)]:
            books = range(n_codebooks)
            if first in books and second in books and (first != second or n_codebooks == 1):
                return int(first), int(second)
    raise ValueError("it describes no buckets")


def _chunks(arrays: Iterable[NDArray[Any]]) -> Iterator[memoryview]:
    """The bytes of arrays, in pieces that each have a checksum."""
    for array in arrays:
        if array.nbytes:
            view = array.data.cast("B")
            yield from (view[start : start + _CHUNK] for start in range(0, len(view), _CHUNK))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
