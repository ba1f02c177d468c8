from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.training import losses


def slow_softmax_loss(
    z_BD: np.ndarray,
    weight_CD: np.ndarray,
    bias_C: np.ndarray,
    labels_BC: np.ndarray,
    smoothing: float,
    margin: float,
) -> float:
    """The definition, image by image and class by class, in float64."""
    total = 0.0
    classes = len(weight_CD)
    for z, labels in zip(z_BD, labels_BC, strict=True):
        logits = [float(np.dot(weight_CD[c], z)) + float(bias_C[c]) for c in range(classes)]
        logits = [logit - margin * bool(own) for logit, own in zip(logits, labels, strict=True)]
        normaliser = math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits)
        for c in range(classes):
            mass = (1 - smoothing) * labels[c] / labels.sum() + smoothing / classes
            total -= mass * (logits[c] - normaliser)
    return total / len(z_BD)


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(count, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def a_label_each(rng: np.random.Generator, count: int, classes: int) -> np.ndarray:
    """Between one and all labels on each image."""
    labels = rng.random((count, classes)) < 0.4
    labels[np.arange(count), rng.integers(0, classes, count)] = True
    return labels


class TestSoftmax:
    Z = torch.tensor([[1.0, 0.0]])
    W = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    B = torch.zeros(2)

    def loss(self, labels: list[list[bool]], smoothing: float = 0.0) -> float:
        return losses.softmax_loss(self.Z, self.W, self.B, torch.tensor(labels), smoothing).item()

    def test_constants_of_two_classes(self):
        # Logits 3 and 0: log(1 + e^-3) for the first, 3 more for the second.
        assert self.loss([[True, False]]) == pytest.approx(math.log1p(math.exp(-3)), abs=1e-6)
        assert self.loss([[False, True]]) == pytest.approx(3 + math.log1p(math.exp(-3)), abs=1e-6)

    def test_several_labels_share_a_mass_of_one(self):
        both = self.loss([[True, True]])
        assert both == pytest.approx(1.5 + math.log1p(math.exp(-3)), abs=1e-6)

    def test_smoothing_moves_its_share_to_all_classes(self):
        # Targets .8 + .1 and .1: a tenth of the mass pays 3 more.
        expected = 0.1 * 3 + math.log1p(math.exp(-3))
        assert self.loss([[True, False]], 0.2) == pytest.approx(expected, abs=1e-6)

    def test_a_margin_lowers_the_logits_of_the_labels_only(self):
        # Logits 3 - 2 and 0; and 3 and 0 - 2.
        for labels, lead in (([True, False], 1.0), ([False, True], -5.0)):
            value = losses.softmax_loss(
                self.Z, self.W, self.B, torch.tensor([labels]), margin=2.0
            ).item()
            assert value == pytest.approx(math.log1p(math.exp(-lead)), abs=1e-6)

    def test_a_classifier_that_knows_nothing_costs_log_c(self):
        z = torch.nn.functional.normalize(torch.randn(4, 5))
        labels = torch.eye(7, dtype=torch.bool)[:4]
        value = losses.softmax_loss(z, torch.zeros(7, 5), torch.zeros(7), labels, 0.3)
        assert value.item() == pytest.approx(math.log(7), abs=1e-6)

    def test_it_goes_to_zero_as_the_scale_grows(self):
        z = torch.eye(3)
        values = [
            losses.softmax_loss(z, s * torch.eye(3), torch.zeros(3), torch.eye(3) > 0).item()
            for s in (1.0, 10.0, 100.0)
        ]
        assert values[0] > values[1] > values[2]
        assert values[2] == pytest.approx(0, abs=1e-12)

    def test_gradients_are_those_of_the_closed_form(self):
        rng = np.random.default_rng(0)
        z = torch.tensor(unit_rows(rng, 6, 4), requires_grad=True)
        weight = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
        bias = torch.tensor(rng.normal(size=3), requires_grad=True)
        labels = a_label_each(rng, 6, 3)
        losses.softmax_loss(z, weight, bias, torch.from_numpy(labels), 0.1).backward()

        logits = z.detach().numpy() @ weight.detach().numpy().T + bias.detach().numpy()
        predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        targets = 0.9 * labels / labels.sum(1, keepdims=True) + 0.1 / 3
        error = (predicted - targets) / 6
        np.testing.assert_allclose(z.grad, error @ weight.detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(weight.grad, error.T @ z.detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(bias.grad, error.sum(0), atol=1e-12)

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 6),
        st.integers(1, 5),
        st.integers(2, 7),
        st.floats(0, 0.9),
        st.floats(0, 9),
    )
    def test_it_is_the_slow_definition(self, seed, batch, dim, classes, smoothing, margin):
        rng = np.random.default_rng(seed)
        z, weight = unit_rows(rng, batch, dim), 5 * rng.normal(size=(classes, dim))
        bias, labels = rng.normal(size=classes), a_label_each(rng, batch, classes)
        value = losses.softmax_loss(
            *(torch.from_numpy(a) for a in (z, weight, bias, labels)), smoothing, margin
        )
        expected = slow_softmax_loss(z, weight, bias, labels, smoothing, margin)
        assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


DISTANCES = [losses.quantization_loss, losses.centre_loss, losses.discriminative_loss]


@pytest.mark.parametrize("loss", DISTANCES)
class TestDistances:
    def test_constants(self, loss):
        # Squared distances 2 (orthogonal), 4 (opposite) and 0 (equal).
        a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        b = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.6, 0.8]])
        assert loss(a, b).item() == pytest.approx(2.0)
        assert loss(a, a).item() == 0

    def test_the_gradient_is_twice_the_difference_over_the_batch(self, loss):
        rng = np.random.default_rng(1)
        a = torch.tensor(unit_rows(rng, 5, 3), requires_grad=True)
        b = torch.tensor(rng.normal(size=(5, 3)), requires_grad=True)
        loss(a, b).backward()
        expected = 2 * (a - b).detach() / 5
        torch.testing.assert_close(a.grad, expected)
        torch.testing.assert_close(b.grad, -expected)

    def test_it_does_not_depend_on_the_size_of_the_batch(self, loss):
        rng = np.random.default_rng(2)
        a, b = torch.tensor(unit_rows(rng, 4, 3)), torch.tensor(rng.normal(size=(4, 3)))
        torch.testing.assert_close(loss(a.repeat(8, 1), b.repeat(8, 1)), loss(a, b))

    def test_it_is_the_slow_definition(self, loss):
        rng = np.random.default_rng(3)
        a, b = unit_rows(rng, 9, 4), rng.normal(size=(9, 4))
        slow = sum((x - y) ** 2 for i in range(9) for x, y in zip(a[i], b[i], strict=True)) / 9
        assert loss(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(slow, rel=1e-12)


def test_two_terms_of_a_reconstruction_are_one_distance_to_the_blended_target():
    """The blended target: λ1‖z-x̂‖² + λ3‖φ-x̂‖² = (λ1+λ3)‖u-x̂‖² + a constant of x̂."""
    rng = np.random.default_rng(4)
    z, centre = (torch.tensor(unit_rows(rng, 6, 5)) for _ in range(2))
    near, pull = 0.1, 0.3
    u = (near * z + pull * centre) / (near + pull)
    rest = []
    for _ in range(3):
        x = torch.tensor(rng.normal(size=(6, 5)))
        two = near * losses.quantization_loss(z, x) + pull * losses.discriminative_loss(centre, x)
        rest.append((two - (near + pull) * losses.quantization_loss(u, x)).item())
    assert rest[1] == pytest.approx(rest[0])
    assert rest[2] == pytest.approx(rest[0])
