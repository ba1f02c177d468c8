"""Random numbers that are a function of (seed, epoch, purpose, key), never of worker order."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """Return a 64-bit hash of each key: uint64 [N]."""
    digests = b"".join(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for key in keys
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


@contextmanager
def torch_generator_kept() -> Iterator[None]:
    """Leave torch's own generators to the caller as they were, whatever is drawn or seeded inside.

    Dropout, and the weights of a network that is made, come from them alone.
    """
    import torch  # the rest of this module does without

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield


def seed_for(purpose: str, *numbers: int) -> int:
    """Return a 63-bit seed for one purpose, such as ``seed_for("torch", seed, epoch)``."""
    text = "\0".join((purpose, *(str(number) for number in numbers)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(hashes: np.ndarray, count: int, purpose: str, *numbers: int) -> np.ndarray:
    """Return uniform numbers in [0, 1) for each key.

    Counter-based (SplitMix64; Steele, Lea and Flood, OOPSLA 2014): the numbers of a key are the
    same whichever other keys are asked for beside it.

    Args:
        hashes: uint64 [N], of ``key_hashes``.
        count: numbers for each key.
        purpose: keeps the streams of different uses apart.
        numbers: seed, epoch and the like.

    Returns:
        float64 [N, count].
    """
    base = hashes ^ np.uint64(seed_for(purpose, *numbers))
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    with np.errstate(over="ignore"):
        bits = _mix(_mix(base)[:, None] + counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def shuffled(hashes: np.ndarray, *numbers: int) -> np.ndarray:
    """Return the positions of all keys in the order of one epoch: int64 [N]."""
    return np.argsort(uniform(hashes, 1, "order", *numbers)[:, 0], kind="stable")
