"""What an index needs of a model, and the only place in this room that loads one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from spherequant.errors import FormatError, InputError
from spherequant.images.decoding import picture
from spherequant.quantizer import normalise_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.quantizer import Codebooks


@runtime_checkable
class Embedder(Protocol):
    """A model as the index sees it: images in, unit vectors out, and the codes' parameters.

    Any network beside any codebooks can be one. Its ``embed`` is called for one image at a time,
    and by one thread at a time; a ``BatchEmbedder`` is asked for many at once.
    """

    @property
    def fingerprint(self) -> str:
        """sha256 hex of everything that changes a code."""

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks of the stored codes."""

    def embed(self, images: Iterable[Any]) -> NDArray[np.float32]:
        """Vectors float32 [B, D] of upright images (PIL, RGB); any length but zero."""

    def save(self, directory: Path) -> None:
        """Write the model into a new directory.

        Where it writes no ``codebooks.safetensors``, the index does.
        """


@runtime_checkable
class BatchEmbedder(Embedder, Protocol):
    """An embedder that takes its images in two steps, as those of this package do."""

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """An image as uint8 [S, S, 3], resized and cropped. Safe in several threads."""

    def embed_prepared(self, batch: NDArray[Any], *, query: bool = False) -> NDArray[np.float32]:
        """Unit vectors float32 [B, D] of prepared images uint8 [B, S, S, 3].

        They depend on no other image, to the bit, unless they are asked with and never stored.
        """

    def embed(self, images: Iterable[Any], *, query: bool = False) -> NDArray[np.float32]:
        """Unit vectors float32 [B, D] of images."""


def check_embedder(model: object) -> None:
    """Refuse what an index cannot embed images with.

    Raises:
        InputError: it is no ``Embedder``.
    """
    if not isinstance(model, Embedder):
        raise InputError(
            "an index takes a model (Model.load), Codebooks or an Embedder, not "
            f"{type(model).__name__}."
        )


def in_batches(model: Embedder) -> BatchEmbedder:
    """The model, or what asks it for one image after the other."""
    return model if isinstance(model, BatchEmbedder) else _OneByOne(model)


class _OneByOne:
    """Prepares an image by embedding it: no more than one is then held at its full size."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self._turn = threading.Lock()

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    @property
    def codebooks(self) -> Codebooks:
        return self._model.codebooks

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        with self._turn:
            rows = np.asarray(self._model.embed([image]))
        expected = (1, self.codebooks.dim)
        if rows.shape != expected:
            raise InputError(
                f"the model's embed gave an array of {list(rows.shape)} for one image, where "
                f"{list(expected)} was expected."
            )
        vector: NDArray[np.float32] = normalise_rows(rows)[0]
        return vector

    def embed_prepared(self, batch: NDArray[Any], *, query: bool = False) -> NDArray[np.float32]:
        del query  # one by one, no vector depends on another
        return batch

    def embed(self, images: Iterable[Any], *, query: bool = False) -> NDArray[np.float32]:
        del query
        rows = [np.empty((0, self.codebooks.dim), np.float32)]
        rows += [self.prepare(picture(image))[None] for image in images]
        return np.concatenate(rows)

    def save(self, directory: Path) -> None:
        self._model.save(directory)


def load_embedder(directory: Path) -> BatchEmbedder:
    """The model stored in ``directory``. Loads torch.

    Raises:
        FormatError: the directory holds no model that can be read.
    """
    if not (directory / "model.json").exists():
        raise FormatError(
            f"{directory} holds no model of this package: either it is lost, then restore the "
            "folder from a copy, or the index was made with an embedder of your own, then give it "
            "that: Index.open(folder, model)"
        )
    from spherequant.training import Model

    model: BatchEmbedder = Model.load(directory)
    return model
