"""Without labels: features of a pretrained backbone, projected and quantized as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spherequant.embedding.network import over_batches
from spherequant.errors import InputError

if TYPE_CHECKING:
    from spherequant.embedding import EmbeddingNetwork, Preprocessing

# Enough for 256 features' covariance and for 256 codewords; more changes little.
LEARNING_SAMPLE = 100_000
_ROWS_AT_ONCE = 8192  # whose float64 copies are held
_ROUNDING = 1e-10  # of the largest variance: what float32 features leave where nothing varies


def backbone_features(
    network: EmbeddingNetwork,
    preprocessing: Preprocessing,
    pixels_NSS3: np.ndarray,
    *,
    batch: int,
    mirror: bool,
) -> np.ndarray:
    """Return the backbone's features of prepared images: float32 [N, F].

    Args:
        network: in evaluation mode.
        preprocessing: the one that prepared the pixels.
        pixels_NSS3: uint8.
        batch: images in each pass.
        mirror: take the mean with the mirrored image's features.
    """
    projection = network.projection

    def features(images: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = network.backbone(images).float()
        return (value + network.backbone(images.flip(3)).float()) / 2 if mirror else value

    device = projection.weight.device
    return over_batches(
        features, projection.in_features, preprocessing, pixels_NSS3, device, batch=batch
    )


def fit_projection(network: EmbeddingNetwork, features_NF: np.ndarray) -> None:
    """Set the projection to the features' principal directions, centred.

    Directions in which the images do not differ, as where they are fewer than dimensions, are rows
    of zeros: they add nothing to an embedding.

    Args:
        network: its projection and centring are set; its backbone stays.
        features_NF: float32.

    Raises:
        InputError: all images have the same features, or features are not numbers.
    """
    if not np.isfinite(features_NF).all():
        raise InputError(
            "the backbone's features are not all numbers: its weights are damaged, or not of it"
        )
    mean = features_NF.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((features_NF.shape[1], features_NF.shape[1]))
    for start in range(0, len(features_NF), _ROWS_AT_ONCE):
        centred = features_NF[start : start + _ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    covariance /= max(len(features_NF) - 1, 1)
    variance, directions = np.linalg.eigh(covariance)
    dim = network.projection.out_features
    leading = np.argsort(variance)[::-1][:dim]
    if variance[leading[0]] <= 1e-12:
        raise InputError(
            "all images look the same to the backbone: at least two different ones are needed"
        )
    rows = np.zeros((dim, features_NF.shape[1]))
    varying = variance[leading] > _ROUNDING * variance[leading[0]]
    rows[: len(leading)][varying] = directions[:, leading[varying]].T
    with torch.no_grad():
        network.projection.weight.copy_(torch.from_numpy(rows))
        network.projection.bias.copy_(torch.from_numpy(-rows @ mean))
        # Nothing is left to centre: with statistics at their start it only scales, which
        # normalisation undoes.
        network.centring.reset_running_stats()
