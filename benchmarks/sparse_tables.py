"""Time to build a query's look-up table: sparse codebooks against dense ones of the same shape.

    python benchmarks/sparse_tables.py [--threads 1] [--seconds 0.3]

Codebooks are random, with K = 256 and the nonzeros of the budgets S1 = K D and S2 = min(K D + D^2,
M K D) anywhere in them: the time depends on where and how many they are, not on their values. For
each shape two tables of the same queries are built in turns: from all values (`Columns`) and from
the nonzeros alone (`SparseColumns`), both made ready beforehand, and compared to the bit. Beside
them stands which of the two `Codebooks.lookup_table` takes. Figures go to docs/results.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import results
from spherequant import Codebooks, _native
from spherequant.quantizer import nonzero_budget, sparse_tables

if TYPE_CHECKING:
    from collections.abc import Callable

N_CODEWORDS = 256
DIMS = (64, 256, 1024)
BOOKS = (4, 8, 16)
BUDGETS = ("S1", "S2")
BATCHES = (1, 64)
TURNS = (7, 2_000)  # at least and at most

Array = npt.NDArray[np.float32]


def random_codebooks(m: int, d: int, nonzeros: int) -> Codebooks:
    """Codebooks with so many normal values, anywhere."""
    rng = np.random.default_rng(0)
    array = np.zeros(m * N_CODEWORDS * d, np.float32)
    array[rng.choice(array.size, nonzeros, replace=False)] = rng.normal(size=nonzeros)
    return Codebooks(array.reshape(m, N_CODEWORDS, d))


def timed(ways: list[Callable[[], object]], seconds: float) -> npt.NDArray[np.float64]:
    """Seconds of each way and turn, the ways taking turns: [ways, turns]."""
    for way in ways:
        way()
    turns: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(turns) < TURNS[0] or (time.perf_counter() < end and len(turns) < TURNS[1]):
        turn = []
        for way in ways:
            begun = time.perf_counter()
            way()
            turn.append(time.perf_counter() - begun)
        turns.append(turn)
    return np.array(turns).T


def row(m: int, d: int, budget: str, batch: int, options: argparse.Namespace) -> list[object]:
    """One line of the table."""
    codebooks = random_codebooks(m, d, nonzero_budget(budget, m, N_CODEWORDS, d) or 0)
    flat = codebooks.array.reshape(-1, d)
    queries = np.random.default_rng(1).normal(size=(batch, d)).astype(np.float32)
    dense, sparse = _native.Columns(flat), _native.SparseColumns(flat)
    ways: list[Callable[[], object]] = [
        lambda: dense.inner_products(queries, options.threads),
        lambda: sparse.inner_products(queries, options.threads),
    ]
    tables = [np.asarray(way()).tobytes() for way in ways]
    if len(set(tables)) != 1:
        raise SystemExit("the tables differ: no benchmark")
    seconds = timed(ways, options.seconds)
    microseconds = np.median(seconds, axis=1) * 1e6 / batch
    low, middle, high = np.quantile(seconds[0] / seconds[1], [0.1, 0.5, 0.9])
    pays = sparse_tables.pays(codebooks.array, codebooks.nnz, batch)
    return [
        d, m, f"{budget}, {codebooks.nnz / codebooks.array.size:.0%}", batch,
        f"{microseconds[0]:.1f}", f"{microseconds[1]:.1f}",
        f"{middle:.2f} ({low:.2f} to {high:.2f})", "sparse" if pays else "dense",
    ]  # fmt: skip


def main() -> None:
    """Measure every shape, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of the kernels called directly")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each line, about")
    options = parser.parse_args()
    rows = []
    for d in DIMS:
        for m in BOOKS:
            for budget in BUDGETS:
                for batch in BATCHES:
                    rows.append(row(m, d, budget, batch, options))
                    print(*rows[-1], sep="\t", flush=True)
    results.record(
        "sparse-tables",
        "Tables of sparse codebooks",
        f"Random codebooks of {N_CODEWORDS} codewords, random queries; {options.threads} thread; "
        "medians of turns (ratios of the same turn, with their 10 % and 90 % quantiles). "
        "The share is that of nonzeros; where S2 is 100 % the codebooks are dense.",
        [
            {
                "caption": "Microseconds a query, and times as fast as dense",
                "columns": [
                    "D", "M", "budget, share", "queries together", "dense, µs", "sparse, µs",
                    "sparse, times as fast", "`lookup_table` takes",
                ],
                "rows": rows,
            }
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
