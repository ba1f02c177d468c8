"""Image search in a few bytes an image: deep spherical quantization (DSQ).

The names below are the public surface. They are imported when first used, so that
``import spherequant`` loads neither torch, lance nor faiss.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spherequant.errors import (
        ConfigError,
        ConflictError,
        DuplicateKeyError,
        FingerprintError,
        FormatError,
        InputError,
        LabelError,
        MissingDependencyError,
        OriginalError,
        RemovalRefusedError,
        ServiceError,
        SourceError,
        SpherequantError,
        UnknownKeyError,
    )
    from spherequant.evaluation import evaluate
    from spherequant.index import Index, SearchResult
    from spherequant.quantizer import Codebooks, SphericalQuantizer
    from spherequant.training import Model, TrainConfig, train

__version__ = "0.1.0"

_HOME = {
    "Codebooks": "spherequant.quantizer",
    "ConfigError": "spherequant.errors",
    "ConflictError": "spherequant.errors",
    "DuplicateKeyError": "spherequant.errors",
    "FingerprintError": "spherequant.errors",
    "FormatError": "spherequant.errors",
    "Index": "spherequant.index",
    "InputError": "spherequant.errors",
    "LabelError": "spherequant.errors",
    "MissingDependencyError": "spherequant.errors",
    "Model": "spherequant.training",
    "OriginalError": "spherequant.errors",
    "RemovalRefusedError": "spherequant.errors",
    "SearchResult": "spherequant.index",
    "ServiceError": "spherequant.errors",
    "SourceError": "spherequant.errors",
    "SphericalQuantizer": "spherequant.quantizer",
    "SpherequantError": "spherequant.errors",
    "TrainConfig": "spherequant.training",
    "UnknownKeyError": "spherequant.errors",
    "evaluate": "spherequant.evaluation",
    "train": "spherequant.training",
}

__all__ = [
    "Codebooks",
    "ConfigError",
    "ConflictError",
    "DuplicateKeyError",
    "FingerprintError",
    "FormatError",
    "Index",
    "InputError",
    "LabelError",
    "MissingDependencyError",
    "Model",
    "OriginalError",
    "RemovalRefusedError",
    "SearchResult",
    "ServiceError",
    "SourceError",
    "SpherequantError",
    "SphericalQuantizer",
    "TrainConfig",
    "UnknownKeyError",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'spherequant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
