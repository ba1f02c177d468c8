"""Seen and unseen classes at once: how far to level the targets of codes, on a frozen network.

    SPHEREQUANT_DATA=... python benchmarks/levelling.py results/unseen-classes-.../dsq-32

Learns codes of each levelling from the training images, with the sharpness that validation images
find, as a training does; also codes of a byte less, which leave room for the norm that Euclidean
distance needs. Ranks them twice. To choose: validation images and database images of unseen classes
ask the rest of the database. To report: the queries of the protocol, beside the class centre and
FAISS's quantizers of the same embeddings.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

import results
from embeddings import Embedded, collection, embedded
from requantize import requantize
from spherequant import Model
from spherequant.evaluation import paired_bootstrap, rank_baselines
from spherequant.evaluation.baselines import rankings_of
from spherequant.quantizer import Encoder
from spherequant.training.randomness import key_hashes, shuffled
from training_runs import (
    expected_centres,
    faiss_title,
    rank_by_scores,
    rank_class_centres,
    rank_floats,
    setting,
    toward_class,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spherequant.evaluation.embeddings import Collection

LEVELLINGS = (0.0, 0.5, 0.7, 0.8, 1.0)
PLAIN = "codes of plain embeddings"
QUANTIZERS = ("pq", "opq", "rq", "lsq")
NORM_BITS = 8  # what the norm of an item would take, which Euclidean distance needs
CHOOSING = 750  # database images of unseen classes that ask
SOURCES = {"tiny-imagenet": "tiny-imagenet.zip", "cifar10": "cifar10.zip"}


def main() -> None:
    """Learn, rank, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--source", choices=SOURCES, default="tiny-imagenet")
    options = parser.parse_args()
    model = Model.load(options.model)
    target = model.encoder.target
    if target is None or model.config.protocol != "unseen-classes":
        parser.error("the model was not trained under unseen-classes")
    path = str(results.data_file("SPHEREQUANT_DATA", SOURCES[options.source]))
    data = embedded(model, path)
    reported, chosen, split = data.collection, _to_choose(data), data.split
    rankings: dict[str, list[np.ndarray]] = {}  # AP of the reported and of the choosing queries
    sharpness: dict[str, str] = {}
    for name, one in _variants(model, data):
        if one.encoder.target is not None:
            sharpness[name] = f"{one.encoder.target.sharpness:g}"
        for bits in (model.bits, model.bits - NORM_BITS):
            coded = requantize(one, reported.training, None, bits)
            by_score = [rank_by_scores(coded, both) for both in (reported, chosen)]
            title = name if bits == model.bits else f"{name}, {bits} bits"
            rankings[title] = [ranked["codes"].ap for ranked in by_score]
            rankings[f"{title}, by Euclidean distance"] = [
                ranked["euclidean"].ap for ranked in by_score
            ]
        print(name, *(ap.mean() for ap in rankings[name]), file=sys.stderr, flush=True)
    rankings["float embeddings"] = [rank_floats(both).ap for both in (reported, chosen)]
    rankings["class centre"] = [rank_class_centres(model, both).ap for both in (reported, chosen)]
    rankings["expected centre"] = [
        rank_floats(expected_centres(model, both)).ap for both in (reported, chosen)
    ]
    faiss = rank_baselines(
        reported.training,
        reported.database,
        reported.queries,
        reported.relevance,
        model.bits,
        names=QUANTIZERS,
    )
    rankings |= {
        faiss_title(name, score): [faiss[ranking].ap]
        for name in QUANTIZERS
        for score, ranking in rankings_of(name).items()
    }
    of_unseen = [_of_unseen(both, set(split.unseen_classes)) for both in (reported, chosen)]
    unseen = of_unseen[0]
    best = max(
        (name for name in rankings if name.startswith((PLAIN, "FAISS"))),
        key=lambda name: float(rankings[name][0][unseen].mean()),
    )
    results.record(
        f"levelling-{options.source}",
        f"Seen and unseen classes at once: {options.source}",
        f"The network of a training under `unseen-classes`, frozen; {model.bits} bits, pull "
        f"{target.pull:g}. Codes are learned from {len(reported.training)} training images. To "
        f"choose: {len(chosen.query_items)} validation images and database images of unseen "
        "classes ask the rest of the database. To report: the protocol's "
        f"{len(reported.query_items)} queries against {len(reported.database_items)}. mAP@all, one "
        "seed.",
        [
            {
                "caption": "mAP by levelling",
                "columns": [
                    "codes",
                    "unseen",
                    "seen",
                    "to choose: unseen",
                    "to choose: seen",
                    "sharpness",
                ],
                "rows": [
                    [*_means(name, both, of_unseen), sharpness.get(name)]
                    for name, both in rankings.items()
                ],
            },
            {
                "caption": f"Less the best unsupervised codes on unseen classes ({best}), and less "
                "the class centre on seen classes, with 95 % intervals",
                "columns": ["codes", "unseen", "at or above", "seen", "at or above"],
                "rows": [
                    [
                        name,
                        *_difference(rankings[name][0][unseen], rankings[best][0][unseen]),
                        *_difference(
                            rankings[name][0][~unseen], rankings["class centre"][0][~unseen]
                        ),
                    ]
                    for name in rankings
                    if name.startswith("DSQ")
                ],
            },
            {
                "caption": f"Less {best} by unseen class, with the 95 % interval over classes "
                "(Student's t)",
                "columns": ["codes", "classes above", "of", "mean over classes"],
                "rows": [
                    [name, *_by_class(reported, unseen, rankings[name][0] - rankings[best][0])]
                    for name in rankings
                    if name.startswith("DSQ")
                ],
            },
        ],
        setting={**setting(model), "sharpness": []},  # a column has it
    )


def _variants(model: Model, data: Embedded) -> Iterator[tuple[str, Model]]:
    """Yield the model with each target in turn, by name."""
    for levelling in LEVELLINGS:
        yield f"DSQ, levelling {levelling:g}", toward_class(model, data, levelling)
    yield PLAIN, dataclasses.replace(model, encoder=Encoder(model.codebooks))


def _of_unseen(data: Collection, unseen: set[str]) -> np.ndarray:
    return np.array([unseen.issuperset(item.labels) for item in data.query_items])


def _means(name: str, both: list[np.ndarray], of_unseen: list[np.ndarray]) -> list[object]:
    """Return a row: the mean over unseen and over seen classes, of each set of queries."""
    means = [
        float(ap[mask].mean())
        for ap, unseen in zip(both, of_unseen, strict=False)
        for mask in (unseen, ~unseen)
    ]
    return [name, *means, *[None] * (4 - len(means))]


def _by_class(data: Collection, unseen: np.ndarray, less_Q: np.ndarray) -> tuple[int, int, str]:
    """Queries of one class are alike: how many classes gain, and the mean over classes."""
    classes: dict[str, list[float]] = {}
    for position in np.flatnonzero(unseen):
        label = min(data.query_items[position].labels)
        classes.setdefault(label, []).append(float(less_Q[position]))
    means = np.array([np.mean(them) for them in classes.values()])
    return int((means > 0).sum()), len(means), mean_and_interval(means)


def mean_and_interval(values: np.ndarray) -> str:
    """The mean and its 95 % interval by Student's t: resamples of three classes say nothing."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:+.4f}, no interval"
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _difference(first: np.ndarray, second: np.ndarray) -> tuple[str, str]:
    result = paired_bootstrap(first, second)
    interval = f"{result.difference:+.4f} [{result.low:+.4f}, {result.high:+.4f}]"
    return interval, "yes" if result.at_or_above else "no"


def _to_choose(data: Embedded) -> Collection:
    """Validation images and some of the unseen classes' database images, and the rest of it."""
    items, split = data.items, data.split
    unseen = set(split.unseen_classes)
    others = np.array([i for i in split.database if unseen.issuperset(items[i].labels)])
    others = others[shuffled(key_hashes(items[i].key for i in others), 0)[:CHOOSING]]
    asked = np.union1d(split.validation, others)
    rest = np.setdiff1d(split.database, asked)
    return collection(items, data.vectors_ND, asked, rest, split.training)


if __name__ == "__main__":
    main()
