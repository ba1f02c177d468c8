"""Class centres φ: class means of the embeddings, from exact sums, normalised as those are."""

from __future__ import annotations

import torch
from torch.nn import functional

_ROWS = 8_192  # whose labels are held as numbers at once


class CentreSums:
    """Sums of embeddings a class, in float64; they add up over batches and over machines.

    Args:
        classes: C.
        dim: D.
        device: where the sums are kept.
        normalised: whether embeddings have length one.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        device: torch.device | str = "cpu",
        *,
        normalised: bool = True,
    ) -> None:
        self.normalised = normalised
        self.sums_CD = torch.zeros(classes, dim, dtype=torch.float64, device=device)
        self.counts_C1 = torch.zeros(classes, 1, dtype=torch.float64, device=device)

    def add(self, z_BD: torch.Tensor, labels_BC: torch.Tensor) -> None:
        """Add each embedding to the sum of each of its labels.

        Args:
            z_BD: float.
            labels_BC: bool.
        """
        for start in range(0, len(z_BD), _ROWS):
            rows = slice(start, start + _ROWS)
            labels = labels_BC[rows].to(torch.float64)
            self.sums_CD += labels.T @ z_BD[rows].detach().to(torch.float64)
            self.counts_C1 += labels.sum(dim=0)[:, None]

    def centres(self) -> torch.Tensor:
        """Return φ: float32 [C, D]; of length one where embeddings are, zero without images."""
        if self.normalised:
            return functional.normalize(self.sums_CD).to(torch.float32)
        return (self.sums_CD / self.counts_C1.clamp(min=1)).to(torch.float32)


def centres_of(
    labels_BC: torch.Tensor, centres_CD: torch.Tensor, *, normalised: bool = True
) -> torch.Tensor:
    """Return φ_y of each image: for several labels the mean of their centres.

    Args:
        labels_BC: bool, at least one label a row.
        centres_CD: float32.
        normalised: divide the mean by its length.

    Returns:
        float32 [B, D].
    """
    centres_BD = centres_CD.new_empty(len(labels_BC), centres_CD.shape[1])
    for start in range(0, len(labels_BC), _ROWS):
        rows = slice(start, start + _ROWS)
        labels = labels_BC[rows].to(centres_CD.dtype)
        sums = labels @ centres_CD
        centres_BD[rows] = (
            functional.normalize(sums) if normalised else sums / labels.sum(1)[:, None]
        )
    return centres_BD
