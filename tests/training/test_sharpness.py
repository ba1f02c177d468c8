from __future__ import annotations

import dataclasses
from dataclasses import astuple

import numpy as np
import pytest

from spherequant.evaluation.metrics import average_precision
from spherequant.quantizer import ClassTarget, normalise_rows
from spherequant.quantizer.target import REACH, SHARPNESS
from spherequant.training import sharpness
from spherequant.training.sharpness import (
    LEAST_ASKING,
    REACHES,
    SHARPNESSES,
    LabelledVectors,
    _average_precision,
    choose_reach,
    choose_sharpness,
)

C, D = 5, 8


def blobs(seed: int, count: int, noise: float) -> LabelledVectors:
    """Embeddings around the first axes, a class to each."""
    rng = np.random.default_rng(seed)
    labels_NC = np.eye(C, dtype=bool)[rng.integers(0, C, count)]
    z_ND = labels_NC @ np.eye(C, D) + noise * rng.normal(size=(count, D))
    return LabelledVectors(normalise_rows(z_ND.astype(np.float32)), labels_NC)


def target(scale: float) -> ClassTarget:
    centres_CD = np.eye(C, D, dtype=np.float32)
    bias_C = np.zeros(C, np.float32)
    return ClassTarget(scale * centres_CD, bias_C, centres_CD, pull=5.0, multi_label=False)


TRAINED, HELD_OUT = blobs(0, 300, 0.1), blobs(1, 200, 0.5)


def test_average_precision_is_that_of_the_reports():
    rng = np.random.default_rng(0)
    scores_QN, relevant_QN = rng.normal(size=(20, 50)), rng.random((20, 50)) < 0.2
    relevant_QN[:3] = False
    expected_Q = average_precision(scores_QN, relevant_QN)
    np.testing.assert_allclose(_average_precision(scores_QN, relevant_QN), expected_Q)


@pytest.mark.parametrize(("normalised", "scale"), [(True, 12.0), (False, 6.0)])
def test_the_choice_undoes_the_scale_of_the_logits(normalised, scale):
    once, twice = (
        choose_sharpness(target(by * scale), TRAINED, HELD_OUT, normalised=normalised)
        for by in (1, 2)
    )
    assert twice == once / 2
    assert SHARPNESSES[0] < twice < once < SHARPNESS


@pytest.mark.parametrize("normalised", [True, False])
def test_the_choice_finds_held_out_images_best(normalised):
    """By hand, each sharpness: trained images, then the other held-out ones."""
    scores = []
    for factor in SHARPNESSES:
        tried = dataclasses.replace(target(12.0), sharpness=factor)
        both = []
        for searched in (TRAINED, HELD_OUT):
            u_ND = tried.target(searched.z_ND)
            ap = []
            for q, z_D in enumerate(HELD_OUT.z_ND):
                others = np.arange(len(u_ND)) != q if searched is HELD_OUT else slice(None)
                relevant_N = searched.labels_NC[others] @ HELD_OUT.labels_NC[q]
                near_N = u_ND[others] @ z_D
                if not normalised:
                    near_N = -np.square(u_ND[others] - z_D).sum(axis=1)
                ap.append(average_precision(near_N[None], relevant_N[None])[0])
            both.append(np.mean(ap))
        scores.append(sum(both))
    chosen = choose_sharpness(target(12.0), TRAINED, HELD_OUT, normalised=normalised)
    assert scores[SHARPNESSES.index(chosen)] == pytest.approx(max(scores), abs=1e-6)
    assert max(scores) - min(scores) > 1e-3


def test_few_images_and_nothing_to_gain_choose_nothing():
    assert choose_sharpness(target(2.0), TRAINED, HELD_OUT) > SHARPNESS
    few = LabelledVectors(*(part[: LEAST_ASKING - 1] for part in astuple(HELD_OUT)))
    assert choose_sharpness(target(2.0), TRAINED, few) == SHARPNESS
    easy = blobs(2, 200, 0.01)
    assert choose_sharpness(target(2.0), TRAINED, easy) == SHARPNESS


def test_a_gain_within_chance_chooses_nothing(monkeypatch):
    """Each factor is given its own AP of each query; the first is better than 1, or seems so.

    The second is less so, but always.
    """
    asking = LEAST_ASKING
    held_out = LabelledVectors(HELD_OUT.z_ND[:asking], HELD_OUT.labels_NC[:asking])
    gain_Q = np.random.default_rng(0).permutation(np.linspace(-0.5, 1.0, asking))
    error = gain_Q.std(ddof=1) / asking**0.5

    def chosen(mean: float, less: float = 0.0) -> float:
        shifted_Q = gain_Q - gain_Q.mean() + mean
        gains = {0: shifted_Q, 1: np.full(asking, less)}
        given = iter(
            half_Q
            for number in range(len(SHARPNESSES))
            for half_Q in (gains.get(number, np.zeros(asking)), np.zeros(asking))
        )
        monkeypatch.setattr(sharpness, "_average_precision", lambda *_: next(given))
        return choose_sharpness(target(2.0), TRAINED, held_out)

    assert chosen(1.9 * error) == SHARPNESS
    assert chosen(2.1 * error) == SHARPNESSES[0]
    assert chosen(1.9 * error, less=error) == SHARPNESSES[1]
    assert chosen(2.1 * error, less=error) == SHARPNESSES[0]


class TestReach:
    """Images of one or two labels, whose logits lie up to `spread` below the best."""

    SPREAD = 3.0

    def held_out(self, count: int) -> LabelledVectors:
        rng = np.random.default_rng(5)
        labels_NC = np.zeros((count, C), bool)
        z_ND = np.zeros((count, D), np.float32)
        for n in range(count):
            first, second = rng.permutation(C)[:2]
            labels_NC[n, first] = True
            z_ND[n, first] = 1.0
            if n % 2:
                labels_NC[n, second] = True
                z_ND[n, second] = 1 - self.SPREAD / 12 * rng.uniform(0.5, 1)
        return LabelledVectors(z_ND, labels_NC)

    def target(self) -> ClassTarget:
        return dataclasses.replace(target(12.0), multi_label=True)

    def test_it_predicts_held_out_labels_best(self):
        held_out = self.held_out(200)
        reach = choose_reach(self.target(), held_out)
        assert self.SPREAD <= reach <= 2 * self.SPREAD
        chosen = dataclasses.replace(self.target(), reach=reach).predict(held_out.z_ND)
        np.testing.assert_array_equal(chosen, held_out.labels_NC)
        assert (self.target().predict(held_out.z_ND).sum(axis=1) == 1).all()

    def test_few_images_and_nothing_to_gain_choose_nothing(self):
        assert choose_reach(self.target(), self.held_out(LEAST_ASKING - 1)) == REACH
        one = LabelledVectors(TRAINED.z_ND, TRAINED.labels_NC)
        assert choose_reach(self.target(), one) == REACH

    def test_the_default_is_among_the_choices(self):
        assert REACH in REACHES
