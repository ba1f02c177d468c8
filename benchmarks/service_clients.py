"""Clients of a service that know what it must answer: writers of their own keys, and readers.

Each writer owns its keys and waits for each answer, so that of every key one write is on its way at
most, and the state of all others is known exactly (service_model.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from service_model import (
    Asked,
    ModelItems,
    Scoring,
    State,
    Window,
    WrongAnswerError,
    check_exactly,
    check_item,
    check_search,
    expected,
    is_so,
)
from serving import Answer, Connection, form, json_body, request
from spherequant.images import decode
from spherequant.index import Index
from spherequant.index.header import CODEBOOKS_FILE, MODEL_FOLDER
from spherequant.quantizer import Encoder, normalise_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spherequant.index import Embedder
    from spherequant.quantizer import Codebooks

COLUMNS = {"serial": "int64", "note": "string"}
LABELS = tuple(f"l{number}" for number in range(8))
_NOTES = (None, "", "plain", "ünï/ço de", 'it\'s "quoted"', "x" * 300)
_BUSY_SECONDS = 0.2
_PAGE = 1_000
_PROBES = 4
# What a writer does: chances of a put, one with an image, a change, a removal, a batch.
_WRITES = {"put": 0.52, "put image": 0.06, "patch": 0.16, "delete": 0.16, "batch": 0.10}
_READS = {"vector": 0.35, "key": 0.2, "filter": 0.2, "page": 0.1, "item": 0.15}
Random = np.random.Generator
AnyT = TypeVar("AnyT")


def one_of(random: Random, some: Sequence[AnyT]) -> AnyT:
    """Any of them."""
    return some[int(random.integers(len(some)))]


@dataclass(slots=True)
class Tally:
    """What was done and what was found.

    Attributes:
        operations: how many of each kind were answered.
        checks: how many answers were compared with the model, by kind.
        busy: answers that were 503, after which the same was sent again.
        wrong: what was wrong.
    """

    operations: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image, and the vector and the code that are made of it."""

    data: bytes
    vector: list[float]
    code: bytes

    @property
    def digest(self) -> str:
        """The sha256 that is told of it."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(slots=True)
class World:
    """What all clients share.

    Attributes:
        scoring: the definition of a score.
        encoder: makes the codes.
        items: what must be there.
        tally: what was found.
        pictures: images that may be put; none where the index takes none.
        serial: the last that was given.
    """

    scoring: Scoring
    encoder: Encoder
    items: ModelItems = field(default_factory=ModelItems)
    tally: Tally = field(default_factory=Tally)
    pictures: Sequence[Picture] = ()
    serial: int = 0

    def code(self, unit: NDArray[np.float32]) -> bytes:
        """The code of a vector that the service adds to its index, float32 [D]."""
        # Unit or not, the index normalises what it is given.
        return self.encoder.encode(normalise_rows(unit[None])).tobytes()

    def next_serial(self) -> int:
        """A number that no other state has."""
        self.serial += 1
        return self.serial


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys of a batch that was not answered: to put, and stored ones to delete."""

    put: list[str]
    delete: list[str]


class Client:
    """One connection to the service.

    Args:
        world: what all share.
        connection: its own.
        random: its own.
    """

    def __init__(self, world: World, connection: Connection, random: Random) -> None:
        self.world, self.random = world, random
        self._connection = connection

    async def ask(self, sent: bytes) -> Answer:
        """The answer; while the service is busy, the same is sent again."""
        while (answer := await self._connection.ask(sent)).status == 503:
            self.world.tally.busy += 1
            await asyncio.sleep(_BUSY_SECONDS)
        return answer

    async def told(self, sent: bytes, *statuses: int) -> Answer:
        """The answer, which has one of these statuses.

        Raises:
            WrongAnswerError: it has another.
        """
        answer = await self.ask(sent)
        if answer.status not in (statuses or (200,)):
            line = sent.partition(b"\r\n")[0].decode()
            raise WrongAnswerError(f"{line} is answered {answer.status} {answer.body[:300]!r}")
        return answer

    async def item(self, key: str) -> Answer:
        """What is told of an item, or that there is none."""
        return await self.told(request("GET", "/v1/items", {"key": key}), 200, 404)

    async def check_item(self, key: str) -> None:
        """Read an item and compare."""
        with self.world.items.window() as window:
            answer = await self.item(key)
            check_item(window, key, answer.status, answer.json())
        self.world.tally.checks["item"] += 1

    async def search(self, asked: Asked, body: tuple[str, bytes]) -> None:
        """Search and compare."""
        with self.world.items.window() as window:
            answer = await self._search(asked, body)
            self._compare(window, asked, answer)

    async def search_by_key(self, key: str, k: int) -> None:
        """Search with an item that may be written meanwhile, and compare if it was not."""
        with self.world.items.window() as window:
            sent = request("POST", "/v1/search", {"k": k}, json_body({"key": key}))
            answer = await self.told(sent, 200, 404)
            state = window.settled.get(key)
            if key in window.further:
                return
            if state is None or answer.status == 404:
                raise WrongAnswerError(f"a search by {key!r} is answered {answer.body!r}: {state}")
            asked = Asked(self.world.scoring.reconstruction(state.code), k, without=key)
            self._compare(window, asked, answer.json())

    async def _search(self, asked: Asked, body: tuple[str, bytes]) -> dict[str, Any]:
        parameters = {
            "k": asked.k,
            "offset": asked.offset,
            "where": asked.where,
            "min_score": asked.min_score,
        }
        answer = await self.told(request("POST", "/v1/search", parameters, body))
        told: dict[str, Any] = answer.json()
        return told

    def _compare(self, window: Window, asked: Asked, answer: dict[str, Any]) -> None:
        check_search(self.world.scoring, window, asked, answer)
        self.world.tally.checks["search"] += 1
        self.world.tally.checks["result"] += len(answer["results"])

    async def whole(self, asked: Asked, body: tuple[str, bytes]) -> list[dict[str, Any]]:
        """All results of a search, page by page, while nobody writes."""
        hits: list[dict[str, Any]] = []
        while True:
            answer = await self._search(replace(asked, k=_PAGE, offset=len(hits)), body)
            hits += answer["results"]
            if answer["total"] != len(self.world.items.current):
                raise WrongAnswerError(
                    f"the total is {answer['total']}, not {len(self.world.items.current)}"
                )
            if len(answer["results"]) < _PAGE:
                return hits

    def vector(self) -> list[float]:
        """Any direction."""
        return [round(float(x), 4) for x in self.random.normal(size=self.world.scoring.dim)]

    def chosen(self, chances: dict[str, float]) -> str:
        """One of the names, with its chance."""
        return str(self.random.choice(list(chances), p=list(chances.values())))


def make_world(folder: Path, model: Embedder | Codebooks, count: int, random: Random) -> World:
    """A new index with so many items, and what must be in it."""
    with Index.create(folder, model, metadata_columns=COLUMNS) as index:
        codebooks = index.codebooks
        world = World(Scoring(codebooks), Encoder.load(folder / MODEL_FOLDER / CODEBOOKS_FILE))
        shape = (count, codebooks.n_codebooks)
        codes = random.integers(0, codebooks.n_codewords, shape, np.uint8)
        for number, code in enumerate(codes):
            labels = (LABELS[number % len(LABELS)],)
            metadata = {"serial": world.next_serial(), "note": f"note {number}"}
            state = State(f"item/{number}", code.tobytes(), labels, metadata)
            world.items.adopt(state.key, state, number)
        states = list(world.items.current.values())
        ids = index.add(
            [state.key for state in states],
            codes=codes,
            labels=[state.labels for state in states],
            metadata=[state.metadata for state in states],
        )
        assert ids.tolist() == list(range(count)), "the first items are counted from 0"
    return world


def make_pictures(model: Embedder, world: World, images: Sequence[bytes]) -> list[Picture]:
    """What an index makes of images that it stores."""
    vectors = model.embed([decode(data) for data in images])
    return [
        Picture(data, vector.tolist(), world.code(vector))
        for data, vector in zip(images, vectors, strict=True)
    ]


async def check_everything(client: Client, keys: Sequence[str]) -> None:
    """Compare all that the service tells with the model, while nobody writes.

    Args:
        client: asks.
        keys: of the items to read one by one, those that are gone among them.

    Raises:
        WrongAnswerError: something differs.
    """
    world = client.world
    states = list(world.items.current.values())
    for label in (None,) * _PROBES + LABELS:
        vector = client.vector()
        asked = Asked(world.scoring.unit(vector), len(states) + 1, label=label)
        hits = await client.whole(asked, json_body({"vector": vector}))
        check_exactly(hits, expected(world.scoring, asked, states))
        world.tally.checks["result"] += len(hits)
    told = (await client.told(request("GET", "/v1/labels"))).json()
    counts = Counter(label for state in states for label in state.labels)
    unlabelled = sum(not state.labels for state in states)
    answered = {one["label"]: one["count"] for one in told["labels"]}
    if (answered, told["unlabelled"]) != (dict(counts), unlabelled):
        raise WrongAnswerError(f"labels are told as {told}; they are {counts}, {unlabelled}")
    for key in keys:
        await client.check_item(key)
    world.tally.checks["whole index"] += 1


class Writer(Client):
    """Puts, changes and deletes its own items, and looks after each answer whether it is so.

    Args:
        world: what all share.
        connection: its own.
        random: its own.
        keys: its own.
    """

    def __init__(
        self, world: World, connection: Connection, random: Random, keys: Sequence[str]
    ) -> None:
        super().__init__(world, connection, random)
        self._keys = keys
        self.batch: Batch | None = None

    async def turn(self) -> None:
        """One write, and what is seen of it."""
        kind = self.chosen(_WRITES)
        if kind == "put image" and not self.world.pictures:
            kind = "put"
        write: Callable[[], Awaitable[None]] = {
            "put": self._put,
            "put image": self._put_image,
            "patch": self._patch,
            "delete": self._delete,
            "batch": self._batch,
        }[kind]
        await write()
        self.world.tally.operations[kind] += 1

    async def _put(self) -> None:
        key, vector = self._any_key(), self.vector()
        state = self._state(key, self._code(vector))
        given = {"vector": vector, "labels": state.labels, "metadata": state.metadata}
        await self._write(key, state, request("PUT", "/v1/items", {"key": key}, json_body(given)))
        await self._see(key, vector)

    async def _put_image(self) -> None:
        key = self._any_key()
        picture = one_of(self.random, self.world.pictures)
        state = self._state(key, picture.code)
        state.digest = picture.digest
        metadata = json_body(state.metadata)[1].decode()
        fields = [("labels", label) for label in state.labels] + [("metadata", metadata)]
        body = form(picture.data, fields)
        await self._write(key, state, request("PUT", "/v1/items", {"key": key}, body))
        await self._see(key, picture.vector)
        original = await self.told(request("GET", "/v1/original", {"key": key}))
        if original.body != picture.data:
            raise WrongAnswerError(f"the file of {key!r} is another one")
        self.world.tally.checks["original"] += 1

    async def _patch(self) -> None:
        key = self._any_key()
        before = self.world.items.current.get(key)
        serial = self.world.next_serial()
        change: dict[str, Any] = {"metadata": {"serial": serial}}
        if self.random.random() < 0.5:
            change["labels"] = self._labels()
        sent = request("PATCH", "/v1/items", {"key": key}, json_body(change))
        if before is None:
            await self.told(sent, 404)
            return
        labels = tuple(change.get("labels", before.labels))
        state = replace(before, labels=labels, metadata={**before.metadata, "serial": serial})
        await self._write(key, state, sent)
        await self.check_item(key)

    async def _delete(self) -> None:
        key = self._any_key()
        there = key in self.world.items.current
        self.world.items.begin(key, None)
        await self.told(request("DELETE", "/v1/items", {"key": key}), 204 if there else 404)
        self.world.items.acknowledge(key)
        await self._see(key, self.vector())

    async def _batch(self) -> None:
        """Several puts, then several removals."""
        chosen = [str(key) for key in self.random.permutation(self._keys)[:8]]
        put, delete = chosen[:5], chosen[5:]
        vectors = {key: self.vector() for key in put}
        states = {key: self._state(key, self._code(vectors[key])) for key in put}
        given = [
            {"key": k, "vector": vectors[k], "labels": s.labels, "metadata": s.metadata}
            for k, s in states.items()
        ]
        items = self.world.items
        wanted = ["stored"] * len(put)
        wanted += ["deleted" if key in items.current else "missing" for key in delete]
        for key in chosen:
            items.begin(key, states.get(key))
        self.batch = Batch(put, [key for key in delete if key in items.current])
        sent = request("POST", "/v1/items:batch", None, json_body({"put": given, "delete": delete}))
        told = (await self.told(sent)).json()["results"]
        if [(one["key"], one["status"]) for one in told] != list(zip(chosen, wanted, strict=True)):
            raise WrongAnswerError(f"a batch of {chosen}, {wanted} is answered {told}")
        self.batch = None
        for one in told:
            items.acknowledge(one["key"], one.get("id"))
        for key in chosen:
            await self.check_item(key)

    async def _write(self, key: str, state: State, sent: bytes) -> None:
        self.world.items.begin(key, state)
        told = (await self.told(sent)).json()
        if told["key"] != key:
            raise WrongAnswerError(f"a write of {key!r} is answered {told}")
        self.world.items.acknowledge(key, told["id"])

    async def _see(self, key: str, vector: list[float]) -> None:
        """What was acknowledged is seen at once."""
        await self.check_item(key)
        asked = Asked(self.world.scoring.unit(vector), 10)
        await self.search(asked, json_body({"vector": vector}))

    def _code(self, vector: list[float]) -> bytes:
        return self.world.code(self.world.scoring.unit(vector))

    def _state(self, key: str, code: bytes) -> State:
        note = one_of(self.random, _NOTES)
        metadata = {"serial": self.world.next_serial(), "note": note}
        return State(key, code, tuple(self._labels()), metadata)

    def _labels(self) -> list[str]:
        return [label for label in LABELS if self.random.random() < 0.2]

    def _any_key(self) -> str:
        return one_of(self.random, self._keys)


class Reader(Client):
    """Asks whatever can be asked while others write, and compares."""

    async def turn(self) -> None:
        """One question."""
        kind = self.chosen(_READS)
        key = one_of(self.random, list(self.world.items.current))
        if kind == "item":
            await self.check_item(key)
        elif kind == "key":
            await self.search_by_key(key, int(self.random.integers(1, 50)))
        else:
            await self._ask_by_vector(kind)
        self.world.tally.operations[f"read by {kind}"] += 1

    async def _ask_by_vector(self, kind: str) -> None:
        random, vector = self.random, self.vector()
        asked = Asked(self.world.scoring.unit(vector), int(random.integers(1, 50)))
        if kind == "filter":
            label = one_of(random, LABELS)
            since = int(random.integers(self.world.serial + 1)) if random.random() < 0.5 else None
            asked = replace(asked, label=label, since=since)
        elif kind == "page":
            most = len(self.world.items.current)
            offset, least = int(random.integers(most)), float(random.normal(scale=0.3))
            asked = replace(asked, offset=offset, min_score=least)
        await self.search(asked, json_body({"vector": vector}))


async def work(client: Writer | Reader, until: float) -> None:
    """Turns until a moment of ``time.perf_counter``, or until something is wrong, which is noted.

    Raises:
        OSError: the connection broke.
        asyncio.IncompleteReadError: so did an answer.
    """
    while time.perf_counter() < until:
        try:
            await client.turn()
        except WrongAnswerError as error:
            client.world.tally.wrong.append(str(error))
            return


async def settle(client: Client, batches: Sequence[Batch]) -> None:
    """See what became of the writes that were not answered, and take that for true.

    Args:
        client: asks.
        batches: those of them that were batches.

    Raises:
        WrongAnswerError: a write was half made, or the removals of a batch before its puts.
    """
    items, tally = client.world.items, client.world.tally
    made: dict[str, bool] = {}
    for key, wanted in list(items.on_the_way.items()):
        before = items.current.get(key)
        answer = await client.item(key)
        told = answer.status, answer.json()
        fits = [state for state in (wanted, before) if is_so(state, *told)]
        if not fits:
            raise WrongAnswerError(f"{key!r} is {answer.body!r}; it was {before}, to be {wanted}")
        if before is not wanted:
            made[key] = fits[0] is wanted
            tally.checks["unanswered, made" if made[key] else "unanswered, not made"] += 1
        items.adopt(key, fits[0], told[1].get("id"))
    for batch in batches:
        _check_batch(batch, made)


def _check_batch(batch: Batch, made: dict[str, bool]) -> None:
    """What a batch promises: all puts come before the removals, and these in their order."""
    steps = [all(made[key] for key in batch.put), *(made[key] for key in batch.delete)]
    if sorted(steps, reverse=True) != steps:
        raise WrongAnswerError(f"a batch was made out of order: {batch}, {made}")
