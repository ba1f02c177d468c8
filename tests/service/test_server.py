"""The process: it says where it is, ends when told, and finishes what it accepted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch

from spherequant.errors import ConfigError, InputError, SpherequantError
from spherequant.index import Index, Searcher
from spherequant.service.application import create_app
from spherequant.service.server import listening
from spherequant.service.settings import Settings

SRC = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize("where", ["load_embedder", "Engine.warm_up"])
def test_a_model_that_cannot_be_run_here_says_how_it_can(folder, where, monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(f"spherequant.service.engine.{where}", fail)
    with pytest.raises(SpherequantError, match=r"cannot be run here.*CUDA_VISIBLE_DEVICES="):
        create_app(folder, Settings())


@pytest.fixture
def process(folder):
    """Start the command over a copy of the index; its address once it answers."""
    started = []

    def start(*arguments, **environment):
        run = subprocess.Popen(
            [sys.executable, "-m", "spherequant", "serve", folder, "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"} | environment,
        )
        started.append(run)
        for line in run.stderr:
            if "serving" in line:
                # What it logs from here on must not fill the pipe.
                threading.Thread(target=run.stderr.read, daemon=True).start()
                return run, line.split()[-1]
        raise AssertionError("it ended")

    yield start
    for run in started:
        run.kill()
        run.wait()
        run.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(process, number):
    run, url = process()
    assert httpx.get(f"{url}ready").json()["items"] == 200
    run.send_signal(number)
    assert run.wait(60) == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}ready")


def test_a_shutdown_finishes_what_was_accepted(process, folder, png):
    """Writers and searchers are at work when it is told to end: no answer is a lie."""
    run, url = process()
    acknowledged, unanswered = [], []

    def put(number):
        with httpx.Client(base_url=url, timeout=60) as client:
            for turn in range(1_000):
                key = f"{number}/{turn}"
                try:
                    response = client.put(
                        "v1/items", params={"key": key}, files={"image": ("x", png(number))}
                    )
                except httpx.TransportError:
                    unanswered.append(key)
                    return
                if response.status_code != 200:
                    return
                acknowledged.append(key)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 0
    for thread in threads:
        thread.join()
    with Index.open(folder) as index:
        assert None not in index.get(acknowledged)
        stored = sum(item is not None for item in index.get([*acknowledged, *unanswered]))
        assert len(index) == 200 + stored


@pytest.mark.parametrize("turn", range(3))
def test_an_acknowledged_write_survives_being_killed(process, folder, png, turn):
    run, url = process()
    acknowledged = []

    def put(number):
        with httpx.Client(base_url=url, timeout=60) as client:
            for step in range(1_000):
                key = f"{number}/{step}"
                try:
                    client.put(
                        "v1/items", params={"key": key}, files={"image": ("x", png(step))}
                    ).raise_for_status()
                except httpx.HTTPError:
                    return
                acknowledged.append(key)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < 3 + 2 * turn and time.monotonic() < deadline:
        time.sleep(0.003)
    run.kill()
    for thread in threads:
        thread.join()
    assert acknowledged
    with Index.open(folder) as index:
        assert None not in index.get(acknowledged)
        assert len(index) <= 200 + len(acknowledged) + 2


def test_the_end_waits_for_no_long_look_through_the_index(serve_copy, monkeypatch, eventually):
    begun, go_on = threading.Event(), threading.Event()

    def group(*_, **__):
        begun.set()
        go_on.wait(60)
        raise InputError("too late.")

    monkeypatch.setattr(Searcher, "duplicate_groups", group)
    with serve_copy(drain_seconds=1.0) as served:
        asking = threading.Thread(target=ask_for_groups, args=(served,))
        asking.start()
        assert begun.wait(60)
        started = time.monotonic()
        try:
            served.stop()
            eventually(lambda: not served.thread.is_alive(), seconds=20)
            assert time.monotonic() - started < 15
        finally:
            go_on.set()
            asking.join()


def ask_for_groups(served):
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{served.url}/v1/duplicates", timeout=60)


def test_two_processes_over_one_index(process, png):
    (_, first), (_, second) = process(), process()
    response = httpx.put(
        f"{first}v1/items", params={"key": "a"}, files={"image": ("x", png())}, timeout=60
    )
    assert response.status_code == 200
    httpx.post(f"{second}v1/refresh", timeout=60).raise_for_status()
    assert httpx.get(f"{second}v1/items", params={"key": "a"}).json()["id"] == 200
    assert httpx.delete(f"{second}v1/items", params={"key": "a"}, timeout=60).status_code == 204
    deadline = time.monotonic() + 60
    while httpx.get(f"{first}v1/items", params={"key": "a"}).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port}.*--port"),
            listening(Settings(port=port)),
        ):
            pass


def test_an_address_that_is_none_of_this_machine():
    settings = Settings(host="no.such.host.invalid", read_keys=("k" * 20,))
    with pytest.raises(ConfigError, match="--host"), listening(settings):
        pass
