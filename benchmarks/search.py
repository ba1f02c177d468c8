"""Search speed beside FAISS and ScaNN: the same codes or bits, one thread, engines in turns.

    python benchmarks/search.py                       # uniform codes: none can be left aside
    python benchmarks/search.py --clusters 100        # random codes around 100 centres
    python benchmarks/search.py --codes learned       # learned codes of vectors in 100 clusters
    python benchmarks/search.py --codes cifar10-full  # of CIFAR-10, by cifar10_full.py's model
    SPHEREQUANT_SIMD=avx2 python benchmarks/search.py # another instruction set

CPU milliseconds a query and how many times as long each peer takes, the median of repetitions with
the least and the greatest. ScaNN is compared where it is installed (`pip install scann`).
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import TYPE_CHECKING

import numpy as np

import results
from embeddings import RUNS, Embedded, embedded
from encoding import clustered
from spherequant import Model
from spherequant.index import comparison, scan
from spherequant.quantizer import Encoder, learn_codebooks, normalise_rows
from training_runs import of_length

if TYPE_CHECKING:
    from collections.abc import Callable

OURS, BUCKETS, AUTOMATIC = "spherequant, flat", "spherequant, buckets", "spherequant, automatic"
READING = "reading the codes"


# Norm of the noise that makes further items of an embedding, which has norm 1.
JITTER = 0.2
CHUNK = 200_000


def learned(items: int, bits: int) -> comparison.Collection:
    """Codes of clustered vectors, by codebooks learned from 20,000 others."""
    codebooks = learn_codebooks(clustered(20_000, comparison.DIM, seed=1), bits // 8, 256)
    encoder = Encoder(codebooks)
    codes = [
        encoder.encode(clustered(min(CHUNK, items - start), comparison.DIM, seed=3 + start))
        for start in range(0, items, CHUNK)
    ]
    queries = clustered(comparison.BATCH, comparison.DIM, seed=2)
    return comparison.Collection(codebooks, np.concatenate(codes), queries)


def expanded(model: Model, data: Embedded, items: int) -> comparison.Collection:
    """Codes of a protocol's database, again and again with noise until there are enough."""
    rng = np.random.default_rng(0)
    database = data.collection.database
    codes = []
    for start in range(0, items, CHUNK):
        z = database[rng.integers(len(database), size=min(CHUNK, items - start))]
        noise = rng.normal(size=z.shape) * JITTER / np.sqrt(z.shape[1])
        codes.append(model.encode_vectors(normalise_rows(z + noise)))
    queries = data.collection.queries[: comparison.BATCH]
    return comparison.Collection(model.codebooks, np.concatenate(codes), queries)


def reading(collection: comparison.Collection) -> comparison.Search:
    """No search: what it takes to read all codes once, whatever is asked."""
    data = collection.codes_NM.reshape(-1)
    words = data[: data.size // 8 * 8].view(np.uint64)

    def read(queries_BD: np.ndarray, k: int) -> np.ndarray:
        words.max()
        return np.full((len(queries_BD), k), -1, np.int64)

    return read


def collections(
    options: argparse.Namespace,
) -> tuple[str, Callable[[int], comparison.Collection]]:
    """What is searched, in words, and what makes it for a code length."""
    n = options.items
    if options.codes == "learned":
        return "learned codes of vectors in 100 loose clusters", lambda bits: learned(n, bits)
    if options.codes == "cifar10-full":
        model = Model.load(RUNS / "cifar10-full-0" / "dsq-32")
        data = embedded(model, str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip")))
        words = (
            f"DSQ codes of CIFAR-10's 50,000 training images, expanded by noise of norm {JITTER}"
        )
        return words, lambda bits: expanded(of_length(model, data, bits), data, n)
    words = (
        f"random codes around {options.clusters} centres" if options.clusters else "uniform codes"
    )
    return words, lambda bits: comparison.make_collection(n, bits, clusters=options.clusters)


def main() -> None:
    """Time every length, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=(16, 32, 48, 64))
    parser.add_argument("--codes", choices=["random", "learned", "cifar10-full"], default="random")
    parser.add_argument("--clusters", type=int, default=0, help="of random codes, 0 for none")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    words, make = collections(options)
    times, ratios, better = [], [], []
    for bits in options.bits:
        collection = make(bits)
        engines: dict[str, comparison.Search] = {
            OURS: comparison.Ours(collection, bucketed=False),
            BUCKETS: comparison.Ours(collection, bucketed=True, route="buckets"),
            AUTOMATIC: (automatic := comparison.Ours(collection, bucketed=True)),
            "FAISS IndexPQ": comparison.faiss_pq(collection),
            "FAISS IndexPQFastScan": comparison.faiss_fast_scan(collection),
        }
        comparison.check_same(engines[OURS], engines["FAISS IndexPQ"], collection, options.k)
        if comparison.installed("scann"):
            engines["ScaNN"] = comparison.scann(collection)
        engines[READING] = reading(collection)
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
        asked = (collection.queries_QD[:1], collection.queries_QD)
        visits = [automatic.visited(queries, options.k) for queries in asked]
        better.append([bits, *(f"{share:.1%}" for share in visits), *_over_better(by)])
        print(*better[-1], flush=True)
    name = options.codes if options.codes != "random" else options.clusters or "uniform"
    if os.environ.get(scan.LEVEL_VARIABLE):
        name = f"{name}-{scan.level()}"
        words = f"{words}, {scan.level()}"
    results.record(
        f"search-{name}-{options.items}",
        f"Search speed: {options.items:,} items, {words}",
        f"Top {options.k}, one thread, level {scan.level()}, the making of the query's table "
        f"included; CPU time, {options.repetitions} repetitions in turns. IndexPQ has the same "
        "codes and codewords and finds the same items; the fast scan and ScaNN quantize anew, "
        f"with 4-bit codes of the same total length. `{READING}` is no search but the time that "
        "memory takes for all codes: NumPy seeks the greatest of them, eight bytes at a time.",
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
            {
                "caption": "The automatic choice: items visited, and its time over the better of "
                "the two layouts",
                "columns": [
                    "bits",
                    "visited by the first query, alone",
                    f"visited by {comparison.BATCH} queries",
                    "over the better, one query",
                    f"over the better, {comparison.BATCH}",
                ],
                "rows": better,
            },
        ],
    )


def _over_better(by: dict[tuple[str, int], comparison.Timing]) -> list[str]:
    """The automatic choice's time over the lower median of the two layouts'."""
    found = []
    for batch in (1, comparison.BATCH):
        layouts = [by[OURS, batch], by[BUCKETS, batch]]
        least = min(layouts, key=lambda timing: statistics.median(timing.milliseconds))
        found.append(_text(comparison.ratio(by[AUTOMATIC, batch], least)))
    return found


def _text(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


if __name__ == "__main__":
    main()
