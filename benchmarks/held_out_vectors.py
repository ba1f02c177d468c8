"""Unit vectors to learn codebooks from, and others to judge them by: of CIFAR-10's two splits.

Two kinds: embeddings of a network that was trained on the same classes, and principal components
of a pretrained network's features, which knows nothing of them. Making them takes minutes, so they
are kept in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

import results
from embeddings import RUNS, embedded
from spherequant import Model
from spherequant.embedding import EmbeddingNetwork, create_backbone
from spherequant.images import Item, Skip, Source, make_split, open_source, stream
from spherequant.quantizer import normalise_rows
from spherequant.training.unsupervised import backbone_features, fit_projection

if TYPE_CHECKING:
    from pathlib import Path

    from spherequant.embedding import Preprocessing

WEIGHTS = "mobilenetv2_100.tf_in1k"
IMAGE_SIZE = 64
FROZEN_DIM = 256
PROTOCOL = "cifar10-full"

Array = npt.NDArray[np.float32]


class Vectors(NamedTuple):
    """Unit rows of the 50,000 training and the 10,000 test images, and the labels of both."""

    training: Array
    held_out: Array
    training_labels: npt.NDArray[np.str_]
    held_out_labels: npt.NDArray[np.str_]


def of_kind(kind: str, folder: Path, run: str) -> Vectors:
    """The vectors of a kind, ``supervised`` or ``frozen``; the second are kept in the folder."""
    return frozen(folder / "frozen.npz") if kind == "frozen" else supervised(run)


def supervised(run: str) -> Vectors:
    """Embeddings by the network of a run: unit rows of the model's D."""
    data = embedded(Model.load(RUNS / run), _source()).collection
    return Vectors(
        data.database, data.queries, _labels(data.database_items), _labels(data.query_items)
    )


def frozen(kept: Path) -> Vectors:
    """Principal components of a pretrained MobileNetV2's features: unit rows of 256 values."""
    if not kept.exists():
        folder = results.data_file("SPHEREQUANT_WEIGHTS", WEIGHTS)
        backbone, features, preprocessing, _ = create_backbone(
            f"local-dir:{folder}", "pretrained", IMAGE_SIZE
        )
        network = EmbeddingNetwork(backbone, features, FROZEN_DIM).eval()
        with open_source(_source()) as source:
            split = make_split(source.items, PROTOCOL)
            items = [[source.items[i] for i in part] for part in (split.database, split.queries)]
            training_NF, held_out_NF = (
                backbone_features(
                    network, preprocessing, _pixels(source, part, preprocessing),
                    batch=64, mirror=False,
                )
                for part in items
            )  # fmt: skip
        fit_projection(network, training_NF)
        training, held_out = (_projected(network, part) for part in (training_NF, held_out_NF))
        _keep(kept, training, held_out, items[0], items[1])
    return _kept(kept)


def _projected(network: EmbeddingNetwork, features_NF: Array) -> Array:
    with torch.inference_mode():
        return normalise_rows(network.projection(torch.from_numpy(features_NF)).numpy())


def _source() -> str:
    return str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))


def _pixels(
    source: Source, items: list[Item], preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    pixels = []
    for read in stream(source, items, lambda _, image: preprocessing.prepare(image)):
        if isinstance(read, Skip):
            raise SystemExit(f"{read.path}: {read.reason}: no benchmark")
        pixels.append(read[1])
    return np.stack(pixels)


def _keep(
    path: Path,
    training: Array,
    held_out: Array,
    training_items: list[Item],
    held_out_items: list[Item],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, training, held_out, _labels(training_items), _labels(held_out_items))


def _labels(items: list[Item]) -> npt.NDArray[np.str_]:
    return np.array([item.labels[0] for item in items])


def _kept(path: Path) -> Vectors:
    with np.load(path) as file:
        return Vectors(*(file[f"arr_{i}"] for i in range(len(Vectors._fields))))
