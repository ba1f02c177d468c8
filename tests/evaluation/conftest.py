from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from spherequant.quantizer import ClassTarget, Codebooks, Encoder, normalise_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from spherequant.images import Item

COLOURS = {
    "amber": (230, 160, 30),
    "blue": (30, 60, 220),
    "green": (30, 180, 60),
    "grey": (120, 120, 120),
    "pink": (240, 120, 180),
}
DIM = 12


@dataclass
class FakeModel:
    """A model whose network is a fixed projection of the pixels of 2 x 2 images."""

    encoder: Encoder
    classes: tuple[str, ...] = ()
    trained_keys: frozenset[str] = frozenset()
    summary: Mapping[str, Any] = field(default_factory=lambda: {"seed": 5, "split_seed": 3})
    fingerprint: str = "f" * 64
    normalised: bool = True
    batch_sizes: list[int] = field(default_factory=list)

    @property
    def bits(self) -> int:
        return self.encoder.codebooks.bits

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((2, 2), Image.Resampling.BOX), dtype=np.uint8)

    def embed_prepared(self, pixels_BSS3: np.ndarray, /) -> np.ndarray:
        self.batch_sizes.append(len(pixels_BSS3))
        return project(pixels_BSS3)

    def trained_on(self, items: Sequence[Item]) -> np.ndarray:
        return np.array([item.key in self.trained_keys for item in items], dtype=bool)


def project(pixels_BSS3: np.ndarray) -> np.ndarray:
    flat = pixels_BSS3.reshape(len(pixels_BSS3), -1).astype(np.float64) - 117.3
    return normalise_rows(flat)


class Pictures:
    """A re-iterable source of small noisy pictures of one colour a class."""

    def __init__(
        self,
        per_class: int = 20,
        classes: Sequence[str] = tuple(COLOURS),
        labels_of: Callable[[str, int], tuple[str, ...]] = lambda name, _: (name,),
        noise: float = 60.0,
        bad: Sequence[str] = (),
    ) -> None:
        self.per_class, self.classes, self.labels_of = per_class, classes, labels_of
        self.noise, self.bad = noise, bad

    def __iter__(self) -> Iterator[tuple[str, object, tuple[str, ...]]]:
        generator = np.random.default_rng(0)
        for name in self.classes:
            for number in range(self.per_class):
                key = f"{name}/{number:03}.png"
                spread = generator.normal(0, self.noise, (4, 4, 3)) + COLOURS[name]
                pixels = np.clip(spread, 0, 255).astype(np.uint8)
                image = b"not an image" if key in self.bad else Image.fromarray(pixels)
                yield key, image, self.labels_of(name, number)


def make_model(
    *,
    classes: Sequence[str] = tuple(COLOURS),
    pull: float = 0.0,
    multi_label: bool = False,
    **rest: Any,
) -> FakeModel:
    generator = np.random.default_rng(7)
    codebooks = Codebooks(generator.normal(0, 0.35, (2, 16, DIM)).astype(np.float32))
    target = None
    if classes:
        flat = np.stack([np.full((2, 2, 3), COLOURS[name]) for name in classes])
        centres_CD = project(flat)
        target = ClassTarget(
            5 * centres_CD, np.zeros(len(classes), np.float32), centres_CD, pull, multi_label
        )
    return FakeModel(Encoder(codebooks, target), classes=tuple(classes), **rest)


@pytest.fixture(name="make_model", scope="session")
def make_model_fixture() -> Callable[..., FakeModel]:
    return make_model


@pytest.fixture(scope="session")
def make_pictures() -> type[Pictures]:
    return Pictures


@pytest.fixture
def one_faiss_thread():
    """OpenMP threads that wait for each other cost most on busy cores."""
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)
