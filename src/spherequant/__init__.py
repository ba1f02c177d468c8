"""Image search in a few bytes an image: deep spherical quantization (DSQ).

The names below are the public surface. All but the errors are imported when first used, so that
``import spherequant`` loads neither torch, lance nor faiss.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from spherequant.evaluation import evaluate
    from spherequant.index import Index, SearchResult
    from spherequant.quantizer import Codebooks, SphericalQuantizer
    from spherequant.training import Model, TrainConfig, train

__version__ = "0.1.0"

_HOME = {
    "Codebooks": "spherequant.quantizer",
    "Index": "spherequant.index",
    "Model": "spherequant.training",
    "SearchResult": "spherequant.index",
    "SphericalQuantizer": "spherequant.quantizer",
    "TrainConfig": "spherequant.training",
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
