"""From the paths of a list to the files below a folder, whatever the folders above them.

A list made elsewhere names ``/home/someone/imagenet/val_image/a.JPEG`` or ``actor/0001_2.jpg``. A
path of a list is never opened: only what was found below the folder can be matched, by as many of
the last parts of the path as tell it from every other path of the list.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from spherequant.errors import SourceError
from spherequant.images.listing import nfc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spherequant.images.listing import Entry

Parts = tuple[str, ...]


def match_files(keys: Sequence[str], entries: Iterable[Entry[str]]) -> dict[str, Entry[str]]:
    """Files by key.

    Args:
        keys: Distinct ``/``-separated paths.
        entries: Files that were found, with their paths below one folder.

    Returns:
        The keys that have a file. A file belongs to one key at most.

    Raises:
        SourceError: Two files could be one key's.
    """
    endings = distinct_endings(keys)
    depths = sorted({ending.count("/") + 1 for ending in endings}, reverse=True)
    found: dict[str, list[tuple[Parts, Entry[str]]]] = {}
    for entry in entries:
        parts = tuple(nfc(entry.path).split("/"))
        for depth in depths:  # the longest ending that fits: a/b.jpg before b.jpg
            key = endings.get("/".join(parts[-depth:])) if depth <= len(parts) else None
            if key is not None:
                found.setdefault(key, []).append((parts, entry))
                break
    return {key: _nearest(key, candidates) for key, candidates in found.items()}


def distinct_endings(keys: Sequence[str]) -> Mapping[str, str]:
    """Keys by the shortest ending, in whole parts, that no other key has.

    >>> distinct_endings(["train/a.jpg", "val/b.jpg", "val/a.jpg"])
    {'train/a.jpg': 'train/a.jpg', 'val/a.jpg': 'val/a.jpg', 'b.jpg': 'val/b.jpg'}
    """
    backwards = sorted(tuple(reversed(key.split("/"))) for key in keys)
    shared = [_shared(one, two) for one, two in pairwise(backwards)]
    return {
        "/".join(reversed(parts[: 1 + max(before, after)])): "/".join(reversed(parts))
        for parts, before, after in zip(backwards, [0, *shared], [*shared, 0], strict=False)
    }


def _nearest(key: str, candidates: Sequence[tuple[Parts, Entry[str]]]) -> Entry[str]:
    """The file that shares the most parts with the key, from the end."""
    wanted = tuple(reversed(key.split("/")))
    ranked = sorted(
        ((-_shared(wanted, parts[::-1]), entry.path, entry) for parts, entry in candidates),
        key=lambda row: row[:2],
    )
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        raise SourceError(
            f"two files could be {key}: {ranked[0][1]} and {ranked[1][1]}. Remove one of them"
        )
    return ranked[0][2]


def _shared(one: Parts, two: Parts) -> int:
    """How many parts two paths have in common, from the first on."""
    count = 0
    for left, right in zip(one, two, strict=False):
        if left != right:
            break
        count += 1
    return count
