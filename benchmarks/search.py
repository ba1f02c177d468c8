"""Search speed beside FAISS and ScaNN: the same codes or bits, one thread, engines in turns.

    python benchmarks/search.py

CPU milliseconds a query and how many times as long each peer takes, the median of repetitions with
the least and the greatest. ScaNN is compared where it is installed (`pip install scann`).
"""

from __future__ import annotations

import argparse
import statistics

import results
from spherequant.index import comparison, scan

OURS, BUCKETS, AUTOMATIC = "spherequant, flat", "spherequant, buckets", "spherequant, automatic"


def main() -> None:
    """Time every length, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=(16, 32, 48, 64))
    parser.add_argument("--clusters", type=int, default=0)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    times, ratios = [], []
    for bits in options.bits:
        collection = comparison.make_collection(options.items, bits, clusters=options.clusters)
        engines = {
            OURS: comparison.ours(collection, bucketed=False),
            BUCKETS: comparison.ours(collection, bucketed=True, route="buckets"),
            AUTOMATIC: comparison.ours(collection, bucketed=True),
            "FAISS IndexPQ": comparison.faiss_pq(collection),
            "FAISS IndexPQFastScan": comparison.faiss_fast_scan(collection),
        }
        comparison.check_same(engines[OURS], engines["FAISS IndexPQ"], collection, options.k)
        if comparison.installed("scann"):
            engines["ScaNN"] = comparison.scann(collection)
        timings = comparison.time_searches(engines, collection, options.k, options.repetitions)
        by = {(timing.engine, timing.batch): timing for timing in timings}
        for name in engines:
            pair = [by[name, batch] for batch in (1, comparison.BATCH)]
            times.append([bits, name, *(statistics.median(t.milliseconds) for t in pair)])
            row: list[object] = [bits, name]
            for base in (OURS, AUTOMATIC):
                row += [_text(comparison.ratio(t, by[base, t.batch])) for t in pair]
            ratios.append(row)
            print(*times[-1], *row[2:], flush=True)
    kind = f"{options.clusters} clusters" if options.clusters else "uniform codes"
    results.record(
        f"search-{options.clusters or 'uniform'}-{options.items}",
        f"Search speed: {options.items:,} items, {kind}",
        f"Top {options.k}, one thread, level {scan.level()}, the making of the query's table "
        f"included; CPU time, {options.repetitions} repetitions in turns. IndexPQ has the same "
        "codes and codewords and finds the same items; the fast scan and ScaNN quantize anew, "
        "with 4-bit codes of the same total length.",
        [
            {
                "caption": "CPU milliseconds a query, median",
                "columns": ["bits", "engine", "one query", f"{comparison.BATCH} queries"],
                "rows": times,
            },
            {
                "caption": "Time over ours: median [least, greatest]",
                "columns": [
                    "bits",
                    "engine",
                    "over flat, one query",
                    f"over flat, {comparison.BATCH}",
                    "over automatic, one query",
                    f"over automatic, {comparison.BATCH}",
                ],
                "rows": ratios,
            },
        ],
    )


def _text(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


if __name__ == "__main__":
    main()
