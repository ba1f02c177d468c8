"""How a GPU computes: switches of the whole process, turned for a while and turned back."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_SWITCHES = threading.RLock()
_BACKENDS = (torch.backends.cuda, torch.backends.mkldnn)


@contextmanager
def steady_kernels(device: torch.device) -> Iterator[None]:
    """Let convolutions take the same algorithm each time, and one that adds in one order.

    Args:
        device: of the convolutions; only a GPU has the choice.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with _SWITCHES:
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        with _SWITCHES:
            cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Let float32 mean float32: TF32 would round what convolutions and matrix products multiply.

    One thread at a time is inside, whatever its network: the switches are those of all.

    Args:
        device: of the arithmetic; on a processor float32 is exact.
    """
    if device.type != "cuda":
        yield
        return
    with _SWITCHES, steady_kernels(device), _exact_convolutions(), _exact_products():
        yield


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):  # before torch 2.9 there is one switch for all of cuDNN
        before = cudnn.allow_tf32
        cudnn.allow_tf32 = False
        try:
            yield
        finally:
            cudnn.allow_tf32 = before
        return
    precision = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = precision


@contextmanager
def _exact_products() -> Iterator[None]:
    # The older switch sets the newer ones too; the newer alone would contradict it.
    parts: list[Any] = [getattr(backends, "matmul", None) for backends in _BACKENDS]
    newer = [
        (products, products.fp32_precision)
        for products in parts
        if hasattr(products, "fp32_precision")
    ]
    older = None
    with suppress(RuntimeError):  # it cannot be told where the newer were set without it
        older = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for products, precision in newer:
            products.fp32_precision = precision
