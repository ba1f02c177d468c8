from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.embedding import EmbeddingNetwork, Preprocessing, embed_batches
from spherequant.embedding.small import Small
from spherequant.errors import InputError
from spherequant.training import unsupervised
from spherequant.training.unsupervised import backbone_features, fit_projection

PRE = Preprocessing(16)


def network(dim: int, features: int = 12) -> EmbeddingNetwork:
    torch.manual_seed(0)
    return EmbeddingNetwork(Small(widths=(8, features)), features, dim).eval()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def correlated(count: int, features: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(count, features)) @ rng.normal(size=(features, features))
    return (mixed + 3).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_features_are_the_backbones(batch):
    net, pixels = network(5), pictures(9)
    with torch.no_grad():
        images = PRE.standardise(torch.from_numpy(pixels))
        plain, other = net.backbone(images), net.backbone(images.flip(3))
    found = backbone_features(net, PRE, pixels, batch=batch, mirror=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain, atol=1e-5)
    found = backbone_features(net, PRE, pixels, batch=batch, mirror=True)
    np.testing.assert_allclose(found, (plain + other) / 2, atol=1e-5)


class TestProjection:
    def test_it_is_the_principal_directions(self, monkeypatch):
        monkeypatch.setattr(unsupervised, "_ROWS_AT_ONCE", 64)
        net, features = network(5), correlated(300, 12)
        fit_projection(net, features)
        with torch.no_grad():
            projected = net.projection(torch.from_numpy(features)).double().numpy()
        np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-4)
        exact = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
        _, scales, directions = np.linalg.svd(exact, full_matrices=False)
        np.testing.assert_allclose(
            np.abs(projected), np.abs(exact @ directions[:5].T), rtol=1e-3, atol=1e-3
        )
        covariance = projected.T @ projected / 299
        np.testing.assert_allclose(
            covariance, np.diag(scales[:5] ** 2 / 299), atol=1e-3 * scales[0] ** 2 / 299
        )

    def test_an_embedding_is_the_direction_of_its_projection(self):
        net, pixels = network(5), pictures(30)
        features = backbone_features(net, PRE, pixels, batch=8, mirror=False)
        fit_projection(net, features)
        z = embed_batches(net, PRE, pixels, batch=8, mirror=False)
        with torch.no_grad():
            projected = net.projection(torch.from_numpy(features)).numpy()
        expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
        np.testing.assert_allclose(z, expected, atol=1e-4)

    @pytest.mark.parametrize("dim", [12, 20])
    def test_dimensions_beyond_the_features_are_zero(self, dim):
        net = network(dim)
        fit_projection(net, correlated(50, 12))
        weight = net.projection.weight
        torch.testing.assert_close(weight[:12] @ weight[:12].T, torch.eye(12), atol=1e-5, rtol=0)
        assert not weight[12:].any()

    @pytest.mark.parametrize("count", [2, 4])
    def test_directions_in_which_no_image_differs_are_zero(self, count):
        net = network(8)
        fit_projection(net, correlated(count, 12))
        lengths = net.projection.weight.detach().norm(dim=1)
        torch.testing.assert_close(lengths[: count - 1], torch.ones(count - 1))
        assert not lengths[count - 1 :].any()

    def test_it_forgets_what_centring_saw_before(self):
        net = network(5)
        net.centring.running_mean += 4
        net.centring.running_var *= 9
        fit_projection(net, correlated(50, 12))
        assert not net.centring.running_mean.any()
        assert torch.equal(net.centring.running_var, torch.ones(5))

    @pytest.mark.parametrize("count", [1, 7])
    def test_images_that_look_the_same_are_refused(self, count):
        with pytest.raises(InputError, match="look the same to the backbone"):
            fit_projection(network(5), np.ones((count, 12), np.float32))

    def test_features_that_are_no_numbers_are_refused(self):
        features = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
        features[3, 7] = np.nan
        with pytest.raises(InputError, match="weights are damaged"):
            fit_projection(network(5), features)
