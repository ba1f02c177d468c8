"""The lists of the hashing literature: ``train.txt``, ``test.txt`` and ``database.txt``.

Each line is the path of an image and a 0 or 1 for each class, as HashNet's code ships them (Cao et
al., ICCV 2017, arXiv:1702.00758). Training images stand in the database's list too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spherequant.errors import LabelError
from spherequant.images.published import (
    Contents,
    Needed,
    Row,
    count_warnings,
    path_parts,
    read_lines,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LISTS = tuple(
    Needed((f"{name}.txt",), "the lists of HashNet's code")
    for name in ("test", "train", "database")
)

_WNID = re.compile(r"(?:^|/)(n\d{8})(?=[_/])")  # ImageNet's name of a class, as its files carry it

Parts = tuple[str, ...]
Classes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListSizes:
    """What published lists hold.

    Attributes:
        columns: Classes.
        test: Images in ``test.txt``.
        train: Images in ``train.txt``, by version.
        labelled: Images with a label in all three together.
        names: Of the columns; empty takes ImageNet's names from the paths, else numbers.
    """

    columns: int
    test: int
    train: tuple[int, ...]
    labelled: int
    names: tuple[str, ...] = ()


def has_lists(root: Path) -> bool:
    """Whether any of the three lists is there."""
    return any(one.find(root) is not None for one in LISTS)


def read_lists(root: Path, sizes: ListSizes) -> Contents:
    """Read the three lists of a folder.

    The key of an image is its path without the folders that all paths begin with. Images without a
    label are left out. Where the lists of queries or training images had some, they are no longer
    the published ones, and no image gets a split: the protocol then draws its own.

    Raises:
        SourceError: A list is missing.
        LabelError: A line that cannot be read, a list of another size, an image with two sets of
            labels, or a query that is in another list.
    """
    places = require(root, LISTS)
    test, train, database = (_read_list(place, sizes.columns) for place in places)
    _check_size(places[0], len(test), (sizes.test,))
    _check_size(places[1], len(train), sizes.train)
    repeated = next((parts for parts in test if parts in train or parts in database), None)
    if repeated is not None:
        raise LabelError(
            f"{'/'.join(repeated)} is a query (test.txt) and in train.txt or database.txt too: "
            "remove it from one of them"
        )
    other = next((p for p in train if database.get(p, train[p]) != train[p]), None)
    if other is not None:
        raise LabelError(f"{'/'.join(other)} has other labels in train.txt than in database.txt")
    everything = {**database, **train, **test}
    names = sizes.names or _column_names(everything, sizes.columns)
    unlabelled = [parts for parts, classes in everything.items() if not classes]
    published = not any(parts in test or parts in train for parts in unlabelled)
    start = _common(everything)
    rows = []
    for parts, classes in everything.items():
        if classes:
            split = "test" if parts in test else "train" if parts in train else None
            labels = tuple(sorted(names[column] for column in classes))
            rows.append(Row("/".join(parts[start:]), labels, split if published else None))
    note = "lists test.txt, train.txt, database.txt"
    if unlabelled:
        note += f" ({len(unlabelled):,} images without a label left out"
        note += ")" if published else "; the protocol draws queries and training images)"
    warnings = count_warnings("labelled images in the lists", len(rows), sizes.labelled)
    return Contents(rows, "", note, warnings)


def _read_list(path: Path, columns: int) -> dict[Parts, Classes]:
    """Classes by path; an image that stands twice with the same classes counts once."""
    found: dict[Parts, Classes] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name, *flags = line.rsplit(maxsplit=columns) or [""]
        if len(flags) != columns or not {"0", "1"}.issuperset(flags) or name[-2:] in {" 0", " 1"}:
            raise LabelError(
                f"{path} line {number}: expected a path and {columns} columns of 0 or 1, found "
                f"{line[:60]!r}{' ...' if len(line) > 60 else ''} of {len(line.split()[1:])} "
                "columns"
            )
        parts = path_parts(name, path, number)
        classes = tuple(column for column, flag in enumerate(flags) if flag == "1")
        if found.setdefault(parts, classes) != classes:
            raise LabelError(f"{path} line {number}: {name} stands above with other labels")
    return found


def _check_size(path: Path, found: int, expected: tuple[int, ...]) -> None:
    if found not in expected:
        sizes = " or ".join(f"{size:,}" for size in expected)
        raise LabelError(
            f"{path} names {found:,} images; the published list has {sizes}. Take the list as it "
            "was published"
        )


def _column_names(rows: Mapping[Parts, Classes], columns: int) -> tuple[str, ...]:
    """ImageNet's class names, read from the files' names; numbers where there are none."""
    names: dict[int, str] = {}
    for parts, classes in rows.items():
        wnid = _WNID.search("/".join(parts))
        if wnid is None or len(classes) != 1:
            continue
        if names.setdefault(classes[0], wnid[1]) != wnid[1]:
            raise LabelError(
                f"column {classes[0] + 1} of the lists is the class of {names[classes[0]]} and of "
                f"{'/'.join(parts)}: the lists do not belong together"
            )
    if len(set(names.values())) == columns:
        return tuple(names[column] for column in range(columns))
    return tuple(f"{column:03}" for column in range(columns))


def _common(paths: Iterable[Parts]) -> int:
    """How many leading folders all paths share."""
    folders = sorted(parts[:-1] for parts in paths)
    if not folders:
        return 0
    first, last = folders[0], folders[-1]
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return shared
