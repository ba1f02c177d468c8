"""NUS-WIDE as its publisher ships it (Chua et al., CIVR 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spherequant.errors import LabelError
from spherequant.images.published import (
    Contents,
    Needed,
    Row,
    count_warnings,
    path_parts,
    read_bytes,
    read_lines,
    require,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Concepts81.txt, in its order, which is that of the columns in HashNet's lists too.
_NAMES = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds "
    "computer coral cow dancing dog earthquake elk fire fish flags flowers food fox frost garden "
    "glacier grass harbor horses house lake leaf map military moon mountain nighttime ocean person "
    "plane plants police protest railroad rainbow reflection road rocks running sand sign sky snow "
    "soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town toy train "
    "tree valley vehicle water waterfall wedding whales window zebra"
)
CONCEPTS = tuple(_NAMES.split())

_IMAGE_LIST = Needed(
    ("ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt"), "ImageList.zip"
)


@dataclass(frozen=True, slots=True)
class NusWide:
    """What NUS-WIDE holds.

    Attributes:
        images: Lines of the image list, and of each label file.
        concepts: Names of the label files.
        frequent: How many of the concepts are labels: those of the most images.
        labelled: Images with at least one of them.
    """

    images: int
    concepts: tuple[str, ...]
    frequent: int
    labelled: int


def read_nuswide(root: Path, sizes: NusWide) -> Contents:
    """Read ``ImageList`` and ``Groundtruth/AllLabels``; images without a label are left out.

    Raises:
        SourceError: Names each file that is missing.
        LabelError: A file of another length, a line that is neither 0 nor 1, an image named twice.
    """
    image_list, *label_files = require(root, [_IMAGE_LIST, *map(_label_file, sizes.concepts)])
    keys = _read_keys(image_list, sizes.images)
    has_NC = np.stack([_read_labels(path, sizes.images) for path in label_files], axis=1)
    counts_C = has_NC.sum(axis=0)
    by_count = sorted(range(len(counts_C)), key=lambda c: (-counts_C[c], sizes.concepts[c]))
    kept = sorted(by_count[: sizes.frequent], key=lambda column: sizes.concepts[column])
    names = [sizes.concepts[column] for column in kept]
    rows = [
        Row(key, tuple(sorted(names[column] for column in np.flatnonzero(has))))
        for key, has in zip(keys, has_NC[:, kept], strict=True)
        if has.any()
    ]
    return Contents(
        rows,
        "Flickr/",
        f"{len(keys) - len(rows):,} of {len(keys):,} images without one of these labels left out",
        count_warnings(f"images with one of the {len(kept)} concepts", len(rows), sizes.labelled),
    )


def _label_file(concept: str) -> Needed:
    name = f"AllLabels/Labels_{concept}.txt"
    return Needed((f"Groundtruth/{name}", name), "Groundtruth.zip")


def _read_keys(path: Path, expected: int) -> list[str]:
    keys = [
        "/".join(path_parts(line, path, number))
        for number, line in enumerate(read_lines(path), start=1)
    ]
    _check_lines(path, len(keys), expected)
    seen: set[str] = set()
    for number, key in enumerate(keys, start=1):
        if key in seen:
            raise LabelError(f"{path} line {number}: {key} is named a second time")
        seen.add(key)
    return keys


def _read_labels(path: Path, expected: int) -> NDArray[np.bool_]:
    """Whether each image has the concept, bool [N]."""
    words = read_bytes(path).split()
    if not {b"0", b"1"}.issuperset(words):
        number, word = next((n, w) for n, w in enumerate(words, 1) if w not in {b"0", b"1"})
        raise LabelError(f"{path} line {number}: expected 0 or 1, found {word[:20]!r}")
    _check_lines(path, len(words), expected)
    return np.array([word == b"1" for word in words], dtype=np.bool_)


def _check_lines(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise LabelError(
            f"{path} has {found:,} lines; the published file has {expected:,}. Unpack it again"
        )
