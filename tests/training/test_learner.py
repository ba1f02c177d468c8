from __future__ import annotations

import pytest
import torch

from spherequant.embedding import EmbeddingNetwork
from spherequant.embedding.small import Small
from spherequant.training import TrainConfig
from spherequant.training.learner import Learner, make_average, make_optimizer, rate_factor

SGD = TrainConfig(optimizer="sgd", learning_rate=0.5, weight_decay=0.01)
ADAMW = TrainConfig(optimizer="adamw", learning_rate=0.001, weight_decay=0.05)


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(0)
    backbone = Small(widths=(8, 8))
    backbone.freeze_whitening()
    return Learner(EmbeddingNetwork(backbone, 8, 6), classes=4, dim=6, scale=12.0)


@pytest.mark.parametrize(("classes", "dim"), [(2, 6), (6, 6), (40, 6), (3, 1)])
def test_the_classifiers_rows_begin_with_the_length_of_the_scale(classes, dim):
    learner = Learner(EmbeddingNetwork(Small(widths=(8,)), 8, dim), classes, dim, scale=7.5)
    torch.testing.assert_close(learner.weight.norm(dim=1), torch.full((classes,), 7.5))
    assert not learner.bias.any()
    if classes <= dim:
        torch.testing.assert_close(
            learner.weight @ learner.weight.T, 7.5**2 * torch.eye(classes), atol=1e-4, rtol=0
        )


def test_it_gives_the_networks_embeddings(learner):
    images = torch.randn(3, 3, 16, 16)
    learner.eval()
    assert torch.equal(learner(images), learner.network(images))


@pytest.mark.parametrize("config", [SGD, ADAMW])
class TestOptimizer:
    def test_every_trained_parameter_is_in_one_group_and_frozen_ones_in_none(self, learner, config):
        optimizer = make_optimizer(learner, config)
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(held) == len({id(p) for p in held})
        wanted = {id(p) for p in learner.parameters() if p.requires_grad}
        assert {id(p) for p in held} == wanted
        assert id(learner.network.backbone.whiten.weight) not in wanted

    def test_the_classifier_does_not_decay(self, learner, config):
        groups = make_optimizer(learner, config).param_groups
        of_classifier = [g for g in groups if any(p is learner.weight for p in g["params"])]
        assert [g["weight_decay"] for g in of_classifier] == [0.0]


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, object]:
    return next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))


def test_sgd_moves_shifts_faster_and_decays_them_less(learner):
    optimizer = make_optimizer(learner, SGD)
    shift = group_of(optimizer, learner.network.backbone.blocks[0][2].bias)
    filters = group_of(optimizer, learner.network.backbone.blocks[0][0].weight)
    assert (filters["lr"], filters["weight_decay"]) == (0.5, 0.01)
    assert shift["lr"] == 0.5 * 16
    assert shift["lr"] * shift["weight_decay"] == pytest.approx(0.5 * 0.01)


def test_adamw_moves_new_layers_faster_than_the_backbone(learner):
    optimizer = make_optimizer(learner, ADAMW)
    for new in (learner.weight, learner.network.projection.weight, learner.network.projection.bias):
        assert group_of(optimizer, new)["lr"] == pytest.approx(0.01)
    filters = group_of(optimizer, learner.network.backbone.blocks[0][0].weight)
    assert (filters["lr"], filters["weight_decay"]) == (0.001, 0.05)
    assert group_of(optimizer, learner.network.backbone.blocks[0][2].bias)["weight_decay"] == 0


def test_the_rate_rises_for_a_fifth_and_falls_to_three_percent():
    factors = [rate_factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[10] == pytest.approx(0.6)
    assert factors[20] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(1 - 0.97 / 2)
    assert factors[100] == pytest.approx(0.03)
    assert all(0 < factor <= 1 for factor in factors)
    assert rate_factor(0, 0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("steps", "decay"), [(1, 0.5), (4, 0.5), (10, 0.8), (100, 0.98), (10**6, 0.999)]
)
def test_the_average_begins_with_the_first_weights_and_forgets_within_half_an_epoch(
    learner, steps, decay
):
    average = make_average(learner, steps)
    first = learner.weight.detach().clone()
    average.update_parameters(learner)
    assert torch.equal(average.module.weight, first)
    with torch.no_grad():
        learner.weight += 1
        learner.network.centring.running_mean += 3
    average.update_parameters(learner)
    torch.testing.assert_close(average.module.weight, first + (1 - decay), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        average.module.network.centring.running_mean, torch.full((6,), 3 * (1 - decay))
    )
    assert torch.equal(learner.weight, first + 1)


class TestFixedTargets:
    @pytest.fixture
    def fixed(self, learner) -> Learner:
        targets = torch.tensor([[1.0, 1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1]])
        return Learner(learner.network, 2, 6, 12.0, targets=targets, raw=True)

    def test_rows_have_the_length_of_the_scale(self, fixed):
        torch.testing.assert_close(fixed.weight.norm(dim=1), torch.full((2,), 12.0))
        assert torch.equal(fixed.weight[0].sign(), torch.tensor([1.0, 1, 1, 1, -1, -1]))

    @pytest.mark.parametrize("config", [SGD, ADAMW])
    def test_they_are_not_learned(self, fixed, config):
        held = [p for g in make_optimizer(fixed, config).param_groups for p in g["params"]]
        assert all(p is not fixed.weight and p is not fixed.bias for p in held)
        assert any(p is fixed.network.projection.weight for p in held)

    def test_raw_gives_what_the_network_normalises(self, fixed):
        images = torch.randn(3, 3, 16, 16)
        fixed.eval()
        raw = fixed(images)
        assert torch.equal(raw, fixed.network.project(images))
        torch.testing.assert_close(torch.nn.functional.normalize(raw), fixed.network(images))
