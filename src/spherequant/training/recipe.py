"""What `auto` means: settings that suit the backbone, so that `--bits` alone is enough."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from spherequant.embedding.backbone import DEFAULT_TIMM, SMALL, SMALLEST

if TYPE_CHECKING:
    from spherequant.training.config import TrainConfig

# A training from scratch sees this many images at least: small sets get more epochs.
_SMALL_SAMPLES = 40_000
_SMALL_EPOCHS = 20
_TIMM_EPOCHS = 20
# The best on validation images (benchmarks/margin.py), where mAP was lower with both, and with
# smoothed labels alone.
_MARGIN = 0.4
_ORTHOGONAL_MARGIN = 0.2  # m of Hoe et al.
_SMOOTHING = 0.1
# Share of the epochs (benchmarks/recipe.py).
_SMALLER_FIRST = 2 / 3
# The probability that the softmax can give an image's own class, where classes lie as far apart as
# they can; what is asked beyond is left to the margin and to rows that grow.
_CERTAINTY = 0.95
# Images a batch from which on the rate stays: it suits 237 (benchmarks/recipe.py) and 512 alike
# (benchmarks/grid_constants.py).
_STEADY_BATCH = 128

# What an objective fixes: terms that it lacks have no weight, and what has no use without a
# discriminative term is off. Codes that no term of the objective knows are learned at the end.
_WITHOUT_CODES: dict[str, object] = {
    "quantization_weight": 0.0,
    "discriminative_weight": 0.0,
    "rounds": 0,
    "encode_toward_class": False,
}
_FIXED: dict[str, dict[str, object]] = {
    # The four terms as they are printed; an image's code knows nothing of a class.
    "paper": {"softmax_margin": 0.0, "label_smoothing": 0.0, "encode_toward_class": False},
    "softmax": {**_WITHOUT_CODES, "centre_weight": 0.0},
    "softmax-centre": _WITHOUT_CODES,
    "no-discriminative": {"discriminative_weight": 0.0, "encode_toward_class": False},
    # Its quantization term is one of signs.
    "csq": {
        "centre_weight": 0.0,
        "discriminative_weight": 0.0,
        "rounds": 0,
        "encode_toward_class": False,
        "softmax_margin": 0.0,
    },
    "orthohash": {**_WITHOUT_CODES, "centre_weight": 0.0},
}


def choose_backbone(config: TrainConfig, *, labelled: bool, typical_side: int) -> TrainConfig:
    """Replace ``auto`` of backbone and weights.

    Without labels nothing can be learned but the codebooks, so the backbone must be pretrained.

    Args:
        config: as given.
        labelled: whether there are classes to learn.
        typical_side: median of the images' shorter sides, in pixels.
    """
    backbone, weights = config.backbone, config.weights
    if backbone == "auto":
        backbone = SMALL if labelled and typical_side <= 64 else DEFAULT_TIMM
    if weights == "auto":
        weights = "none" if backbone == SMALL else "pretrained"
    size = config.image_size
    if backbone == SMALL and size == 0:
        # More pixels than the images have cost time and tell nothing.
        size = 16 if typical_side <= 16 else 32 if typical_side <= 40 else 64
    return dataclasses.replace(config, backbone=backbone, weights=weights, image_size=size)


def least_scale(classes: int) -> float:
    """Return the softmax scale that suits so many classes.

    The lower bound of Wang et al. (*CosFace*, arXiv:1801.09414, eq. 6): on the unit sphere, with C
    classes as far apart as they can be, a smaller one cannot give an image's own class the
    probability P: ``(C - 1) / C log((C - 1) P / (1 - P))``.
    """
    others = max(classes, 2) - 1
    return others / (others + 1) * math.log(others * _CERTAINTY / (1 - _CERTAINTY))


def resolve(config: TrainConfig, *, images: int, classes: int, bf16_pays: bool) -> TrainConfig:
    """Replace every remaining ``auto`` and 0.

    Args:
        config: with its backbone chosen.
        images: how many are trained on.
        classes: how many there are to learn; 0 without labels.
        bf16_pays: whether this device computes convolutions faster in bfloat16.
    """
    small, labelled = config.backbone == SMALL, classes > 0
    epochs = _SMALL_EPOCHS if small else _TIMM_EPOCHS
    if small:
        epochs = max(epochs, min(60, -(-_SMALL_SAMPLES // max(images, 1))))
    batch = config.batch_size or min(512 if small else 64, max(8, images // 20))
    optimizer = config.optimizer
    if optimizer == "auto":
        optimizer = "sgd" if small else "adamw"
    # The rates were found with larger batches; smaller ones take smaller steps.
    if optimizer == "sgd":
        rate, weight_decay = 0.06 * min(1.0, batch / _STEADY_BATCH) ** 0.5, 0.02
    else:
        rate, weight_decay = 1e-3 * (batch / 64) ** 0.5, 0.05
    automatic: dict[str, object] = {
        "dim": config.bits if config.binary else (64 if labelled else 128),
        "epochs": epochs if labelled else 0,
        "batch_size": batch,
        "learning_rate": rate,
        "softmax_scale": round(least_scale(classes), 2) if labelled else 0.0,
    }
    left_open: dict[str, object] = {
        "weight_decay": weight_decay,
        "progressive": _SMALLER_FIRST if small and config.image_size > SMALLEST else 0.0,
        # A network from scratch ends on the very images whose codes are stored.
        "settle": 0.15 if small else 0.0,
        "softmax_margin": _ORTHOGONAL_MARGIN if config.objective == "orthohash" else _MARGIN,
        "label_smoothing": _SMOOTHING if config.softmax_margin == 0 else 0.0,
    }
    chosen = {
        **{name: value for name, value in automatic.items() if getattr(config, name) == 0},
        **{name: value for name, value in left_open.items() if getattr(config, name) == -1},
    }
    chosen["optimizer"] = optimizer
    if config.augment == "auto":
        chosen["augment"] = "shift" if small else "crop"
    if config.precision == "auto":
        chosen["precision"] = "bfloat16" if bf16_pays and small else "float32"
    chosen |= _FIXED.get(config.objective, {})
    return dataclasses.replace(config, **chosen)  # type: ignore[arg-type]  # values checked by TrainConfig
