"""What the tests of the index share: a small embedder, codebooks and folders of images.

Subprocesses of the tests import this file too, so that what they write matches.
"""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spherequant.index import Index
from spherequant.quantizer import Codebooks, Encoder

DIM = 16
N_CODEBOOKS = 3
N_CODEWORDS = 16


def make_codebooks(seed: int = 0) -> Codebooks:
    """Small random codebooks, the later ones finer."""
    rng = np.random.default_rng(seed)
    scale = np.array([0.7, 0.4, 0.2])[:, None, None]
    return Codebooks(scale * rng.normal(size=(N_CODEBOOKS, N_CODEWORDS, DIM)) / np.sqrt(DIM))


def unit_rows(n: int, seed: int = 0) -> np.ndarray:
    """n random unit vectors, float32 [n, DIM]."""
    rows = np.random.default_rng(seed).normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class FakeEmbedder:
    """An embedder without a network: a random projection of the 8 x 8 picture."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.encoder = Encoder(make_codebooks(seed))
        self.codebooks = self.encoder.codebooks
        self.fingerprint = sha256(f"fake {seed}".encode()).hexdigest()
        self.embedded = 0
        self.asked_with = 0  # of these
        self._projection = np.random.default_rng(seed + 1).normal(size=(8 * 8 * 3, DIM))

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((8, 8)), np.uint8)

    def embed_prepared(self, batch: np.ndarray, *, query: bool = False) -> np.ndarray:
        self.embedded += len(batch)
        self.asked_with += query * len(batch)
        flat = batch.reshape(len(batch), -1).astype(np.float64) - 127.0
        out = np.stack([row @ self._projection for row in flat])
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    def embed(self, images, *, query: bool = False) -> np.ndarray:
        parts = [np.empty((0, DIM), np.float32)]
        for image in images:  # one at a time, as a model holds one batch at a time
            shown = image if isinstance(image, Image.Image) else Image.fromarray(image)
            parts.append(self.embed_prepared(self.prepare(shown)[None], query=query))
        return np.concatenate(parts)

    def save(self, directory: Path) -> None:
        directory.mkdir()
        self.encoder.save(directory / "codebooks.safetensors")
        (directory / "fake.json").write_text(json.dumps({"seed": self.seed}))

    @classmethod
    def load(cls, directory: Path) -> FakeEmbedder:
        return cls(json.loads((directory / "fake.json").read_text())["seed"])


def picture(number: int, side: int = 12) -> Image.Image:
    """A picture that depends on ``number`` alone."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


def write_pictures(folder: Path, names: dict[str, int]) -> None:
    """PNG files by name, each showing ``picture(number)``."""
    for name, number in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, format="PNG")


# Test modules cannot import a conftest under pytest's importlib mode: they get these as fixtures.
@pytest.fixture(scope="session", name="make_codebooks")
def _make_codebooks():
    return make_codebooks


@pytest.fixture(scope="session", name="unit_rows")
def _unit_rows():
    return unit_rows


@pytest.fixture(scope="session", name="picture")
def _picture():
    return picture


@pytest.fixture(scope="session", name="write_pictures")
def _write_pictures():
    return write_pictures


@pytest.fixture(scope="session", name="make_embedder")
def _make_embedder():
    return FakeEmbedder


@pytest.fixture(scope="session")
def run_script():
    """Start a Python script in a fresh process; its first lines import this file's names."""

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        head = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        return subprocess.Popen(
            [sys.executable, "-c", head + script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def codebooks() -> Codebooks:
    return make_codebooks()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def index(tmp_path, codebooks):
    """An empty index of vectors."""
    with Index.create(tmp_path / "index", codebooks) as made:
        yield made


@pytest.fixture
def photo_index(tmp_path, embedder):
    """An empty index of images."""
    with Index.create(tmp_path / "index", embedder) as made:
        yield made
