"""How well a fresh model does on images that were kept from its training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spherequant.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spherequant.images import Limits, Source, Split
    from spherequant.training import Model

# A sample of this size has a standard error well below a point, and keeps the cost of validation
# small beside that of a training.
MOST_QUERIES, MOST_DATABASE = 2_000, 10_000


@dataclass(frozen=True, slots=True)
class Validation:
    """mAP over validation images that ask training images (all ranks, ``found``, ties averaged)."""

    map: float
    query_count: int
    database_count: int


def validate(
    model: Model, source: Source, limits: Limits, tick: Callable[[int, int], None] | None = None
) -> Validation | None:
    """Ask the training images with the validation images of the protocol that trained the model.

    Neither the protocol's queries nor the rest of its database are looked at. Large splits are
    sampled, a function of the split seed.

    Args:
        model: just trained.
        source: that it was trained on.
        limits: bounds on one image.
        tick: called with images embedded and images in all.

    Returns:
        None for a model without labels, or where no validation image is left.
    """
    from spherequant.images import make_split

    split = make_split(source.items, model.config.protocol, model.config.split_seed)
    if not model.classes or not len(split.validation):
        return None
    return ask_training_images(model, source, split, split.validation, limits, tick)


def ask_training_images(
    model: Model,
    source: Source,
    split: Split,
    positions: NDArray[np.int64],
    limits: Limits,
    tick: Callable[[int, int], None] | None = None,
) -> Validation | None:
    """Ask the training images of a split with images that are not among them.

    Args:
        model: with labels.
        source: of the split.
        split: whose training images are asked.
        positions: int64, of the images that ask, in the source; at most ``MOST_QUERIES`` of them
            are drawn, a function of the split seed.
        limits: bounds on one image.
        tick: called with images embedded and images in all.

    Returns:
        None where none of them can be read.
    """
    from spherequant.evaluation import CodeRanker, rank_queries
    from spherequant.evaluation.embeddings import embed_split

    generator = np.random.default_rng(model.config.split_seed)
    asked = dataclasses.replace(
        split,
        queries=_sample(positions, MOST_QUERIES, generator),
        database=_sample(split.training, MOST_DATABASE, generator),
    )
    try:
        images = embed_split(model, source, asked, limits, with_training=False, tick=tick)
    except LabelError:
        return None
    codes_NM = model.encode_vectors(images.database)
    ranker = CodeRanker(
        model.codebooks,
        codes_NM,
        images.queries,
        every_measure=False,
        normalised=model.normalised,
    )
    no_ranks = np.zeros(0, np.int64)
    ranked = rank_queries(ranker, images.relevance, at=None, ranks=no_ranks)["codes"]
    return Validation(
        map=float(ranked.ap.mean()),
        query_count=len(images.query_items),
        database_count=len(images.database_items),
    )


def _sample(
    positions: NDArray[np.int64], most: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    if len(positions) <= most:
        return positions
    return np.sort(generator.choice(positions, most, replace=False))
