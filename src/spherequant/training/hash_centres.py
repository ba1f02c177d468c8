"""Binary targets of the classes, far from each other: hash centres."""

from __future__ import annotations

import math

import numpy as np
import torch

from spherequant.errors import ConfigError

_DRAWS = 1_000  # for each centre: some fall on one that is there already


def hash_centres(classes: int, bits: int, seed: int) -> np.ndarray:
    """Return a vector of signs for each class (CSQ; Yuan et al., CVPR 2020).

    Where ``bits`` is a power of two and there are at most ``bits`` classes: rows of a Hadamard
    matrix, drawn at random, so that any two differ in half of their bits. (The published code
    takes the first rows; those of Sylvester's matrix repeat columns.) Up to twice as many classes
    take the negatives of rows as well. Each row has a sign drawn at random: the first column of
    the matrix is the same in all rows, and a bit that all classes share tells nothing. Elsewhere:
    random vectors with half of their bits set, all different.

    Args:
        classes: C.
        bits: b, even.
        seed: of the draw.

    Returns:
        float32 [C, b] of +1 and -1.

    Raises:
        ConfigError: more classes than such vectors could be found for.
    """
    from scipy.linalg import hadamard

    generator = np.random.default_rng(seed)
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = generator.permutation(bits)
        signs = generator.choice((-1.0, 1.0), bits)
        matrix = signs[:, None] * hadamard(bits)[rows]
        return np.concatenate([matrix, -matrix])[:classes].astype(np.float32)
    return _balanced(classes, bits, generator)


def _balanced(classes: int, bits: int, generator: np.random.Generator) -> np.ndarray:
    half = np.repeat(np.array([1.0, -1.0], np.float32), bits // 2)
    if classes > math.comb(bits, bits // 2):
        raise ConfigError(_too_many(classes, bits))
    centres: dict[bytes, np.ndarray] = {}
    for _ in range(_DRAWS * classes):
        drawn = generator.permutation(half)
        centres.setdefault(drawn.tobytes(), drawn)
        if len(centres) == classes:
            return np.stack(list(centres.values()))
    raise ConfigError(_too_many(classes, bits))


def _too_many(classes: int, bits: int) -> str:
    return (
        f"{classes} classes cannot all have their own balanced centre of {bits} bits: take more "
        "bits, or the objective dsq"
    )


def hash_centres_of(
    labels_BC: torch.Tensor, centres_CK: torch.Tensor, tie_K: torch.Tensor
) -> torch.Tensor:
    """Return the hash centre of each image: for several labels, the majority of each bit.

    As in CSQ: where as many centres have the bit as have it not, it is random; here
    one draw for all images, so that images of the same labels have the same centre.

    Args:
        labels_BC: bool, at least one label a row.
        centres_CK: float32 of +1 and -1.
        tie_K: float32 of +1 and -1.

    Returns:
        float32 [B, K] of +1 and -1.
    """
    votes_BK = labels_BC.to(centres_CK.dtype) @ centres_CK
    return torch.where(votes_BK == 0, tie_K, votes_BK.sign())
