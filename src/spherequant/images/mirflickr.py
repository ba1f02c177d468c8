"""MIRFLICKR-25000 as its publisher ships it (Huiskes and Lew, MIR 2008)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spherequant.errors import LabelError
from spherequant.images.published import (
    Contents,
    Needed,
    Row,
    count_warnings,
    read_lines,
    require,
)

if TYPE_CHECKING:
    from pathlib import Path

# The 24 "potential" labels: the concept is visible. The 14 files whose names end in _r1 repeat the
# images in which it stands out: a second label for the same thing would change no relevance.
_NAMES = (
    "animals baby bird car clouds dog female flower food indoor lake male night people plant_life "
    "portrait river sea sky structures sunset transport tree water"
)
CONCEPTS = tuple(_NAMES.split())

_FOLDERS = ("mirflickr25k_annotations_v080/", "annotations/", "")


@dataclass(frozen=True, slots=True)
class MirFlickr:
    """What the set holds.

    Attributes:
        images: ``im1.jpg`` to ``im<images>.jpg``.
        concepts: Names of the annotation files.
        labelled: Images with at least one of them.
    """

    images: int
    concepts: tuple[str, ...]
    labelled: int


def read_mirflickr(root: Path, sizes: MirFlickr) -> Contents:
    """Read the annotation files, each a list of image numbers.

    Raises:
        SourceError: Names each file that is missing.
        LabelError: A line that is not the number of an image.
    """
    places = require(
        root,
        [
            Needed(tuple(f"{folder}{c}.txt" for folder in _FOLDERS), f"{_FOLDERS[0][:-1]}.zip")
            for c in sizes.concepts
        ],
    )
    labels: list[set[str]] = [set() for _ in range(sizes.images)]
    for concept, path in zip(sizes.concepts, places, strict=True):
        for line, text in enumerate(read_lines(path), start=1):
            number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
            if not 1 <= number <= sizes.images:
                raise LabelError(
                    f"{path} line {line}: expected the number of an image, 1 to "
                    f"{sizes.images:,}, found {text[:20]!r}"
                )
            labels[number - 1].add(concept)
    rows = [Row(f"im{n}.jpg", tuple(sorted(own))) for n, own in enumerate(labels, 1)]
    labelled = sum(bool(own) for own in labels)
    warnings = count_warnings("images with a label", labelled, sizes.labelled)
    return Contents(rows, "mirflickr/", f"the {len(sizes.concepts)} potential labels", warnings)
