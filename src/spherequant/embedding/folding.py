"""Networks as they are asked, not trained: batch normalisation becomes part of convolutions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spherequant.embedding.arithmetic import exact_float32

if TYPE_CHECKING:
    from collections.abc import Callable

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def folded(network: Network, side: int) -> Network:
    """Return what gives the same as a network in evaluation mode, with less to do.

    Batch normalisation then multiplies each channel by a number and adds another, which the
    convolution before it can do by itself. That saves a pass over all values for each layer: more
    than a quarter of the time of a MobileNetV2 on a processor (benchmarks/embedding_speed.py).

    Which normalisation follows which convolution is seen when images pass through. The result is
    compared with that of the network: one that would not give the same, as where a convolution
    computes its filters anew each time, is returned as it is.

    Args:
        network: float32 [B, 3, side, side] -> float32 [B, D], in evaluation mode; not changed.
        side: of its input, in pixels.

    Returns:
        A copy, or the network itself where there is nothing to gain.
    """
    pairs = _Pairs(network)
    if not pairs.possible:
        return network
    device = next(network.parameters()).device
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = noise.to(device, memory_format=torch.channels_last)
    with exact_float32(device):
        expected = pairs.seen(images)
    if not pairs.found:
        return network
    twin = copy.deepcopy(network)
    for convolution, normalisation in pairs.found:
        before, after = twin.get_submodule(convolution), twin.get_submodule(normalisation)
        fused = fuse_conv_bn_eval(before, after)  # type: ignore[type-var, arg-type]  # a Conv2d and its BatchNorm2d, by _Pairs: get_submodule tells no type
        _replace(twin, convolution, fused)
        _replace(twin, normalisation, _what_stays(after))
    twin.to(memory_format=torch.channels_last)
    bound = 1e-4 * float(expected.abs().max())
    with exact_float32(device):
        given = twin(images)
    return twin if torch.allclose(given, expected, rtol=1e-3, atol=bound) else network


class _Pairs:
    """Convolutions of a network, each with the normalisation that takes what it gives.

    Attributes:
        found: their names, after ``seen``; only modules that images pass once.
    """

    def __init__(self, network: nn.Module) -> None:
        self.found: list[tuple[str, str]] = []
        self._network = network
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        self._modules = {n: m for n, m in network.named_modules() if isinstance(m, kinds)}
        self._given: dict[int, tuple[str, torch.Tensor]] = {}  # kept alive, so that ids stay
        self._passed: list[str] = []

    @property
    def possible(self) -> bool:
        """Whether there are both kinds at all."""
        return len({isinstance(module, nn.Conv2d) for module in self._modules.values()}) == 2

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """Pass images through; return what the network gives for them."""
        hooks = [
            module.register_forward_hook(self._hook(name)) for name, module in self._modules.items()
        ]
        try:
            result: torch.Tensor = self._network(images)
        finally:
            for hook in hooks:
                hook.remove()
        self._given.clear()
        once = {name for name in self._passed if self._passed.count(name) == 1}
        self.found = [pair for pair in self.found if once.issuperset(pair)]
        return result

    def _hook(self, name: str) -> Callable[..., None]:
        def passed(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            self._passed.append(name)
            if isinstance(module, nn.Conv2d):
                self._given[id(output)] = (name, output)
            elif id(inputs[0]) in self._given and _can_go(module):
                self.found.append((self._given[id(inputs[0])][0], name))

        return passed


def _can_go(normalisation: nn.Module) -> bool:
    """Whether it is known what a normalisation does beside its own two numbers a channel."""
    if not isinstance(normalisation, nn.BatchNorm2d) or normalisation.running_var is None:
        return False
    return type(normalisation) is nn.BatchNorm2d or _has_activation(normalisation)


def _has_activation(normalisation: nn.Module) -> bool:
    """Whether it is timm's, which has the activation that follows in itself."""
    kind = type(normalisation)
    return kind.__module__.startswith("timm.") and kind.__name__ == "BatchNormAct2d"


def _what_stays(normalisation: nn.Module) -> nn.Module:
    activation = getattr(normalisation, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
