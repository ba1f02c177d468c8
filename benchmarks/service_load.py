"""The service under load, on loopback: client and server share the same processors.

    python benchmarks/service_load.py [--model MODEL]

Searches by key: as many as connections can ask, one after the other (closed), and at a fixed rate,
where a late answer counts from the moment that its question was due. Searches by image: beside what
the model does by itself with the same files, in batches, while no service runs. The client writes
and reads HTTP by hand: a client library would take more of the processors than the server.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import results
from spherequant.images import decode
from spherequant.index import Index
from spherequant.training import Model, TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH = 100_000
# Of a paced load: what is due while all of them wait is late by that much more.
_MOST_CONNECTIONS = 256
_BOUNDARY = "spherequant-load"
_RESIDENT, _CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"


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
        model = Model.load(options.model) if options.model else _small_model()
        folder = Path(scratch) / "index"
        _make_index(folder, model, options.items)
        images = [_jpeg(seed, options.side) for seed in range(64)]
        alone, embedding = _model_alone(model, images, options.seconds)
        print(f"the model alone: {alone:.1f} images/s, {embedding:.1f} without decoding")
        loads, memory = _measure(folder, images, options)
    share = loads[-1].rate / alone
    print(
        f"by image: {share:.2f} of the model alone; memory {memory[0]:.0f} to {memory[1]:.0f} MiB"
    )
    if not options.unrecorded:
        _record(options, loads, alone, embedding, memory)


def _small_model() -> Model:
    """A model that embeds quickly; what it finds does not matter here."""
    return train("digits", TrainConfig(bits=32, epochs=1))


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


def _jpeg(seed: int, side: int) -> bytes:
    """A picture with some detail, as a camera's file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


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
    command = [sys.executable, "-m", "spherequant.cli", "serve", str(folder), "--port", "0"]
    environment = {
        k: v for k, v in os.environ.items() if not k.endswith(("_READ_KEY", "_WRITE_KEY"))
    }
    server = subprocess.Popen(
        [*command, "--quiet"], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stderr is not None
        url = next(line.split()[-1] for line in server.stderr if "serving" in line)
        rng = np.random.default_rng(1)
        by_key = [_key_request(int(rng.integers(options.items))) for _ in range(1_000)]
        by_image = [_image_request(data) for data in images]
        asyncio.run(_closed(url, "warm up", by_key, options.connections, 2.0))
        before = _resident(url)
        seconds, rate = options.seconds, options.rate
        loads = []
        for load in (
            _closed(url, "by key", by_key, options.connections, seconds),
            _paced(url, f"by key, {rate:g}/s", by_key, rate, seconds),
            _closed(url, "by image", by_image, options.uploads, seconds),
        ):
            worked = _metric(url, _CPU)
            loads.append(asyncio.run(load))
            loads[-1].server_seconds = _metric(url, _CPU) - worked
            print(*loads[-1].row(), flush=True)
        return loads, (before, _resident(url))
    finally:
        server.terminate()
        server.wait()


def _metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else float("nan")


def _resident(url: str) -> float:
    return _metric(url, _RESIDENT) / 2**20


def _key_request(number: int) -> bytes:
    return _request("application/json", json.dumps({"key": f"item/{number}"}).encode())


def _image_request(data: bytes) -> bytes:
    head = (
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
        'name="image"; filename="image.jpg"\r\n\r\n'
    )
    body = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return _request(f"multipart/form-data; boundary={_BOUNDARY}", body)


def _request(kind: str, body: bytes) -> bytes:
    head = (
        "POST /v1/search?k=10 HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    """One connection that asks and waits for the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> _Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, request: bytes) -> int:
        """The status of the answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        await self._reader.readexactly(int(length[1]) if length else 0)
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


async def _closed(
    url: str, name: str, requests: Sequence[bytes], connections: int, seconds: float
) -> Load:
    """Each connection asks again as soon as it was answered."""
    load = Load(name)
    end = time.perf_counter() + seconds

    async def ask(first: int) -> None:
        connection = await _Connection.open(url)
        number = first
        while (started := time.perf_counter()) < end:
            status = await connection.ask(requests[number % len(requests)])
            load.milliseconds.append(1e3 * (time.perf_counter() - started))
            load.failed += status != 200
            number += connections
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*map(ask, range(connections)))
    load.seconds = time.perf_counter() - started
    return load


async def _paced(
    url: str, name: str, requests: Sequence[bytes], rate: float, seconds: float
) -> Load:
    """Questions come when they are due, whether or not earlier ones were answered."""
    load = Load(name)
    idle: list[_Connection] = []

    room = asyncio.Semaphore(_MOST_CONNECTIONS)

    async def ask(number: int, due: float) -> None:
        async with room:
            connection = idle.pop() if idle else await _Connection.open(url)
            status = await connection.ask(requests[number % len(requests)])
        load.milliseconds.append(1e3 * (time.perf_counter() - due))
        load.failed += status != 200
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
        connection.close()
    return load


def _record(
    options: argparse.Namespace,
    loads: Sequence[Load],
    alone: float,
    embedding: float,
    memory: tuple[float, float],
) -> None:
    results.record(
        f"service-{options.items}",
        f"The service under load: {options.items:,} items",
        f"Client and server on the same processors, {options.seconds:g} s a load, k = 10; "
        f"{options.connections} connections by key, {options.uploads} by image (JPEG of "
        f"{options.side} pixels). The model alone, in its own batches: {alone:.0f} images a second "
        f"from files, {embedding:.0f} once they are decoded and resized; by image the service "
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
