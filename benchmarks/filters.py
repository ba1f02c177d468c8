"""What filters and deletes cost a search: filtered scans beside the flat scan of all items.

    python benchmarks/filters.py

Filters are timed from the compiled bitmap; compiling them is timed apart. Items are allowed, or
dead, at random, so that no block of 64 items is free of them until few are left.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import results
from spherequant.errors import SpherequantError
from spherequant.index import comparison, scan

# Share of the items that are left, and what leaves them: a filter, or deletes.
_MASKS = {
    "filter: 50 % allowed": 0.5,
    "filter: 10 % allowed": 0.1,
    "filter: 1 % allowed": 0.01,
    "filter: 0.01 % allowed": 0.0001,
    "deletes: 10 % dead": 0.9,
    "deletes: 25 % dead": 0.75,
}
_ALL = "all items"
_SINGLE_QUERIES = 16
_BATCHES = (1, comparison.BATCH)

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of codes, searched through one layout with one mask.

    Attributes:
        layout: "flat" or "buckets".
        mask: key of ``_MASKS``, or ``_ALL``.
        search: finds ids for tables.
        compiling: milliseconds that each repetition of compiling the mask took, of CPU.
    """

    layout: str
    mask: str
    search: Search
    compiling: Sequence[float] = ()


def main() -> None:
    """Time every length and kind of codes, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=(32, 64))
    parser.add_argument("--clusters", type=int, nargs="+", default=(0, 100))
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    ratios, compiling, times = [], [], []
    for bits in options.bits:
        for clusters in options.clusters:
            kind = f"{clusters} clusters" if clusters else "uniform"
            collection = comparison.make_collection(options.items, bits, clusters=clusters)
            cases = _cases(collection, options.k, options.repetitions)
            taken = _time(cases, collection, options.repetitions)
            base = taken["flat", _ALL]
            times += [[bits, kind, batch, statistics.median(base[batch])] for batch in _BATCHES]
            for case in cases:
                name = [bits, kind, case.layout, case.mask]
                spent = taken[case.layout, case.mask]
                if spent is not base:
                    ratios.append([*name, *(_over(spent[b], base[b]) for b in _BATCHES)])
                    print(*ratios[-1], sep="\t", flush=True)
                if case.compiling:
                    compiling.append([*name, statistics.median(case.compiling)])
                    print(*compiling[-1], sep="\t", flush=True)
    results.record(
        f"filters-{options.items}",
        f"Filters and deletes: {options.items:,} items",
        f"Top {options.k}, one thread, level {scan.level()}. CPU time of the search alone, from "
        "compiled bitmaps and ready tables, over that of the flat scan of all items without a "
        f"bitmap; median [least, greatest] of {options.repetitions} repetitions in turns. The "
        "layout in buckets chooses its way by itself. Items are allowed at random; of a filter "
        f"that allows fewer than one item in {scan.COPY_BELOW}, compiling copies the codes.",
        [
            {
                "caption": "Time over that of the flat scan of all items",
                "columns": [
                    "bits",
                    "codes",
                    "layout",
                    "left",
                    *("one query" if b == 1 else f"{b} queries" for b in _BATCHES),
                ],
                "rows": ratios,
            },
            {
                "caption": "The flat scan of all items: CPU milliseconds a query, median",
                "columns": ["bits", "codes", "queries at once", "milliseconds"],
                "rows": times,
            },
            {
                "caption": "Compiling a mask for a layout: CPU milliseconds, median",
                "columns": ["bits", "codes", "layout", "left", "milliseconds"],
                "rows": compiling,
            },
        ],
    )


def _cases(collection: comparison.Collection, k: int, repetitions: int) -> list[Case]:
    """Every layout with every mask."""
    codes_NM, codebooks = collection.codes_NM, collection.codebooks
    rng = np.random.default_rng(1)
    draws_N = rng.random(len(codes_NM), np.float32)
    cases = []
    for name in ("flat", "buckets"):
        layout = scan.build_layout(
            lambda: [codes_NM], len(codes_NM), codebooks, bucketed=name == "buckets"
        )
        cases.append(Case(name, _ALL, _search(scan.Part(layout), k)))
        for mask, share in _MASKS.items():
            mask_N = draws_N < share
            compiling = []
            for _ in range(repetitions):
                begun = time.process_time()
                allowed = scan.compile_filter(layout, mask_N)
                compiling.append(1000 * (time.process_time() - begun))
            search = _search(scan.Part(layout, allowed=allowed), k)
            _check(search, collection, mask_N, k)
            cases.append(Case(name, mask, search, compiling))
    return cases


def _search(part: scan.Part, k: int) -> Search:
    return lambda lut_QMK: scan.top_k([part], lut_QMK, k, threads=1)[1]


def _check(
    search: Search, collection: comparison.Collection, mask_N: NDArray[np.bool_], k: int
) -> None:
    """Compare the first query's results with those of a scan of the allowed codes alone.

    Raises:
        SpherequantError: they differ.
    """
    lut_QMK = collection.codebooks.lookup_table(collection.queries_QD[:1])
    left = np.flatnonzero(mask_N)
    layout = scan.build_layout(
        lambda: [collection.codes_NM[left]], len(left), collection.codebooks, bucketed=False
    )
    wanted = _search(scan.Part(layout, left), k)(lut_QMK)
    if not np.array_equal(search(lut_QMK), wanted):
        raise SpherequantError("a filtered search finds other items than a search of those allowed")


def _time(
    cases: Sequence[Case], collection: comparison.Collection, repetitions: int
) -> dict[tuple[str, str], dict[int, list[float]]]:
    """CPU milliseconds a query of each case and batch, in turns, after one warm-up each."""
    lut_QMK = collection.codebooks.lookup_table(collection.queries_QD)
    asked = {
        1: [lut_QMK[q : q + 1] for q in range(_SINGLE_QUERIES)],
        comparison.BATCH: [lut_QMK],
    }
    taken: dict[tuple[str, str], dict[int, list[float]]] = {
        (case.layout, case.mask): {batch: [] for batch in asked} for case in cases
    }
    for repetition in range(repetitions + 1):
        for case in cases:
            for batch, tables in asked.items():
                begun = time.process_time()
                for table in tables:
                    case.search(table)
                spent = (time.process_time() - begun) / sum(map(len, tables))
                if repetition:
                    taken[case.layout, case.mask][batch].append(1000 * spent)
    return taken


def _over(spent: Sequence[float], base: Sequence[float]) -> str:
    values = np.array(spent) / np.array(base)
    return f"{np.median(values):.3f} [{values.min():.3f}, {values.max():.3f}]"


if __name__ == "__main__":
    main()
