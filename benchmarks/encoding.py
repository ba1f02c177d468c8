"""Seconds and error of encoding 50,000 unit vectors of 64 dimensions, at 32 and 64 bits.

    python benchmarks/encoding.py [--rows 50000] [--dim 64] [--bits 32 64] [--threads 1 2]

The vectors are synthetic and seeded: 100 clusters on the sphere, as supervised embeddings have,
with a spectrum that falls off inside them. Codebooks are learned on 20,000 vectors and the error is
measured on others.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from spherequant.quantizer import Encoder, learn_codebooks, normalise_rows

CLUSTERS = 100


def clustered(rows: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors around the same cluster centres for every seed: float32 [rows, dim]."""
    world = np.random.default_rng(0)
    centres = normalise_rows(world.normal(size=(CLUSTERS, dim)))
    shape = world.normal(size=(dim, dim)) * np.exp(-3 * np.arange(dim) / dim)
    shape *= 0.5 / np.sqrt((shape**2).sum())  # spread inside a cluster: half of its distance to 0
    rng = np.random.default_rng(seed)
    return normalise_rows(
        centres[rng.integers(CLUSTERS, size=rows)] + rng.normal(size=(rows, dim)) @ shape.T
    )


def main() -> None:
    """Print one line for each code length and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64], help="multiples of 8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()

    training = clustered(20_000, arguments.dim, seed=1)
    vectors = clustered(arguments.rows, arguments.dim, seed=2)
    print(f"{arguments.rows} clustered unit vectors of {arguments.dim} dimensions")
    print(f"{'bits':>4} {'threads':>7} {'seconds':>8} {'squared error':>14} {'learning, s':>12}")
    for bits in arguments.bits:
        start = time.perf_counter()
        codebooks = learn_codebooks(training, bits // 8, 256)
        learning = time.perf_counter() - start
        encoder = Encoder(codebooks)
        encoder.encode(vectors[:1])  # makes the tables
        for threads in arguments.threads:
            start = time.perf_counter()
            codes = encoder.encode(vectors, threads=threads)
            seconds = time.perf_counter() - start
            error = float(((codebooks.decode(codes) - vectors) ** 2).sum(axis=1).mean())
            print(f"{bits:>4} {threads:>7} {seconds:>8.2f} {error:>14.5f} {learning:>12.1f}")


if __name__ == "__main__":
    main()
