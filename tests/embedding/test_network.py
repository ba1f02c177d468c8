from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.embedding import EmbeddingNetwork, Preprocessing, create_backbone, embed_batches


def make(name: str, size: int, dim: int = 16) -> tuple[EmbeddingNetwork, Preprocessing]:
    torch.manual_seed(0)
    backbone, features, preprocessing, _ = create_backbone(name, "none", size)
    network = EmbeddingNetwork(backbone, features, dim).eval()
    network.to(memory_format=torch.channels_last)
    return network, preprocessing


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small() -> tuple[EmbeddingNetwork, Preprocessing]:
    return make("small", 16)


class TestNetwork:
    def test_rows_have_length_one_in_training_and_in_evaluation(self, small):
        network, preprocessing = small
        images = preprocessing.standardise(torch.from_numpy(pictures(6, 16)))
        for mode in (True, False):
            z = network.train(mode)(images)
            assert z.dtype == torch.float32
            torch.testing.assert_close(z.square().sum(1), torch.ones(6))
        network.eval()

    def test_it_is_projection_then_centring_then_normalisation(self, small):
        network, preprocessing = small
        images = preprocessing.standardise(torch.from_numpy(pictures(5, 16)))
        with torch.no_grad():
            features = network.backbone(images).double().numpy()
            weight, bias = (p.double().numpy() for p in network.projection.parameters())
            mean, variance = (
                b.double().numpy()
                for b in (network.centring.running_mean, network.centring.running_var)
            )
            expected = (features @ weight.T + bias - mean) / np.sqrt(variance + 1e-5)
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            np.testing.assert_allclose(network(images).numpy(), expected, atol=1e-5)

    def test_the_length_is_exact_though_layers_run_in_bfloat16(self, small):
        network, preprocessing = small
        z = embed_batches(
            network, preprocessing, pictures(4, 16), batch=4, mirror=False, autocast=torch.bfloat16
        )
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)


class TestEmbedBatches:
    # A convolutional network, one with attention, and ours; other kernels run in each.
    @pytest.mark.parametrize(
        ("name", "size", "batch"),
        [("small", 16, 64), ("small", 20, 16), ("test_resnet", 64, 16), ("test_vit", 32, 16)],
    )
    @pytest.mark.parametrize("mirror", [False, True])
    def test_an_embedding_depends_on_its_image_alone_to_the_bit(self, name, size, batch, mirror):
        network, preprocessing = make(name, size)
        pixels = pictures(batch + 3, size)
        pixels[3], pixels[4] = 255, 0

        def embed(rows: np.ndarray) -> np.ndarray:
            return embed_batches(network, preprocessing, rows, batch=batch, mirror=mirror)

        together = embed(pixels)
        assert together.shape == (batch + 3, 16)
        for row in (0, 3, batch - 1, batch, batch + 2):
            np.testing.assert_array_equal(embed(pixels[row : row + 1])[0], together[row])
        order = np.random.default_rng(1).permutation(len(pixels))
        np.testing.assert_array_equal(embed(pixels[order]), together[order])
        others = pictures(batch, size, seed=2)
        for place in range(0, batch, 5):
            others[place] = pixels[7]
        np.testing.assert_array_equal(
            embed(others)[::5], np.broadcast_to(together[7], (len(others[::5]), 16))
        )

    def test_an_image_and_its_mirror_image_embed_equally(self, small):
        network, preprocessing = small
        pixels = pictures(9, 16)
        ours = embed_batches(network, preprocessing, pixels, batch=4, mirror=True)
        mirrored = pixels[:, :, ::-1].copy()
        theirs = embed_batches(network, preprocessing, mirrored, batch=4, mirror=True)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
        one_sided = embed_batches(network, preprocessing, pixels, batch=4, mirror=False)
        assert np.abs(one_sided - ours).max() > 1e-3

    def test_with_several_threads_too(self):
        """As users run it; the other tests of networks have one thread."""
        network, preprocessing = make("small", 16)
        pixels = pictures(67, 16)
        alone = embed_batches(network, preprocessing, pixels, batch=64, mirror=True)
        torch.set_num_threads(2)
        try:
            together = embed_batches(network, preprocessing, pixels, batch=64, mirror=True)
            last = embed_batches(network, preprocessing, pixels[66:], batch=64, mirror=True)
        finally:
            torch.set_num_threads(1)
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_array_equal(together[66:], last)

    def test_no_images_give_no_rows(self, small):
        z = embed_batches(*small, np.zeros((0, 16, 16, 3), np.uint8), batch=4, mirror=True)
        assert z.shape == (0, 16)
        assert z.dtype == np.float32

    def test_every_pass_has_exactly_the_batchs_size(self, small):
        network, preprocessing = small
        seen = []
        handle = network.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
        embed_batches(network, preprocessing, pictures(9, 16), batch=4, mirror=False)
        handle.remove()
        assert seen == [4, 4, 4]

    @pytest.mark.parametrize(
        ("count", "passes"), [(0, []), (1, [1]), (7, [4, 2, 1]), (10, [10]), (23, [10, 10, 2, 1])]
    )
    def test_what_is_only_asked_with_fills_no_batch(self, small, count, passes):
        network, preprocessing = small
        seen = []
        handle = network.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
        pixels = pictures(count, 16)
        z = embed_batches(network, preprocessing, pixels, batch=10, mirror=False, fill=False)
        handle.remove()
        assert seen == passes
        stored = embed_batches(network, preprocessing, pixels, batch=10, mirror=False)
        np.testing.assert_allclose(z, stored, rtol=0, atol=1e-6)

    def test_the_pixels_given_stay_as_they_are(self, small):
        pixels = pictures(3, 16)
        pixels.flags.writeable = False
        before = pixels.copy()
        embed_batches(*small, pixels, batch=2, mirror=True)
        np.testing.assert_array_equal(pixels, before)


class TestWithoutNormalisation:
    @pytest.fixture
    def images(self) -> torch.Tensor:
        _, preprocessing = make("small", 16)
        return preprocessing.standardise(torch.from_numpy(pictures(12, 16)))

    @pytest.fixture
    def network(self) -> EmbeddingNetwork:
        normalised, _ = make("small", 16)
        network = EmbeddingNetwork(normalised.backbone, 256, 16, normalised=False)
        network.load_state_dict(normalised.state_dict())
        return network

    def test_lengths_stay_and_their_squares_are_one_in_the_mean(self, network, images):
        lengths = network.train()(images).square().sum(1)
        assert lengths.std() > 0.05
        assert lengths.mean().item() == pytest.approx(1, abs=1e-3)

    def test_the_direction_is_that_of_the_normalised(self, network, images):
        normalised, _ = make("small", 16)
        with torch.no_grad():
            z = network.eval()(images)
            torch.testing.assert_close(torch.nn.functional.normalize(z), normalised(images))
            torch.testing.assert_close(network.project(images), 4 * z)

    def test_the_mirror_image_is_met_half_way(self, network):
        _, preprocessing = make("small", 16)
        pixels = pictures(3, 16)
        network.eval()
        both = embed_batches(network, preprocessing, pixels, batch=4, mirror=True)
        alone, mirrored = (
            embed_batches(network, preprocessing, side, batch=4, mirror=False)
            for side in (pixels, pixels[:, :, ::-1])
        )
        np.testing.assert_allclose(both, (alone + mirrored) / 2, atol=1e-6)
