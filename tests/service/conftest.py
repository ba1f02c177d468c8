"""A small index of real digits, made once, and services over copies of it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from spherequant.index import Index
from spherequant.service.application import create_app
from spherequant.service.server import listening, make_server
from spherequant.service.settings import Settings
from spherequant.training import TrainConfig, train

CLASSES, PER_CLASS = 10, 20
COLUMNS = {"year": "int64", "weight": "float64", "note": "string"}
WAIT = 60


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Twenty images of each digit, in a folder a class."""
    folder = tmp_path_factory.mktemp("given") / "digits"
    loaded = load_digits()
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        chosen = np.flatnonzero(loaded.target == label)[:PER_CLASS]
        for number, place in enumerate(chosen):
            pixels = (loaded.images[place] * 15.9).astype(np.uint8)
            image = Image.fromarray(pixels).resize((24, 24))
            image.save(folder / str(label) / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def made(digits, tmp_path_factory):
    """The index that tests copy: all digits, from their folder."""
    config = TrainConfig(bits=16, epochs=2, dim=8, image_size=16, precision="float32")
    model = train(str(digits), config)
    folder = tmp_path_factory.mktemp("made") / "index"
    with Index.create(folder, model, metadata_columns=COLUMNS) as index:
        index.sync(digits, name="digits")
    return SimpleNamespace(folder=folder, model=model)


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the index that a test may write to."""
    return shutil.copytree(made.folder, tmp_path / "index")


class Served:
    """A service in a thread of this process, over a real socket."""

    def __init__(self, folder, settings):
        self.folder, self.settings = folder, settings
        self.app = create_app(folder, settings)
        self.service = self.app.state.service
        self.engine = self.service.engine

    @contextmanager
    def running(self):
        ready = threading.Event()
        with listening(self.settings) as sock:
            host, self.port = sock.getsockname()[:2]
            self.url = f"http://{host}:{self.port}"
            self.server = make_server(self.app, self.settings, ready.set)
            self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]})
            self.thread.start()
            try:
                assert ready.wait(WAIT)
                yield self
            finally:
                self.stop()
                self.thread.join(WAIT)
                assert not self.thread.is_alive()

    def stop(self):
        self.server.should_exit = True

    def client(self, **options):
        return httpx.Client(base_url=self.url, timeout=WAIT, **options)

    def metric(self, name, **labels):
        """The value of a metric now."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def serving():
    """Start services that end with the test."""
    with ExitStack() as stack:

        def start(folder, **settings):
            settings = {"port": 0, "refresh_seconds": 0.1, "drain_seconds": 20.0} | settings
            served = Served(folder, Settings(**settings))
            return stack.enter_context(served.running())

        yield start


@pytest.fixture(scope="session")
def serve_copy(made, tmp_path_factory):
    """Start a service over a copy of the index that outlives one test."""

    @contextmanager
    def start(**settings):
        copy = shutil.copytree(made.folder, tmp_path_factory.mktemp("copy") / "index")
        with Served(copy, Settings(port=0, **settings)).running() as served:
            yield served

    return start


@pytest.fixture(scope="session")
def shared(serve_copy):
    """One service for all tests that leave it as it was."""
    bounds = {"max_k": 100, "max_offset": 500, "max_where": 500, "max_pixels": 1_000_000}
    with serve_copy(**bounds, max_image_bytes=2 << 20) as served:
        yield served


@pytest.fixture
def client(shared):
    with shared.client() as client:
        yield client


@pytest.fixture(scope="session")
def png():
    """Encode a picture that depends on a number alone."""

    def encode(number=0, side=24, kind="PNG"):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        return out.getvalue()

    return encode


@pytest.fixture(scope="session")
def eventually():
    """Wait until something holds."""

    def wait(holds, seconds=WAIT):
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def assert_problem():
    """Check that an answer is a problem document, and give it."""

    def check(response, status):
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert document["status"] == status
        assert document["type"] == "about:blank"
        assert document["detail"].endswith(".")
        assert set(document) <= {"type", "title", "status", "detail", "code", "errors"}
        return document

    return check
