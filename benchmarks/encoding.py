"""Speed and error of encoding unit vectors, beside FAISS's encoders of the same codebooks.

    python benchmarks/encoding.py [--dim 64] [--bits 32 64] [--rows 10000] [--repetitions 5]

The vectors are synthetic and seeded: 100 clusters on the sphere, as supervised embeddings have,
with a spectrum that falls off inside them. Codebooks are learned on other vectors, once by
`learn_codebooks` and once by FAISS's residual quantizer; every encoder gets the same ones. FAISS's
residual quantizer runs as its authors offer it, with look-up tables (`use_beam_LUT`) and without,
its local search quantizer with its own settings. The error is that of the codes, decoded alike.
Ours have a beam, rounds of ICM, and so many codes of the beam from which these go on. Encoders take
turns; times are wall time on the same number of threads. Each is compared with the
fastest of our settings whose error is not above its own. Figures go to docs/results.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

import results
from spherequant.quantizer import Codebooks, Encoder, learn_codebooks, normalise_rows
from spherequant.quantizer.codebooks import (
    DEFAULT_BEAM,
    DEFAULT_ICM_ROUNDS,
    DEFAULT_ICM_STARTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTERS = 100
N_CODEWORDS = 256
TRAINING_ROWS = 20_000
FAISS_TRAINING_ROWS = 39 * N_CODEWORDS  # the fewest it trains on without a warning
FAISS_BEAM = 5
# Beam, rounds of ICM and codes of the beam that it goes on from.
DEFAULT = (DEFAULT_BEAM, DEFAULT_ICM_ROUNDS, DEFAULT_ICM_STARTS)
SETTINGS = ((5, 0, 1), (5, 3, 1), (16, 3, 1), DEFAULT)
WIDE = (40, 3, 16)  # for what local search reaches
PAUSE_S = 0.3  # in which FAISS's threads stop spinning for work

Array = npt.NDArray[np.float32]


class Contender(NamedTuple):
    """One encoder with the codebooks set."""

    name: str
    ours: bool
    encode: Callable[[Array], npt.NDArray[np.uint8]]


class Measured(NamedTuple):
    """What came of it."""

    contender: Contender
    error: float
    seconds_R: npt.NDArray[np.float64]


def clustered(rows: int, dim: int, seed: int) -> Array:
    """Unit vectors around the same cluster centres for every seed: float32 [rows, dim]."""
    world = np.random.default_rng(0)
    centres = normalise_rows(world.normal(size=(CLUSTERS, dim)))
    shape = world.normal(size=(dim, dim)) * np.exp(-3 * np.arange(dim) / dim)
    shape *= 0.5 / np.sqrt((shape**2).sum())  # spread inside a cluster: half of its distance to 0
    rng = np.random.default_rng(seed)
    return normalise_rows(
        centres[rng.integers(CLUSTERS, size=rows)] + rng.normal(size=(rows, dim)) @ shape.T
    )


def learned(dim: int, bits: int, by: str, folder: Path | None = None) -> Codebooks:
    """Codebooks for vectors of :func:`clustered`, read from the folder if it has them.

    Args:
        dim: D.
        bits: of a code; 8 for each codebook.
        by: ``learn_codebooks`` or ``FAISS``, whose residual quantizer learns.
        folder: where codebooks are kept for another run.
    """
    path = None if folder is None else folder / f"{by}-{dim}-{bits}.safetensors"
    if path is not None and path.exists():
        return Codebooks.load(path)
    n_codebooks = bits // 8
    training = clustered(TRAINING_ROWS, dim, seed=1)
    if by == "FAISS":
        quantizer = faiss.ResidualQuantizer(dim, n_codebooks, 8)
        quantizer.train_type = faiss.ResidualQuantizer.Train_default  # not dimension by dimension
        quantizer.train(training[:FAISS_TRAINING_ROWS])
        array = faiss.vector_to_array(quantizer.codebooks)
        codebooks = Codebooks(array.reshape(n_codebooks, N_CODEWORDS, dim))
    else:
        codebooks = learn_codebooks(training, n_codebooks, N_CODEWORDS)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        codebooks.save(path)
    return codebooks


def with_codebooks(quantizer: Any, codebooks: Codebooks) -> Any:
    """Give one of FAISS's additive quantizers codebooks, as if it had learned them."""
    faiss.copy_array_to_vector(codebooks.array.ravel().copy(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.compute_codebook_tables()  # of its look-up tables
    return quantizer


def contenders(codebooks: Codebooks, threads: int, *, local_search: bool) -> list[Contender]:
    """All encoders of the codebooks; LSQ takes long, and is left out on request."""
    found = []
    for setting in (*SETTINGS, WIDE) if local_search else SETTINGS:
        encoder = Encoder(codebooks, None, *setting)
        beam, rounds, starts = setting
        default = " (default)" if setting == DEFAULT else ""
        found.append(
            Contender(
                f"beam {beam}, {rounds} rounds from {starts}{default}",
                True,
                functools.partial(encoder.encode, threads=threads),
            )
        )
    shape = (codebooks.dim, codebooks.n_codebooks, 8)
    for tables in (False, True):
        residual = with_codebooks(faiss.ResidualQuantizer(*shape), codebooks)
        residual.max_beam_size = FAISS_BEAM
        residual.use_beam_LUT = int(tables)
        name = f"FAISS RQ, beam {FAISS_BEAM}{', look-up tables' if tables else ''}"
        found.append(Contender(name, False, residual.compute_codes))
    if local_search:
        local = with_codebooks(faiss.LocalSearchQuantizer(*shape), codebooks)
        found.append(Contender("FAISS LSQ", False, local.compute_codes))
    return found


def measure(
    codebooks: Codebooks, contenders: list[Contender], vectors: Array, repetitions: int
) -> list[Measured]:
    """Errors, and seconds of each repetition, the encoders taking turns."""
    errors = []
    for contender in contenders:  # makes their tables too
        decoded = codebooks.decode(contender.encode(vectors)).astype(np.float64)
        errors.append(float(((decoded - vectors) ** 2).sum(axis=1).mean()))
    seconds = np.empty((len(contenders), repetitions))
    for repetition in range(repetitions):
        for i, contender in enumerate(contenders):
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            contender.encode(vectors)
            seconds[i, repetition] = time.perf_counter() - start
    return list(map(Measured, contenders, errors, seconds))


def table(measured: list[Measured], rows: int) -> list[list[object]]:
    """A row for each encoder; the last two cells of FAISS's compare it with the fastest of ours."""
    cells: list[list[object]] = []
    for contender, error, seconds in measured:
        low, middle, high = np.quantile(seconds, [0, 0.5, 1]) / rows * 1e6
        cells.append([contender.name, f"{error:.6f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"])
        rivals = [one for one in measured if one.contender.ours and one.error <= error]
        if contender.ours or not rivals:
            cells[-1] += ["-", "-"]
            continue
        rival = min(rivals, key=lambda one: float(np.median(one.seconds_R)))
        low, middle, high = np.quantile(seconds / rival.seconds_R, [0, 0.5, 1])
        cells[-1] += [rival.contender.name, f"{middle:.1f} ({low:.1f} to {high:.1f})"]
    return cells


def main() -> None:
    """Measure one dimension, print and record it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64], help="multiples of 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--codebooks",
        type=Path,
        help="folder that keeps them for another run; empty it when learning changes",
    )
    arguments = parser.parse_args()

    faiss.omp_set_num_threads(arguments.threads)
    vectors = clustered(arguments.rows, arguments.dim, seed=2)
    columns = [
        "encoder", "squared error", "µs a vector", "ours of no higher error", "times as fast",
    ]  # fmt: skip
    tables = []
    for bits in arguments.bits:
        for by in ("learn_codebooks", "FAISS"):
            codebooks = learned(arguments.dim, bits, by, arguments.codebooks)
            ours = by == "learn_codebooks"
            measured = measure(
                codebooks,
                contenders(codebooks, arguments.threads, local_search=ours),
                vectors,
                arguments.repetitions,
            )
            rows = table(measured, arguments.rows)
            learner = "`learn_codebooks`" if ours else "FAISS's residual quantizer"
            caption = f"{bits} bits, codebooks learned by {learner}"
            tables.append({"caption": caption, "columns": columns, "rows": rows})
            print(caption)
            for row in rows:
                print("  {:<36} {:>9} {:>25}   {:<36} {}".format(*row))
    results.record(
        f"encoding-{arguments.dim}",
        f"Encoding in {arguments.dim} dimensions",
        f"{arguments.rows:,} synthetic unit vectors in {CLUSTERS} clusters, encoded on "
        f"{arguments.threads} threads; median of {arguments.repetitions} repetitions in turns "
        f"(least to most), ratios of each turn likewise. FAISS {faiss.__version__}. Its LSQ "
        "encodes with its own settings (16 iterations of local search, 4 perturbations).",
        tables,
    )


if __name__ == "__main__":
    main()
