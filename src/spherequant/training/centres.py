"""Class centres φ: normalised class means of the embeddings, from exact sums."""

from __future__ import annotations

import torch
from torch.nn import functional


class CentreSums:
    """Sums of embeddings a class, in float64; they add up over batches and over machines.

    Args:
        classes: C.
        dim: D.
        device: where the sums are kept.
    """

    def __init__(self, classes: int, dim: int, device: torch.device | str = "cpu") -> None:
        self.sums_CD = torch.zeros(classes, dim, dtype=torch.float64, device=device)

    def add(self, z_BD: torch.Tensor, labels_BC: torch.Tensor) -> None:
        """Add each embedding to the sum of each of its labels.

        Args:
            z_BD: float, rows of length one.
            labels_BC: bool.
        """
        self.sums_CD += labels_BC.to(torch.float64).T @ z_BD.detach().to(torch.float64)

    def centres(self) -> torch.Tensor:
        """Return φ: float32 [C, D]; rows of length one, zero for a class without images."""
        return functional.normalize(self.sums_CD).to(torch.float32)


def centres_of(labels_BC: torch.Tensor, centres_CD: torch.Tensor) -> torch.Tensor:
    """Return φ_y of each image: for several labels the normalised mean of their centres.

    Args:
        labels_BC: bool, at least one label a row.
        centres_CD: float32.

    Returns:
        float32 [B, D], rows of length one.
    """
    return functional.normalize(labels_BC.to(centres_CD.dtype) @ centres_CD)
