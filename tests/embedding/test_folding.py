from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spherequant.embedding import EmbeddingNetwork, create_backbone, folded

SIDE = 64


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with batch normalisation as after a training: no number is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return network.eval()


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def images(side: int = SIDE) -> torch.Tensor:
    return torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(9))


# Plain normalisation, one with an activation of its own, convolutions that pad by themselves.
@pytest.mark.parametrize(
    ("name", "left"),
    [("mobilenetv2_100", 0), ("resnet18", 0), ("tf_efficientnet_lite0", 0), ("small", 3)],
)
def test_it_gives_the_same_with_less_to_do(name, left):
    torch.manual_seed(0)
    backbone, features, _, _ = create_backbone(name, "none", SIDE)
    network = with_statistics(EmbeddingNetwork(backbone, features, 16))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twin = folded(network, SIDE)
    assert normalisations(network) > 0
    assert normalisations(twin) == left
    with torch.inference_mode():
        given, expected = twin(images()), network(images())
    np.testing.assert_allclose(given, expected, atol=1e-4)
    after = network.state_dict()  # what is stored has not changed, nor is anything left on it
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(module._forward_hooks for module in network.modules())
    again = folded(network, SIDE)
    with torch.inference_mode():
        assert torch.equal(again(images()), given)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_without_batch_normalisation_nothing_is_copied(name):
    backbone, _, _, _ = create_backbone(name, "none", SIDE)
    assert folded(backbone.eval(), SIDE) is backbone


class Odd(nn.Module):
    """A convolution and a normalisation, put together in a way of its own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.normal, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        if way == "statistics of the batch":
            self.normal = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.way == "used besides":
            x = self.normal(x) + x
        elif self.way == "twice":
            x = self.other(self.second(self.second(self.normal(x))))
        elif self.way == "something between":
            x = self.normal(x.relu())
        else:
            x = self.normal(x)
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize(
    "way", ["used besides", "twice", "something between", "statistics of the batch", "plain"]
)
def test_what_would_give_something_else_stays(way):
    torch.manual_seed(0)
    network = with_statistics(Odd(way))
    twin = folded(network, 16)
    with torch.inference_mode():
        torch.testing.assert_close(twin(images(16)), network(images(16)))
    assert (twin is network) == (way not in ("plain", "twice"))
    assert isinstance(twin.other, nn.BatchNorm2d)  # in none can that go


class Standardised(nn.Conv2d):
    """Filters that are computed anew at each pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.std(), self.bias)


def test_filters_that_are_computed_anew_stay():
    network = Odd("plain")
    network.first = Standardised(3, 4, 3)
    assert folded(with_statistics(network), 16) is network
