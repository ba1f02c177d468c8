"""The four terms of the objective (Luo et al., TKDD 17(1), eq. 57), each a pure function.

    L = softmax + λ1 · quantization + λ2 · centre + λ3 · discriminative

Each is a mean over the batch where the paper prints a sum, so that the λ's do not depend on its
size. An image of several labels spreads its mass over them evenly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    import torch


def softmax_loss(
    z_BD: torch.Tensor,
    weight_CD: torch.Tensor,
    bias_C: torch.Tensor,
    labels_BC: torch.Tensor,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
) -> torch.Tensor:
    """Softmax on the sphere: mean of ``-Σ_c t_c log softmax(W' z + b - m 1[c is a label])[c]``.

    ``W' = s W``: the scale s is the length that the rows of W' start with. Both spell the same
    functions of z; learning W' takes steps that do not grow with s². The margin m asks more of an
    image's own classes while learning (Wang et al., *Additive Margin Softmax*, arXiv:1801.05599,
    eq. 7, where m is s times a cosine).

    Args:
        z_BD: float32, rows of length one where the network normalises.
        weight_CD: float32, the scaled classifier W'.
        bias_C: float32.
        labels_BC: bool, at least one label a row; t spreads a mass of one over them.
        label_smoothing: share of the mass that is spread over all classes.
        margin: m, by how much the logits of an image's labels are lowered.

    Returns:
        float32 scalar, nats.
    """
    labels = labels_BC.to(z_BD.dtype)
    targets = labels / labels.sum(dim=1, keepdim=True)
    logits_BC = functional.linear(z_BD, weight_CD, bias_C) - margin * labels
    return functional.cross_entropy(logits_BC, targets, label_smoothing=label_smoothing)


def quantization_loss(z_BD: torch.Tensor, reconstruction_BD: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``‖z - x̂‖²``: embeddings near their reconstructions."""
    return _mean_squared_distance(z_BD, reconstruction_BD)


def centre_loss(z_BD: torch.Tensor, centre_BD: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``‖z - φ_y‖²``: embeddings near the centre of their class."""
    return _mean_squared_distance(z_BD, centre_BD)


def discriminative_loss(centre_BD: torch.Tensor, reconstruction_BD: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``‖φ_y - x̂‖²``: reconstructions near the centre of their class.

    The network's step sees a constant: codes, codebooks and centres stand still in it. The term
    acts where codes and codebooks are learned, through the blended target: as functions of x̂
    alone, ``λ1‖z - x̂‖² + λ3‖φ - x̂‖²`` is ``(λ1 + λ3)‖u - x̂‖²`` and a constant, with
    ``u = (λ1 z + λ3 φ) / (λ1 + λ3)``.
    """
    return _mean_squared_distance(centre_BD, reconstruction_BD)


def _mean_squared_distance(a_BD: torch.Tensor, b_BD: torch.Tensor) -> torch.Tensor:
    return (a_BD - b_BD).square().sum(dim=1).mean()
