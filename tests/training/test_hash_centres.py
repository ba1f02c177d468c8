from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.errors import ConfigError
from spherequant.training.hash_centres import hash_centres, hash_centres_of


@pytest.mark.parametrize(("classes", "bits"), [(2, 8), (10, 16), (10, 32), (64, 64), (128, 128)])
def test_up_to_as_many_classes_as_bits_are_orthogonal(classes, bits):
    centres = hash_centres(classes, bits, 3)
    assert centres.dtype == np.float32
    assert set(np.unique(centres)) == {-1, 1}
    np.testing.assert_array_equal(centres @ centres.T, bits * np.eye(classes))


def test_more_classes_take_the_negatives_of_rows():
    centres = hash_centres(12, 8, 0)
    products = centres @ centres.T
    np.testing.assert_array_equal(np.diag(products), 8)
    assert set(np.unique(products)) == {-8, 0, 8}
    assert (products == -8).sum() == 2 * 4
    assert len(np.unique(centres, axis=0)) == 12


@pytest.mark.parametrize(("classes", "bits"), [(10, 24), (100, 40), (100, 32), (70, 8)])
def test_elsewhere_half_of_the_bits_are_set_and_all_differ(classes, bits):
    centres = hash_centres(classes, bits, 1)
    assert not centres.sum(axis=1).any()
    assert len(np.unique(centres, axis=0)) == classes


def test_no_bit_is_the_same_in_all_of_many_centres():
    centres = hash_centres(32, 32, 0)
    assert (np.abs(centres.sum(axis=0)) < 32).all()


def test_they_are_a_function_of_the_seed():
    np.testing.assert_array_equal(hash_centres(10, 32, 5), hash_centres(10, 32, 5))
    assert not np.array_equal(hash_centres(10, 32, 5), hash_centres(10, 32, 6))


def test_more_classes_than_there_are_centres():
    with pytest.raises(ConfigError, match=r"71 classes .* 8 bits: take more bits"):
        hash_centres(71, 8, 0)


def test_several_labels_vote_on_each_bit():
    centres = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    tie = torch.tensor([1.0, 1, -1, -1])
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    expected = [[1, 1, -1, -1], [1, 1, -1, -1], [1, -1, -1, -1]]
    np.testing.assert_array_equal(hash_centres_of(labels, centres, tie), expected)
