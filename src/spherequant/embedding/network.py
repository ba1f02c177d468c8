"""Backbone, linear projection and normalisation: float [B, 3, S, S] -> the unit sphere of R^D."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spherequant.embedding.arithmetic import exact_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spherequant.embedding.preprocessing import Preprocessing


class EmbeddingNetwork(nn.Module):
    """An image becomes z, a unit vector.

    Args:
        backbone: float [B, 3, S, S] -> float [B, features].
        features: what the backbone gives for an image.
        dim: D, the dimension of the sphere's space.
        normalised: divide z by its length. False is for comparisons only: z then has a length of
            its own, in the mean of squares near one.
        shifted: learn a shift of each dimension after it was centred, for codes of signs: a bit
            that few images set lies far from the mean.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        dim: int,
        *,
        normalised: bool = True,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        self.normalised = normalised
        self.backbone = backbone
        self.projection = nn.Linear(features, dim)
        nn.init.zeros_(self.projection.bias)
        # Features are positive, so their projections share a large mean; without it taken away
        # all images start at one place of the sphere.
        self.centring = nn.BatchNorm1d(dim, affine=shifted)
        if shifted:
            self.centring.weight.requires_grad = False  # the scale stays one

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """Return the centred projection: float32 [B, D], of variance one before any shift."""
        projected: torch.Tensor = self.centring(self.projection(self.backbone(images)))
        return projected.float()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return z: float32 [B, D], rows of length one where the network normalises."""
        # The length is taken in float32 whatever the precision of the layers.
        return self._scale(self.project(images))

    def mean(self, z_BD: torch.Tensor, other_BD: torch.Tensor) -> torch.Tensor:
        """Return what stands for two embeddings of one image: float32 [B, D]."""
        if self.normalised:
            return functional.normalize(z_BD + other_BD, eps=1e-12)
        return (z_BD + other_BD) / 2

    def _scale(self, projected_BD: torch.Tensor) -> torch.Tensor:
        if self.normalised:
            return functional.normalize(projected_BD, eps=1e-12)
        return projected_BD / math.sqrt(projected_BD.shape[1])


def embed_batches(
    network: EmbeddingNetwork,
    preprocessing: Preprocessing,
    pixels_BSS3: np.ndarray,
    *,
    batch: int,
    mirror: bool,
    autocast: torch.dtype | None = None,
    fill: bool = True,
) -> np.ndarray:
    """Embed prepared images in batches of exactly one size.

    Args:
        network: in evaluation mode, on any device.
        preprocessing: the one that prepared the pixels.
        pixels_BSS3: uint8 [B, S, S, 3].
        batch: images in each pass through the network.
        mirror: take the mean with the embedding of the mirrored image, normalised if they are.
        autocast: compute in this type where torch thinks it safe; None for float32.
        fill: whether the last batch is filled; else what is left is embedded in batches of powers
            of two, and the last bits of an embedding may depend on how many came with it.

    Returns:
        float32 [B, D], rows of length one where the network normalises.
    """
    device = network.projection.weight.device

    def embed(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            z: torch.Tensor = network(images)
            return network.mean(z, network(images.flip(3))) if mirror else z

    width = network.projection.out_features
    return over_batches(embed, width, preprocessing, pixels_BSS3, device, batch=batch, fill=fill)


@torch.inference_mode()
def over_batches(
    compute: Callable[[torch.Tensor], torch.Tensor],
    width: int,
    preprocessing: Preprocessing,
    pixels_NSS3: np.ndarray,
    device: torch.device,
    *,
    batch: int,
    fill: bool = True,
) -> np.ndarray:
    """Compute a row for each prepared image, in batches of exactly one size.

    The last batch is filled with zeros: libraries choose other kernels for other batch sizes, and
    an item's embedding, hence its code, must not depend on how many came with it. What is only
    asked with need not wait for a whole batch.

    Args:
        compute: standardised images, float32 [B, 3, S, S], to float [B, width].
        width: values in a row.
        preprocessing: the one that prepared the pixels.
        pixels_NSS3: uint8.
        device: where it is computed.
        batch: images in each pass.
        fill: see ``embed_batches``.

    Returns:
        float32 [N, width].
    """
    rows = np.empty((len(pixels_NSS3), width), np.float32)
    for start, size in _passes(len(pixels_NSS3), batch, fill=fill):
        part = pixels_NSS3[start : start + size]
        filled = np.zeros((size, *part.shape[1:]), np.uint8)
        filled[: len(part)] = part
        images = preprocessing.standardise(torch.from_numpy(filled).to(device))
        with exact_float32(device):
            computed = compute(images)
        rows[start : start + len(part)] = computed[: len(part)].cpu().numpy()
    return rows


def _passes(count: int, batch: int, *, fill: bool) -> Iterator[tuple[int, int]]:
    """The first row and the size of each pass through the network."""
    start = 0
    while start < count:
        left = count - start
        size = batch if fill or left >= batch else 1 << left.bit_length() - 1
        yield start, size
        start += size
