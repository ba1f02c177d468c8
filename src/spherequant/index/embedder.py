"""What an index needs of a model, and the only place in this room that loads one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.quantizer import Codebooks, Encoder


@runtime_checkable
class Embedder(Protocol):
    """A model as the index sees it: images in, unit vectors out, and the codes' parameters."""

    @property
    def fingerprint(self) -> str:
        """sha256 hex of everything that changes a code."""

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks of the stored codes."""

    @property
    def encoder(self) -> Encoder:
        """Makes every stored code."""

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image as uint8 [S, S, 3], resized and cropped. Safe in several threads."""

    def embed_prepared(
        self, batch: NDArray[np.uint8], *, query: bool = False
    ) -> NDArray[np.float32]:
        """Unit vectors float32 [B, D] of prepared images uint8 [B, S, S, 3].

        They depend on no other image, to the bit, unless they are asked with and never stored.
        """

    def embed(self, images: Iterable[Any], *, query: bool = False) -> NDArray[np.float32]:
        """Unit vectors float32 [B, D] of images."""

    def save(self, directory: Path) -> None:
        """Write the model into a new directory."""


def load_embedder(directory: Path) -> Embedder:
    """The model stored in ``directory``. Loads torch.

    Raises:
        FormatError: the directory holds no model that can be read.
    """
    from spherequant.training import Model

    model: Embedder = Model.load(directory)
    return model
