"""What a look-up by key and a small add take in a large index, beside reading all keys.

    python benchmarks/keys.py --items 1000000 5000000

Both ways on one index: ours, through the index of the keys; and as it would be without one, where
each look-up reads all keys and an add is Lance's merge-insert. In turns, each on fresh random keys.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

import results
from spherequant.index import Index, commits, comparison

_BATCH = 500_000
_BITS = 32
_NAMES = ["id", "key", "code", "labels"]
_ids = itertools.count(1 << 40)  # of what merge-insert adds: far from ours


def main() -> None:
    """Build each index, time both ways, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    tables = []
    for items in options.items:
        rows, note = _measure(items, options.repetitions)
        tables.append(
            {
                "caption": f"{items:,} items. {note}",
                "columns": [
                    "what",
                    "keys",
                    "CPU ms",
                    "CPU ms without an index",
                    "ms",
                    "ms without an index",
                    "times as fast",
                ],
                "rows": rows,
            }
        )
        results.record(
            "keys",
            "Keys: look-ups and adds in a large index",
            "Milliseconds of CPU, of all threads, and of the clock, on a machine that had other "
            f"work too: the median of {options.repetitions} turns, with the files in the system's "
            "memory. The last column is the median of the turns' ratios of CPU time. Keys "
            f"have about 30 characters, codes {_BITS} bits from random numbers. An add waits 20 ms "
            "for company, which is left out here, and makes two commits.",
            tables,
        )


def _key(number: int) -> str:
    """About 30 characters, whose order is not that of the numbers."""
    return f"photos/{number * 7919 % 1_000_003:07}/{number:010}.jpg"


def _measure(items: int, repetitions: int) -> tuple[list[list[object]], str]:
    """Rows of the table, and what the index of the keys takes."""
    collection = comparison.make_collection(items, _BITS, clusters=0)
    fresh = itertools.count(items)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        with Index.create(folder, collection.codebooks, thumbnails=False) as index:
            started = time.perf_counter()
            for first in range(0, items, _BATCH):
                codes = collection.codes_NM[first : first + _BATCH]
                index.add([_key(first + i) for i in range(len(codes))], codes=codes)
            loading = time.perf_counter() - started
        taken = sum(f.stat().st_size for f in (folder / "items.lance/_indices").rglob("*.lance"))
        commits.WAIT_SECONDS = 0.0
        with Index.open(folder) as index:
            index.searcher.items([_key(0)])
            rows: list[list[object]] = []
            for count in (1, 1_000):

                def stored(count: int = count) -> list[str]:
                    return [_key(int(i)) for i in rng.integers(0, items, count)]

                def new(count: int = count) -> list[str]:
                    return [_key(number) for number in itertools.islice(fresh, count)]

                ways: list[tuple[str, Callable[[], list[str]], tuple[_Way, _Way]]] = [
                    ("look-up", stored, (_look_up, _read_all)),
                    ("add, new keys", new, (_add, _merge)),
                    ("add, known keys", stored, (_add, _merge)),
                ]
                for name, make, pair in ways:
                    times = [
                        [_seconds(index, way, make()) for way in pair] for _ in range(repetitions)
                    ]
                    figures = [
                        1e3 * statistics.median(turn[way][clock] for turn in times)
                        for clock in (0, 1)
                        for way in (0, 1)
                    ]
                    ratio = statistics.median(b[0] / a[0] for a, b in times)
                    rows.append([name, count, *(round(ms, 2) for ms in figures), round(ratio, 1)])
                    print(items, *rows[-1], flush=True)
    note = (
        f"Added {_BATCH:,} at a time in {loading:.0f} s; the index of the keys takes "
        f"{taken / items:.1f} bytes an item on disk"
    )
    return rows, note


_Way = Callable[[Index, list[str]], None]


def _seconds(index: Index, way: _Way, keys: list[str]) -> tuple[float, float]:
    """CPU and wall-clock seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    way(index, keys)
    return time.process_time() - cpu, time.perf_counter() - started


def _look_up(index: Index, keys: list[str]) -> None:
    assert None not in index.searcher.items(keys)


def _read_all(index: Index, keys: list[str]) -> None:
    listed = ", ".join(f"'{key}'" for key in keys)
    dataset = lance.dataset(str(index.folder / "items.lance"))
    found = dataset.scanner(
        columns=_NAMES, filter=f"key IN ({listed})", use_scalar_index=False
    ).to_table()
    assert found.num_rows == len(set(keys))


def _add(index: Index, keys: list[str]) -> None:
    keys = list(dict.fromkeys(keys))
    index.add(keys, codes=np.zeros((len(keys), _BITS // 8), int))


def _merge(index: Index, keys: list[str]) -> None:
    keys = list(dict.fromkeys(keys))
    dataset = lance.dataset(str(index.folder / "items.lance"))
    listed = ", ".join(f"'{key}'" for key in keys)
    known = dataset.scanner(
        columns=["key", "id"], filter=f"key IN ({listed})", use_scalar_index=False
    ).to_table()
    ids = dict(zip(known["key"].to_pylist(), known["id"].to_pylist(), strict=True))
    given = [ids[key] if key in ids else next(_ids) for key in keys]
    dataset.update_config({"benchmark": str(time.time_ns())})
    rows = dataset.take([0] * len(keys))
    for name, values in {"id": given, "key": keys, "original": [None] * len(keys)}.items():
        field = dataset.schema.field(name)
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, field, pa.array(values, field.type))
    merge = dataset.merge_insert("key").when_matched_update_all("source.id = target.id")
    done = merge.when_not_matched_insert_all().use_index(False).execute(rows)
    assert done["num_inserted_rows"] + done["num_updated_rows"] == len(keys)


if __name__ == "__main__":
    main()
