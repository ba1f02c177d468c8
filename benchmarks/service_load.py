"""The service under load, on loopback: client and server share the same processors.

    python benchmarks/service_load.py [--model MODEL]

Searches by key: as many as connections can ask, one after the other (closed), and at a fixed rate,
where a late answer counts from the moment that its question was due. Searches by image: beside what
the model does by itself with the same files, in batches, while no service runs.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import results
from serving import CPU, Connection, Service, form, jpeg, json_body, request, small_model
from spherequant.images import decode
from spherequant.index import Index
from spherequant.training import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spherequant.training import TrainConfig

_BATCH = 100_000
# Of a paced load: what is due while all of them wait is late by that much more.
_MOST_CONNECTIONS = 256


@dataclass
class Load:
    """What a load was answered.

    Attributes:
        name: of the load.
        seconds: of the measurement.
        milliseconds: of each answer.
        failed: answers that were no 200.
        server_seconds: of the server's processors.
    """

    name: str
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0
    server_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.milliseconds) / self.seconds

    def row(self) -> list[object]:
        """The row of the table."""
        p50, p99 = (float(np.percentile(self.milliseconds, share)) for share in (50, 99))
        work = 1e3 * self.server_seconds / len(self.milliseconds)
        return [self.name, self.rate, p50, p99, work, self.failed]


def main() -> None:
    """Make an index, load its service, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained model; else one of digits is made")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--rate", type=float, default=300.0, help="searches by key a second")
    parser.add_argument("--connections", type=int, default=8, help="that ask by key")
    parser.add_argument("--uploads", type=int, default=128, help="connections that ask by image")
    parser.add_argument("--side", type=int, default=256, help="of the images, in pixels")
    parser.add_argument("--unrecorded", action="store_true", help="print, and record nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = Model.load(options.model) if options.model else small_model()
        folder = Path(scratch) / "index"
        _make_index(folder, model, options.items)
        images = [jpeg(seed, options.side) for seed in range(64)]
        alone, embedding = _model_alone(model, images, options.seconds)
        print(f"the model alone: {alone:.1f} images/s, {embedding:.1f} without decoding")
        loads, memory = _measure(folder, images, options)
        again = _model_alone(model, images, options.seconds)
        print(f"and after the loads: {again[0]:.1f} images/s, {again[1]:.1f} without decoding")
    alone, embedding = max(alone, again[0]), max(embedding, again[1])
    share = loads[-1].rate / alone
    print(
        f"by image: {share:.2f} of the model alone; memory {memory[0]:.0f} to {memory[1]:.0f} MiB"
    )
    if not options.unrecorded:
        _record(options, model.config, loads, alone, embedding, memory)


def _make_index(folder: Path, model: Model, items: int) -> None:
    rng = np.random.default_rng(0)
    shape = model.codebooks.n_codebooks
    with Index.create(folder, model, thumbnails=False) as index:
        for first in range(0, items, _BATCH):
            count = min(_BATCH, items - first)
            codes = rng.integers(0, model.codebooks.n_codewords, (count, shape), np.uint8)
            labels = [str(number % 10) for number in range(first, first + count)]
            keys = [f"item/{number}" for number in range(first, first + count)]
            index.add(keys, codes=codes, labels=labels)


def _model_alone(model: Model, images: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Images a second, from their files and once they are prepared, in the model's own batches."""
    prepared = np.stack([model.prepare(decode(data)) for data in images])
    model.embed_prepared(prepared)
    rates = []
    for from_files in (True, False):
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds / 2:
            if from_files:
                model.embed([decode(data) for data in images])
            else:
                model.embed_prepared(prepared)
            done += len(images)
        rates.append(done / (time.perf_counter() - started))
    return rates[0], rates[1]


def _measure(
    folder: Path, images: Sequence[bytes], options: argparse.Namespace
) -> tuple[list[Load], tuple[float, float]]:
    """All loads against one service, and its resident MiB before and after."""
    rng = np.random.default_rng(1)
    by_key = [_by_key(int(rng.integers(options.items))) for _ in range(1_000)]
    by_image = [request("POST", "/v1/search", {"k": 10}, form(data)) for data in images]
    with Service(folder) as service:
        url = service.url
        asyncio.run(_closed(url, "warm up", by_key, options.connections, 2.0))
        before = service.resident()
        seconds, rate = options.seconds, options.rate
        loads = []
        for load in (
            _closed(url, "by key", by_key, options.connections, seconds),
            _paced(url, f"by key, {rate:g}/s", by_key, rate, seconds),
            _closed(url, "by image", by_image, options.uploads, seconds),
        ):
            worked = service.metric(CPU)
            loads.append(asyncio.run(load))
            loads[-1].server_seconds = service.metric(CPU) - worked
            print(*loads[-1].row(), flush=True)
        return loads, (before, service.resident())


def _by_key(number: int) -> bytes:
    return request("POST", "/v1/search", {"k": 10}, json_body({"key": f"item/{number}"}))


async def _closed(
    url: str, name: str, requests: Sequence[bytes], connections: int, seconds: float
) -> Load:
    """Each connection asks again as soon as it was answered."""
    load = Load(name)
    end = time.perf_counter() + seconds

    async def ask(first: int) -> None:
        connection = await Connection.open(url)
        number = first
        while (started := time.perf_counter()) < end:
            answer = await connection.ask(requests[number % len(requests)])
            if answer.status == 200:  # a refusal is quick, and no answer
                load.milliseconds.append(1e3 * (time.perf_counter() - started))
            else:
                load.failed += 1
            number += connections
        await connection.close()

    started = time.perf_counter()
    await asyncio.gather(*map(ask, range(connections)))
    load.seconds = time.perf_counter() - started
    return load


async def _paced(
    url: str, name: str, requests: Sequence[bytes], rate: float, seconds: float
) -> Load:
    """Questions come when they are due, whether or not earlier ones were answered."""
    load = Load(name)
    idle: deque[Connection] = deque()  # in turns: the service closes one that asks nothing for long
    room = asyncio.Semaphore(_MOST_CONNECTIONS)

    async def ask(number: int, due: float) -> None:
        async with room:
            connection = idle.popleft() if idle else await Connection.open(url)
            answer = await connection.ask(requests[number % len(requests)])
        if answer.status == 200:
            load.milliseconds.append(1e3 * (time.perf_counter() - due))
        else:
            load.failed += 1
        idle.append(connection)

    started = time.perf_counter()
    asked = []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asked.append(asyncio.create_task(ask(number, due)))
    await asyncio.gather(*asked)
    load.seconds = time.perf_counter() - started
    for connection in idle:
        await connection.close()
    return load


def _record(
    options: argparse.Namespace,
    config: TrainConfig,
    loads: Sequence[Load],
    alone: float,
    embedding: float,
    memory: tuple[float, float],
) -> None:
    backbone = re.split("[/:]", config.backbone)[-1]  # a local one is a path
    results.record(
        f"service-load-{backbone}-{options.items}",
        f"The service under load: {options.items:,} items, `{backbone}` at "
        f"{config.image_size} pixels",
        f"Client and server on the same processors, {options.seconds:g} s a load, k = 10; "
        f"{options.connections} connections by key, {options.uploads} by image (JPEG of "
        f"{options.side} pixels). The model alone, in its own batches, the better of "
        f"before and after the loads: {alone:.0f} images a second from files, {embedding:.0f} once "
        f"they are decoded and resized; by image the service "
        f"reaches {loads[-1].rate / alone:.2f} of the first. The server's memory went from "
        f"{memory[0]:.0f} to {memory[1]:.0f} MiB.",
        [
            {
                "caption": "Searches",
                "columns": [
                    "load",
                    "answers a second",
                    "p50 ms",
                    "p99 ms",
                    "ms of the server's CPU",
                    "not 200",
                ],
                "rows": [load.row() for load in loads],
            }
        ],
    )


if __name__ == "__main__":
    main()
