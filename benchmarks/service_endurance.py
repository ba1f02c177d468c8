"""What `spherequant serve` must stand: many single writes, long traffic, a model, being killed.

    python benchmarks/service_endurance.py [--only puts|memory|mixed|kills]

Each part starts a service of its own on loopback and makes a record of its own. In `mixed` and
`kills` every answer is compared with a model of what the index holds (service_model.py); the script
ends with exit code 1 when an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import results
from service_clients import (
    Client,
    Reader,
    World,
    Writer,
    check_everything,
    make_pictures,
    make_world,
    settle,
    work,
)
from service_model import WrongAnswerError
from service_traffic import Traffic
from serving import (
    CPU,
    RESIDENT,
    Connection,
    Service,
    connected,
    form,
    jpeg,
    json_body,
    metric_in,
    request,
    small_model,
)
from spherequant.training import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LOOKS = 4
_IMAGES, _SIDE = 32, 128
_SAMPLES = 240
_TENTHS = 10
_KEYS_A_WRITER = 80
_WRONG_SHOWN = 5
_OPENINGS = 5
_OPEN = """
import statistics, sys, time
from spherequant.index import Index
times = []
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    with Index.open(sys.argv[1]) as index:
        assert index.get(["put/0"])[0] is not None
    times.append(time.perf_counter() - started)
print(statistics.median(times))
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a part found.

    Attributes:
        title: of its record.
        notes: how it was measured.
        tables: of its record.
        wrong: what must not be.
    """

    title: str
    notes: str
    tables: list[dict[str, Any]]
    wrong: list[str]


def main() -> None:
    """Run the parts, record each; exit with 1 when something was wrong."""
    options = parse(sys.argv[1:])
    model = Model.load(options.model) if options.model else small_model()
    wrong = 0
    for name in [options.only] if options.only else PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            found = PARTS[name](model, Path(scratch) / "index", options)
        print(f"{found.title}\n{found.notes}", *_lines(found.tables), sep="\n", flush=True)
        if not options.unrecorded:
            results.record(f"service-{name}", found.title, found.notes, found.tables)
        for told in found.wrong[:_WRONG_SHOWN]:
            print(f"WRONG: {told}", file=sys.stderr)
        wrong += len(found.wrong)
    if wrong:
        sys.exit(f"wrong: {wrong}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained model; else one of digits is made")
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--puts", type=int, default=100_000)
    parser.add_argument("--image-share", type=float, default=0.02, help="of the puts")
    parser.add_argument("--connections", type=int, default=16, help="that put")
    parser.add_argument("--items", type=int, default=20_000, help="in the index of `memory`")
    parser.add_argument("--memory-seconds", type=float, default=1_000.0)
    parser.add_argument("--known", type=int, default=2_000, help="items before `mixed`, `kills`")
    parser.add_argument("--mixed-seconds", type=float, default=300.0)
    parser.add_argument("--round-seconds", type=float, default=20.0, help="between full checks")
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most-seconds", type=float, default=3.0, help="until a kill")
    parser.add_argument("--unrecorded", action="store_true", help="print, and record nothing")
    return parser.parse_args(arguments)


def _lines(tables: Iterable[dict[str, Any]]) -> list[str]:
    return [str(row) for table in tables for row in (table["columns"], *table["rows"])]


# -- many single puts -------------------------------------------------------------------------


def puts(model: Model, folder: Path, options: argparse.Namespace) -> Found:
    """Put items one by one over many connections; look now and then at what they leave behind."""
    random = np.random.default_rng(options.seed)
    make_world(folder, model, 0, random)
    images = [jpeg(seed, _SIDE) for seed in range(_IMAGES)]
    step = options.puts // _LOOKS
    speed: list[list[object]] = []
    left: list[list[object]] = []
    refused: Counter[int] = Counter()
    with Service(folder) as service:
        for first in range(0, _LOOKS * step, step):
            requests = [
                _put_request(n, random, model.codebooks.dim, images, options.image_share)
                for n in range(first, first + step)
            ]
            worked = service.metric(CPU)
            started = time.perf_counter()
            milliseconds = asyncio.run(_send(service.url, requests, options.connections, refused))
            seconds = time.perf_counter() - started
            work_ms = 1e3 * (service.metric(CPU) - worked) / step
            p50, p99 = (float(np.percentile(milliseconds, share)) for share in (50, 99))
            speed.append([first + step, step / seconds, p50, p99, work_ms, service.resident()])
            left.append([f"{first + step:,}", *_left(folder)])
            print(*speed[-1], *left[-1], flush=True)
    left.append([f"{_LOOKS * step:,}, when the service has ended", *_left(folder)])
    return Found(
        f"Single PUTs to the service: {options.puts:,}",
        f"{options.connections} connections on the same processors, each PUT answered when it is "
        f"durable, {options.image_share:.0%} of them images (JPEG of {_SIDE} pixels), the others "
        "vectors. The folder is looked at while the service runs; it is opened, and a key found, "
        f"in another process: the median of {_OPENINGS}.",
        [
            {
                "caption": "Writing",
                "columns": [
                    "items",
                    "PUTs a second",
                    "p50 ms",
                    "p99 ms",
                    "ms of the server's CPU a PUT",
                    "resident MiB",
                ],
                "rows": speed,
            },
            {
                "caption": "What is left",
                "columns": [
                    "items",
                    "files",
                    "of these data",
                    "versions",
                    "MiB on disk",
                    "seconds to open and find a key",
                ],
                "rows": left,
            },
        ],
        [f"{count} PUTs were answered {status}" for status, count in refused.items()],
    )


def _put_request(
    number: int, random: np.random.Generator, dim: int, images: Sequence[bytes], share: float
) -> bytes:
    if random.random() < share:
        body = form(images[number % len(images)], [("labels", f"l{number % 10}")])
    else:
        vector = [round(float(x), 3) for x in random.normal(size=dim)]
        body = json_body({"vector": vector, "labels": [f"l{number % 10}"]})
    return request("PUT", "/v1/items", {"key": f"put/{number}"}, body)


async def _send(
    url: str, requests: Sequence[bytes], connections: int, refused: Counter[int]
) -> list[float]:
    """Send each request once, over so many connections; the milliseconds of each answer."""
    left = iter(requests)
    milliseconds = []

    async def send(connection: Connection) -> None:
        for sent in left:
            started = time.perf_counter()
            answer = await connection.ask(sent)
            milliseconds.append(1e3 * (time.perf_counter() - started))
            if answer.status != 200:
                refused[answer.status] += 1

    async with connected(url, connections) as opened:
        await asyncio.gather(*map(send, opened))
    return milliseconds


def _left(folder: Path) -> list[object]:
    """Files, data files, versions and MiB in the folder, and the seconds to open it."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except FileNotFoundError:  # the service has just tidied
                continue
    items = folder / "items.lance"
    command = [sys.executable, "-c", _OPEN, str(folder), str(_OPENINGS)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [
        len(sizes),
        sum(1 for _ in (items / "data").iterdir()),
        sum(1 for _ in (items / "_versions").iterdir()),
        sum(sizes) / 2**20,
        float(told),
    ]


# -- long traffic -----------------------------------------------------------------------------


def memory(model: Model, folder: Path, options: argparse.Namespace) -> Found:
    """All kinds of requests for minutes, the number of items steady; the memory of the server."""
    random = np.random.default_rng(options.seed)
    make_world(folder, model, options.items, random)
    images = [jpeg(seed, _SIDE) for seed in range(_IMAGES)]
    traffic = Traffic(random, model.codebooks.dim, options.items, images)
    with Service(folder) as service:
        samples, answers = asyncio.run(
            _traffic(service.url, traffic, options.connections, options.memory_seconds)
        )
    tenths = np.array_split(samples[:, 1], _TENTHS)
    half = samples[len(samples) // 2 :]
    slope = float(np.polyfit(half[:, 0] / 60, half[:, 1], 1)[0])
    kinds = sorted({kind for kind, _ in answers})
    rows: list[list[object]] = [
        [kind, *(answers[kind, family] for family in _FAMILIES)] for kind in kinds
    ]
    asked = sum(answers.values())
    failed = {kind: answers[kind, "5xx"] for kind in kinds if answers[kind, "5xx"]}
    return Found(
        f"Memory of the service: {options.memory_seconds / 60:.3g} minutes of traffic",
        f"{options.connections} connections on the same processors, each asking again as soon as "
        f"it is answered; {options.items:,} items, one deleted for each that is added; filters "
        f"that differ from each other, and files that are no image. {asked:,} requests; the memory "
        f"was looked at {len(samples)} times.",
        [
            {
                "caption": "Resident memory of the server",
                "columns": ["", "MiB"],
                "rows": [
                    ["median from 10 to 20 % of the time", float(np.median(tenths[1]))],
                    ["median of the last tenth", float(np.median(tenths[-1]))],
                    ["highest", float(samples[:, 1].max())],
                    ["slope over the last half, a minute", slope],
                ],
            },
            {
                "caption": "Resident memory by tenths of the time: MiB",
                "columns": ["tenth", "median", "highest"],
                "rows": [
                    [number, float(np.median(some)), float(some.max())]
                    for number, some in enumerate(tenths, start=1)
                ],
            },
            {"caption": "Answers by kind of request", "columns": ["", *_FAMILIES], "rows": rows},
        ],
        [f"{kind}: {count} answers of 5xx" for kind, count in failed.items()],
    )


_FAMILIES = ("2xx", "4xx", "503", "5xx")


def _family(status: int) -> str:
    return "503" if status == 503 else f"{status // 100}xx"


async def _traffic(
    url: str, traffic: Traffic, connections: int, seconds: float
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], Counter[tuple[str, str]]]:
    """Ask until the time is over.

    Returns:
        Samples [n, 2] of seconds since the beginning and resident MiB, and the number of answers
        by kind of request and of status.
    """
    samples: list[tuple[float, float]] = []
    answers: Counter[tuple[str, str]] = Counter()
    started = time.perf_counter()

    async def ask(connection: Connection) -> None:
        while time.perf_counter() - started < seconds:
            kind, requests = traffic.turn()
            for sent in requests:
                answer = await connection.ask(sent)
                answers[kind, _family(answer.status)] += 1

    async def look(connection: Connection) -> None:
        while (now := time.perf_counter() - started) < seconds:
            answer = await connection.ask(request("GET", "/metrics"))
            samples.append((now, metric_in(answer.body.decode(), RESIDENT) / 2**20))
            await asyncio.sleep(seconds / _SAMPLES)

    async with connected(url, connections + 1) as (first, *others):
        await asyncio.gather(look(first), *map(ask, others))
    return np.array(samples), answers


# -- against a model --------------------------------------------------------------------------


def mixed(model: Model, folder: Path, options: argparse.Namespace) -> Found:
    """Writers and readers at once for minutes, all answers compared with the model."""
    world = _make_world(model, folder, options)
    tally = world.tally
    with Service(folder) as service:
        end = time.perf_counter() + options.mixed_seconds
        turn = 0
        while time.perf_counter() < end and not tally.wrong:
            until = min(end, time.perf_counter() + options.round_seconds)
            asyncio.run(_round(world, service.url, until, [options.seed, turn], options))
            turn += 1
    return Found(
        f"Writes and searches at once, against a model: {options.mixed_seconds / 60:.3g} minutes",
        f"{options.writers} writers and {options.readers} readers on the same processors, over "
        f"{options.known:,} items and {_KEYS_A_WRITER} keys of each writer's own, which it puts, "
        "replaces, changes and deletes. After each answer the writer reads the item and searches "
        "for it; every result of every search is compared with what may be true at that time: "
        "key, labels, metadata, order, what is missing, the score to the bit. Every "
        f"{options.round_seconds:g} s all writing stops, and the whole index is compared. "
        f"Answers of 503: {tally.busy}. Wrong answers: {len(tally.wrong)}.",
        [
            {
                "caption": "Answered",
                "columns": ["", "number"],
                "rows": [
                    *([name, count] for name, count in sorted(tally.operations.items())),
                    ["writes of an item acknowledged", world.items.acknowledged],
                ],
            },
            {
                "caption": "Compared with the model",
                "columns": ["", "number"],
                "rows": [
                    *([name, count] for name, count in sorted(tally.checks.items())),
                    ["wrong", len(tally.wrong)],
                ],
            },
        ],
        tally.wrong,
    )


def _make_world(model: Model, folder: Path, options: argparse.Namespace) -> World:
    """An index, and images that may be put into it."""
    world = make_world(folder, model, options.known, np.random.default_rng(options.seed))
    world.pictures = make_pictures(model, world, [jpeg(seed, _SIDE) for seed in range(8)])
    return world


async def _round(
    world: World, url: str, until: float, seed: Sequence[int], options: argparse.Namespace
) -> None:
    """Let all work until a moment, then compare everything."""
    async with connected(url, options.writers + options.readers) as opened:
        writers = _writers(world, opened[: options.writers], seed)
        readers = [
            Reader(world, connection, np.random.default_rng([*seed, 1, number]))
            for number, connection in enumerate(opened[options.writers :])
        ]
        clients: list[Writer | Reader] = [*writers, *readers]
        try:
            await asyncio.gather(*(work(client, until) for client in clients))
        except (OSError, asyncio.IncompleteReadError) as error:
            world.tally.wrong.append(f"a connection broke: {error!r}")
        if not world.tally.wrong:
            await _compare(writers[0], len(writers))


def _writers(world: World, opened: Sequence[Connection], seed: Sequence[int]) -> list[Writer]:
    return [
        Writer(world, connection, np.random.default_rng([*seed, 0, number]), _keys(number))
        for number, connection in enumerate(opened)
    ]


def _keys(writer: int) -> list[str]:
    """Keys of a writer's own, with what keys may hold."""
    return [f"writer {writer}/é&+%#/{number}.jpg" for number in range(_KEYS_A_WRITER)]


async def _compare(client: Client, writers: int) -> None:
    try:
        await check_everything(client, [key for n in range(writers) for key in _keys(n)])
    except WrongAnswerError as error:
        client.world.tally.wrong.append(str(error))


# -- killed -----------------------------------------------------------------------------------


def kills(model: Model, folder: Path, options: argparse.Namespace) -> Found:
    """Kill the service under load, start it again, compare: again and again."""
    random = np.random.default_rng(options.seed)
    world = _make_world(model, folder, options)
    service = Service(folder)
    tally, waits = world.tally, []
    try:
        for turn in range(options.kills):
            seconds = float(random.uniform(0.1, 1.0) * options.most_seconds)
            seed = [options.seed, turn]
            writers = asyncio.run(_until_killed(world, service, seconds, seed, options.writers))
            service = Service(folder)
            waits.append(service.seconds_to_ready)
            asyncio.run(_after_kill(world, service.url, writers))
            if tally.wrong:
                break
    finally:
        service.stop()
    made, not_made = (tally.checks[f"unanswered, {word}"] for word in ("made", "not made"))
    return Found(
        f"The service killed {len(waits)} times under load",
        f"{options.writers} writers as of the comparison with a model, over {options.known:,} "
        f"items; SIGKILL after {options.most_seconds / 10:.1f} to {options.most_seconds:.1f} s, "
        "started again over the same index, and the whole of it compared: every acknowledged write "
        "must be there, and every other wholly (code, labels, metadata, file) or not at all; "
        "each item of a batch for itself, its removals after all its puts.",
        [
            {
                "caption": "After the kills",
                "columns": ["", "value"],
                "rows": [
                    ["writes of an item acknowledged", world.items.acknowledged],
                    ["writes of an item on their way, found made", made],
                    ["writes of an item on their way, found not made", not_made],
                    ["comparisons of the whole index", tally.checks["whole index"]],
                    ["seconds until ready again, median", statistics.median(waits)],
                    ["seconds until ready again, most", max(waits)],
                    ["wrong", len(tally.wrong)],
                ],
            }
        ],
        tally.wrong,
    )


async def _until_killed(
    world: World, service: Service, seconds: float, seed: Sequence[int], count: int
) -> list[Writer]:
    """Kill the service while writers are at work; the writers, with what they had not heard of."""
    async with connected(service.url, count) as opened:
        writers = _writers(world, opened, seed)
        at_work = [asyncio.create_task(work(writer, float("inf"))) for writer in writers]
        await asyncio.sleep(seconds)
        service.kill()
        for ended in await asyncio.gather(*at_work, return_exceptions=True):
            if ended is not None and not isinstance(ended, OSError | asyncio.IncompleteReadError):
                raise ended
    return writers


async def _after_kill(world: World, url: str, writers: Sequence[Writer]) -> None:
    async with connected(url, 1) as (connection,):
        client = Client(world, connection, np.random.default_rng(0))
        try:
            await settle(client, [writer.batch for writer in writers if writer.batch is not None])
        except WrongAnswerError as error:
            world.tally.wrong.append(str(error))
        else:
            await _compare(client, len(writers))


PARTS = {"puts": puts, "memory": memory, "mixed": mixed, "kills": kills}


if __name__ == "__main__":
    main()
