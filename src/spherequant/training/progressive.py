"""Smaller images first: most of what is learned early is learned from fewer pixels as well.

Progressive resizing, as Tan & Le do it (*EfficientNetV2*, arXiv:2104.00298, sec. 4), with two steps
before the full size. A step costs with the square of the side: two thirds of the epochs seen so
leave time for half as many again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.nn import functional

from spherequant.embedding.backbone import SMALLEST

if TYPE_CHECKING:
    import torch

_STEPS = (0.5, 0.75)  # of the full side, for equal shares of the epochs
_MULTIPLE = 8  # backbones halve the side several times


def side_at(epoch: int, epochs: int, size: int, share: float) -> int:
    """Return the side of the images that an epoch sees, in pixels: in the last the full one.

    Args:
        epoch: counted from 0, of so many.
        epochs: in the whole training.
        size: the full side.
        share: of the epochs, the first ones, that see smaller images; below 1.
    """
    for step, factor in enumerate(_STEPS, 1):
        # Rounded down, but for what floating point leaves off a whole number of epochs.
        smaller = int(share * epochs * step / len(_STEPS) + 1e-9)
        if epoch < min(smaller, epochs - 1):
            return min(size, max(SMALLEST, int(factor * size) // _MULTIPLE * _MULTIPLE))
    return size


def pixels_seen(done: float, epochs: int, size: int, share: float) -> float:
    """Return the pixels that each image has been seen with so far: what the time goes with.

    Args:
        done: how many epochs, in parts too, of so many.
        epochs: in the whole training.
        size: the full side.
        share: of the epochs, the first ones, that see smaller images; below 1.
    """
    areas = [side_at(epoch, epochs, size, share) ** 2 for epoch in range(epochs)]
    return float(np.interp(done, np.arange(epochs + 1), np.cumsum([0, *areas])))


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images of that side: each pixel an average of those that it replaces.

    Args:
        images: float32 [B, 3, S, S].
        side: at most S.

    Returns:
        float32 [B, 3, side, side], the images themselves where nothing changes.
    """
    if images.shape[-1] == side:
        return images
    return functional.interpolate(
        images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
