"""What training ends with: network, class target and codebooks, and their directory on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from spherequant.embedding import (
    BackboneSpec,
    EmbeddingNetwork,
    Preprocessing,
    embed_batches,
    folded,
)
from spherequant.errors import ConfigError, FormatError, InputError
from spherequant.images.decoding import picture
from spherequant.quantizer import Codebooks, Encoder
from spherequant.system import is_of_the_gpu, replacing
from spherequant.training.config import TrainConfig
from spherequant.training.randomness import key_hashes, torch_generator_kept

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from PIL import Image

    from spherequant.images import Item

SCHEMA = 1
_DESCRIPTION, _CONFIG, _WEIGHTS, _CODEBOOKS, _TRAINED = (
    "model.json",
    "config.toml",
    "weights.safetensors",
    "codebooks.safetensors",
    "trained.safetensors",
)
_LARGEST_BATCH = 4_096
_DAMAGED = "the model in {0} is damaged: {1}. Copy it again, or train it again."


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network and quantizer: images in, unit vectors or M-byte codes out.

    Attributes:
        config: the resolved settings of the training.
        classes: names of the labels, in the order of the classifier; empty without labels.
        network: maps images to the unit sphere; in evaluation mode.
        backbone: how the network's backbone is built again.
        preprocessing: what is done to an image first.
        encoder: the canonical encoder: codebooks, and the class target when there are labels.
        inference_batch: images in each pass through the network.
        multi_label: whether an image may have several labels.
        trained_hashes: uint64 [N], hashes of the keys and sizes of the images trained on.
        summary: what the training reports: protocol, seeds, images, seconds, figures.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    network: EmbeddingNetwork
    backbone: BackboneSpec
    preprocessing: Preprocessing
    encoder: Encoder
    inference_batch: int
    multi_label: bool
    trained_hashes: np.ndarray
    summary: dict[str, Any]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(requires_grad=False)
        self.network.to(_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the pair

    def __repr__(self) -> str:
        """One line; ``summary`` and ``config`` have more."""
        return (
            f"<Model: {self.backbone.name}, {self.preprocessing.size} pixels, {self.bits} bits, "
            f"{len(self.classes)} classes, {self.fingerprint[:12]}>"
        )

    @property
    def normalised(self) -> bool:
        """Whether embeddings lie on the unit sphere. An index takes no other."""
        return self.network.normalised

    @property
    def bits(self) -> int:
        """Length of a code."""
        return self.codebooks.bits

    @property
    def codebooks(self) -> Codebooks:
        """The M codebooks."""
        return self.encoder.codebooks

    @property
    def class_centres(self) -> np.ndarray:
        """φ: float32 [C, D], of length one where normalised; [0, D] for a model without labels."""
        if self.encoder.target is None:
            return np.zeros((0, self.codebooks.dim), np.float32)
        return self.encoder.target.centres_CD

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Cut and resize an image to uint8 [S, S, 3]; cheap, thread-safe."""
        return self.preprocessing.prepare(image)

    def embed_prepared(self, pixels_BSS3: np.ndarray, *, query: bool = False) -> np.ndarray:
        """Embed images that ``prepare`` made.

        An image's embedding depends on no other: passes through the network have one size, float32
        and a fixed batch.

        Args:
            pixels_BSS3: uint8 [B, S, S, 3].
            query: whether they are only asked with, never stored. A few images then take no more
                time than they need, and the last bits of their embeddings may depend on how many
                they are.

        Returns:
            float32 [B, D], rows of length one where normalised.

        Raises:
            InputError: another shape or type.
        """
        side = self.preprocessing.size
        if pixels_BSS3.dtype != np.uint8 or pixels_BSS3.shape[1:] != (side, side, 3):
            raise InputError(
                f"prepared images are uint8 [B, {side}, {side}, 3], not "
                f"{pixels_BSS3.dtype} {list(pixels_BSS3.shape)}: use model.prepare(image)"
            )
        # Batches are made one after the other, for each takes all there is: but what is only asked
        # with may share processors with other threads that ask.
        network = self._folded
        on_cpu = network.projection.weight.device.type == "cpu"
        with nullcontext() if query and on_cpu else self._lock:
            return embed_batches(
                network,
                self.preprocessing,
                pixels_BSS3,
                batch=self.inference_batch,
                mirror=self.config.mirror,
                fill=not query,
            )

    @cached_property
    def _folded(self) -> EmbeddingNetwork:
        """The network as it is asked; ``network`` is what is stored."""
        with self._lock:  # two at once would watch each other's images
            return folded(self.network, self.preprocessing.size)

    def embed(
        self, images: Iterable[Image.Image | np.ndarray], *, query: bool = False
    ) -> np.ndarray:
        """Embed images, holding one batch of them at a time.

        Args:
            images: PIL images, or uint8 arrays [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
            query: as in ``embed_prepared``.

        Returns:
            float32 [B, D], rows of length one where normalised.

        Raises:
            InputError: something else, or a PIL image whose file, not read until now, is damaged.
        """
        source = iter(images)
        parts = [np.zeros((0, self.codebooks.dim), np.float32)]
        while batch := list(islice(source, self.inference_batch)):
            prepared = np.stack([self.prepare(picture(image)) for image in batch])
            parts.append(self.embed_prepared(prepared, query=query))
        return np.concatenate(parts)

    def encode(self, images: Iterable[Image.Image | np.ndarray]) -> np.ndarray:
        """Encode images: ``encode_vectors(embed(images))``, uint8 [B, M]."""
        return self.encode_vectors(self.embed(images))

    def encode_vectors(self, z_ND: np.ndarray) -> np.ndarray:
        """Encode embeddings to uint8 [N, M] with the canonical encoder."""
        return self.encoder.encode(z_ND)

    def shortened(self, bits: int) -> Model:
        """Return the same model with shorter codes: those of its first codebooks alone.

        Codebooks stand in the order of their codewords' variance, so the first ones are good by
        themselves (docs: protocols). The result is a model of its own, with its own fingerprint.

        Args:
            bits: the new length, a multiple of 8 up to the model's own.

        Raises:
            ConfigError: another number, or codes of signs, which have one length.
        """
        if self.config.binary and bits != self.bits:
            raise ConfigError(
                f"codes of objective {self.config.objective} are the signs of an embedding of "
                f"{self.bits} dimensions and have no other length: train with bits = {bits}"
            )
        if bits % 8 or not 8 <= bits <= self.bits:
            raise ConfigError(
                f"the model makes codes of {self.bits} bits; shorter ones have a multiple of 8 "
                f"bits from 8 to {self.bits}, not {bits}"
            )
        if bits == self.bits:
            return self
        encoder = self.encoder.shortened(bits // 8)
        sparsity = self.config.sparsity
        if isinstance(sparsity, int):
            sparsity = min(sparsity, encoder.codebooks.array.size)
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, bits=bits, sparsity=sparsity),
            encoder=encoder,
            summary={**self.summary, "shortened_from_bits": self.bits},
        )

    def predict(self, z_ND: np.ndarray) -> np.ndarray:
        """Predict the classes of embeddings.

        Args:
            z_ND: float32, of ``embed``.

        Returns:
            bool [N, C]: one class a row, or several for a multi-label model; C = 0 without labels.
        """
        if self.encoder.target is None:
            return np.zeros((len(z_ND), 0), bool)
        return self.encoder.target.predict(z_ND)

    def trained_on(self, items: Sequence[Item]) -> np.ndarray:
        """Tell which images were trained on, by key and size in bytes: bool [N]."""
        return np.isin(item_hashes(items), self.trained_hashes)

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of everything that changes a code."""
        digest = hashlib.sha256(json.dumps(self._code_settings(), sort_keys=True).encode())
        arrays = {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}
        arrays["codebooks"] = self.codebooks.array
        if self.encoder.target is not None:
            arrays["class_weight"] = self.encoder.target.weight_CD
            arrays["class_bias"] = self.encoder.target.bias_C
            arrays["class_centres"] = self.encoder.target.centres_CD
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the model's directory; ``model.json`` comes last, so a cut-off copy is no model.

        Args:
            directory: made when missing; a model already there is replaced.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.network.state_dict()
        weights = {name: value.cpu().contiguous() for name, value in state.items()}
        # All are written before one takes its place; the first named comes last.
        with (
            replacing(folder / _DESCRIPTION) as described,
            replacing(folder / _CONFIG) as config,
            replacing(folder / _TRAINED) as trained,
            replacing(folder / _CODEBOOKS) as codebooks,
            replacing(folder / _WEIGHTS) as kept,
        ):
            save_tensors(weights, kept)
            self.encoder.save(codebooks)
            save_arrays({"hashes": self.trained_hashes.view(np.int64)}, trained)
            config.write_text(self.config.to_toml(), encoding="utf-8")
            described.write_text(self._description_text(), encoding="utf-8")

    def save_summary(self, directory: str | os.PathLike[str]) -> None:
        """Write ``model.json`` alone, whole or not at all, beside files that are there already.

        Args:
            directory: where this model was saved; only ``summary`` has changed since.
        """
        with replacing(Path(directory) / _DESCRIPTION) as draft:
            draft.write_text(self._description_text(), encoding="utf-8")

    def _description_text(self) -> str:
        return json.dumps(self._description(), indent=2) + "\n"

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Model:
        """Read a model's directory.

        Raises:
            FormatError: no model is there, it is damaged, or it is newer than this version reads.
        """
        folder = Path(directory)
        values = read_description(folder)
        try:
            spec = BackboneSpec.from_dict(values["backbone"])
            config = TrainConfig.load(folder / _CONFIG)
            with torch_generator_kept():  # what is drawn for the weights is replaced
                network = EmbeddingNetwork(
                    *spec.build(),
                    int(values["dim"]),
                    normalised=config.normalised,
                    shifted=config.binary,
                )
            network.load_state_dict(load_tensors(folder / _WEIGHTS))
            hashes = load_arrays(folder / _TRAINED)["hashes"].view(np.uint64)
            if _digest(hashes) != values["trained_digest"]:
                raise FormatError(_DAMAGED.format(folder, f"{_TRAINED} has changed"))
            model = cls(
                config=config,
                classes=tuple(values["classes"]),
                network=network,
                backbone=spec,
                preprocessing=Preprocessing.from_dict(values["preprocessing"]),
                encoder=Encoder.load(folder / _CODEBOOKS),
                inference_batch=_batch(values["inference_batch"]),
                multi_label=bool(values["multi_label"]),
                trained_hashes=hashes,
                summary=dict(values["training"]),
            )
        except (KeyError, TypeError, ValueError, OSError, RuntimeError, SafetensorError) as error:
            if is_of_the_gpu(error):
                raise
            raise FormatError(_DAMAGED.format(folder, error)) from error
        if model.fingerprint != values.get("fingerprint"):
            raise FormatError(_DAMAGED.format(folder, "its files do not match its fingerprint"))
        return model

    def _code_settings(self) -> dict[str, Any]:
        """Return the plain values that change a code, beside weights and codebooks."""
        target = self.encoder.target
        settings = {
            "backbone": self.backbone.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "mirror": self.config.mirror,
            "precision": "float32",
            "inference_batch": self.inference_batch,
            "beam": self.encoder.beam,
            "icm_rounds": self.encoder.icm_rounds,
            "pull": 0.0 if target is None else target.pull,
            "sharpness": 0.0 if target is None else target.sharpness,
            "multi_label": self.multi_label,
        }
        # Only where it differs: models from before there was a choice keep their fingerprint.
        if self.encoder.icm_starts > 1:
            settings["icm_starts"] = self.encoder.icm_starts
        if target is not None and target.levelling:
            settings["levelling"] = target.levelling
        if target is not None and target.multi_label:
            settings["centre"] = "expected"
        if not self.normalised:
            settings["normalised"] = False
        return settings

    def _description(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            **self._code_settings(),
            "dim": self.codebooks.dim,
            "n_codebooks": self.codebooks.n_codebooks,
            "n_codewords": self.codebooks.n_codewords,
            "bits": self.bits,
            "trained_digest": _digest(self.trained_hashes),
            "classes": list(self.classes),
            "made_with": made_with(),
            "training": self.summary,
        }


def read_description(folder: Path) -> dict[str, Any]:
    """Read ``model.json`` without loading the weights.

    Raises:
        FormatError: no model is there, it is damaged, or it is newer than this version reads.
    """
    path = folder / _DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(
            f"{folder} holds no trained model (it has no model.json). Train one with: "
            f"spherequant train SOURCE --out {folder}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(_DAMAGED.format(folder, error)) from error
    if not isinstance(values, dict) or not isinstance(schema := values.get("schema"), int):
        raise FormatError(_DAMAGED.format(folder, "model.json names no schema"))
    if schema > SCHEMA:
        raise FormatError(
            f"the model in {folder} has schema {schema}; this version reads up to {SCHEMA}. "
            "Upgrade with: pip install --upgrade spherequant"
        )
    return values


def item_hashes(items: Sequence[Item]) -> np.ndarray:
    """Return a hash of each image's key and size in bytes: uint64 [N]."""
    return key_hashes(f"{item.identity}\0{item.size}" for item in items)


def _batch(value: object) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST_BATCH:
        raise ValueError(f"images are embedded in batches of 1 to {_LARGEST_BATCH}, not {value}")
    return value


def _digest(hashes_N: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(hashes_N).tobytes()).hexdigest()


def made_with() -> dict[str, Any]:
    """Return versions, device and threads: with the same, codes are equal to the byte."""
    import timm

    from spherequant import __version__

    device = _device()
    return {
        "spherequant": __version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
