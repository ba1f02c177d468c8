"""Unit vectors to M bytes and back: codebooks, encoding, learning.

Importing this package loads neither torch nor scikit-learn; the names that need them are imported
when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spherequant.quantizer.codebooks import Codebooks
from spherequant.quantizer.encoder import Encoder
from spherequant.quantizer.sparsity import nonzero_budget
from spherequant.quantizer.target import ClassTarget
from spherequant.quantizer.vectors import inner_products, normalise_rows

if TYPE_CHECKING:
    from spherequant.quantizer.batch_encoding import encode_batch
    from spherequant.quantizer.learning import (
        learn_codebooks,
        nearest_codes,
        reseed_dead,
        residual_codebooks,
    )
    from spherequant.quantizer.least_squares import CodebookSums
    from spherequant.quantizer.sparse_least_squares import solve_sparse
    from spherequant.quantizer.spherical import SphericalQuantizer

_LAZY = {
    "CodebookSums": "spherequant.quantizer.least_squares",
    "SphericalQuantizer": "spherequant.quantizer.spherical",
    "encode_batch": "spherequant.quantizer.batch_encoding",
    "learn_codebooks": "spherequant.quantizer.learning",
    "nearest_codes": "spherequant.quantizer.learning",
    "reseed_dead": "spherequant.quantizer.learning",
    "residual_codebooks": "spherequant.quantizer.learning",
    "solve_sparse": "spherequant.quantizer.sparse_least_squares",
}

__all__ = [
    "ClassTarget",
    "CodebookSums",
    "Codebooks",
    "Encoder",
    "SphericalQuantizer",
    "encode_batch",
    "inner_products",
    "learn_codebooks",
    "nearest_codes",
    "nonzero_budget",
    "normalise_rows",
    "reseed_dead",
    "residual_codebooks",
    "solve_sparse",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'spherequant.quantizer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
