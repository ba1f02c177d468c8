"""Embeddings between those of training images: what codebooks for other images learn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FEWEST = 16_384  # mixtures of a small training set
MOST = 65_536  # rows of a large one, and as many mixtures: codebooks are learned from no more
# Of the share of the second: mostly little of it, at times half or more.
_BETA = (0.5, 1.0)
_SHORTEST = 1e-6  # of a mixture that has a direction


def with_mixtures(
    z_ND: npt.NDArray[np.float32], seed: int, *, normalised: bool
) -> npt.NDArray[np.float32]:
    """Rows, and after them as many mixtures of two rows each, or more where there are few.

    A network is surer of the images that it was trained on than of others: their embeddings lie at
    the centres of their classes, those of others also between them. Codebooks of the first alone
    have no codewords for the second. Mixtures of two embeddings stand for them, as mixup (Zhang et
    al., ICLR 2018) and its variant of hidden layers (Verma et al., ICML 2019) do in training.

    Args:
        z_ND: [N, D], embeddings of training images, N >= 1; of more than 65,536 so many are drawn.
        seed: Everything random comes from it.
        normalised: Whether rows lie on the unit sphere; mixtures then do, too.

    Returns:
        [N + max(N, 16384), D], for N up to 65,536
    """
    rng = np.random.default_rng(seed)
    if len(z_ND) > MOST:
        z_ND = z_ND[np.sort(rng.permutation(len(z_ND))[:MOST])]
    count = max(len(z_ND), FEWEST)
    first_N, second_N = rng.integers(len(z_ND), size=(2, count))
    share_N1 = rng.beta(*_BETA, size=(count, 1)).astype(np.float32)
    mixed_ND = z_ND[first_N] + share_N1 * (z_ND[second_N] - z_ND[first_N])
    if normalised:
        length_N1 = np.linalg.norm(mixed_ND, axis=1, keepdims=True)
        # Half and half of two opposite rows has no direction.
        mixed_ND = np.where(
            length_N1 > _SHORTEST, mixed_ND / np.maximum(length_N1, _SHORTEST), z_ND[first_N]
        )
    return np.concatenate([z_ND, mixed_ND.astype(np.float32)])
