"""What clients make of the answers of a service that is made up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import service_clients
from service_clients import Batch, Client, Writer, make_world, settle, work
from service_model import State, WrongAnswerError
from serving import Answer
from spherequant.quantizer import Codebooks

SHAPE = (2, 4, 3)


@pytest.fixture
def world(tmp_path):
    random = np.random.default_rng(0)
    codebooks = Codebooks(random.normal(size=SHAPE).astype(np.float32))
    return make_world(tmp_path / "index", codebooks, 5, random)


class MadeUp:
    """A connection to a service that holds these items, by key."""

    def __init__(self, items=(), answers=()):
        self.items, self.answers = dict(items), list(answers)

    async def ask(self, sent):
        if self.answers:
            return self.answers.pop(0)
        target = urlsplit(sent.split(b" ", 2)[1].decode())
        assert target.path == "/v1/items"
        (key,) = parse_qs(target.query)["key"]
        if key not in self.items:
            return Answer(404, b"{}")
        return Answer(200, json.dumps(self.items[key]).encode())


def told(state, number):
    return {
        "id": number,
        "key": state.key,
        "labels": list(state.labels),
        "metadata": state.metadata,
        "digest": state.digest,
        "original": state.digest is not None,
    }


def client_of(world, *arguments):
    return Client(world, MadeUp(*arguments), np.random.default_rng(0))


def state_of(key, serial):
    return State(key, b"\0\0", ("new",), {"serial": serial, "note": None})


def test_a_world_begins_with_its_items(world):
    assert sorted(world.items.current) == [f"item/{number}" for number in range(5)]
    assert [state.id for state in world.items.current.values()] == list(range(5))


@pytest.mark.parametrize("made", [True, False])
def test_what_was_not_answered_is_found_made_or_not(world, made):
    old = world.items.current["item/1"]
    new, added = replace(old, labels=("other",)), state_of("added", 9)
    for key, wanted in (("item/1", new), ("added", added), ("item/2", None), ("none", None)):
        world.items.begin(key, wanted)
    stored = {"item/1": told(old, 1), "item/2": told(world.items.current["item/2"], 2)}
    if made:
        stored = {"item/1": told(new, 1), "added": told(added, 7)}
    asyncio.run(settle(client_of(world, stored), []))
    assert world.items.current["item/1"] is (new if made else old)
    assert ("added" in world.items.current) == made
    assert ("item/2" in world.items.current) != made
    assert not world.items.on_the_way
    word = "made" if made else "not made"
    assert dict(world.tally.checks) == {f"unanswered, {word}": 3}


@pytest.mark.parametrize("half", [{"labels": ["other"]}, {"digest": "0"}, {"id": 3}])
def test_a_write_that_is_half_made_is_found(world, half):
    old = world.items.current["item/1"]
    world.items.begin("item/1", replace(old, labels=("other",), metadata={"serial": 99}))
    stored = {"item/1": told(old, 1) | half}
    with pytest.raises(WrongAnswerError, match="it was"):
        asyncio.run(settle(client_of(world, stored), []))


def test_an_item_that_was_lost_is_found(world):
    world.items.begin("item/1", replace(world.items.current["item/1"], labels=("other",)))
    with pytest.raises(WrongAnswerError):
        asyncio.run(settle(client_of(world), []))


@pytest.mark.parametrize(
    ("puts", "left", "right"),
    [
        ((True, True), (), True),
        ((True, True), ("item/2",), True),
        ((True, False), ("item/1", "item/2"), True),
        ((True, False), ("item/2",), False),
        ((True, True), ("item/1",), False),
    ],
)
def test_a_batch_deletes_after_it_has_put(world, puts, left, right):
    stored = {key: told(world.items.current[key], int(key[-1])) for key in left}
    for number, made in enumerate(puts):
        state = state_of(f"new {number}", number)
        world.items.begin(state.key, state)
        if made:
            stored[state.key] = told(state, 7 + number)
    for key in ("item/1", "item/2"):
        world.items.begin(key, None)
    batch = Batch(["new 0", "new 1"], ["item/1", "item/2"])
    if right:
        asyncio.run(settle(client_of(world, stored), [batch]))
    else:
        with pytest.raises(WrongAnswerError, match="out of order"):
            asyncio.run(settle(client_of(world, stored), [batch]))


def test_a_busy_service_is_asked_again(world, monkeypatch):
    monkeypatch.setattr(service_clients, "_BUSY_SECONDS", 0.0)
    client = client_of(world, (), [Answer(503, b"{}"), Answer(503, b"{}"), Answer(200, b"[1]")])
    assert asyncio.run(client.told(b"GET / HTTP/1.1\r\n")).json() == [1]
    assert world.tally.busy == 2


def test_an_unexpected_status_is_noted_and_ends_the_work(world):
    connection = MadeUp((), [Answer(500, b"{}")] * 9)
    writer = Writer(world, connection, np.random.default_rng(0), ["a", "b"])
    asyncio.run(work(writer, float("inf")))
    (wrong,) = world.tally.wrong
    assert "answered 500" in wrong
