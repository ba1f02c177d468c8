"""How long opening an index takes: from items.lance, and from its cache.

    python benchmarks/reopening.py

Each opening is in a fresh process, the two in turns, with the files in the system's memory; timed
from `Index.open`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import results
from spherequant.index import Index, comparison

_BATCH = 500_000
_OPEN = """
import sys, time
import numpy as np
from spherequant.index import Index
query = np.ones(int(sys.argv[2]))
started = time.perf_counter()
with Index.open(sys.argv[1]) as index:
    len(index)
    opened = time.perf_counter() - started
    index.search(vectors=query, k=10)
    print(opened, time.perf_counter() - started)
"""


def main() -> None:
    """Build an index, open it both ways, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    collection = comparison.make_collection(options.items, options.bits, clusters=0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        with Index.create(folder, collection.codebooks, thumbnails=False) as index:
            for first in range(0, options.items, _BATCH):
                codes = collection.codes_NM[first : first + _BATCH]
                index.add([f"{first + i}" for i in range(len(codes))], codes=codes)
            started = time.perf_counter()
            index.write_cache()
            writing = time.perf_counter() - started
        cache = folder / "cache.bin"
        aside = cache.with_name("aside")
        ways = {"items.lance": (cache, aside), "cache.bin": (aside, cache)}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.repetitions):
            for way, (here, there) in ways.items():
                here.rename(there)
                times[way].append(_open(folder, index.header.dim))
        size = cache.stat().st_size
    rows = [
        [way, *(statistics.median(column) for column in zip(*taken, strict=True))]
        for way, taken in times.items()
    ]
    ratios = [a[1] / b[1] for a, b in zip(*times.values(), strict=True)]
    print(*rows, np.median(ratios), size, writing, sep="\n")
    results.record(
        f"reopening-{options.items}",
        f"Opening an index: {options.items:,} items of {options.bits} bits",
        f"Wall-clock seconds, the median of {options.repetitions} fresh processes in turns, with "
        "the files in the system's memory. To the first answer, the cache makes it "
        f"{np.median(ratios):.1f} times as fast (least {min(ratios):.1f}, greatest "
        f"{max(ratios):.1f}). The cache has {size / 2**20:.0f} MiB and was written in "
        f"{writing:.1f} s.",
        [
            {
                "caption": "Seconds from `Index.open`",
                "columns": ["read from", "until it is open", "until the first answer"],
                "rows": rows,
            }
        ],
    )


def _open(folder: Path, dim: int) -> tuple[float, float]:
    """Seconds until an index is open, and until it has answered, in a process of its own."""
    command = [sys.executable, "-c", _OPEN, str(folder), str(dim)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(told[0]), float(told[1])


if __name__ == "__main__":
    main()
