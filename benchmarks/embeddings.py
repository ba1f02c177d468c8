"""The images of a protocol as one network embeds them, kept on disk for the next script."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spherequant.evaluation.embeddings import Collection, embed_source
from spherequant.evaluation.rankings import Relevance
from spherequant.images import make_split, open_source

if TYPE_CHECKING:
    from spherequant import Model
    from spherequant.images import Item, Source, Split

RUNS = Path("results")


@dataclass(frozen=True, slots=True)
class Embedded:
    """All images of a source as one network embeds them, divided by its protocol.

    Attributes:
        items: of the source.
        vectors_ND: float32, in the order of the items.
        split: what the protocol makes of them.
        collection: its queries, database, training vectors and relevance.
        labels_TC: bool, the given labels of the training vectors.
        seconds: to embed everything, or to read what was kept.
    """

    items: list[Item]
    vectors_ND: np.ndarray
    split: Split
    collection: Collection
    labels_TC: np.ndarray
    seconds: float


def embedded(model: Model, source_path: str) -> Embedded:
    """Embed all images of a source, or read what an earlier script kept.

    Vectors are kept below results/embedded, under the model's fingerprint and the images' keys.

    Args:
        model: whose network and protocol are used.
        source_path: of images that can all be read.
    """
    begun = time.perf_counter()
    with open_source(source_path) as source:
        items = list(source.items)
        vectors_ND = _vectors(model, source)
    split = make_split(items, model.config.protocol, model.config.split_seed)
    asked = np.array([i for i in split.queries if items[i].labels], np.int64)
    return Embedded(
        items,
        vectors_ND,
        split,
        collection(items, vectors_ND, asked, split.database, split.training),
        label_matrix(items, split.training, model),
        time.perf_counter() - begun,
    )


def collection(
    items: list[Item],
    vectors_ND: np.ndarray,
    queries: np.ndarray,
    database: np.ndarray,
    training: np.ndarray,
) -> Collection:
    """Return some images, by their positions, as queries, others as the database."""
    asked, searched = ([items[i] for i in positions] for positions in (queries, database))
    return Collection(
        query_items=asked,
        database_items=searched,
        queries=vectors_ND[queries],
        database=vectors_ND[database],
        training=vectors_ND[training],
        relevance=Relevance([item.labels for item in asked], [item.labels for item in searched]),
        skips=(),
    )


def with_queries(data: Collection, count: int) -> Collection:
    """Return the collection with so many of its queries, spread evenly over them."""
    chosen = np.linspace(0, len(data.queries) - 1, min(count, len(data.queries))).astype(np.int64)
    items = [data.query_items[i] for i in chosen]
    relevance = Relevance(
        [item.labels for item in items], [item.labels for item in data.database_items]
    )
    return dataclasses.replace(
        data, query_items=items, queries=data.queries[chosen], relevance=relevance
    )


def _vectors(model: Model, source: Source) -> np.ndarray:
    digest = hashlib.sha256(model.fingerprint.encode())
    digest.update("\n".join(item.key for item in source.items).encode())
    file = RUNS / "embedded" / f"{digest.hexdigest()[:16]}.npy"
    if file.exists():
        return np.asarray(np.load(file, allow_pickle=False))
    made = embed_source(model, source, np.arange(len(source.items)), None)
    if made.skips:
        sys.exit(f"{len(made.skips)} images could not be read: no benchmark")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part.npy")
    np.save(draft, made.vectors)
    draft.replace(file)
    return made.vectors


def label_matrix(items: list[Item], positions: np.ndarray, model: Model) -> np.ndarray:
    """Return which of some images has which of the model's classes: bool [N, C]."""
    column = {label: position for position, label in enumerate(model.classes)}
    labels = np.zeros((len(positions), len(model.classes)), bool)
    for row, position in enumerate(positions):
        labels[row, [column[label] for label in items[position].labels]] = True
    return labels
