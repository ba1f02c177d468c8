"""What a script records, and that no path of a machine is in it."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pytest

import results

RECORDS = sorted((results.DOCS / "results").glob("*.json"))


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "DOCS", tmp_path)
    monkeypatch.setattr(results, "ROOT", Path("/somewhere/spherequant"))
    monkeypatch.setenv("SPHEREQUANT_DATA", "/somewhere/data/")
    monkeypatch.setenv("SPHEREQUANT_WEIGHTS", "weights")
    monkeypatch.delenv(results.REDUCED, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--dim", "--dim"),
        ("512", "512"),
        ("/elsewhere/codebooks", "codebooks"),
        ("--codebooks=/elsewhere/codebooks", "--codebooks=codebooks"),
        ("/somewhere/data/cifar10.zip", "$SPHEREQUANT_DATA/cifar10.zip"),
        ("/somewhere/spherequant/results/a", "results/a"),
        (f"{tempfile.gettempdir()}/some/codebooks", "codebooks"),
        ("results/cifar10-full-0", "results/cifar10-full-0"),
    ],
)
def test_arguments_without_paths(docs, argument, shown):
    assert results.portable_argument(argument) == shown


def test_a_record(docs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/elsewhere/measure.py", "--out", "/elsewhere/out"])
    monkeypatch.setenv("SPHEREQUANT_SIMD", "avx2")
    table = {"caption": "Of /somewhere/data", "columns": ["a"], "rows": [["/somewhere/data/x"]]}
    results.record("some", "Some", "weights of a model", [table], setting={"seeds": (0, 1)})
    found = json.loads((docs / "results" / "some.json").read_text("utf-8"))
    assert found["script"] == "measure.py"
    assert found["arguments"] == ["--out", "out"]
    assert found["environment"] == {"SPHEREQUANT_SIMD": "avx2"}
    assert found["notes"] == "weights of a model"
    assert found["tables"][0]["rows"] == [["$SPHEREQUANT_DATA/x"]]
    page = (docs / "results.md").read_text("utf-8")
    assert "`SPHEREQUANT_SIMD=avx2 python benchmarks/measure.py --out out`" in page
    assert "**Of $SPHEREQUANT_DATA** (seeds 0, 1)" in page


def test_reduced_records_stand_apart(docs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure.py"])
    table = {"caption": "Values", "columns": ["a"], "rows": [[1]]}
    results.record("some", "Some", "", [table])
    monkeypatch.setenv(results.REDUCED, "1")
    results.record("some", "Some", "", [{**table, "rows": [[2]]}])
    page = (docs / "results.md").read_text("utf-8")
    assert page.index("| 1 |") < page.index("## Reduced settings") < page.index("| 2 |")
    assert results.figures_folder() == docs / "figures" / "reduced"


def test_some_are_recorded():
    assert len(RECORDS) > 10


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_no_path_of_a_machine_is_recorded(path):
    values = json.loads(path.read_text("utf-8"))
    text = path.read_text("utf-8")
    assert not [argument for argument in values["arguments"] if Path(argument).is_absolute()]
    assert not re.search(r"(?<![\w.$])/(?:home|mnt|opt|root|srv|tmp|usr|var|work)/", text)
