"""Labels of listed images: from a table, from folder names, or none; and splits from top folders.

The rule, for ``auto``: ``labels.csv`` at the top where there is one; else the names of the
top-level folders, when there are at least two with images, none beside them, and no name that looks
like a date or a camera's folder; else none. Top-level ``train``, ``val``, ``test`` that contain
class folders are splits, and the class folders lie one level deeper. A note says what was read.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from spherequant.errors import ConfigError, InputError, LabelError
from spherequant.images.items import Item, Skip
from spherequant.images.listing import TABLE_NAME, covers, nfc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from spherequant.images.listing import Entry, Listing, Place

LABEL_MODES = ("auto", "folders", "csv", "none")

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_MONTHS = (
    "jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec|january|february|march|april|june|july|"
    "august|september|october|november|december"
)
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"{_YEAR}"  # 2019
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:(?:0[1-9]|[12]\d|3[01])(?:\D.*)?)?"  # 201905, 20190512 ...
    rf"|{_YEAR}[-_. ]{_MONTH}(?:[-_. ]{_DAY}(?:\D.*)?)?"  # 2019-05, 2019-05-12 Harbour
    rf"|{_YEAR}[-_](?:0[1-9]|1[0-2])[-_ ]\D.*"  # 2019-05 Harbour
    rf"|{_DAY}[-_. ]{_MONTH}[-_. ]{_YEAR}(?:\D.*)?"  # 12.05.2019 Harbour
    rf"|(?:{_MONTHS})(?:[-_. ]?{_YEAR})?"  # May, May 2019
    rf"|{_YEAR}[-_. ](?:{_MONTHS})",  # 2019 May
    re.IGNORECASE,
)
_CAMERA_WORD = re.compile(r"DCIM|camera|camera[ _-]?roll", re.IGNORECASE)
# The camera makers' "Design rule for Camera File system" names folders by three digits from 100 and
# five of A-Z, 0-9, _: 100CANON, 101MSDCF. Five digits would be a number like any other.
_CAMERA_FOLDER = re.compile(r"[1-9]\d\d(?!\d{5})[A-Z0-9_]{5}")


def check_mode(mode: str) -> None:
    """Refuse a ``--labels`` value that does not exist.

    Raises:
        ConfigError: Names the nearest one.
    """
    if mode not in LABEL_MODES:
        nearest = get_close_matches(mode, LABEL_MODES, n=1, cutoff=0.0)
        raise ConfigError(
            f"--labels {mode!r} is unknown; use one of {', '.join(LABEL_MODES)}"
            + (f" (did you mean {nearest[0]!r}?)" if nearest else "")
        )


def refuse_file_labels(mode: str, what: str) -> None:
    """Refuse label modes that only folders and archives have.

    Raises:
        ConfigError: An unknown mode.
        LabelError: ``folders`` or ``csv``.
    """
    check_mode(mode)
    if mode in {"folders", "csv"}:
        raise LabelError(f"{what} brings its own labels: use --labels auto or none, not {mode}")


def looks_like_date_or_camera(name: str) -> bool:
    """Whether a folder name tells when or by what device a photo was taken, not what it shows."""
    return any(
        pattern.fullmatch(name) is not None for pattern in (_DATE, _CAMERA_WORD, _CAMERA_FOLDER)
    )


@dataclass(slots=True)
class Labelling:
    """What is known of the listed images beside their pixels, by key."""

    note: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)


def label_items(
    listing: Listing[Place],
    mode: str,
    *,
    archive: bool,
    read: Callable[[Entry[Place]], bytes],
) -> tuple[list[Item], list[Skip], str]:
    """Give each listed image its labels, split and metadata.

    Args:
        listing: Images and tables by key.
        mode: One of `LABEL_MODES`.
        archive: Whether one folder that wraps everything is looked into.
        read: Reads a table's bytes.

    Returns:
        The items sorted by key, all skips, and the note for the user.

    Raises:
        ConfigError: An unknown mode.
        LabelError: Labels that were asked for are not there, or the table cannot be used.
    """
    check_mode(mode)
    prefix = _wrapper(listing) if archive else ""
    table = listing.tables.get(prefix + TABLE_NAME) or next(
        (
            entry
            for key, entry in listing.tables.items()
            if key.casefold() == prefix.casefold() + TABLE_NAME
        ),
        None,
    )
    skips = listing.skips + [
        Skip(key, "not an image") for key, entry in listing.tables.items() if entry is not table
    ]
    if table is None and mode in {"auto", "csv"}:
        _refuse_lost_table(listing.skips, prefix)
    if mode == "csv" or (mode == "auto" and table is not None):
        if table is None:
            raise LabelError(
                f"--labels csv needs a {TABLE_NAME} at the top of the source, with the header "
                "'path,labels'; there is none"
            )
        try:
            rows = read(table)
        except InputError as error:
            raise LabelError(f"{table.path} cannot be read: {error}") from None
        found = _from_table(
            rows, listing.images, prefix, {skip.path for skip in skips} | listing.present
        )
    elif mode == "none":
        found = Labelling("no labels, as asked")
    else:
        found = _from_folders(listing.images, prefix, asked=mode == "folders")
    items = [
        Item(
            key,
            found.labels.get(key, ()),
            found.splits.get(key),
            entry.size,
            entry.mtime,
            found.metadata.get(key) or {},
            prefix,
        )
        for key, entry in listing.images.items()
    ]
    skips = sorted(skips + found.skips, key=lambda skip: (skip.path, skip.reason))
    return items, skips, found.note


def _refuse_lost_table(skips: Iterable[Skip], prefix: str) -> None:
    """Refuse to take other labels where there is a table that was passed over."""
    for skip in skips:
        if skip.path.casefold() == (prefix + TABLE_NAME).casefold():
            raise LabelError(
                f"{skip.path} cannot be used: {skip.reason}. Put it right, or use --labels folders "
                "or --labels none"
            )


def tidy_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels as an `Item` carries them: NFC, stripped, sorted, without repeats or empty ones."""
    return tuple(sorted({nfc(label.strip()) for label in labels} - {""}))


def name_some(names: Collection[str], most: int = 8) -> str:
    """The first names of a sorted collection, for a sentence."""
    shown = sorted(names)[:most]
    return ", ".join(shown) + (", ..." if len(names) > most else "")


def own_labels_note(items: list[Item], name: str, mode: str) -> str:
    """The note on labels that came with the images."""
    names = {label for item in items for label in item.labels}
    if mode == "none":
        return "no labels, as asked"
    if not names:
        return f"no labels: {name} brings none"
    return f"{len(names)} labels of {name}: {name_some(names)}; --labels none for unlabelled photos"


def _wrapper(listing: Listing[Place]) -> str:
    """``"name/"`` when one top folder of an archive holds everything and is no class itself."""
    if any("/" not in key for key in listing.tables):
        return ""
    tops = {key.partition("/")[0] if "/" in key else "" for key in listing.images}
    top = next(iter(tops)) if len(tops) == 1 else ""
    if not top or top.casefold() in _SPLITS:
        return ""
    prefix = f"{top}/"
    deeper = any("/" in key[len(prefix) :] for key in listing.images)
    return prefix if deeper or any(key.startswith(prefix) for key in listing.tables) else ""


def _tops(keys: Iterable[str], prefix: str) -> tuple[dict[str, list[str]], list[str]]:
    """Keys by top-level folder, and those beside the folders."""
    folders: dict[str, list[str]] = {}
    beside: list[str] = []
    start = len(prefix)
    for key in keys:
        slash = key.find("/", start)
        if slash < 0:
            beside.append(key)
        else:
            folders.setdefault(key[start:slash], []).append(key)
    return folders, beside


def _split_folders(folders: Mapping[str, Sequence[str]], prefix: str, *, alone: bool) -> set[str]:
    """Top folders that are splits: train, val and test that contain class folders.

    They count when nothing else lies at the top (``alone``: no image does), or when two different
    splits say so together: a single ``train`` among other folders is a class.
    """
    named = {name for name in folders if name.casefold() in _SPLITS}
    classed = {
        name
        for name in named
        if any("/" in key[len(prefix) + len(name) + 1 :] for key in folders[name])
    }
    if alone and classed and len(named) == len(folders):
        return named
    if len({_SPLITS[name.casefold()] for name in classed}) >= 2:
        return named
    return set()


def _from_folders(keys: Collection[str], prefix: str, *, asked: bool) -> Labelling:
    """Labels from folder names; ``asked`` is ``--labels folders``, which overrules the doubts."""
    folders, beside = _tops(keys, prefix)
    splits = _split_folders(folders, prefix, alone=not beside)
    label_of: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for top, members in folders.items():
        if top in splits:
            split = _SPLITS[top.casefold()]
            start = len(prefix) + len(top) + 1
            for key in members:
                split_of[key] = split
                slash = key.find("/", start)
                if slash >= 0:
                    label_of[key] = key[start:slash]
        elif not splits:
            label_of.update(dict.fromkeys(members, top))
    names = set(label_of.values())
    if asked and not names:
        raise LabelError(
            "--labels folders needs images in folders named after what they show; "
            "every image lies at the top. Use --labels none, or a labels.csv"
        )
    doubt = "" if asked else _doubt(names, beside, splits)
    if doubt:
        how = "" if not names else "; --labels folders takes the folder names"
        return Labelling(f"no labels: {doubt}{how}")
    note = f"{len(names)} folder name{'s' if len(names) > 1 else ''} as labels: {name_some(names)}"
    if splits:
        note += f" (splits {_count_splits(split_of)})"
    outside = len(keys) - len(label_of)
    if outside:
        note += f"; {outside} images lie outside the class folders and have no label"
    return Labelling(
        f"{note}; --labels none for unlabelled photos",
        labels={key: (label,) for key, label in label_of.items()},
        splits=split_of,
    )


def _doubt(names: Collection[str], beside: Collection[str], splits: Collection[str]) -> str:
    """Why ``auto`` does not take these folder names as labels; ``""`` when it does."""
    if not names:
        return "the images lie in no folders"
    if len(names) < 2:
        return f"one folder only ({next(iter(names))!r})"
    if beside and not splits:
        return f"{len(beside)} images lie beside the folders"
    if all(name.casefold() in _SPLITS for name in names):
        return f"folders named after splits ({name_some(names)}) hold no class folders"
    odd = sorted(name for name in names if looks_like_date_or_camera(name))
    if odd:
        return f"folder names look like dates or cameras ({name_some(odd, 3)})"
    return ""


def _count_splits(splits: Mapping[str, str]) -> str:
    counts = Counter(splits.values())
    return ", ".join(
        f"{name} {counts[name]:,}" for name in ("train", "val", "test") if counts[name]
    )


def _from_table(
    data: bytes, keys: Collection[str], prefix: str, skipped: Collection[str]
) -> Labelling:
    """Labels and metadata from ``labels.csv``; rows and images that do not meet are reported."""
    names, rows = _parse_table(data)
    labels: dict[str, tuple[str, ...]] = {}
    metadata: dict[str, Mapping[str, str]] = {}
    skips: list[Skip] = []
    path_column = names.index("path")
    for line, row in rows:
        if len(row) != len(names):
            path = row[min(path_column, len(row) - 1)]
            reason = f"{TABLE_NAME} line {line}: {len(row)} fields, the header has {len(names)}"
            skips.append(Skip(path, reason))
            continue
        fields = dict(zip(names, row, strict=True))
        path = fields.pop("path").strip()
        if nfc(prefix + path) not in keys:
            path = path.replace("\\", "/").removeprefix("./")
        key = nfc(prefix + path)
        if key in labels:
            skips.append(Skip(path, f"{TABLE_NAME} line {line}: a second row for this image"))
        elif key in keys:
            labels[key] = tidy_labels(fields.pop("labels").split("|"))
            metadata[key] = {name: value for name, value in fields.items() if name}
        elif not covers(skipped, key):
            skips.append(Skip(path, f"{TABLE_NAME} line {line}: no such image in the source"))
    if not labels:
        raise LabelError(
            f"{TABLE_NAME} names no image of the source"
            + (f" ({skips[0].path!r}: {skips[0].reason})" if skips else " (it has no rows)")
            + f"; a path that would do is {next(iter(keys))[len(prefix) :]!r}. "
            "Correct the table, or use --labels folders or --labels none"
        )
    return Labelling(
        _table_note(labels, keys, len(skips)),
        labels,
        _table_splits(keys, prefix),
        metadata,
        skips,
    )


def _table_note(labels: Mapping[str, tuple[str, ...]], keys: Collection[str], strays: int) -> str:
    names = {label for row in labels.values() for label in row}
    labelled = sum(bool(row) for row in labels.values())
    note = (
        f"{TABLE_NAME}: {len(names)} label{'' if len(names) == 1 else 's'} on {labelled:,} of "
        f"{len(keys):,} images: {name_some(names)}"
    )
    without = [key for key in keys if key not in labels]
    if without:
        note += f"; {len(without)} images have no row ({name_some(without, 3)})"
    if strays:
        note += f"; {strays} rows were not used (see what was skipped)"
    return f"{note}; --labels none for unlabelled photos"


def _table_splits(keys: Collection[str], prefix: str) -> dict[str, str]:
    """Beside a table, top folders are splits when all are named so and there are at least two."""
    folders, beside = _tops(keys, prefix)
    splits = {name: _SPLITS.get(name.casefold()) for name in folders}
    if beside or None in splits.values() or len(set(splits.values())) < 2:
        return {}
    return {key: split for name, split in splits.items() if split for key in folders[name]}


def _parse_table(data: bytes) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows (with line numbers) of a table, or `LabelError` with the cure."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{TABLE_NAME} is not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'"
        ) from None
    # Not strict, a quote that is never closed would swallow the rows below it without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise LabelError(
            f"{TABLE_NAME} line {reader.line_num}: {error}; save it as CSV again"
        ) from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    if "path" not in header or "labels" not in header:
        raise LabelError(
            f"{TABLE_NAME} must start with the header 'path,labels' (comma-separated, further "
            f"columns allowed); it starts with {','.join(header)[:80]!r}"
        )
    named = [name for name in header if name]
    if len(named) != len(set(named)):
        raise LabelError(
            f"{TABLE_NAME} has two columns of one name in its header: {','.join(header)}"
        )
    return header, rows[1:]
