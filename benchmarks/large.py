"""A large index in one process: memory, opening, latency, and appends beside searches.

    python benchmarks/large.py

Every measurement is in a fresh process that imports no torch. The items are written to items.lance
in its schema, streamed, and not through `Index.add`, which looks every key up; what is measured
goes through `Index`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lance
import numpy as np
import pyarrow as pa

from spherequant.index import Index, columns, comparison, scan
from spherequant.index.catalogue import NEXT_ID
from spherequant.index.footprint import bytes_on_disk
from spherequant.index.header import ITEMS_FOLDER, LANCE_STORAGE, Header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

K = 100
_ROWS = 1_000_000  # written at once
_QUERIES = 1_000
_THREADS = (1, 2)
# Queries that are asked with one number of threads before the other has its turn.
_TURN = 100
_APPENDED = 1_000  # items of an `add`
_WHERE = {
    "50 %": "id % 2 = 0",
    "10 %": "id % 10 = 0",
    "1 %": "id % 100 = 0",
    "0.01 %": "id % 10000 = 0",
}
_LAYOUTS = ("buckets", "flat")
_READING = "reading the codes"

ResultT = TypeVar("ResultT")


def main() -> None:
    """Write an index, measure it, record."""
    import results  # loads torch, which the processes that are measured do without

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=0)
    parser.add_argument("--openings", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of appending")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, queries = Path(scratch) / "index", Path(scratch) / "queries.npy"
        writing = _fresh(
            _write, folder, queries, options.items, options.bits, clusters=options.clusters
        )
        disk = bytes_on_disk(folder)
        print(f"written in {writing:.1f} s", flush=True)
        opened: dict[tuple[str, str], list[dict[str, float]]] = {}

        def opening(source: str, layout: str) -> None:
            for _ in range(options.openings):
                facts = _fresh(_open, folder, queries, layout)
                opened.setdefault((source, layout), []).append(facts)
                print(source, layout, facts, flush=True)

        latencies: dict[str, dict[int, list[float]]] = {}
        for layout in _LAYOUTS:
            opening("items.lance", layout)
            latencies[layout] = _fresh(_latencies, folder, queries, layout)
        # From here on an index opens in buckets, the layout of the cache.
        caching = _fresh(_write_cache, folder)
        print(f"cache written in {caching:.1f} s", flush=True)
        opening("cache.bin", "buckets")
        latencies[_READING] = _fresh(_reading, options.items * options.bits // 8)
        for layout, by_threads in latencies.items():
            for threads, taken in by_threads.items():
                print(layout, threads, _percentiles(taken), flush=True)
        filters = _fresh(_filters, folder, queries)
        print(filters, flush=True)
        appending = _fresh(_append, folder, queries, options.seconds)
        for what in ("add", "refresh", "search"):
            print(what, len(appending[what]), _percentiles(appending[what]), flush=True)
        print(appending["rate"], flush=True)
    kind = f"{options.clusters} clusters" if options.clusters else "uniform codes"
    results.record(
        f"large-{options.clusters or 'uniform'}-{options.items}",
        f"A large index: {options.items:,} items of {options.bits} bits, {kind}",
        _notes(options.openings, writing, disk, caching, appending),
        [
            {
                "caption": "Memory and opening: medians. Resident bytes an item are what the "
                "process has more after the first answer than before opening",
                "columns": ["read from", "layout", *next(iter(opened.values()))[0]],
                "rows": [
                    [*which, *(float(np.median([f[name] for f in taken])) for name in taken[0])]
                    for which, taken in opened.items()
                ],
            },
            {
                "caption": f"Latency of {_QUERIES:,} single queries, top {K}: wall-clock "
                "milliseconds",
                "columns": ["layout", "threads", "p50", "p99"],
                "rows": [
                    [layout, threads, *_percentiles(taken)]
                    for layout, by_threads in latencies.items()
                    for threads, taken in by_threads.items()
                ],
            },
            {
                "caption": "Filters: wall-clock milliseconds",
                "columns": ["allowed", "first search with it", "later searches, median"],
                "rows": [[name, *taken] for name, taken in filters.items()],
            },
            {
                "caption": f"Beside a thread that adds {_APPENDED:,} items at a time: wall-clock "
                "milliseconds",
                "columns": ["what", "how many", "p50", "p99"],
                "rows": [
                    [what, len(appending[what]), *_percentiles(appending[what])]
                    for what in ("add", "refresh", "search")
                ],
            },
        ],
    )


def _notes(
    openings: int, writing: float, disk: int, caching: float, appending: dict[str, Any]
) -> str:
    return (
        f"Every opening in a fresh process, {openings} each. The items were written to "
        f"items.lance in {writing:.0f} s, streamed and not through `Index.add`; they take "
        f"{disk / 1e9:.1f} GB there. The cache was written in {caching:.1f} s. The flat layout is "
        "forced by the benchmark. Threads are limited by the CPUs that the process may run on. "
        f"`{_READING}` is no search but the time that memory takes for as many bytes: each thread "
        "seeks the greatest of its part, eight bytes at a time. "
        f"While searching, {appending['rate']:.0f} items a second were appended."
    )


def _fresh(function: Callable[..., ResultT], *arguments: Any, **named: Any) -> ResultT:
    """What a function returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **named).result()


def _write(folder: Path, queries: Path, items: int, bits: int, *, clusters: int) -> float:
    """Make an index and queries; returns the seconds that writing the items took."""
    collection = comparison.make_collection(items, bits, clusters=clusters)
    rng = np.random.default_rng(2)
    near = collection.codebooks.decode(collection.codes_NM[rng.integers(0, items, _QUERIES)])
    np.save(queries, near + 0.5 * rng.normal(size=near.shape).astype(np.float32))
    with Index.create(folder, collection.codebooks, thumbnails=False) as index:
        header = index.header
    started = time.perf_counter()
    schema = columns.schema(header)
    dataset = lance.write_dataset(
        pa.RecordBatchReader.from_batches(schema, _batches(header, collection.codes_NM)),
        str(folder / ITEMS_FOLDER),
        mode="append",
        data_storage_version=LANCE_STORAGE,
    )
    dataset.update_config({NEXT_ID: str(items)})
    return time.perf_counter() - started


def _batches(header: Header, codes_NM: NDArray[np.uint8]) -> Iterator[pa.RecordBatch]:
    """Rows of items.lance: ids from 0, the id as the key, nothing else known of them."""
    schema = columns.schema(header)
    for first in range(0, len(codes_NM), _ROWS):
        codes = codes_NM[first : first + _ROWS]
        ids = pa.array(np.arange(first, first + len(codes)))
        known = {
            "id": ids,
            "key": ids.cast(pa.string()),
            "code": pa.FixedSizeListArray.from_arrays(
                pa.array(codes.reshape(-1)), header.n_codebooks
            ),
            "changed": pa.array(np.zeros(len(codes), np.int64)).cast(schema.field("changed").type),
            "labels": pa.array([[]], schema.field("labels").type).take(
                pa.array(np.zeros(len(codes), np.int64))
            ),
        }
        yield pa.RecordBatch.from_arrays(
            [known.get(field.name, pa.nulls(len(codes), field.type)) for field in schema],
            schema=schema,
        )


def _write_cache(folder: Path) -> float:
    with Index.open(folder) as index:
        len(index)
        started = time.perf_counter()
        index.write_cache()
        return time.perf_counter() - started


def _open(folder: Path, queries: Path, layout: str) -> dict[str, float]:
    """Seconds until the index is open and has answered, and what it takes in memory."""
    _choose(layout)
    query = np.load(queries)[0]
    before = _memory("VmRSS")
    started = time.perf_counter()
    with Index.open(folder) as index:
        items = len(index)
        opened = time.perf_counter() - started
        index.search(vectors=query, k=K)
        answered = time.perf_counter() - started
        return {
            "seconds until open": opened,
            "seconds until the first answer": answered,
            "resident bytes an item": (_memory("VmRSS") - before) / items,
            "at its peak": (_memory("VmHWM") - before) / items,
            "memory_bytes an item": index.searcher.memory_bytes / items,
        }


def _latencies(folder: Path, queries: Path, layout: str) -> dict[int, list[float]]:
    """Milliseconds of each query by the number of threads, which take turns."""
    _choose(layout)
    asked = np.load(queries)
    cpus = sorted(os.sched_getaffinity(0))
    taken: dict[int, list[float]] = {threads: [] for threads in _THREADS if threads <= len(cpus)}
    with Index.open(folder) as index:
        index.search(vectors=asked[:_TURN], k=K)
        for first in range(0, len(asked), _TURN):
            for threads, milliseconds in taken.items():
                os.sched_setaffinity(0, cpus[:threads])
                milliseconds += [_search(index, query) for query in asked[first : first + _TURN]]
        os.sched_setaffinity(0, cpus)
    return taken


def _reading(count: int) -> dict[int, list[float]]:
    """Milliseconds of reading so many bytes once, by the number of threads, which take turns."""
    words = np.ones(count // 8, np.uint64)
    cpus = len(os.sched_getaffinity(0))
    taken: dict[int, list[float]] = {threads: [] for threads in _THREADS if threads <= cpus}
    with ThreadPoolExecutor(max(_THREADS)) as pool:

        def read(threads: int) -> None:
            list(pool.map(np.max, np.array_split(words, threads)))

        for _ in range(_TURN):
            for threads, milliseconds in taken.items():
                milliseconds.append(_milliseconds(partial(read, threads)))
    return taken


def _filters(folder: Path, queries: Path) -> dict[str, list[float | None]]:
    """Milliseconds of the first search with a filter, and of later ones in turns (median)."""
    asked = np.load(queries)[:_TURN]
    with Index.open(folder) as index:
        index.search(vectors=asked, k=K)
        first = {name: _search(index, asked[0], where) for name, where in _WHERE.items()}
        every = {"all": None, **_WHERE}
        later: dict[str, list[float]] = {name: [] for name in every}
        for query in asked:
            for name, where in every.items():
                later[name].append(_search(index, query, where))
    return {name: [first.get(name), float(np.median(taken))] for name, taken in later.items()}


def _append(folder: Path, queries: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds of adding, refreshing and searching side by side, and items added a second."""
    asked = np.load(queries)
    rng = np.random.default_rng(3)
    taken: dict[str, list[float]] = {"add": [], "refresh": [], "search": []}
    with Index.open(folder) as index, Index.open(folder) as reader:
        m = index.header.n_codebooks
        len(reader)
        started = time.perf_counter()

        def add() -> None:
            while time.perf_counter() - started < seconds:
                batch = len(taken["add"])
                keys = [f"new {batch} {number}" for number in range(_APPENDED)]
                codes = rng.integers(0, index.header.n_codewords, (_APPENDED, m), np.uint8)
                begun = time.perf_counter()
                index.add(keys, codes=codes)
                taken["add"].append(1000 * (time.perf_counter() - begun))

        thread = threading.Thread(target=add)
        thread.start()
        while thread.is_alive():
            for query in asked[:: len(asked) // 10]:
                taken["search"].append(_search(reader, query))
            taken["refresh"].append(_milliseconds(reader.refresh))
        thread.join()
        spent = time.perf_counter() - started
    return {**taken, "rate": len(taken["add"]) * _APPENDED / spent}


def _choose(layout: str) -> None:
    """Have opening lay the items out so, whatever their number."""
    scan.BUCKETS_FROM = 1 if layout == "buckets" else 1 << 62


def _search(index: Index, query_D: NDArray[np.float32], where: str | None = None) -> float:
    return _milliseconds(lambda: index.search(vectors=query_D, k=K, where=where))


def _milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


def _percentiles(milliseconds: Sequence[float]) -> list[float]:
    return [float(np.percentile(milliseconds, share)) for share in (50, 99)]


def _memory(name: str) -> int:
    """Bytes that Linux tells of this process: VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status tells no {name}")
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
