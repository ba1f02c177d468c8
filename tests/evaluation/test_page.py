from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from spherequant.evaluation import Report, evaluate, render_results

NASTY = "<script>alert('x')</script>&\"'"
VOID = {"meta", "img", "br", "use", "path", "rect"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what is on the page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def saved(make_model, make_pictures, tmp_path_factory):
    pictures = make_pictures(labels_of=lambda name, _: (NASTY if name == "pink" else name,))
    pictures.bad = ["blue/000.png"]
    everything = frozenset(key for key, _, _ in pictures)
    model = make_model(pull=0.4, trained_keys=everything)
    folder = tmp_path_factory.mktemp("page") / "new" / "report"
    return evaluate(model, pictures, out=folder), folder


def test_json_is_the_report(saved):
    report, folder = saved
    stored = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report.to_dict()))


def test_a_page_that_cannot_be_written_leaves_the_one_before(saved, tmp_path, monkeypatch):
    report, folder = saved
    for name in ("report.json", "queries.csv", "report.html"):
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(Report, "_save_queries", lambda self, path: path.write_text("half") // 0)
    with pytest.raises(ZeroDivisionError):
        report.save(tmp_path)
    assert (tmp_path / "queries.csv").read_text() == "before"
    assert (tmp_path / "report.json").read_bytes() == (folder / "report.json").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_queries_are_kept_for_comparisons(saved):
    report, folder = saved
    with (folder / "queries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == list(report.queries.keys)
    assert [float(row["codes_ap"]) for row in rows] == list(report.queries.rankings["codes"].ap)
    assert {row["labels"] for row in rows} >= {NASTY, "blue"}


def test_the_page_is_whole_and_self_contained(saved):
    _, folder = saved
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for reference in re.findall(r'(?:xlink:href="|url\()#([^")]+)', text):
        assert reference in identifiers
    assert not page.all("script")
    assert not page.all("link")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "prefers-color-scheme: dark" in text
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("svg")) == 3


def test_what_comes_from_outside_is_escaped(saved):
    _, folder = saved
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert NASTY in Page(text).text


def test_how_it_was_measured_is_printed_with_the_figures(saved):
    report, folder = saved
    words = Page((folder / "report.html").read_text(encoding="utf-8")).text
    for expected in (
        f"{report.figures.map:.3f}",
        "Class centre",
        "Float embeddings",
        "holdout, split seed 3",
        "R = all",
        "expectation over all orders of tied items",
        "found (relevant images among the first R); recall-aware: min(R, all relevant images)",
        "training 5, split 3, examples and baselines 0",
        "used in encoding",
        "THE MODEL WAS TRAINED ON",
        "blue/000.png",
        report.fingerprint,
    ):
        assert expected in words


def test_examples_mark_right_and_wrong_in_words_and_signs(saved):
    report, folder = saved
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    shown = [result for example in report.examples for result in example.results]
    assert {example.kind for example in report.examples} == {"good", "bad"}
    alternatives = [image["alt"] for image in page.all("img")]
    assert len(alternatives) == len(shown) + len(report.examples)
    assert all(alternatives)
    right = sum(result.right for result in shown)
    assert sum(", right: " in text for text in alternatives) == right
    assert page.text.count("✓") == right + 1  # once in the explanation
    assert page.text.count("✗") == len(shown) - right + 1
    for example in report.examples:
        for result in example.results:
            shared = set(example.query.labels) & set(result.picture.labels)
            assert result.right == bool(shared)
        scores = [result.score for result in example.results]
        assert scores == sorted(scores, reverse=True)


def test_unseen_classes_has_two_tables(make_model, make_pictures, tmp_path):
    report = evaluate(make_model(), make_pictures(), "unseen-classes", out=tmp_path)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Queries of classes that were not trained (the headline)" in words
    assert "Queries of classes that were trained" in words
    assert f"{report.seen.map:.3f}" in words


def test_names_in_any_script_can_be_drawn(make_model, make_pictures, tmp_path):
    pictures = make_pictures(
        labels_of=lambda name, _: ({"blue": "蓝色", "pink": "🦩"}.get(name, name),)
    )
    evaluate(make_model(classes=()), pictures, out=tmp_path)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "蓝色" in words
    assert "🦩" in words


def test_search_results_share_the_frame():
    results = [
        {"rank": 1, "key": NASTY, "score": 0.91234, "labels": ["cat", NASTY], "jpeg": b"\xff\xd8"},
        {"rank": 2, "key": "b.jpg", "score": 0.5, "labels": [], "jpeg": None},
    ]
    text = render_results(
        [
            {"query": NASTY, "image_jpeg": b"\xff\xd8", "results": results},
            {"query": "empty.jpg", "image_jpeg": None, "results": []},
        ],
        title="Like mine",
    )
    page = Page(text)
    assert "<script" not in text
    assert len(page.all("img")) == 2
    assert page.all("img")[0]["src"] == "data:image/jpeg;base64,/9g="
    for expected in (
        "Like mine",
        "2 queries",
        "0.912",
        f"cat, {NASTY}",
        "no picture",
        "Nothing found.",
    ):
        assert expected in page.text


def test_equal_reports_make_equal_plots():
    from spherequant.evaluation.plots import Line, norms_plot, precision_recall_plot

    line = Line("Codes", np.array([0.1, 1.0]), np.array([1.0, 0.2]))
    assert precision_recall_plot([line]) == precision_recall_plot([line])
    plot = norms_plot(np.full(9, 1.0, dtype=np.float32))
    assert "var(--series-1)" in plot
    assert "#0a0b0c" not in plot
