"""The objectives whose codes are signs: what stands in the place of softmax and quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spherequant.training.binary_losses import (
    central_similarity_loss,
    orthogonal_target_loss,
    sign_quantization_loss,
)
from spherequant.training.hash_centres import hash_centres, hash_centres_of
from spherequant.training.randomness import seed_for

if TYPE_CHECKING:
    from spherequant.training.config import TrainConfig

# The projection has variance one, so that a sigmoid of it alone would stay near 1/2. The method
# has no normalisation there, and finds its own scale.
LOGIT_GAIN = 4.0


class BinaryTerms:
    """The terms of one objective, by the targets of its classes.

    Args:
        config: resolved, with a binary objective.
        classes: C.
        device: of the training.
    """

    def __init__(
        self, config: TrainConfig, classes: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.targets_CK = class_targets(config, classes).to(device)
        tie_1K = hash_centres(1, config.bits, seed_for("majority", config.seed))
        self._tie_K = torch.from_numpy(tie_1K[0]).to(device)

    def __call__(self, code_BK: torch.Tensor, labels_BC: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms by name.

        Args:
            code_BK: float32, what the learner gives: for ``csq`` the centred projection, for
                ``orthohash`` z.
            labels_BC: bool.
        """
        if self.config.objective == "csq":
            logits_BK = LOGIT_GAIN * code_BK
            centre_BK = hash_centres_of(labels_BC, self.targets_CK, self._tie_K)
            return {
                "central": central_similarity_loss(logits_BK, centre_BK),
                "quantization": sign_quantization_loss(logits_BK),
            }
        unit_CK = self.targets_CK / self.config.bits**0.5
        scale, margin = self.config.softmax_scale, self.config.softmax_margin
        return {"orthogonal": orthogonal_target_loss(code_BK, unit_CK, labels_BC, scale, margin)}


def class_targets(config: TrainConfig, classes: int) -> torch.Tensor:
    """Return the binary target of each class, float32 [C, K] of +1 and -1."""
    return torch.from_numpy(
        hash_centres(classes, config.bits, seed_for("hash centres", config.seed))
    )
