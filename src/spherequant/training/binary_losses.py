"""Losses of two binary methods of the field, each a pure function of the continuous code.

A code has K bits, the signs of the continuous code. Means over the batch stand where the papers
print sums.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def central_similarity_loss(logits_BK: Tensor, centre_BK: Tensor) -> Tensor:
    """Central similarity (CSQ; Yuan et al., CVPR 2020): bits near those of the hash centre.

    ``-1/K Σ_k [ t_k log h_k + (1 - t_k) log(1 - h_k) ]``, averaged over the batch, with
    ``h = sigmoid(logits)`` and t = (1 + centre) / 2.

    Args:
        logits_BK: float32, what the sigmoid is taken of.
        centre_BK: float32 of +1 and -1, the hash centre of each image.

    Returns:
        float32 scalar, nats a bit.
    """
    return functional.binary_cross_entropy_with_logits(logits_BK, (1 + centre_BK) / 2)


def sign_quantization_loss(logits_BK: Tensor) -> Tensor:
    """Quantization (CSQ; Yuan et al., CVPR 2020): outputs near 0 or 1.

    ``1/K Σ_k log cosh( |2 h_k - 1| - 1 )``, averaged over the batch, with ``h = sigmoid(logits)``,
    so that ``2 h - 1 = tanh(logits / 2)``.

    Args:
        logits_BK: float32, what the sigmoid is taken of.

    Returns:
        float32 scalar.
    """
    missing_BK = 1 - torch.tanh(logits_BK / 2).abs()
    # log cosh x = x + log(1 + exp(-2x)) - log 2, for x >= 0 without overflow or cancellation.
    smooth_BK = missing_BK + functional.softplus(-2 * missing_BK) - math.log(2)
    return smooth_BK.mean()


def orthogonal_target_loss(
    z_BK: Tensor,
    targets_CK: Tensor,
    labels_BC: Tensor,
    scale: float,
    margin: float,
) -> Tensor:
    """One cosine loss towards binary targets (OrthoHash; Hoe et al., NeurIPS 2021).

    ``-log( exp(s (cos_y - m)) / (exp(s (cos_y - m)) + Σ_{c != y} exp(s cos_c)) )``, averaged over
    the batch; ``cos_c`` is the cosine of the continuous code and the target of class c. Several
    labels share a mass of one, and each has the margin.

    Args:
        z_BK: float32, continuous codes after batch normalisation, rows of length one.
        targets_CK: float32, binary targets, rows of length one.
        labels_BC: bool, at least one label a row.
        scale: s.
        margin: m.

    Returns:
        float32 scalar, nats.
    """
    labels = labels_BC.to(z_BK.dtype)
    cosines_BC = functional.linear(z_BK, targets_CK)
    masses_BC = labels / labels.sum(dim=1, keepdim=True)
    return functional.cross_entropy(scale * (cosines_BC - margin * labels), masses_BC)
