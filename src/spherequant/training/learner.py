"""The modules that are trained, and the optimizer and averaging that train them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from spherequant.embedding import EmbeddingNetwork
    from spherequant.training.config import TrainConfig

# Shifts of batch normalisation learn best at a higher rate than filters (Jordan,
# arXiv:2404.00498, sec. 3.4); decay falls by the same factor, so its product stays.
_SHIFT_RATE = 16.0
# The classifier's gradients are as long as z, those of the filters s times that.
_HEAD_RATE = 8.0
# A pretrained backbone moves slowly; what is new beside it starts from nothing.
_NEW_LAYER_RATE = 10.0


class Learner(nn.Module):
    """Network and classifier: what the objective's gradients reach.

    Args:
        network: images to the unit sphere.
        classes: C.
        dim: D.
        scale: s, the length that the classifier's rows start with.
        targets: float32 [C, D], rows that the classifier has and keeps; None learns them.
        raw: give what the network normalises, not z.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        classes: int,
        dim: int,
        scale: float,
        *,
        targets: torch.Tensor | None = None,
        raw: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.raw = network, raw
        learned = targets is None
        if targets is None:
            targets = nn.init.orthogonal_(torch.empty(classes, dim))
        rows = scale * functional.normalize(targets)
        self.weight = nn.Parameter(rows, requires_grad=learned)
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=learned)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return z: float32 [B, D], of length one where normalised; or the centred projection."""
        given: torch.Tensor = self.network.project(images) if self.raw else self.network(images)
        return given


def make_optimizer(learner: Learner, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer with a group for each kind of parameter."""
    rate, decay = config.learning_rate, config.weight_decay
    classifier = [p for p in (learner.weight, learner.bias) if p.requires_grad]
    head = {"params": classifier, "weight_decay": 0.0}
    shifts, filters = _trainable(learner.network)
    if config.optimizer == "sgd":
        groups = [
            {"params": shifts, "lr": rate * _SHIFT_RATE, "weight_decay": decay / _SHIFT_RATE},
            {"params": filters, "lr": rate, "weight_decay": decay},
            {**head, "lr": rate * _HEAD_RATE},
        ]
        return torch.optim.SGD(groups, lr=rate, momentum=0.85, nesterov=True)
    network = learner.network
    fresh = [p for module in (network.projection, network.centring) for p in module.parameters()]
    new = [p for p in fresh if p.requires_grad]
    known = set(new)
    groups = [
        {"params": [p for p in shifts if p not in known], "lr": rate, "weight_decay": 0.0},
        {"params": [p for p in filters if p not in known], "lr": rate, "weight_decay": decay},
        {"params": new, "lr": rate * _NEW_LAYER_RATE},
        {**head, "lr": rate * _NEW_LAYER_RATE},
    ]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)


def _trainable(network: EmbeddingNetwork) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return shifts and scales (one number a channel), and filters."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [p for p in trained if p.ndim < 2], [p for p in trained if p.ndim >= 2]


def rate_factor(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up for a fifth, then down to 3 %."""
    done = step / max(steps, 1)
    if done < 0.2:
        return 0.2 + 0.8 * done / 0.2
    return 1.0 - 0.97 * (done - 0.2) / 0.8


def make_average(learner: Learner, steps_per_epoch: int) -> AveragedModel:
    """Return a running mean of the weights, about half an epoch long: it is what is kept."""
    decay = min(0.999, max(0.5, 1.0 - 2.0 / max(steps_per_epoch, 1)))
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own
    return AveragedModel(learner, multi_avg_fn=average, use_buffers=True)
