"""Several labels an image: mosaics of CIFAR-10 images, and the file path of 97 photographs of COCO.

    SPHEREQUANT_DATA=... python benchmarks/multi_label.py

Mosaics are images of 64 pixels with one to four labels (benchmarks/mosaics.py), written as a folder
with a labels.csv and trained on as anybody's folder would be. An item is relevant to a query when
they share a label. The 97 photographs of tinycoco-multilabel.zip are far too few to train on: they
show that photographs with many labels go through training and evaluation, and their figure is no
result. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import results
from embeddings import RUNS
from mosaics import SHARES, write_mosaics
from spherequant import TrainConfig, evaluate
from spherequant.evaluation import paired_bootstrap
from training_runs import setting, trained

if TYPE_CHECKING:
    from pathlib import Path

    from spherequant.evaluation import Report

BATCH = 128  # there are few mosaics: more steps of fewer
COCO = "tinycoco-multilabel.zip"
RANKINGS = {
    "codes": "DSQ, 32 bits",
    "cosine": "the same codes by cosine",
    "float": "float embeddings",
    "class_id": "class-id: overlap of predicted label sets",
    "class_centre": "class centre: mean of the predicted labels' centres",
    "rq": "FAISS RQ, 32 bits, same embeddings",
    "pq": "FAISS PQ, 32 bits, same embeddings",
    "rq_cosine": "the same RQ by cosine",
    "rq_euclidean": "the same RQ by Euclidean distance",
    "pq_cosine": "the same PQ by cosine",
    "pq_euclidean": "the same PQ by Euclidean distance",
}


def main() -> None:
    """Write the mosaics, train, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    add_options(parser)
    options = parser.parse_args()
    name = run_name(options)
    folder = mosaics_folder(options)
    archive = results.data_file("SPHEREQUANT_DATA", "cifar10.zip")
    counts = {"train": options.mosaics, "test": options.mosaic_queries}
    write_mosaics(archive, folder, counts, options.seed)
    config = TrainConfig(
        bits=32,
        backbone="small",
        image_size=options.mosaic_side,
        epochs=options.mosaic_epochs,
        batch_size=BATCH,
        seed=options.seed,
    )
    model = trained(f"{name}/dsq-32", str(folder), config)
    report = evaluate(model, str(folder), baselines=("pq", "rq"), out=RUNS / name / "report")
    labels = " / ".join(f"{share:.0%}" for share in SHARES)
    results.record(
        name,
        "Several labels an image: mosaics of CIFAR-10",
        f"{options.mosaics:,} mosaics of CIFAR-10's training images are the database, "
        f"{options.mosaic_queries:,} of its test images the queries; {labels} of them have 1 / 2 / "
        "3 / 4 labels of 10, in tiles of 32 pixels, shrunk with the mosaic to the network's input. "
        "`small` from scratch, softmax with the mass spread over an image's labels, "
        f"{model.summary['images']:,} images trained on in "
        f"{model.summary['seconds']:.0f} s. Relevant is what shares a label. A ranking at random "
        f"would reach {_chance(report):.4f}, the mean share of relevant items.",
        [
            {"caption": "mAP@all, and what the codes have more", **_rankings(report)},
            _of_label_counts(report),
        ],
        setting=setting(model),
    )
    _record_photographs(options.seed)


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add what makes a run, for the drawing of its examples too."""
    parser.add_argument("--mosaics", type=int, default=12_000, help="to train on")
    parser.add_argument("--mosaic-queries", type=int, default=1_000)
    parser.add_argument("--mosaic-side", type=int, default=64, help="of the network's input")
    parser.add_argument("--mosaic-epochs", type=int, default=12)


def run_name(options: argparse.Namespace) -> str:
    """Return the name of the run's folder and record."""
    return (
        f"multi-label-{options.mosaics}-{options.mosaic_side}px-{options.mosaic_epochs}-epochs-"
        f"seed-{options.seed}"
    )


def mosaics_folder(options: argparse.Namespace) -> Path:
    """Return where the run's images are."""
    return RUNS / f"mosaics-{options.mosaics}-{options.mosaic_queries}-seed-{options.seed}"


def _chance(report: Report) -> float:
    return float(report.queries.relevant_counts.mean() / report.database_count)


def _rankings(report: Report) -> dict[str, list[object]]:
    """Compare mAP of every ranking, and what the codes have more, paired."""
    rankings = report.queries.rankings
    rows: list[object] = []
    for name, words in RANKINGS.items():
        if name not in rankings:
            continue
        row: list[object] = [words, float(rankings[name].ap.mean())]
        if name == "codes":
            rows.append([*row, None, None])
            continue
        better = paired_bootstrap(rankings["codes"].ap, rankings[name].ap)
        rows.append([*row, f"{better.difference:+.4f}", f"[{better.low:+.4f}, {better.high:+.4f}]"])
    rows.append(["any order, at random", _chance(report), None, None])
    return {"columns": ["ranking", "mAP", "DSQ less it", "95 % interval"], "rows": rows}


def _of_label_counts(report: Report) -> dict[str, object]:
    """MAP of the codes over queries of one, two, three and four labels."""
    queries = report.queries
    rows = []
    for count in sorted({len(labels) for labels in queries.labels}):
        chosen = [len(labels) == count for labels in queries.labels]
        share = queries.relevant_counts[chosen].mean() / report.database_count
        means = [float(queries.rankings[n].ap[chosen].mean()) for n in ("codes", "class_centre")]
        rows.append([count, sum(chosen), *means, float(share)])
    return {
        "caption": "By the labels of the query",
        "columns": ["labels", "queries", "DSQ, mAP", "class centre, mAP", "at random"],
        "rows": rows,
    }


def _record_photographs(seed: int) -> None:
    """Train for two epochs on COCO's 97 photographs, evaluate, record."""
    source = str(results.data_file("SPHEREQUANT_DATA", COCO))
    config = TrainConfig(bits=32, backbone="small", image_size=64, epochs=2, seed=seed)
    model = trained(f"multi-label-coco-seed-{seed}/dsq-32", source, config)
    report = evaluate(model, source)
    most = max(len(labels) for labels in report.queries.labels)
    results.record(
        f"multi-label-coco-seed-{seed}",
        "Several labels an image: 97 photographs of COCO, a smoke test",
        f"From the archive and its labels.csv through training to the report; queries have up to "
        f"{most} labels. Too few images to learn from: no benchmark.",
        [
            {
                "caption": "What went through",
                "columns": ["measure", "value"],
                "rows": [
                    ["images trained on", model.summary["images"]],
                    ["labels", len(model.classes)],
                    ["queries", report.figures.query_count],
                    ["database", report.database_count],
                    ["skipped", len(report.skipped)],
                    ["DSQ, mAP", report.figures.map],
                    ["at random", _chance(report)],
                ],
            }
        ],
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
