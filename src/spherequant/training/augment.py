"""Augmentation of a batch, driven by given uniform numbers: the same numbers, the same pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

# pixels uint8 [B, S, S, 3], uniform numbers float64 [B, NUMBERS], epoch -> uint8 or float32
# [B, S, S, 3] in [0, 255]
Augmentation = Callable[[np.ndarray, np.ndarray, int], torch.Tensor]

NUMBERS = 12  # uniform numbers that an image gets in each epoch


def augmentation(kind: str) -> Augmentation:
    """Return the augmentation of that name: ``none``, ``shift`` or ``crop``."""
    return {"none": _none, "shift": shift, "crop": crop}[kind]


def _none(pixels: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:  # noqa: ARG001  # one signature for all kinds
    return torch.from_numpy(pixels)


def shift(pixels: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:
    """Mirror every second epoch and shift by at most a sixteenth of the side.

    Each image is mirrored in every other epoch, beginning at random: within two epochs both sides
    are seen once, which learns faster than a coin each time (Jordan, arXiv:2404.00498, sec. 3.6).
    The border is filled by reflection.

    Args:
        pixels: uint8 [B, S, S, 3].
        numbers: float64 [B, NUMBERS]; the first must not change with the epoch.
        epoch: counted from 0.

    Returns:
        uint8 [B, S, S, 3].
    """
    size = pixels.shape[1]
    reach = max(1, size // 16)
    down, right = ((numbers[:, i] * (2 * reach + 1)).astype(np.int64) - reach for i in (1, 2))
    mirrored = (numbers[:, 0] < 0.5) ^ (epoch % 2 == 1)
    rows = _reflected(np.arange(size) + down[:, None], size)
    columns = _reflected(np.arange(size) + right[:, None], size)
    columns = np.where(mirrored[:, None], size - 1 - columns, columns)
    # One gather of whole pixels, in torch's threads: padding and cutting in NumPy took a third of
    # the time of a step of `small`.
    places = (np.arange(len(pixels))[:, None, None] * size + rows[:, :, None]) * size
    places = torch.from_numpy(places + columns[:, None, :])
    whole = torch.from_numpy(pixels).reshape(-1, 3)
    return whole.index_select(0, places.flatten()).reshape(pixels.shape)


def mirror(pixels: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:
    """Mirror every second epoch, and change nothing else; arguments as for ``shift``."""
    still = np.full_like(numbers, 0.5)
    still[:, 0] = numbers[:, 0]
    return shift(pixels, still, epoch)


def _reflected(places: np.ndarray, size: int) -> np.ndarray:
    """Return places with those outside [0, size) reflected at the border pixel."""
    places = np.abs(places)
    return np.where(places >= size, 2 * (size - 1) - places, places)


def crop(pixels: np.ndarray, numbers: np.ndarray, epoch: int) -> torch.Tensor:
    """Mirror, cut a random rectangle, change the light, and erase a random square.

    The usual treatment of photographs (random resized crop, colour jitter, random erasing) for a
    whole batch at once.

    Args:
        pixels: uint8 [B, S, S, 3].
        numbers: float64 [B, NUMBERS].
        epoch: counted from 0.

    Returns:
        float32 [B, S, S, 3] in [0, 255].
    """
    u = torch.from_numpy(numbers).to(torch.float32)
    mirrored = torch.where((u[:, 0] < 0.5) ^ (epoch % 2 == 1), -1.0, 1.0)
    # Area from 0.5 to 1 of the image, ratio of the sides from 3/4 to 4/3.
    area = 0.5 + 0.5 * u[:, 1]
    ratio = torch.exp((u[:, 2] * 2 - 1) * math.log(4 / 3) / 2)
    width, height = area.sqrt() * ratio, area.sqrt() / ratio
    # The rectangle stays inside where it fits; else what lies outside is a reflection.
    across = (u[:, 3] * 2 - 1) * (1 - width).abs()
    down = (u[:, 4] * 2 - 1) * (1 - height).abs()
    zero = torch.zeros_like(width)
    affine = torch.stack(
        [
            torch.stack([width * mirrored, zero, across], dim=1),
            torch.stack([zero, height, down], dim=1),
        ],
        dim=1,
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    images = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _erase(_relight(images, u), u).permute(0, 2, 3, 1)


def _relight(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and colour each times 0.7 to 1.3."""
    brightness, contrast, colour = (0.7 + 0.6 * u[:, i, None, None, None] for i in (5, 6, 7))
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * colour).clamp(0, 255)


def _erase(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Grey out a square of half the side, around a random place, in half of the images."""
    size = images.shape[-1]
    places = torch.arange(size)
    half = size / 4
    rows = (places[None, :] - u[:, 9, None] * size).abs() < half
    columns = (places[None, :] - u[:, 10, None] * size).abs() < half
    erased = (u[:, 8] < 0.5)[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(erased[:, None], 127.5, images)
