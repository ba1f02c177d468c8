"""``spherequant evaluate``: how well a model's codes search, beside the controls."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spherequant.cli.options import (
    JsonOption,
    LabelsOption,
    MaxMegabytesOption,
    MaxPixelsOption,
    ShorterOption,
    SourceArgument,
    limits_from,
)
from spherequant.cli.output import figure, note, note_skips, one_line, say, say_facts, say_json
from spherequant.cli.progress import Progress

if TYPE_CHECKING:
    from spherequant.evaluation import Report

_RANKINGS = (
    ("codes", "map"),
    ("codes, recall-aware", "map_recall_aware"),
    ("codes, by cosine", "cosine_map"),
    ("codes, by Euclidean distance", "euclidean_map"),
    ("codes, by Hamming distance", "hamming_map"),
    ("float embeddings", "float_map"),
    ("class-id", "class_id_map"),
    ("class centre", "class_centre_map"),
    ("expected centre", "expected_centre_map"),
)
_SEEDS = (("training", "seed"), ("split", "split_seed"), ("evaluation", "evaluation_seed"))


def evaluate(  # noqa: PLR0913 - one parameter for each option of the shell
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Folder that `train` wrote.", show_default=False),
    ],
    source: SourceArgument,
    *,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="Which images are queries, which the database."
        ),
    ] = "holdout",
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="Compare with FAISS's PQ and RQ codes of the same embeddings."
        ),
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="NAME",
            help=(
                "Compare with this one: pq, opq, rq, lsq, itq, itq_asymmetric, rabitq or all; may "
                "be repeated. ITQ needs at least as many dimensions as bits, RaBitQ more than 64 "
                "bits; else the figure is -."
            ),
            show_default=False,
        ),
    ] = None,
    bits: ShorterOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="REPORT_DIR",
            help="Write report.json, report.html and queries.csv there.",
        ),
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option("--split-seed", help="Seed of the split.", show_default="the model's"),
    ] = None,
    labels: LabelsOption = "auto",
    max_pixels: MaxPixelsOption = None,
    max_megabytes: MaxMegabytesOption = None,
    json: JsonOption = False,
) -> None:
    """Measure MODEL as a search engine on SOURCE.

    Mean average precision with ties averaged out, beside four controls: float embeddings, the
    predicted class as the whole code, the centre of the predicted class, and the mean of all
    centres by predicted probability.
    """
    from spherequant.evaluation import evaluate as measure
    from spherequant.evaluation.baselines import DEFAULT_BASELINES
    from spherequant.images import open_source
    from spherequant.training import Model

    limits = limits_from(max_pixels, max_megabytes)
    loaded = Model.load(model)
    if bits is not None:
        loaded = loaded.shortened(bits)
    with open_source(source, labels=labels, limits=limits) as opened:
        note(one_line(opened.label_note))
        with Progress() as progress:
            report = measure(
                loaded,
                opened,
                protocol,
                [*(DEFAULT_BASELINES if baselines else ()), *(baseline or ())],
                out=out,
                split_seed=split_seed,
                limits=limits,
                progress=progress.show,
            )
    note_skips(report.skipped)
    if json:
        say_json(report.to_dict())
    else:
        _say_report(report)
    for warning in report.warnings:
        note(f"WARNING: {one_line(warning)}")
    if out is not None:
        note(f"page: {out / 'report.html'}")


def _say_report(report: "Report") -> None:
    values = report.to_dict()
    say(
        f"{one_line(report.source)}, protocol {values['protocol']}: {values['query_count']:,} "
        f"queries against {values['database_count']:,} images, {values['bits']} bits"
    )
    if report.seen is None:
        _say_figures(values)
    else:
        say(f"\nqueries of classes that were not trained ({values['query_count']:,})")
        _say_figures(values)
        say(f"\nqueries of classes that were trained ({values['seen']['query_count']:,})")
        _say_figures(values["seen"])
    seeds = [f"{kind} {_known(values[name])}" for kind, name in _SEEDS]
    encoding = "used in encoding" if report.predicted_classes_used else "unused"
    say()
    say_facts(
        [
            ("distinct codes", f"{values['distinct_codes']:,}"),
            ("objective", _known(values["objective"])),
            ("score", values["score"]),
            ("predicted classes", encoding),
            ("mAP at", values["map_at"]),
            ("denominator", "found; recall-aware where it says so"),
            ("ties", values["tie_rule"]),
            ("seeds", ", ".join(seeds)),
        ]
    )


def _known(value: object) -> object:
    return "unknown" if value is None else value


def _by_score(value: float | None, scores: "Mapping[str, float] | None") -> str:
    """A baseline's mAP, with those of other scores of the same codes."""
    if scores is None:
        return figure(value)
    return (
        f"{figure(value)} (cosine {figure(scores['cosine'])}, "
        f"Euclidean {figure(scores['euclidean'])})"
    )


def _say_figures(values: Mapping[str, Any]) -> None:
    baselines = [
        (f"FAISS {name}", _by_score(value, values["baselines_by_score"].get(name)))
        for name, value in values["baselines"].items()
    ]
    precision = [f"{figure(p)} at {n}" for n, p in values["precision_at"].items()]
    say_facts(
        [
            *((f"mAP {name}", figure(values[key])) for name, key in _RANKINGS),
            *((f"mAP {name}", text) for name, text in baselines),
            ("accuracy", figure(values["accuracy"])),
            ("precision", ", ".join(precision)),
            ("queries with ties", f"{100 * values['ties']:.1f} %"),
        ]
    )
