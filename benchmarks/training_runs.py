"""Trainings and rankings that the CIFAR-10 and Tiny-ImageNet scripts share."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embeddings import RUNS, label_matrix
from requantize import requantize
from spherequant import Codebooks, Model, TrainConfig, train
from spherequant.evaluation import CodeRanker, FloatRanker, Ranked, rank_baselines, rank_queries
from spherequant.quantizer import Encoder
from spherequant.training.centres import centres_of
from spherequant.training.recipe import choose_backbone, resolve
from spherequant.training.sharpness import MOST_SEARCHED, LabelledVectors, choose_sharpness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embeddings import Embedded
    from spherequant.evaluation.embeddings import Collection
    from spherequant.training import TrainEvent

NO_RANKS = np.zeros(0, np.int64)
# What a table calls FAISS's codes under other scores than the inner product.
SCORES = {"cosine": ", by cosine", "euclidean": ", by Euclidean distance"}


def say(event: TrainEvent) -> None:
    """Print a line at the end of each epoch."""
    if event.stage != "train" or event.step * event.epochs % event.steps == 0:
        terms = " ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
        if event.stage == "decode":
            return
        print(
            f"{event.stage} epoch {event.epoch}/{event.epochs} {terms} "
            f"{event.images_per_second:.0f} images/s",
            file=sys.stderr,
            flush=True,
        )


def trained(name: str, source: str, config: TrainConfig) -> Model:
    """Train, or load what an earlier run of the script trained with the same settings.

    Settings left to the defaults are compared as the defaults now resolve them.
    """
    folder = RUNS / name
    if (folder / "model.json").exists():
        model = Model.load(folder)
        sized = dataclasses.replace(config, image_size=model.config.image_size)
        wanted = resolve(
            choose_backbone(sized, labelled=True, typical_side=sized.image_size),
            images=model.summary["images"],
            classes=len(model.classes),
            bf16_pays=model.config.precision == "bfloat16",
        )
        if model.config != wanted:
            sys.exit(f"{folder} was trained with other settings: remove it")
        return model
    print(f"training {folder}", file=sys.stderr, flush=True)
    return train(source, config, out=folder, report=say)


def setting(*models: Model) -> dict[str, Any]:
    """Return what results.record tells of trainings that differ in their seeds only."""
    config = models[0].config
    return {
        "epochs": config.epochs,
        "image_size": config.image_size,
        # Models from before there was a margin do not tell of one.
        "margin": max(config.softmax_margin, 0.0),
        "sharpness": sorted(
            {
                target.sharpness
                for target in (model.encoder.target for model in models)
                if target is not None and target.pull > 0
            }
        ),
        "seeds": [model.config.seed for model in models],
    }


def control_rows(figures: dict[str, Any]) -> list[list[Any]]:
    """Return rows of a report: the codes, and what every report sets beside them."""
    return [
        ["DSQ, mAP", figures["map"]],
        ["float embeddings", figures["float_map"]],
        ["class-id", figures["class_id_map"]],
        ["class centre", figures["class_centre_map"]],
        ["expected centre, not compressed", figures["expected_centre_map"]],
        ["DSQ, by cosine", figures["cosine_map"]],
        ["DSQ, by Euclidean distance", figures["euclidean_map"]],
    ]


def of_length(model: Model, data: Embedded, bits: int) -> Model:
    """Return the model, or its frozen network with codes of another length."""
    if bits == model.bits or model.encoder.target is None:
        return model
    labels, centres_CD = map(torch.from_numpy, (data.labels_TC, model.class_centres.copy()))
    centres = centres_of(labels, centres_CD, normalised=model.normalised).numpy()
    return requantize(model, data.collection.training, centres, bits)


def rank_codes(model: Model, collection: Collection) -> Ranked:
    """Rank the database's codes for every query."""
    codes_NM = model.encode_vectors(collection.database)
    return rank_with(model.codebooks, codes_NM, collection)


def rank_by_scores(model: Model, collection: Collection) -> Mapping[str, Ranked]:
    """Rank the database's codes by each score: ``codes``, ``cosine`` and the third."""
    codes_NM = model.encode_vectors(collection.database)
    ranker = CodeRanker(model.codebooks, codes_NM, collection.queries, normalised=model.normalised)
    return rank_queries(ranker, collection.relevance, at=None, ranks=NO_RANKS)


def rank_with(codebooks: Codebooks, codes_NM: np.ndarray, collection: Collection) -> Ranked:
    """Rank given codes for every query."""
    ranker = CodeRanker(codebooks, codes_NM, collection.queries, every_measure=False)
    return rank_queries(ranker, collection.relevance, at=None, ranks=NO_RANKS)["codes"]


def rank_floats(collection: Collection) -> Ranked:
    """Rank the embeddings themselves."""
    ranker = FloatRanker(collection.database, collection.queries)
    return rank_queries(ranker, collection.relevance, at=None, ranks=NO_RANKS)["float"]


def expected_centres(model: Model, collection: Collection) -> Collection:
    """Return the collection with what the classifier alone says of each database image."""
    target = model.encoder.target
    if target is None:
        raise SystemExit("a model without labels expects no centre")
    return dataclasses.replace(collection, database=target.centre(collection.database))


def toward_class(model: Model, data: Embedded, levelling: float = 0.0) -> Model:
    """Return the model with what DSQ encodes as its target, whatever its own objective encodes.

    The sharpness is chosen as a training does, by validation images.
    """
    target = model.encoder.target
    if target is None:
        raise SystemExit("a model without labels expects no centre")
    sample = np.random.default_rng(0).permutation(len(data.labels_TC))[:MOST_SEARCHED]
    validation = data.split.validation
    pulled = dataclasses.replace(target, pull=TrainConfig().pull, levelling=levelling)
    sharpness = choose_sharpness(
        pulled,
        LabelledVectors(data.collection.training[sample], data.labels_TC[sample]),
        LabelledVectors(data.vectors_ND[validation], label_matrix(data.items, validation, model)),
        normalised=model.normalised,
    )
    encoder = Encoder(model.codebooks, dataclasses.replace(pulled, sharpness=sharpness))
    return dataclasses.replace(model, encoder=encoder)


def baseline_rows(figures: dict[str, Any]) -> list[tuple[str, float | None]]:
    """Return FAISS's quantizers of a report, under every score of those with codebooks."""
    rows: list[tuple[str, float | None]] = []
    for name, value in figures["baselines"].items():
        scores = figures["baselines_by_score"].get(name, {"inner_product": value})
        rows += [(faiss_title(name, score), found) for score, found in scores.items()]
    return rows


def faiss_title(name: str, score: str = "inner_product") -> str:
    """Return what tables call a baseline."""
    return f"FAISS {name.upper()}{SCORES.get(score, '')}"


def rank_faiss(collection: Collection, bits: int) -> dict[str, Ranked]:
    """Rank FAISS's product and residual quantizers, learned from the training vectors."""
    return rank_baselines(
        collection.training, collection.database, collection.queries, collection.relevance, bits
    )


def rank_class_centres(
    model: Model, collection: Collection, ranks: np.ndarray = NO_RANKS
) -> Ranked:
    """Rank the centre of each item's predicted class: the control that is hardest to beat."""
    centres_ND = model.class_centres[model.predict(collection.database).argmax(axis=1)]
    ranker = FloatRanker(centres_ND, collection.queries)
    return rank_queries(ranker, collection.relevance, at=None, ranks=ranks)["float"]


def database_accuracy(model: Model, data: Embedded) -> float:
    """Return the share of training images whose class the model predicts."""
    predicted = model.predict(data.collection.training).argmax(axis=1)
    return float((predicted == data.labels_TC.argmax(axis=1)).mean())
