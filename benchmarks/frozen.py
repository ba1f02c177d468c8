"""Embeddings of a frozen network, kept on disk for the scripts that only change the codes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from spherequant.evaluation import Relevance
from spherequant.evaluation.embeddings import Collection, embed_source
from spherequant.images import make_split, open_source
from training_runs import RUNS, Embedded

if TYPE_CHECKING:
    from spherequant import Model
    from spherequant.images import Item, Source, Split


def frozen(model: Model, source_path: str) -> tuple[Embedded, Split]:
    """Embed all images of a source, or read what an earlier script kept; divide by the protocol.

    Args:
        model: whose network and protocol are used.
        source_path: of images with one label each.

    Returns:
        the protocol's images as the network embeds them, and the split, of all images.
    """
    begun = time.perf_counter()
    with open_source(source_path) as source:
        items = list(source.items)
        vectors_ND = _vectors(model, source)
    split = make_split(items, model.config.protocol, model.config.split_seed)
    column = {label: position for position, label in enumerate(model.classes)}
    labels_TC = np.zeros((len(split.training), len(model.classes)), bool)
    for row, position in enumerate(split.training):
        labels_TC[row, [column[label] for label in items[position].labels]] = True
    data = collection(items, vectors_ND, split.queries, split.database, split.training)
    return Embedded(data, labels_TC, time.perf_counter() - begun), split


def collection(
    items: list[Item],
    vectors_ND: np.ndarray,
    queries: np.ndarray,
    database: np.ndarray,
    training: np.ndarray,
) -> Collection:
    """Return some images as queries, others as the database."""
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


def _vectors(model: Model, source: Source) -> np.ndarray:
    """Return float32 [N, D] in the order of the source's items."""
    path = RUNS / "frozen" / f"{model.fingerprint[:16]}-{len(source.items)}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    embedded = embed_source(model, source, np.arange(len(source.items)), None)
    if embedded.skips:
        sys.exit(f"{len(embedded.skips)} images could not be read: no benchmark")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, embedded.vectors)
    return embedded.vectors
