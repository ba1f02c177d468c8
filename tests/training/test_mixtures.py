from __future__ import annotations

import numpy as np
import pytest

from spherequant.quantizer import Encoder, learn_codebooks, normalise_rows
from spherequant.training import mixtures
from spherequant.training.mixtures import FEWEST, with_mixtures


@pytest.fixture
def embeddings():
    """Tight classes, as a network has of the images that it was trained on."""
    rng = np.random.default_rng(0)
    centres = normalise_rows(rng.normal(size=(10, 16)))
    return normalise_rows(centres[rng.integers(10, size=600)] + rng.normal(0, 0.01, (600, 16)))


def test_the_rows_come_first_and_mixtures_lie_between_two_of_them(embeddings):
    rows = with_mixtures(embeddings, 0, normalised=True)
    assert rows.dtype == np.float32
    assert rows.shape == (600 + FEWEST, 16)
    np.testing.assert_array_equal(rows[:600], embeddings)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    # A mixture of two lies in their plane: the two nearest rows span nearly all of it.
    nearest = np.sort(rows[600:] @ embeddings.T, axis=1)[:, -1]
    assert nearest.min() > 0.5
    assert 0.05 < (nearest < 0.9).mean() < 0.9


def test_a_large_set_has_as_many_mixtures_as_rows(embeddings):
    many = np.tile(embeddings, (30, 1))
    assert len(with_mixtures(many, 0, normalised=True)) == 2 * len(many)


def test_of_a_larger_set_rows_are_drawn(embeddings, monkeypatch):
    monkeypatch.setattr(mixtures, "MOST", 500)
    rows = with_mixtures(embeddings, 0, normalised=True)
    assert rows.shape == (500 + FEWEST, 16)
    place = {row.tobytes(): i for i, row in enumerate(embeddings)}
    drawn = [place[row.tobytes()] for row in rows[:500]]
    assert sorted(set(drawn)) == drawn
    assert drawn != list(range(500))


def test_the_seed_decides(embeddings):
    first = with_mixtures(embeddings, 1, normalised=True)
    np.testing.assert_array_equal(first, with_mixtures(embeddings, 1, normalised=True))
    assert (first != with_mixtures(embeddings, 2, normalised=True)).any()


def test_without_normalisation_lengths_mix_as_well(embeddings):
    mixed = with_mixtures(3 * embeddings, 0, normalised=False)[600:]
    lengths = np.linalg.norm(mixed, axis=1)
    assert lengths.max() <= 3 + 1e-5
    assert lengths.min() < 2.5


def test_opposite_rows_and_a_single_one():
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    rows = with_mixtures(opposite, 0, normalised=True)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.abs(rows[:, 0]), 1)
    alone = with_mixtures(opposite[:1], 0, normalised=True)
    assert (alone == opposite[0]).all()


def test_codebooks_of_mixtures_have_codewords_for_what_lies_between(embeddings):
    """Images that a network was not trained on lie between the classes, too."""
    rng = np.random.default_rng(1)
    near, far = embeddings[rng.integers(600, size=(2, 1000))]
    others = normalise_rows(near + rng.uniform(0, 0.6, (1000, 1)) * (far - near))

    def error(rows):
        codebooks = learn_codebooks(rows, 2, 256)
        left = codebooks.decode(Encoder(codebooks).encode(others)) - others
        return (left**2).sum(axis=1).mean()

    assert error(with_mixtures(embeddings, 0, normalised=True)) < 0.2 * error(embeddings)
