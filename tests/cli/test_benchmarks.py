"""A benchmark with the files of its publisher, from training to figures, in miniature."""

import numpy as np
import pytest
from PIL import Image

from miniatures import MINIATURES, make_nuswide
from spherequant.images.benchmarks import BENCHMARKS
from spherequant.images.splits import SIZES, Sizes

NAME = "nuswide-21"


@pytest.fixture
def data(tmp_path, monkeypatch, jpeg_noise):
    """A data folder with a NUS-WIDE of 24 images, 2 queries and 3 training images a concept."""
    make_nuswide(tmp_path / "data" / NAME, jpeg_noise)
    monkeypatch.setenv("SPHEREQUANT_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(BENCHMARKS, NAME, MINIATURES[NAME])
    monkeypatch.setitem(SIZES, NAME, Sizes(2, 2, (3,), (12, 16)))
    return tmp_path / "data" / NAME


@pytest.fixture
def jpeg_noise(awkward):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    return awkward.encode(Image.fromarray(pixels), "JPEG")


def test_train_index_and_evaluate(data, tmp_path, quick, spherequant, spherequant_json):
    model, index = tmp_path / "model", tmp_path / "index"
    options = ("--out", model, "--protocol", NAME)
    trained = spherequant_json("train", NAME, *options, *quick)
    assert trained["images"] == 6
    assert trained["labels"].startswith("2 labels of nuswide-21: bear, cat;")
    report = spherequant_json("evaluate", model, NAME, "--protocol", NAME)
    assert (report["query_count"], report["database_count"]) == (4, 12)
    assert (report["protocol"], report["map_at"], report["warnings"]) == (NAME, 5000, [])
    assert 0 < report["map"] <= 1
    assert spherequant_json("index", model, NAME, "--out", index)["added"] == 16
    again = spherequant_json("index", model, f"{NAME}:{data}", "--out", index)
    assert (again["total"], again["added"], again["updated"], again["removed"]) == (16, 0, 0, 0)

    (data / "Flickr/bear/0000_900.jpg").unlink()
    result = spherequant("evaluate", model, NAME, "--protocol", NAME)
    assert "WARNING: nuswide-21: 1 of the 16 images are missing" in result.stderr


def test_what_is_missing_is_an_error_and_no_traceback(data, spherequant, tmp_path):
    (data / "Groundtruth/AllLabels/Labels_sky.txt").unlink()
    result = spherequant("train", NAME, "--out", tmp_path / "model", code=1)
    assert result.stderr.startswith("error: nuswide-21: 1 of the 5 files")
    assert f"  {data}/Groundtruth/AllLabels/Labels_sky.txt  (from Groundtruth.zip)" in result.stderr
    assert "Traceback" not in result.stderr
