"""Validation at the end of a training."""

import shutil

import numpy as np
import pytest
from PIL import Image

from spherequant.evaluation import validation
from spherequant.evaluation.validation import _sample, validate
from spherequant.images import Limits, make_split, open_source
from spherequant.training import Model


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two classes of 30 images: one of each is for validation."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    generator = np.random.default_rng(0)
    for level, name in ((0, "dark"), (160, "light")):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(level, level + 90, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def test_validation_images_ask_training_images(many, spherequant_json, spherequant, tmp_path):
    options = ("--bits", "8", "--epochs", "8", "--dim", "8", "--image-size", "16")
    value = spherequant_json("train", many, "--out", tmp_path / "m", *options)
    model = Model.load(tmp_path / "m")
    assert value["validation_map"] == model.summary["validation_map"]
    with open_source(many) as source:
        split = make_split(source.items)
        result = validate(model, source, Limits())
    assert (result.query_count, result.database_count) == (len(split.validation), 52)
    assert result.query_count == 2
    assert result.map == value["validation_map"]
    # Dark and light: the network learns this in a few steps.
    assert result.map > 0.9
    assert f"mAP {result.map:.3f}" in spherequant("info", tmp_path / "m").stdout


def test_no_validation_images_no_figure(trained, photos):
    model = Model.load(trained.path)
    with open_source(photos, labels="none") as source:
        assert validate(model, source, Limits()) is None


def test_validation_images_that_cannot_be_read_give_no_figure(trained, many, tmp_path):
    shutil.copytree(many, tmp_path / "photos")
    with open_source(tmp_path / "photos") as source:
        keys = [source.items[i].key for i in make_split(source.items).validation]
    for key in keys:
        (tmp_path / "photos" / key).write_bytes(b"no image")
    with open_source(tmp_path / "photos") as source:
        assert [source.items[i].key for i in make_split(source.items).validation] == keys
        assert validate(Model.load(trained.path), source, Limits()) is None


def test_large_splits_are_sampled(trained, photos, monkeypatch):
    model = Model.load(trained.path)
    monkeypatch.setattr(validation, "MOST_DATABASE", 10)
    monkeypatch.setattr(validation, "MOST_QUERIES", 2)
    monkeypatch.setattr(
        "spherequant.images.make_split",
        lambda *arguments: _with_validation(make_split(*arguments)),
    )
    with open_source(photos) as source:
        first, second = (validate(model, source, Limits()) for _ in range(2))
    assert first == second
    assert (first.query_count, first.database_count) == (2, 10)


def _with_validation(split):
    from dataclasses import replace

    return replace(split, validation=split.queries)


def test_a_sample_is_sorted_and_small_ones_are_whole():
    generator = np.random.default_rng(0)
    assert _sample(np.arange(5), 5, generator).tolist() == [0, 1, 2, 3, 4]
    sample = _sample(np.arange(100), 7, generator)
    assert len(set(sample.tolist())) == 7
    assert (np.diff(sample) > 0).all()
