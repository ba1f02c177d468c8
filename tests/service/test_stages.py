"""Stages: batches, bounds, what fails, and how they end."""

import asyncio
import threading
import time

import pytest

from spherequant.errors import SpherequantError
from spherequant.service.metrics import Metrics
from spherequant.service.stages import BusyError, Stage


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def staged(metrics):
    """Make stages that are closed with the test."""
    made = []

    def make(work, **options):
        made.append(Stage("test", work, metrics, **({"limit": 100} | options)))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


class Gate:
    """Work that waits until it is let through, and notes the batches that came."""

    def __init__(self):
        self.batches, self.open, self.begun = [], threading.Event(), threading.Event()

    def __call__(self, batch):
        self.batches.append(list(batch))
        self.begun.set()
        assert self.open.wait(30)
        return [10 * task for task in batch]


def test_what_gathers_while_a_thread_works_is_one_batch(staged):
    gate = Gate()
    stage = staged(gate, size=8)
    first = stage.submit(0)
    assert gate.begun.wait(30)
    rest = [stage.submit(number) for number in range(1, 11)]
    gate.open.set()
    assert [future.result(30) for future in (first, *rest)] == list(range(0, 110, 10))
    assert gate.batches == [[0], list(range(1, 9)), [9, 10]]


def test_the_first_waits_for_company_and_no_longer(staged):
    gate = Gate()
    gate.open.set()
    stage = staged(gate, size=2, wait_seconds=5.0)
    started = time.monotonic()
    futures = [stage.submit(1), stage.submit(2)]
    assert [future.result(30) for future in futures] == [10, 20]
    assert time.monotonic() - started < 4.0  # full: it did not wait
    assert gate.batches == [[1, 2]]
    alone = staged(gate, size=2, wait_seconds=0.05)
    started = time.monotonic()
    assert alone.submit(3).result(30) == 30
    assert time.monotonic() - started >= 0.05


def test_a_full_queue_refuses_at_once_and_recovers(staged, metrics):
    gate = Gate()
    stage = staged(gate, limit=2)
    accepted = [stage.submit(0)]
    assert gate.begun.wait(30)
    accepted += [stage.submit(1), stage.submit(2)]
    for _ in range(3):
        with pytest.raises(BusyError):
            stage.submit(3)
    refused = metrics.registry.get_sample_value("spherequant_refused_total", {"queue": "test"})
    depth = metrics.registry.get_sample_value("spherequant_queue_depth", {"queue": "test"})
    assert (refused, depth) == (3.0, 2.0)
    gate.open.set()
    assert [future.result(30) for future in accepted] == [0, 10, 20]
    assert stage.submit(4).result(30) == 40


def test_one_task_fails_alone_and_a_batch_fails_together(staged):
    def work(batch):
        if "all" in batch:
            raise KeyError("everything")
        return [ValueError(task) if task == "bad" else task for task in batch]

    stage = staged(work, size=3, wait_seconds=1.0)
    good, bad, fine = (stage.submit(task) for task in ("good", "bad", "fine"))
    assert (good.result(30), fine.result(30)) == ("good", "fine")
    with pytest.raises(ValueError, match="bad"):
        bad.result(30)
    for future in [stage.submit(task) for task in ("x", "all", "y")]:
        with pytest.raises(KeyError):
            future.result(30)
    assert stage.submit("after").result(30) == "after"


def test_a_panic_ends_neither_the_thread_nor_who_waits(staged):
    class Panic(BaseException):
        pass

    def work(batch):
        if batch == ["bad"]:
            raise Panic("private")
        return batch

    stage = staged(work)
    with pytest.raises(SpherequantError, match="broke off: Panic") as caught:
        stage.submit("bad").result(30)
    assert "private" not in str(caught.value)
    assert stage.submit("after").result(30) == "after"


def test_closing_within_a_time_breaks_off_what_goes_on(staged):
    begun = threading.Event()

    def work(_):
        begun.set()
        while True:
            time.sleep(0.001)

    stage = staged(work)
    under_way, waiting = stage.submit(1), stage.submit(2)
    assert begun.wait(30)
    stage.close(0.05)
    with pytest.raises(SpherequantError, match="broke off: SystemExit"):
        under_way.result(0)
    assert waiting.cancelled()
    with pytest.raises(BusyError):
        stage.submit(3)


def test_closing_within_a_time_waits_for_no_native_code(staged, monkeypatch):
    monkeypatch.setattr("spherequant.service.stages._BREAK_SECONDS", 0.05)
    gate = Gate()
    stage = staged(gate)
    future = stage.submit(1)
    assert gate.begun.wait(30)
    stage.close(0.05)
    assert not future.done()
    gate.open.set()
    with pytest.raises(SpherequantError, match="broke off"):
        future.result(30)


def test_closing_finishes_what_was_accepted(staged):
    gate = Gate()
    stage = staged(gate, workers=2)
    futures = [stage.submit(number) for number in range(6)]
    assert gate.begun.wait(30)
    threading.Timer(0.05, gate.open.set).start()
    stage.close()
    assert [future.result(0) for future in futures] == [0, 10, 20, 30, 40, 50]
    with pytest.raises(BusyError):
        stage.submit(7)


def test_a_task_cancelled_before_its_turn_is_not_begun(staged):
    gate = Gate()
    stage = staged(gate)

    async def ask():
        first = asyncio.ensure_future(stage.run(1))
        while not gate.begun.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.run(2), 0.01)
        assert not stage._queue
        third = asyncio.ensure_future(stage.run(3))
        await asyncio.sleep(0)
        gate.open.set()
        return await first, await third

    assert asyncio.run(ask()) == (10, 30)
    assert gate.batches == [[1], [3]]


def test_many_threads_and_workers_lose_nothing(staged):
    stage = staged(lambda batch: [-task for task in batch], size=5, workers=3, limit=10_000)
    found = {}

    def ask(start):
        for number in range(start, start + 200):
            found[number] = stage.submit(number).result(30)

    threads = [threading.Thread(target=ask, args=(200 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: -number for number in range(800)}
