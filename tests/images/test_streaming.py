"""Decoding in parallel: order, bounds, failures, and that nothing is left running."""

from __future__ import annotations

import _thread
import random
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spherequant.errors import InputError
from spherequant.images import Item, Limits, Skip, Source, open_source, stream
from spherequant.images.streaming import _chunks

MEGABYTE = 1 << 20


class Made(Source):
    """Images that cost nothing; keys that start with 'bad' cannot be read."""

    def __init__(self, keys, size: int = 10, decoded: int = 0) -> None:
        items = [Item(key, size=size) for key in keys]
        super().__init__("made", "made:", items, (), "", Limits())
        self.decoded = decoded
        self.lock = threading.Lock()
        self.inside = self.most_inside = 0

    def image(self, item, limits=None, reserve=None):
        if item.key.startswith("bad"):
            raise InputError(f"{item.key} is bad")
        if reserve is not None:
            reserve(self.decoded)
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        if self.decoded:
            time.sleep(0.001)
        with self.lock:
            self.inside -= 1
        return Image.new("RGB", (2, 2))

    def _read(self, item, limits):
        return b""


def decoders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("spherequant-decode")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert not decoders()
    yield
    assert not decoders()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2 * MEGABYTE)), max_size=120),
    st.integers(1, 6),
    st.sampled_from([1, 1000, MEGABYTE]),
)
def test_outcomes_keep_order_and_place(rows, workers, ahead_bytes):
    source = Made([])
    items = [Item(f"{'bad' if bad else 'ok'}{i}", size=s) for i, (bad, s) in enumerate(rows)]
    outcomes = list(
        stream(
            source,
            items,
            lambda item, _: np.zeros(int(item.key[2:]) * 10, np.uint8),
            workers=workers,
            ahead_bytes=ahead_bytes,
        )
    )
    assert len(outcomes) == len(items)
    for item, outcome in zip(items, outcomes, strict=True):
        if item.key.startswith("bad"):
            assert outcome == Skip(item.key, f"{item.key} is bad")
        else:
            assert outcome[0] is item
            assert outcome[1].size == int(item.key[2:]) * 10


def test_slow_images_do_not_change_the_order():
    source = Made([f"{i:03}" for i in range(60)])
    waits = random.Random(0).choices([0, 0.001, 0.01], k=60)

    def transform(item, image):
        time.sleep(waits[int(item.key)])
        return item.key

    keys = [key for _, key in stream(source, source.items, transform, workers=4)]
    assert keys == [item.key for item in source.items]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("plain"), "plain"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (KeyError(), "KeyError"),
        (MemoryError(), "not enough memory to decode it"),
    ],
)
def test_whatever_fails_fails_alone(error, reason):
    def transform(item, image):
        if item.key == "1":
            raise error
        return item.key

    source = Made("0123")
    found = list(stream(source, source.items, transform, workers=2))
    assert found[1] == Skip("1", reason)
    assert [outcome[1] for outcome in found if not isinstance(outcome, Skip)] == ["0", "2", "3"]


def test_what_is_no_exception_of_an_image_reaches_the_reader():
    def transform(item, image):
        raise SystemExit(3)

    source = Made("0123")
    with pytest.raises(SystemExit):
        list(stream(source, source.items, transform, workers=2))


def test_results_that_wait_are_bounded():
    source = Made([f"{i}" for i in range(400)])
    made = []

    def transform(item, image):
        made.append(item)
        return np.zeros(100_000, np.uint8)

    taken = 0
    outcomes = stream(source, source.items, transform, workers=3, ahead_bytes=MEGABYTE)
    for _ in outcomes:
        taken += 1
        if taken in {1, 50}:
            time.sleep(0.1)  # long enough for the workers to run as far as they may
        assert (len(made) - taken) * 100_000 <= MEGABYTE + 4 * 100_000
    assert taken == 400


def test_pictures_being_decoded_are_bounded():
    source = Made([f"{i}" for i in range(40)], decoded=400_000)
    list(stream(source, source.items, lambda *_: 0, workers=8, ahead_bytes=MEGABYTE))
    assert 1 <= source.most_inside <= 2
    large = Made([f"{i}" for i in range(20)], decoded=5 * MEGABYTE)
    list(stream(large, large.items, lambda *_: 0, workers=8, ahead_bytes=MEGABYTE))
    assert large.most_inside == 1


def test_files_that_are_read_are_bounded():
    """What is decoded in the end is small: only the files themselves take memory."""
    source = Made([f"{i}" for i in range(40)], size=400_000, decoded=400_100)
    held, most = [0], [0]
    image = source.image

    def counted(item, limits=None, reserve=None):
        with source.lock:
            held[0] += item.size
            most[0] = max(most[0], held[0])
        try:
            return image(item, limits, reserve)
        finally:
            with source.lock:
                held[0] -= item.size

    source.image = counted
    assert (
        len(list(stream(source, source.items, lambda *_: 0, workers=8, ahead_bytes=MEGABYTE))) == 40
    )
    assert most[0] <= 3 * 400_000  # two that fit, and the one that the reader waits for


def test_memory_that_is_too_small_still_gets_through():
    source = Made([f"{i}" for i in range(200)], decoded=1000)
    outcomes = stream(
        source, source.items, lambda *_: np.zeros(5000, np.uint8), workers=5, ahead_bytes=1
    )
    assert sum(1 for _ in outcomes) == 200


def test_real_images_reserve_their_pixels(make_folder):
    source = open_source(make_folder([f"{i}.jpg" for i in range(5)]))
    found = list(stream(source, source.items, lambda _, image: image.size, ahead_bytes=1))
    assert [size for _, size in found] == [(8, 8)] * 5
    tight = list(stream(source, source.items, lambda _, i: i, limits=Limits(max_pixels=1)))
    assert all(isinstance(o, Skip) and "--max-pixels 64" in o.reason for o in tight)


def test_nothing_starts_before_the_first_outcome_is_asked_for():
    source = Made("0123")
    outcomes = stream(source, source.items, lambda *_: 0)
    assert not decoders()
    outcomes.close()


def test_nothing_to_do():
    assert list(stream(Made([]), [], lambda *_: 0)) == []


@pytest.mark.parametrize("how", ["close", "drop", "break", "raise"])
def test_stopping_early_stops_the_workers(how):
    source = Made([f"{i}" for i in range(5000)])
    made = []

    def transform(item, image):
        time.sleep(0.0005)
        made.append(item)

    outcomes = stream(source, source.items, transform, workers=4)
    next(outcomes)
    assert decoders()
    if how == "close":
        outcomes.close()
    elif how == "drop":
        del outcomes
    elif how == "break":
        with closing(outcomes):
            for _ in outcomes:
                break
    else:

        def fail():
            with closing(outcomes):
                for _ in outcomes:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    assert not decoders()
    count = len(made)
    assert count < 4000
    time.sleep(0.02)
    assert len(made) == count


def test_an_interrupt_leaves_no_thread():
    source = Made([f"{i}" for i in range(1000)])
    timer = threading.Timer(0.05, _thread.interrupt_main)

    def read_all():
        timer.start()
        for _ in stream(source, source.items, lambda *_: time.sleep(0.01), workers=2):
            pass

    with pytest.raises(KeyboardInterrupt):
        read_all()
    timer.join()
    assert not decoders()


def test_a_forgotten_stream_does_not_hold_the_interpreter():
    code = """
from spherequant.images import open_source, stream
source = open_source("digits")
outcomes = stream(source, source.items, lambda _, image: bytes(100_000), ahead_bytes=1 << 20)
print(next(outcomes)[0].key)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "digits/0/0000.png\n", "")


def test_chunks_group_small_images_and_leave_large_ones_alone():
    small = [Item(str(i), size=1000) for i in range(100)]
    large = [Item(str(i), size=5 * MEGABYTE) for i in range(5)]
    chunks = _chunks([*small, *large, *small], workers=1)
    assert [item for chunk in chunks for item in chunk] == [*small, *large, *small]
    assert max(len(chunk) for chunk in chunks) == 32
    assert [len(c) for c in chunks if c[0].size > MEGABYTE] == [1] * 5
    assert [len(c) for c in _chunks(small[:8], workers=2)] == [1] * 8
