from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from spherequant.embedding import small
from spherequant.embedding.small import WHITENED, Small


def patches_of(images: torch.Tensor) -> torch.Tensor:
    """All 2 x 2 patches, by a plain loop: [count, 12], channel first as a filter is."""
    _, _, height, width = images.shape
    rows = [
        images[:, :, y : y + 2, x : x + 2].reshape(len(images), 12)
        for y in range(height - 1)
        for x in range(width - 1)
    ]
    return torch.cat(rows).double()


@pytest.fixture
def correlated() -> torch.Tensor:
    """Smooth images of related channels: patches far from white."""
    rough = torch.randn(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    smooth = functional.avg_pool2d(rough, 3, 1, 1)
    noise = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return torch.cat([smooth, 2 * smooth, -smooth], dim=1) + 0.2 * noise


@pytest.mark.parametrize("side", [16, 17, 23, 32, 48, 64])
def test_any_side_from_16_gives_one_vector_an_image(side):
    network = Small(widths=(8, 16, 24)).eval()
    assert network.num_features == 24
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 24)


def test_the_usual_widths():
    network = Small()
    assert network.num_features == 256
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 256)


def test_whitened_patches_have_unit_covariance(correlated):
    network = Small(widths=(8,))
    network.fit_whitening(correlated, epsilon=0.0)
    white = network.whiten(correlated).permute(0, 2, 3, 1).reshape(-1, WHITENED).double()
    second = (white.T @ white / len(white)).detach().numpy()
    eye = np.eye(12)
    np.testing.assert_allclose(second, np.block([[eye, -eye], [-eye, eye]]), atol=1e-3)


def test_epsilon_keeps_weak_directions_small(correlated):
    network = Small(widths=(8,))
    network.fit_whitening(correlated, epsilon=0.5)
    patches = patches_of(correlated)
    variance = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    white = network.whiten(correlated)[:, :12].permute(0, 2, 3, 1).reshape(-1, 12).double()
    np.testing.assert_allclose(
        white.square().mean(0).detach(), variance / (variance + 0.5), rtol=1e-4
    )


def test_whitening_does_not_depend_on_how_many_images_are_taken_at_once(correlated, monkeypatch):
    whole, parts = Small(widths=(8,)), Small(widths=(8,))
    whole.fit_whitening(correlated)
    monkeypatch.setattr(small, "_WHITENED_AT_ONCE", 7)
    parts.fit_whitening(correlated)
    white, other = whole.whiten(correlated)[:, :12], parts.whiten(correlated)[:, :12]
    # The sign of a direction is free; each stands beside its negative.
    np.testing.assert_allclose(white.abs().detach(), other.abs().detach(), rtol=1e-3, atol=1e-3)


def test_whitening_and_scales_are_frozen_and_shifts_are_trained(correlated):
    network = Small(widths=(8, 8))
    network.fit_whitening(correlated)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [p for p in network.parameters() if p.requires_grad]
    network(correlated).square().sum().backward()
    torch.optim.SGD(trained, lr=0.1).step()
    after = network.state_dict()
    assert torch.equal(after["whiten.weight"], before["whiten.weight"])
    assert not torch.equal(after["blocks.0.2.bias"], before["blocks.0.2.bias"])
    for name, value in after.items():
        if name.endswith((".2.weight", ".5.weight")):  # scales of batch normalisation
            assert torch.equal(value, torch.ones_like(value))


def test_convolutions_start_by_handing_their_input_on():
    network = Small(widths=(32, 48))
    hidden = torch.randn(1, 32, 8, 8)
    same = network.blocks[0][4](hidden)
    torch.testing.assert_close(same, hidden)
    wider = network.blocks[1][0](hidden)
    torch.testing.assert_close(wider[:, :32], hidden)
    assert not torch.equal(wider[:, 32:], torch.zeros_like(wider[:, 32:]))
