"""Benchmarks whose files a user brings: NUS-WIDE, ImageNet-100, COCO, MIRFLICKR.

Sizes are those of the published sets. A list or label file of another length is an error. Sets of
which incomplete or cleaned copies are common may lack images; that is a warning that every report
repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from spherequant.errors import SourceError
from spherequant.images import coco, mirflickr, nuswide
from spherequant.images.coco import Coco, read_coco
from spherequant.images.folder import read_file, walk_files
from spherequant.images.hashing_lists import LISTS, ListSizes, has_lists, read_lists
from spherequant.images.items import Item
from spherequant.images.labels import own_labels_note
from spherequant.images.listing import Listing
from spherequant.images.matching import match_files
from spherequant.images.mirflickr import MirFlickr, read_mirflickr
from spherequant.images.nuswide import NusWide, read_nuswide
from spherequant.images.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from spherequant.images.items import Limits
    from spherequant.images.listing import Entry
    from spherequant.images.published import Contents

_NAMED = 3  # missing images that a message names


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a benchmark is read.

    Attributes:
        read: From the files that define it.
        lists: What lists of the hashing literature hold that may stand in their place.
        may_lack_images: Whether incomplete copies are common, so that missing images are a warning.
    """

    read: Callable[[Path], Contents]
    lists: ListSizes | None = None
    may_lack_images: bool = False


# Sizes of the nuswide protocols and of the lists: docs/protocols.md. COCO: 82,783 +
# 40,504 images in 2014, divided anew in 2017; 122,218 of them have a labelled object.
BENCHMARKS: dict[str, Benchmark] = {
    "nuswide-21": Benchmark(
        partial(read_nuswide, sizes=NusWide(269_648, nuswide.CONCEPTS, 21, 195_834)),
        ListSizes(21, 2_100, (10_500,), 195_834),
        may_lack_images=True,
    ),
    "nuswide-81": Benchmark(
        partial(read_nuswide, sizes=NusWide(269_648, nuswide.CONCEPTS, 81, 173_692)),
        ListSizes(81, 5_000, (10_000,), 173_692, nuswide.CONCEPTS),
        may_lack_images=True,
    ),
    "imagenet-100": Benchmark(
        partial(read_lists, sizes=ListSizes(100, 5_000, (13_000, 10_000), 133_503))
    ),
    "coco": Benchmark(
        partial(
            read_coco,
            sizes=Coco(
                {"2014": (82_783, 40_504), "2017": (118_287, 5_000)}, 122_218, coco.CATEGORIES
            ),
        ),
        ListSizes(80, 5_000, (10_000,), 122_218, coco.CATEGORIES),
    ),
    "mirflickr": Benchmark(
        partial(read_mirflickr, sizes=MirFlickr(25_000, mirflickr.CONCEPTS, 24_581))
    ),
}


class BenchmarkSource(Source):
    """The images of one of `BENCHMARKS`, found below a folder; keys ``coco/val2014/0001.jpg``.

    Lists of the hashing literature are read where there are any, else the publisher's files. Links
    are followed as in a `FolderSource`: to files inside the folder.

    Raises:
        SourceError: Files are missing; names each, and where it belongs.
        LabelError: A list or label file that is not the published one.
    """

    def __init__(self, name: str, labels: str, limits: Limits, root: Path) -> None:
        benchmark = BENCHMARKS[name]
        if not root.is_dir():
            raise SourceError(
                f"{name} is looked for in the folder {root}, which does not exist: put its files "
                f"there (docs/benchmarks.md shows the tree), or give the folder as {name}:FOLDER"
            )
        root = root.resolve()
        listing: Listing[str] = Listing()
        try:
            contents = _read(benchmark, root)
            found = _match(contents, root, listing)
            lacking = _lacking(benchmark, contents, found, root, listing)
        except SourceError as error:
            raise SourceError(f"{name}: {error}\n{_cure(name, benchmark)}") from None
        here = [row for row in contents.rows if row.key in found]
        items = [
            Item(
                f"{name}/{row.key}",
                () if labels == "none" else row.labels,
                row.split,
                found[row.key].size,
                found[row.key].mtime,
            )
            for row in here
            if row.labels
        ]
        items.sort(key=lambda item: item.key)
        self._places = {f"{name}/{key}": entry.place for key, entry in found.items()}
        self.warnings = tuple(f"{name}: {warning}" for warning in (*contents.warnings, *lacking))
        note = f"{own_labels_note(items, name, labels)} ({contents.note})"
        if len(items) < len(here):
            note += f"; {len(here) - len(items):,} images without a label left out"
        note = " ".join([note, *(f"WARNING: {warning}" for warning in self.warnings)])
        super().__init__(name, f"{name}:", items, listing.skips, note, limits)
        self.complete = not lacking

    def _read(self, item: Item, limits: Limits) -> bytes:
        return read_file(self._places[item.key], limits)


def _read(benchmark: Benchmark, root: Path) -> Contents:
    if benchmark.lists is not None and has_lists(root):
        return read_lists(root, benchmark.lists)
    return benchmark.read(root)


def _match(contents: Contents, root: Path, listing: Listing[str]) -> dict[str, Entry[str]]:
    try:
        return match_files([row.key for row in contents.rows], walk_files(root, listing))
    except OSError as error:
        raise SourceError(f"{root} cannot be listed: {error.strerror}") from None


def _lacking(
    benchmark: Benchmark,
    contents: Contents,
    found: Mapping[str, Entry[str]],
    root: Path,
    listing: Listing[str],
) -> tuple[str, ...]:
    """A warning where images are missing: how many, the first of them, and where they belong.

    Raises:
        SourceError: The same, for a set of which incomplete copies are not common.
    """
    missing = [row.key for row in contents.rows if row.key not in found]
    if not missing:
        return ()
    named = ", ".join(str(root / (contents.folder + key)) for key in missing[:_NAMED])
    text = (
        f"{len(missing):,} of the {len(contents.rows):,} images are missing: {named}"
        f"{', ...' if len(missing) > _NAMED else ''} (any folder below {root} will do)"
    )
    if listing.skips:
        skip = listing.skips[0]
        text += f"; {len(listing.skips)} files were passed over, such as {skip.path}: {skip.reason}"
    if not benchmark.may_lack_images or not found:
        raise SourceError(text)
    return (text,)


def _cure(name: str, benchmark: Benchmark) -> str:
    text = "docs/benchmarks.md shows the tree of files"
    if benchmark.lists is not None:
        lists = ", ".join(one.paths[0] for one in LISTS)
        text += f"; lists ({lists}) will do in place of the publisher's label files"
    return f"{text}. Another folder is given as {name}:FOLDER"
