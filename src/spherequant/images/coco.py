"""MS-COCO as its publisher ships it (Lin et al., ECCV 2014, arXiv:1405.0312)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spherequant.errors import LabelError
from spherequant.images.labels import tidy_labels
from spherequant.images.published import (
    Contents,
    Needed,
    Row,
    count_warnings,
    path_parts,
    read_bytes,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The 80 categories in alphabetical order, which is that of the columns in HashNet's lists.
_NAMES = (
    "airplane|apple|backpack|banana|baseball bat|baseball glove|bear|bed|bench|bicycle|bird|boat|"
    "book|bottle|bowl|broccoli|bus|cake|car|carrot|cat|cell phone|chair|clock|couch|cow|cup|"
    "dining table|dog|donut|elephant|fire hydrant|fork|frisbee|giraffe|hair drier|handbag|horse|"
    "hot dog|keyboard|kite|knife|laptop|microwave|motorcycle|mouse|orange|oven|parking meter|"
    "person|pizza|potted plant|refrigerator|remote|sandwich|scissors|sheep|sink|skateboard|skis|"
    "snowboard|spoon|sports ball|stop sign|suitcase|surfboard|teddy bear|tennis racket|tie|toaster|"
    "toilet|toothbrush|traffic light|train|truck|tv|umbrella|vase|wine glass|zebra"
)
CATEGORIES = tuple(_NAMES.split("|"))


@dataclass(frozen=True, slots=True)
class Coco:
    """What COCO holds.

    Attributes:
        images: Of ``train`` and ``val``, by year.
        labelled: Images with a labelled object, of both together; the same in either year.
        categories: Names of the categories.
    """

    images: Mapping[str, tuple[int, int]]
    labelled: int
    categories: tuple[str, ...]


def read_coco(root: Path, sizes: Coco) -> Contents:
    """Read ``annotations/instances_{train,val}YEAR.json`` of the first year that is there.

    Raises:
        SourceError: Names each file that is missing.
        LabelError: A file that is not of COCO's format, of another size, or names an image twice.
    """
    years = list(sizes.images)
    year = next((y for y in years if any(n.find(root) for n in _annotations(y))), years[0])
    rows: list[Row] = []
    for split, place, expected in zip(
        ("train", "val"), require(root, _annotations(year)), sizes.images[year], strict=True
    ):
        found = _read_instances(place, f"{split}{year}", split, sizes.categories)
        if len(found) != expected:
            raise LabelError(
                f"{place} names {len(found):,} images; the published file has {expected:,}. "
                "Unpack it again"
            )
        rows += found
    labelled = sum(bool(row.labels) for row in rows)
    warnings = count_warnings("images with a labelled object", labelled, sizes.labelled)
    return Contents(rows, "", f"COCO {year}", warnings)


def _annotations(year: str) -> list[Needed]:
    return [
        Needed((f"annotations/instances_{split}{year}.json",), f"annotations_trainval{year}.zip")
        for split in ("train", "val")
    ]


def _read_instances(path: Path, folder: str, split: str, categories: tuple[str, ...]) -> list[Row]:
    try:
        data = json.loads(read_bytes(path), object_hook=_slim)
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        labels: dict[Any, set[str]] = {image["id"]: set() for image in data["images"]}
        for image_id, category_id in data["annotations"]:
            labels[image_id].add(names[category_id])
        rows = [
            Row(
                "/".join((folder, *path_parts(image["file_name"], path, number))),
                tidy_labels(labels[image["id"]]),
                split,
            )
            for number, image in enumerate(data["images"], start=1)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, LabelError):
            raise
        raise LabelError(
            f"{path} is not in the format of COCO's instances ({type(error).__name__}: "
            f"{str(error)[:60]}): unpack it again"
        ) from None
    if set(names.values()) != set(categories):
        raise LabelError(
            f"{path} has {len(names)} categories, not COCO's {len(categories)}: unpack it again"
        )
    if len({row.key for row in rows}) != len(rows) or len(labels) != len(rows):
        raise LabelError(f"{path} names an image twice: unpack it again")
    return rows


def _slim(value: dict[str, Any]) -> Any:
    """An annotation without its outline, dropped while the file is parsed: it is most of it."""
    if "category_id" in value:
        return value["image_id"], value["category_id"]
    return value
