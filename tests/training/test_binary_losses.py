from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.training import binary_losses


def signs(generator: np.random.Generator, rows: int, bits: int) -> np.ndarray:
    return generator.choice([-1.0, 1.0], (rows, bits))


def slow_central_similarity(logits_BK: np.ndarray, centre_BK: np.ndarray) -> float:
    """The definition, bit by bit, in float64."""
    total = 0.0
    for logit, centre in zip(logits_BK.ravel(), centre_BK.ravel(), strict=True):
        h = 1 / (1 + math.exp(-logit))
        t = (1 + centre) / 2
        total -= t * math.log(h) + (1 - t) * math.log(1 - h)
    return total / logits_BK.size


def slow_sign_quantization(logits_BK: np.ndarray) -> float:
    total = 0.0
    for logit in logits_BK.ravel():
        h = 1 / (1 + math.exp(-logit))
        total += math.log(math.cosh(abs(2 * h - 1) - 1))
    return total / logits_BK.size


def slow_orthogonal_target(
    z_BK: np.ndarray,
    targets_CK: np.ndarray,
    labels_BC: np.ndarray,
    scale: float,
    margin: float,
) -> float:
    total = 0.0
    for z, labels in zip(z_BK, labels_BC, strict=True):
        scores = [
            scale * (float(np.dot(z, target)) - margin * float(label))
            for target, label in zip(targets_CK, labels, strict=True)
        ]
        normaliser = math.log(sum(math.exp(score) for score in scores))
        own = [normaliser - score for score, label in zip(scores, labels, strict=True) if label]
        total += sum(own) / len(own)
    return total / len(z_BK)


class TestCentralSimilarity:
    def test_constants(self):
        logits = torch.tensor([[0.0, math.log(3)]])
        # h = 1/2 and 3/4, both bits wanted.
        right = binary_losses.central_similarity_loss(logits, torch.tensor([[1.0, 1.0]]))
        assert right.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, abs=1e-6)
        wrong = binary_losses.central_similarity_loss(logits, torch.tensor([[1.0, -1.0]]))
        assert wrong.item() == pytest.approx((math.log(2) + math.log(4)) / 2, abs=1e-6)

    def test_it_goes_to_zero_as_codes_reach_their_centre_and_stays_finite_where_they_do_not(self):
        centre = torch.tensor([[1.0, -1.0]])
        loss = binary_losses.central_similarity_loss
        assert loss(1000 * centre, centre).item() == 0
        assert loss(-1000 * centre, centre).item() == 1000

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([8, 16]))
    def test_it_is_the_slow_definition(self, seed, batch, bits):
        generator = np.random.default_rng(seed)
        logits, centre = 3 * generator.normal(size=(batch, bits)), signs(generator, batch, bits)
        value = binary_losses.central_similarity_loss(*map(torch.from_numpy, (logits, centre)))
        assert value.item() == pytest.approx(slow_central_similarity(logits, centre), rel=1e-9)


class TestSignQuantization:
    def test_constants(self):
        loss = binary_losses.sign_quantization_loss
        # At h = 1/2 nothing is decided: log cosh 1. At 0 and 1 nothing is missing.
        zeros = torch.zeros(2, 3, dtype=torch.float64)
        assert loss(zeros).item() == pytest.approx(math.log(math.cosh(1)))
        assert loss(torch.tensor([[-100.0, 100.0]])).item() == pytest.approx(0, abs=1e-7)

    def test_it_falls_as_outputs_grow(self):
        values = [binary_losses.sign_quantization_loss(torch.tensor([[x]])) for x in (0.5, 1, 2)]
        assert values[0] > values[1] > values[2]

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_it_is_the_slow_definition(self, seed):
        logits = 3 * np.random.default_rng(seed).normal(size=(4, 8))
        value = binary_losses.sign_quantization_loss(torch.from_numpy(logits))
        assert value.item() == pytest.approx(slow_sign_quantization(logits), rel=1e-9)


class TestOrthogonalTarget:
    Z = torch.tensor([[1.0, 0.0]])
    TARGETS = torch.eye(2)

    def loss(self, labels: list[list[bool]], margin: float) -> float:
        own = torch.tensor(labels)
        return binary_losses.orthogonal_target_loss(self.Z, self.TARGETS, own, 3, margin).item()

    def test_constants_of_two_classes(self):
        # Cosines 1 and 0: logits 3 (1 - m) and 0 for the first class, 3 and -3 m for the second.
        assert self.loss([[True, False]], 0) == pytest.approx(math.log1p(math.exp(-3)), abs=1e-6)
        assert self.loss([[True, False]], 0.2) == pytest.approx(
            math.log1p(math.exp(-2.4)), abs=1e-6
        )
        assert self.loss([[False, True]], 0.2) == pytest.approx(math.log1p(math.exp(3.6)), abs=1e-6)

    def test_the_margin_makes_it_harder(self):
        assert self.loss([[True, False]], 0.3) > self.loss([[True, False]], 0.1)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 6), st.floats(0, 0.5))
    def test_it_is_the_slow_definition(self, seed, batch, classes, margin):
        generator = np.random.default_rng(seed)
        z = generator.normal(size=(batch, 8))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        targets = signs(generator, classes, 8) / math.sqrt(8)
        labels = generator.random((batch, classes)) < 0.4
        labels[np.arange(batch), generator.integers(0, classes, batch)] = True
        value = binary_losses.orthogonal_target_loss(
            *map(torch.from_numpy, (z, targets, labels)), 12, margin
        )
        expected = slow_orthogonal_target(z, targets, labels, 12, margin)
        assert value.item() == pytest.approx(expected, rel=1e-9)
