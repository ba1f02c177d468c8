"""Self-contained HTML pages: the report of an evaluation, and the results of a search.

A page holds its style, plots and pictures in itself: it needs no network, runs no script, and can
be mailed. Everything that comes from file names or labels is escaped.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from spherequant.evaluation.baselines import CODEBOOK_BASELINES, rankings_of
from spherequant.evaluation.bootstrap import paired_bootstrap
from spherequant.evaluation.metrics import TIE_RULE, mean_precision_recall

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2
    from numpy.typing import NDArray

    from spherequant.evaluation.bootstrap import Comparison
    from spherequant.evaluation.figures import Figures, QueryFigures
    from spherequant.evaluation.report import Report

# What each ranking is, for a reader who has not met it.
_MEANINGS: dict[str, tuple[str, str]] = {
    "codes": (
        "Codes",
        "The search engine itself: a float query against stored codes, by the score of the index.",
    ),
    "inner_product": ("Codes, by inner product", "The same codes, scored by the inner product."),
    "hamming": (
        "Codes, by Hamming distance",
        "The same codes; the query, too, is no more than its code, as binary methods are measured.",
    ),
    "cosine": ("Codes, by cosine", "The same codes, scored by the angle alone."),
    "euclidean": ("Codes, by Euclidean distance", "The same codes, scored by distance."),
    "float": (
        "Float embeddings",
        "Control: nothing compressed. The ceiling that one expects of codes made from them.",
    ),
    "class_id": (
        "Class-id",
        "Control: of every image, query included, only the predicted class is kept.",
    ),
    "class_centre": (
        "Class centre",
        (
            "Control: an item is no more than its predicted class, at that class's centre. Hard to "
            "beat on classes that were trained, worthless on others."
        ),
    ),
    "expected_centre": (
        "Expected centre",
        (
            "Control: an item is the mean of the class centres, weighted by how probable the "
            "classifier takes each class to be, and not compressed. What a code can gain from the "
            "classifier alone."
        ),
    ),
    "pq": ("FAISS product quantizer", "The same bits, learned without labels on these embeddings."),
    "rq": (
        "FAISS residual quantizer",
        "The same bits, learned without labels on these embeddings.",
    ),
    "opq": (
        "FAISS product quantizer, rotated",
        "The same bits, learned without labels on these embeddings, after a learned rotation.",
    ),
    "lsq": (
        "FAISS local search quantizer",
        "The same bits, learned without labels on these embeddings.",
    ),
    "itq": (
        "FAISS iterative quantizer",
        "The same bits, each the sign of a rotated direction; query and item by Hamming distance.",
    ),
    "itq_asymmetric": (
        "FAISS iterative quantizer, asymmetric",
        "The same binary codes, by the inner product of a float query and an item's signs.",
    ),
    "rabitq": (
        "FAISS RaBitQ",
        "The same bits: 64 for two floats an item, the others signs of rotated directions.",
    ),
}
_BY_SCORE = {"cosine": "by cosine", "euclidean": "by Euclidean distance"}
_MEANINGS |= {
    ranking: (f"{_MEANINGS[name][0]}, {_BY_SCORE[score]}", "Its codes, by another score.")
    for name in CODEBOOK_BASELINES
    for score, ranking in rankings_of(name).items()
    if score in _BY_SCORE
}
_PLOTTED = ("codes", "float", "class_centre", "rq")
MANY_CLASSES = 30  # a longer table starts closed


class ResultEntry(TypedDict):
    """One result of a search: what the page shows of it."""

    rank: int
    key: str
    score: float
    labels: Sequence[str]
    jpeg: bytes | None


class QueryEntry(TypedDict):
    """One query of a search, with its results; ``image_jpeg`` is a thumbnail of the query."""

    query: str
    image_jpeg: bytes | None
    results: Sequence[ResultEntry]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    meaning: str
    map: float
    map_recall_aware: float
    codes_better_by: Comparison | None


@dataclass(frozen=True, slots=True)
class _Section:
    """The figures of one set of queries."""

    title: str
    figures: Figures
    rows: list[_Row]


def render_report(report: Report) -> str:
    """The report as one HTML page."""
    from spherequant.evaluation.plots import (
        Line,
        norms_plot,
        precision_at_plot,
        precision_recall_plot,
    )

    queries = report.queries
    curves = {
        name: mean_precision_recall(
            queries.rankings[name].hits[queries.headline],
            queries.relevant_counts[queries.headline],
            queries.ranks,
        )
        for name in _PLOTTED
        if name in queries.rankings
    }
    names = {name: _MEANINGS[name][0] for name in curves}
    classes = queries.by_class()
    return _render(
        "report.html",
        report=report,
        sections=_sections(report),
        tie_rule=TIE_RULE,
        depth="all ranks" if report.at is None else f"the first {report.at:,} ranks",
        precision_recall=precision_recall_plot(
            [Line(names[name], recall, precision) for name, (precision, recall) in curves.items()]
        ),
        precision_at=precision_at_plot(
            [Line(names[name], queries.ranks, curve[0]) for name, curve in curves.items()]
        ),
        norms=norms_plot(report.norms),
        norm_mean=float(report.norms.mean(dtype=np.float64)),
        norm_deviation=float(report.norms.std(dtype=np.float64)),
        classes=sorted(classes, key=lambda each: -each.map),
        many_classes=MANY_CLASSES,
    )


def render_results(queries: Sequence[QueryEntry], title: str = "Search results") -> str:
    """The results of a search as one HTML page.

    Args:
        queries: each with its results, best first; pictures are JPEG thumbnails, or None.
        title: heading of the page.
    """
    return _render("results.html", title=title, queries=queries)


def _sections(report: Report) -> list[_Section]:
    headline = report.queries.headline
    if report.protocol != "unseen-classes":
        return [_Section("All queries", report.figures, _rows(report.queries, headline))]
    sections = [
        _Section(
            "Queries of classes that were not trained (the headline)",
            report.figures,
            _rows(report.queries, headline),
        )
    ]
    if report.seen is not None:
        rows = _rows(report.queries, ~headline)
        sections.append(_Section("Queries of classes that were trained", report.seen, rows))
    return sections


def _rows(queries: QueryFigures, chosen: NDArray[np.bool_]) -> list[_Row]:
    codes_ap = queries.rankings["codes"].ap[chosen]
    rows = []
    for name, ranked in queries.rankings.items():
        label, meaning = _MEANINGS[name]
        ap = ranked.ap[chosen]
        rows.append(
            _Row(
                label,
                meaning,
                float(ap.mean()),
                float(ranked.ap_recall_aware[chosen].mean()),
                None if name == "codes" else paired_bootstrap(codes_ap, ap),
            )
        )
    return rows


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spherequant.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    environment.filters["signed"] = _signed
    environment.filters["share"] = _share
    environment.filters["jpeg_uri"] = _jpeg_uri
    return environment


def _figure(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _share(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f} %"


def _jpeg_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
