"""The command on real photographs with several labels, where SPHEREQUANT_DATA has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.data

# Small and quick; 97 photographs are too few to learn from.
QUICK = ("--backbone", "small", "--bits", "16", "--dim", "8", "--epochs", "1", "--image-size", "32")


@pytest.fixture
def photographs() -> Path:
    folder = os.environ.get("SPHEREQUANT_DATA")
    if not folder:
        pytest.skip("SPHEREQUANT_DATA names no folder of image sets")
    return Path(folder) / "tinycoco-multilabel.zip"


def test_several_labels_from_the_archive_to_the_report(photographs, spherequant_json, tmp_path):
    model, index = tmp_path / "model", tmp_path / "index"
    trained = spherequant_json("train", photographs, "--out", model, *QUICK)
    figures = spherequant_json("evaluate", model, photographs)
    assert trained["skipped"] == figures["skipped"] == []
    assert figures["query_count"] + figures["database_count"] == 97
    # No query was trained on: what is left besides are the validation images.
    assert trained["images"] <= figures["database_count"]
    for name in ("map", "float_map", "class_id_map", "class_centre_map"):
        assert 0 < figures[name] < 1
    # After one epoch no set of labels need be right in full.
    assert 0 <= figures["accuracy"] < 1
    spherequant_json("index", model, photographs, "--out", index)
    (query,) = spherequant_json(
        "search", index, "--key", "images/000000005802.jpg", "--where", "array_has(labels, 'cup')"
    )["queries"]
    assert len(query["results"]) > 1
    assert all("cup" in hit["labels"] and len(hit["labels"]) > 1 for hit in query["results"])
