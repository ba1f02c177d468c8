from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.training import centres
from spherequant.training.centres import CentreSums, centres_of


def batch(seed: int, count: int, classes: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=(count, dim)).astype(np.float32))
    labels = rng.random((count, classes)) < 0.3
    labels[np.arange(count), rng.integers(0, classes, count)] = True
    return torch.nn.functional.normalize(z), torch.from_numpy(labels)


def test_a_centre_is_the_direction_of_its_class_mean():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    labels = torch.tensor([[True, False], [True, False], [False, True]])
    sums = CentreSums(2, 2)
    sums.add(z, labels)
    half = 0.5**0.5
    torch.testing.assert_close(sums.centres(), torch.tensor([[half, half], [0.0, -1.0]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=4))
def test_sums_add_up_however_images_are_divided(seed, count, cuts):
    z, labels = batch(seed, count, 5, 7)
    whole, parts = CentreSums(5, 7), CentreSums(5, 7)
    whole.add(z, labels)
    edges = sorted({0, count, *(min(cut, count) for cut in cuts)})
    for start, end in reversed(list(pairwise(edges))):
        parts.add(z[start:end], labels[start:end])
    assert parts.sums_CD.dtype == torch.float64
    torch.testing.assert_close(parts.sums_CD, whole.sums_CD, rtol=0, atol=1e-12)
    slow = np.zeros((5, 7))
    for row, own in zip(z.double().numpy(), labels.numpy(), strict=True):
        slow[own] += row
    np.testing.assert_allclose(whole.sums_CD, slow, atol=1e-12)


def test_small_images_of_a_large_class_are_not_lost():
    # In float32 the sum would stay at 2^24.
    sums = CentreSums(1, 2)
    sums.sums_CD[0] = torch.tensor([2.0**24, 0.0], dtype=torch.float64)
    for _ in range(3):
        sums.add(torch.tensor([[1.0, 0.0]]), torch.tensor([[True]]))
    assert sums.sums_CD[0, 0].item() == 2.0**24 + 3


def test_a_class_without_images_has_the_zero_centre():
    z, labels = batch(0, 4, 3, 5)
    labels[:, 1] = False
    labels[:, 0] = True
    sums = CentreSums(3, 5)
    sums.add(z, labels)
    centres = sums.centres()
    assert centres.dtype == torch.float32
    assert not centres[1].any()
    torch.testing.assert_close(centres[0].norm(), torch.tensor(1.0))


def test_no_gradient_flows_through_a_centre():
    z = torch.randn(3, 4, requires_grad=True)
    sums = CentreSums(2, 4)
    sums.add(z, torch.tensor([[True, False], [False, True], [True, True]]))
    assert not sums.centres().requires_grad


def test_the_centre_of_an_image_is_its_labels_normalised_mean():
    centres = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    half, third = 0.5**0.5, (1 / 3) ** 0.5
    expected = torch.tensor([[1.0, 0.0, 0.0], [half, half, 0.0], [third, third, third]])
    torch.testing.assert_close(centres_of(labels, centres), expected)


@pytest.mark.parametrize("normalised", [True, False])
def test_some_rows_at_a_time_change_nothing(normalised, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(23, 4, generator=generator)
    labels = torch.rand(23, 5, generator=generator) < 0.4
    labels[:, 0] = True

    def both():
        sums = CentreSums(5, 4, normalised=normalised)
        sums.add(z, labels)
        return sums.centres(), centres_of(labels, sums.centres(), normalised=normalised)

    whole = both()
    monkeypatch.setattr(centres, "_ROWS", 6)
    for one, other in zip(both(), whole, strict=True):
        torch.testing.assert_close(one, other)


def test_centres_that_cancel_leave_zero_and_not_nan():
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert not centres_of(torch.tensor([[True, True]]), centres).any()


def test_without_normalisation_a_centre_is_the_mean():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    labels = torch.tensor([[True, False, False], [True, False, False], [False, True, False]])
    sums = CentreSums(3, 2, normalised=False)
    sums.add(z[:1], labels[:1])
    sums.add(z[1:], labels[1:])
    expected = torch.tensor([[1.0, 0.5], [0.0, -3.0], [0.0, 0.0]])
    torch.testing.assert_close(sums.centres(), expected)
    both = torch.tensor([[True, True, False]])
    middle = centres_of(both, expected, normalised=False)
    torch.testing.assert_close(middle, torch.tensor([[0.5, -1.25]]))
