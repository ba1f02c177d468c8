"""Drawings: whole SVG files with both palettes, and text that can be read."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import drawing
from results import DOCS
from spherequant.evaluation.examples import Example, Picture, Result
from spherequant.evaluation.plots import FAINT, INK, SERIES, Line

SVG = "{http://www.w3.org/2000/svg}"
X = np.array([1, 10, 100])
LINES = [Line("ours", X, np.array([0.9, 0.8, 0.2])), Line("theirs", X, np.array([0.8, 0.6, 0.1]))]


def saved(tmp_path, element):
    path = tmp_path / "drawing.svg"
    drawing.save(element, path)
    return path.read_text("utf-8"), ET.parse(path).getroot()


def texts(root):
    return ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "element",
    [
        drawing.curves("a", LINES, LINES),
        drawing.lines("a", LINES, "x", "y", log_x=True, label="ours & theirs"),
        drawing.norms("a", {"raw": np.linspace(0.5, 1.5, 50)}, LINES),
        drawing.spread("a", {"p": {"ours": {8: [0.1, 0.3], 16: [0.4]}}}, "mAP"),
        drawing.class_map("a", {"z": np.eye(2), "x": np.eye(2)}, ["p", "q"], {"p": np.zeros(2)}),
    ],
    ids=["curves", "lines", "norms", "spread", "map"],
)
def test_a_plot_is_a_file_with_both_palettes(tmp_path, element):
    text, root = saved(tmp_path, element)
    assert root.tag == f"{SVG}svg"
    assert root.get("aria-label")
    assert "prefers-color-scheme: dark" in text
    assert "var(--page)" in text
    assert "var(--ink)" in text
    for colour in (INK, FAINT, *SERIES):
        assert colour not in text


def test_axes_and_lines_are_named(tmp_path):
    _, root = saved(tmp_path, drawing.lines("a", LINES, "items", "error", log_x=True, label="l"))
    assert {"items", "error", "ours", "theirs", "100"} <= set(texts(root))


def test_a_map_has_a_dot_for_each_point(tmp_path):
    places = np.arange(20.0).reshape(10, 2)
    element = drawing.class_map("a", {"z": places}, ["p"] * 4 + ["q"] * 6, {"p": X[:2], "q": X[1:]})
    _, root = saved(tmp_path, element)
    dots = [
        len([step for step in path.get("d", "").split() if step == "M"])
        for path in root.iter(f"{SVG}path")
        if any(colour in path.get("style", "") for colour in drawing.CLASS_COLOURS)
    ]
    assert dots == [4, 6]
    assert {"p", "q"} <= set(texts(root))


def test_wrong_results_are_crossed_out(tmp_path):
    jpeg = io.BytesIO()
    Image.new("RGB", (4, 4)).save(jpeg, "JPEG")

    def picture(*labels):
        return Picture("key", labels, jpeg.getvalue())

    results = (
        Result(picture("cat"), 2.0, right=True),
        Result(picture("dog", "<b>", "frog"), 1.0, right=False),
        Result(picture("ship"), 0.5, right=True),
    )
    example = Example("good", picture("cat"), 0.75, results)
    _, root = saved(tmp_path, drawing.retrievals([example], 2, 40))
    assert len(list(root.iter(f"{SVG}image"))) == 1 + 2
    assert len(list(root.iter(f"{SVG}path"))) == 1
    assert texts(root) == ["cat", "AP 0.75", "cat", "✗ dog, <b>", "frog"]


@pytest.mark.parametrize("path", sorted((DOCS / "figures").glob("*.svg")), ids=lambda p: p.stem)
def test_the_drawings_are_small(path):
    assert path.stat().st_size < 200_000
    assert ET.parse(path).getroot().tag == f"{SVG}svg"
