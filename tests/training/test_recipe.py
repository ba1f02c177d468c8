from __future__ import annotations

import numpy as np
import pytest

from spherequant.embedding.backbone import DEFAULT_TIMM
from spherequant.training import TrainConfig
from spherequant.training.recipe import choose_backbone, resolve


def recipe(
    config: TrainConfig,
    *,
    classes: int = 10,
    side: int = 32,
    images: int = 50_000,
    bf16: bool = False,
) -> TrainConfig:
    chosen = choose_backbone(config, labelled=classes > 0, typical_side=side)
    return resolve(chosen, images=images, classes=classes, bf16_pays=bf16)


@pytest.mark.parametrize("classes", [0, 2, 10, 1_000])
@pytest.mark.parametrize("side", [0, 8, 32, 64, 65, 500])
@pytest.mark.parametrize("images", [1, 2, 100, 5_000, 1_000_000])
@pytest.mark.parametrize("backbone", ["auto", "small", "test_resnet"])
def test_nothing_is_left_to_choose(classes, side, images, backbone):
    config = recipe(TrainConfig(backbone=backbone), classes=classes, side=side, images=images)
    values = config.to_dict()
    assert "auto" not in {v for k, v in values.items() if k != "labels"}
    assert config.weight_decay >= 0
    assert config.dim > 0
    assert config.batch_size > 0
    assert config.learning_rate > 0
    assert (config.epochs > 0) == (config.softmax_scale > 0) == (classes > 0)
    assert min(config.progressive, config.settle, config.softmax_margin) >= 0
    assert (config.image_size > 0) == (config.backbone == "small")  # timm's models have their own


@pytest.mark.parametrize(
    ("labelled", "side", "backbone", "weights"),
    [
        (True, 8, "small", "none"),
        (True, 64, "small", "none"),
        (True, 65, DEFAULT_TIMM, "pretrained"),
        (False, 32, DEFAULT_TIMM, "pretrained"),
    ],
)
def test_the_backbone_suits_size_and_labels(labelled, side, backbone, weights):
    config = recipe(TrainConfig(), classes=10 * labelled, side=side)
    assert (config.backbone, config.weights) == (backbone, weights)


@pytest.mark.parametrize(
    ("side", "size"), [(8, 16), (16, 16), (17, 32), (40, 32), (41, 64), (64, 64)]
)
def test_small_sees_images_near_their_own_size(side, size):
    assert recipe(TrainConfig(), side=side).image_size == size


@pytest.mark.parametrize(
    "given",
    [
        TrainConfig(backbone="small", weights="none", image_size=24, dim=16, epochs=3, batch_size=9,
                    optimizer="adamw", learning_rate=0.01, weight_decay=0.0, settle=0.0,
                    augment="none", label_smoothing=0.2, softmax_margin=0.1, softmax_scale=3.0,
                    progressive=0.2, precision="float32"),
        TrainConfig(backbone="test_vit", weights="none", image_size=64, dim=200, epochs=1,
                    batch_size=5, optimizer="sgd", learning_rate=2.0, weight_decay=0.5, settle=0.3,
                    augment="shift", label_smoothing=0.0, softmax_margin=0.0, softmax_scale=30.0,
                    progressive=0.1, precision="bfloat16"),
    ],
)  # fmt: skip
def test_what_is_given_stays(given):
    assert recipe(given, bf16=True) == given


def test_the_recipe_of_a_network_from_scratch():
    config = recipe(TrainConfig(), bf16=True)
    assert (config.optimizer, config.augment, config.precision) == ("sgd", "shift", "bfloat16")
    assert (config.batch_size, config.dim) == (512, 64)


def test_the_recipe_of_a_pretrained_network():
    config = recipe(TrainConfig(backbone="test_resnet"), bf16=True)
    assert (config.optimizer, config.augment, config.precision) == ("adamw", "crop", "float32")
    assert (config.batch_size, config.dim) == (64, 64)


def test_small_sets_get_more_epochs_smaller_batches_and_smaller_steps():
    large, middling, tiny = (recipe(TrainConfig(), images=n) for n in (50_000, 1_500, 10))
    assert large.epochs < middling.epochs < tiny.epochs
    assert middling.epochs * 1_500 == pytest.approx(40_000, rel=0.05)
    assert (large.batch_size, middling.batch_size, tiny.batch_size) == (512, 75, 8)
    steps = (large.learning_rate, middling.learning_rate, tiny.learning_rate)
    assert steps == pytest.approx([steps[0] * (n / 128) ** 0.5 for n in (128, 75, 8)])


def test_a_batch_that_is_given_takes_steps_of_its_size():
    for backbone, usual in (("small", 128), ("test_resnet", 64)):
        rates = [
            recipe(TrainConfig(backbone=backbone, batch_size=size)).learning_rate
            for size in (usual, usual // 4)
        ]
        assert rates[1] == pytest.approx(rates[0] / 2)


@pytest.mark.parametrize("classes", [2, 3, 10, 150])
def test_the_scale_lets_classes_that_lie_apart_be_told_with_certainty(classes):
    """Rows of a simplex: the farthest apart that so many can be."""
    rows = np.eye(classes) - 1 / classes
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    logits = recipe(TrainConfig(), classes=classes).softmax_scale * rows @ rows[0]
    assert np.exp(logits[0]) / np.exp(logits).sum() == pytest.approx(0.95, abs=1e-3)


def test_images_of_more_than_the_smallest_side_grow():
    grown = {side: recipe(TrainConfig(), side=side).progressive for side in (8, 16, 32, 64)}
    assert grown == {8: 0.0, 16: 0.0, 32: 2 / 3, 64: 2 / 3}
    assert recipe(TrainConfig(backbone="test_resnet")).progressive == 0.0


def test_an_optimizer_that_is_given_has_its_own_steps():
    sgd, adamw = (recipe(TrainConfig(optimizer=name, batch_size=64)) for name in ("sgd", "adamw"))
    timm = recipe(TrainConfig(backbone="test_resnet", optimizer="adamw", batch_size=64))
    assert sgd.learning_rate > 10 * adamw.learning_rate
    assert (adamw.learning_rate, adamw.weight_decay) == (timm.learning_rate, timm.weight_decay)


def test_bfloat16_only_where_it_pays():
    assert recipe(TrainConfig(), bf16=False).precision == "float32"


def test_without_labels_nothing_is_trained_and_more_is_kept():
    config = recipe(TrainConfig(), classes=0)
    assert (config.epochs, config.dim) == (0, 128)


@pytest.mark.parametrize(
    ("objective", "weights", "rounds", "toward_class"),
    [
        ("dsq", (0.2, 0.3, 0.4), 3, True),
        ("paper", (0.2, 0.3, 0.4), 3, False),
        ("no-norm", (0.2, 0.3, 0.4), 3, True),
        ("no-discriminative", (0.2, 0.3, 0.0), 3, False),
        ("softmax-centre", (0.0, 0.3, 0.0), 0, False),
        ("softmax", (0.0, 0.0, 0.0), 0, False),
        ("csq", (0.2, 0.0, 0.0), 0, False),
        ("orthohash", (0.0, 0.0, 0.0), 0, False),
    ],
)
def test_an_objective_has_no_weight_for_what_it_lacks(objective, weights, rounds, toward_class):
    given = TrainConfig(
        objective=objective,
        quantization_weight=0.2,
        centre_weight=0.3,
        discriminative_weight=0.4,
        rounds=3,
    )
    config = recipe(given)
    found = (config.quantization_weight, config.centre_weight, config.discriminative_weight)
    assert (found, config.rounds, config.encode_toward_class) == (weights, rounds, toward_class)
    assert recipe(config) == config


@pytest.mark.parametrize(
    ("objective", "usual", "given"),
    [("dsq", 0.4, 0.3), ("softmax", 0.4, 0.3), ("csq", 0.0, 0.0), ("orthohash", 0.2, 0.3)],
)
def test_a_margin_is_for_those_with_a_softmax(objective, usual, given):
    assert recipe(TrainConfig(objective=objective)).softmax_margin == usual
    assert recipe(TrainConfig(objective=objective, softmax_margin=0.3)).softmax_margin == given


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, (0.4, 0.0)),
        ({"softmax_margin": 0.0}, (0.0, 0.1)),
        ({"softmax_margin": 0.2}, (0.2, 0.0)),
        ({"label_smoothing": 0.05}, (0.4, 0.05)),
        ({"softmax_margin": 0.0, "label_smoothing": 0.0}, (0.0, 0.0)),
        ({"objective": "paper", "softmax_margin": 0.2, "label_smoothing": 0.2}, (0.0, 0.0)),
    ],
)
def test_labels_are_smoothed_where_there_is_no_margin(given, found):
    config = recipe(TrainConfig(**given))
    assert (config.softmax_margin, config.label_smoothing) == found
    assert recipe(config) == config


@pytest.mark.parametrize(("objective", "dim"), [("dsq", 64), ("csq", 48), ("orthohash", 48)])
def test_a_dimension_is_a_bit_where_codes_are_signs(objective, dim):
    assert recipe(TrainConfig(bits=48, objective=objective)).dim == dim


def test_alternatives_share_everything_else():
    ours = recipe(TrainConfig(bits=64)).to_dict()
    own = {
        "objective",
        "quantization_weight",
        "centre_weight",
        "discriminative_weight",
        "rounds",
        "encode_toward_class",
    }
    margin = {
        "paper": {"softmax_margin", "label_smoothing"},
        "csq": {"softmax_margin", "label_smoothing"},
    }
    for objective in ("softmax", "softmax-centre", "no-discriminative", "no-norm", "paper", "csq"):
        theirs = recipe(TrainConfig(bits=64, objective=objective)).to_dict()
        differing = {name for name in ours if ours[name] != theirs[name]}
        assert differing <= own | margin.get(objective, set())
