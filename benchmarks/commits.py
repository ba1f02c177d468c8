"""What many single adds leave behind: files, versions, the time to open, and the rate.

    python benchmarks/commits.py

Threads add one item at a time to one open index; each add returns when its item is durable.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import results
from spherequant.index import Index, comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPENINGS = 5


def main() -> None:
    """Add items one by one, look at the folder now and then, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--looks", type=int, default=4)
    options = parser.parse_args()
    collection = comparison.make_collection(options.items, options.bits, clusters=0)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        Index.create(folder, collection.codebooks, thumbnails=False).close()
        step = options.items // options.looks
        for first in range(0, options.items, step):
            seconds = _add(folder, collection.codes_NM, range(first, first + step), options.threads)
            rows.append([first + step, step / seconds, *_left(folder)])
            print(*rows[-1], flush=True)
    results.record(
        f"commits-{options.items}",
        f"Single adds: {options.items:,} by {options.threads} threads",
        "Each add is one item and returns when it is durable; adds that come within 20 ms of each "
        "other share a commit. Files and versions are counted when the index has been closed, "
        f"which ends with upkeep if it is due. Opening: the median of {_OPENINGS}, in the same "
        "process.",
        [
            {
                "caption": "After so many adds",
                "columns": [
                    "items",
                    "adds a second",
                    "files",
                    "of these data",
                    "versions",
                    "seconds to open and find a key",
                ],
                "rows": rows,
            }
        ],
    )


def _add(folder: Path, codes: NDArray[np.uint8], numbers: range, threads: int) -> float:
    """Seconds that adding these items takes."""

    def work(share: range) -> None:
        for number in share:
            index.add([f"upload/{number:09}.jpg"], codes=codes[number][None])

    with Index.open(folder) as index:
        workers = [
            threading.Thread(target=work, args=(numbers[first::threads],))
            for first in range(threads)
        ]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - started


def _left(folder: Path) -> list[object]:
    """Files, data files and versions in the folder, and the seconds to open it."""
    items = folder / "items.lance"
    times = []
    for _ in range(_OPENINGS):
        started = time.perf_counter()
        with Index.open(folder) as index:
            assert index.get(["upload/000000007.jpg"])[0] is not None
        times.append(time.perf_counter() - started)
    return [
        sum(1 for path in folder.rglob("*") if path.is_file()),
        sum(1 for path in (items / "data").iterdir()),
        sum(1 for path in (items / "_versions").iterdir()),
        statistics.median(times),
    ]


if __name__ == "__main__":
    main()
