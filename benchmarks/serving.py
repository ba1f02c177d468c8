"""A service in a process of its own on loopback, and how scripts ask it.

HTTP is written and read by hand: a client library would take more of the processors than the
server, with which it shares them.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image

from spherequant.training import Model, TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

JSON = "application/json"
RESIDENT, CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"
_BOUNDARY = "spherequant-load"
_LINES_KEPT = 50
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Service:
    """``spherequant serve`` over an index, from the first line that it says to its end.

    Attributes:
        url: where it answers.
        seconds_to_ready: from its start until it said so.
    """

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "spherequant", "serve", str(folder), "--port", "0"]
        environment = {
            k: v for k, v in os.environ.items() if not k.endswith(("_READ_KEY", "_WRITE_KEY"))
        }
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, "--quiet"], stderr=subprocess.PIPE, text=True, env=environment
        )
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self.url = self._wait_for_address()
        with urllib.request.urlopen(f"{self.url}ready") as answer:
            answer.read()
        self.seconds_to_ready = time.perf_counter() - started
        # What it logs from here on must not fill the pipe.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _wait_for_address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            if "serving" in line:
                return line.split()[-1]
        sys.exit("the service ended before it answered:\n" + "".join(self._said))

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._said.extend(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it as an operator would, and wait for that."""
        self._process.terminate()
        self._end()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        self._listener.join()

    def metric(self, name: str) -> float:
        """A metric without labels, as it stands now."""
        with urllib.request.urlopen(f"{self.url}metrics") as answer:
            return metric_in(answer.read().decode(), name)

    def resident(self) -> float:
        """Its resident memory in MiB."""
        return self.metric(RESIDENT) / 2**20


def metric_in(text: str, name: str) -> float:
    """A metric without labels in the text of ``/metrics``; NaN where it is not."""
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status and body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """One connection that asks and waits for the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to a service."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, request: bytes) -> Answer:
        """The answer to a request.

        Raises:
            OSError: the connection broke.
            asyncio.IncompleteReadError: the answer was cut off.
        """
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        return Answer(int(head[9:12]), body)

    async def close(self) -> None:
        """Let go of it, broken or not."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections to a service, for as long as the block runs."""
    opened = [await Connection.open(url) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.close()


def request(
    method: str,
    path: str,
    parameters: Mapping[str, object] | None = None,
    body: tuple[str, bytes] = ("", b""),
) -> bytes:
    """A request as it is sent.

    Args:
        method: of HTTP.
        path: without parameters.
        parameters: name -> value; those that are None are left out.
        body: its media type and its bytes.
    """
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    target = f"{path}?{urlencode(given)}" if given else path
    kind, data = body
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if kind:
        head += f"Content-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def json_body(value: object) -> tuple[str, bytes]:
    """A body of JSON."""
    return JSON, json.dumps(value).encode()


def form(image: bytes, fields: Sequence[tuple[str, str]] = ()) -> tuple[str, bytes]:
    """A body with an image and fields of text."""
    pieces = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields
    ]
    pieces.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"'
        "\r\n\r\n"
    )
    body = "".join(pieces).encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={_BOUNDARY}", body


def small_model() -> Model:
    """A model that embeds quickly; what it finds does not matter here."""
    return train("digits", TrainConfig(bits=32, epochs=1, image_size=32))


def jpeg(seed: int, side: int) -> bytes:
    """A picture with some detail, as a camera's file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image.save(out, "JPEG", quality=90)
    return out.getvalue()
