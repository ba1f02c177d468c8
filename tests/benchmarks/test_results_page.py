"""The page that is made of the records."""

from __future__ import annotations

import json
import re

import pytest

import results_page
from results import DOCS

RECORDS = results_page.read_records(DOCS / "results")


def record(**values):
    base = {
        "title": "Title",
        "script": "some.py",
        "arguments": [],
        "machine": "a machine",
        "date": "2026-01-01",
        "notes": "Notes.",
        "tables": [],
    }
    return base | values


def written(folder, **records):
    for name, values in records.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(values), "utf-8")
    return results_page.render_page(folder)


@pytest.mark.parametrize("headline", results_page.HEADLINES, ids=lambda headline: headline.record)
def test_each_headline_is_in_a_record(headline):
    for cell in headline.cells:
        assert results_page.look_up(RECORDS[headline.record], cell) is not None


def test_a_cell_that_is_not_there():
    cell = results_page.Cell("", "Table", ("row",), "column")
    table = {"caption": "Table 1", "columns": ["a", "column"], "rows": [["row", 3]]}
    assert results_page.look_up(record(), cell) is None
    assert results_page.look_up(record(tables=[table]), cell) == 3


def test_the_page_is_that_of_the_records():
    """`make docs` was run after the last record."""
    page = results_page.render_page(DOCS / "results")
    assert (DOCS / "results.md").read_text("utf-8") == page


def test_the_contents_lead_somewhere():
    page = (DOCS / "results.md").read_text("utf-8")
    links = re.findall(r"\]\(#([^)]+)\)", page)
    anchors = re.findall(r'<a id="([^"]+)"></a>', page)
    assert set(RECORDS) <= set(links) <= set(anchors)
    assert len(anchors) == len(set(anchors))


def test_sections_stand_in_their_order_and_unknown_records_last(tmp_path):
    page = written(
        tmp_path,
        zebra=record(title="Unknown"),
        robustness=record(),
        search_100=record(title="Clusters"),
        search_uniform=record(title="Uniform"),
        cifar10_new=record(title="New"),
        cifar10_full_0=record(title="Full"),
    )
    titles = re.findall(r"^#{2,3} (.+)$", page, re.MULTILINE)
    assert titles == [
        "CIFAR-10", "Full", "New", "Speed: search", "Uniform", "Clusters", "Robustness", "Title",
        "Further measurements", "Unknown",
    ]  # fmt: skip


def test_of_the_service_speed_comes_before_endurance(tmp_path):
    page = written(
        tmp_path,
        service_kills=record(title="Kills"),
        service_puts=record(title="Puts"),
        service_load_small_1000000=record(title="Load"),
    )
    assert re.findall(r"^### (.+)$", page, re.MULTILINE) == ["Load", "Puts", "Kills"]


def test_tables(tmp_path):
    short = {"caption": "Short", "columns": ["a", "b"], "rows": [[1, None], ["x", 0.12345]]}
    rows = [[number] for number in range(results_page.LONG_TABLE + 1)]
    long = {"caption": "Long", "columns": ["a"], "rows": rows, "setting": {"seeds": [2]}}
    setting = {
        "epochs": 1,
        "image_size": 32,
        "margin": 0.4,
        "sharpness": [0.35, 2.0],
        "seeds": [0, 1],
    }
    page = written(tmp_path, some=record(tables=[short, long], setting=setting))
    assert "**Short** (1 epoch, 32 px, margin 0.4, sharpness 0.35, 2, seeds 0, 1)\n\n|" in page
    assert "| 1 | - |\n| x | 0.1235 |" in page
    assert "<details><summary>Long (seed 2): 13 rows</summary>\n\n| a |" in page


def test_drawings(tmp_path):
    drawing = {"file": "figures/a.svg", "alt": "Curves", "caption": "Seed 0."}
    page = written(tmp_path, figures=record(drawings=[drawing]))
    assert "![Curves](figures/a.svg)\n\nSeed 0.\n" in page
