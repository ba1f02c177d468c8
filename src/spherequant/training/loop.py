"""The alternating loop: network steps on L, then codes and codebooks of clean images, anew.

Codes and codebooks stand still in a network step. They are of images at their full side, also where
the steps around them see smaller ones.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spherequant.embedding import embed_batches, folded
from spherequant.embedding.arithmetic import steady_kernels
from spherequant.errors import FormatError, SpherequantError
from spherequant.quantizer import ClassTarget, Encoder
from spherequant.quantizer.learning import DEFAULT_ITERATIONS, learn_codebooks
from spherequant.quantizer.signs import sign_codebooks
from spherequant.quantizer.target import REACH, SHARPNESS
from spherequant.system import is_of_the_gpu
from spherequant.training import augment, checkpoint, losses
from spherequant.training.binary_terms import BinaryTerms
from spherequant.training.centres import CentreSums, centres_of
from spherequant.training.config import N_CODEWORDS
from spherequant.training.learner import Learner, make_average, make_optimizer, rate_factor
from spherequant.training.mixtures import with_mixtures
from spherequant.training.progressive import pixels_seen, resized, side_at
from spherequant.training.randomness import key_hashes, seed_for, shuffled, uniform
from spherequant.training.sharpness import (
    MOST_SEARCHED,
    LabelledVectors,
    choose_reach,
    choose_sharpness,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lightning_fabric import Fabric

    from spherequant.embedding import Preprocessing
    from spherequant.quantizer import Codebooks
    from spherequant.training.config import TrainConfig

_ROUND_ITERATIONS = 4  # the codes of a round are used for some epochs only


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """Where a training stands, for progress bars and logs.

    Attributes:
        stage: ``decode``, ``train``, ``quantize`` or ``finish``.
        epoch: epochs completed, out of ``epochs``.
        step: steps completed, out of ``steps`` (images, when decoding).
        losses: the terms of the objective, by name; empty between steps.
        images_per_second: since the stage began in this process.
        seconds_left: until the last step, at this speed for each pixel.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    losses: dict[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    seconds_left: float = 0.0


Report = Callable[[TrainEvent], None]


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """The decoded images of a training and what is known of them.

    Attributes:
        pixels: uint8 [N, S, S, 3], usually a memory map.
        labels: bool [N, C], at least one label a row.
        keys: of the images, in the same order.
    """

    pixels: np.ndarray
    labels: np.ndarray
    keys: list[str]


class Trainer:
    """One training, from its first step or from a checkpoint.

    Args:
        learner: network and classifier, freshly made.
        preprocessing: of the network.
        images: what is trained on.
        config: resolved.
        fabric: device and precision.
        report: called after each step and stage.
        checkpoint_path: where the state is kept after each epoch, until the caller has saved what
            it led to and removes it; None for nowhere.
        held_out: validation images, which are not trained on, by which the sharpness of
            predictions is found; None where there are none.
    """

    def __init__(
        self,
        learner: Learner,
        preprocessing: Preprocessing,
        images: TrainingImages,
        config: TrainConfig,
        fabric: Fabric,
        report: Report,
        checkpoint_path: Path | None = None,
        held_out: TrainingImages | None = None,
    ) -> None:
        self.held_out, self.sharpness, self.reach = held_out, SHARPNESS, REACH
        self.config, self.images, self.preprocessing = config, images, preprocessing
        self.fabric, self.report, self.checkpoint_path = fabric, report, checkpoint_path
        self.learner = learner.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the pair
        self.optimizer = make_optimizer(self.learner, config)
        # Batch normalisation needs two images in each.
        self.batches = min(
            math.ceil(len(images.keys) / config.batch_size), max(1, len(images.keys) // 2)
        )
        self.average = make_average(self.learner, self.batches)
        self.forward = fabric.setup_module(self.learner)
        self.stepper: Any = fabric.setup_optimizers(self.optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._hashes = key_hashes(images.keys)
        self._augment = augment.augmentation(config.augment)
        # The images as they are stored: from both sides, unless they are not to be changed at all.
        self._settled_augment = self._augment if config.augment == "none" else augment.mirror
        self._mirror_numbers = uniform(self._hashes, 1, "mirror", config.seed)
        self._labels = torch.from_numpy(images.labels).to(fabric.device)
        self._binary_terms = (
            BinaryTerms(config, images.labels.shape[1], fabric.device) if config.binary else None
        )
        self._identity = {
            "config": config.to_dict(),
            "images": hashlib.sha256(self._hashes.data).hexdigest(),
            "labels": hashlib.sha256(np.ascontiguousarray(images.labels).data).hexdigest(),
        }
        self.epoch = 0
        self.centres: torch.Tensor | None = None  # φ of the epoch or round before
        self.reconstructions: torch.Tensor | None = None  # x̂ of every training image
        self.earlier_seconds = 0.0  # of the processes that a resumed training began in
        self._begun = time.perf_counter()
        self._last_report = 0.0

    @property
    def steps(self) -> int:
        """Steps in the whole training."""
        return self.config.epochs * self.batches

    @property
    def settled(self) -> bool:
        """Whether this epoch sees the images as they are stored."""
        return self.epoch >= math.ceil((1 - self.config.settle) * self.config.epochs)

    @property
    def side(self) -> int:
        """Side of the images that this epoch sees, in pixels."""
        share = self.config.progressive
        return side_at(self.epoch, self.config.epochs, self.preprocessing.size, share)

    def _pixels_seen(self, epochs: float) -> float:
        """Return the pixels that each image has been seen with after so many epochs."""
        config = self.config
        return pixels_seen(epochs, config.epochs, self.preprocessing.size, config.progressive)

    def run(self) -> Encoder:
        """Train to the end; return what encodes the trained network's embeddings.

        Raises:
            SpherequantError: the loss is no longer a number.
        """
        self._restore()
        rounds = round_epochs(self.config)
        begun, done_before = time.perf_counter(), self.epoch
        while self.epoch < self.config.epochs:
            if self.epoch in rounds:
                self._learn_codes(last=False)
            with steady_kernels(self.fabric.device):
                self._train_epoch(begun, done_before)
            self.epoch += 1
            self._keep()
        # From here on the network is the averaged one.
        self.learner.load_state_dict(self.average.module.state_dict())
        return self._finish()

    def _train_epoch(self, begun: float, done_before: int) -> None:
        config = self.config
        self.learner.train()
        # Dropout and the like inside a backbone draw from torch's own generator.
        torch.manual_seed(seed_for("torch", config.seed, self.epoch))
        numbers = uniform(self._hashes, augment.NUMBERS - 1, "augment", config.seed, self.epoch)
        numbers = np.concatenate([self._mirror_numbers, numbers], axis=1)
        order = shuffled(self._hashes, config.seed, self.epoch)
        sums = CentreSums(
            self._labels.shape[1],
            self.learner.weight.shape[1],
            self.fabric.device,
            normalised=config.normalised,
        )
        for position, rows in enumerate(np.array_split(order, self.batches)):
            step = self.epoch * self.batches + position
            self._set_rate(step)
            terms, z_BD = self._step(np.sort(rows), numbers)
            sums.add(z_BD, self._labels[np.sort(rows)])
            if step + 1 > self.steps // 2:
                self.average.update_parameters(self.learner)
            self._tell(step + 1, terms, begun, done_before)
        self.centres = sums.centres()

    def _step(
        self, rows: np.ndarray, numbers: np.ndarray
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        change = self._settled_augment if self.settled else self._augment
        pixels = change(self.images.pixels[rows], numbers[rows], self.epoch)
        images = self.preprocessing.standardise(pixels.to(self.fabric.device))
        images = resized(images, self.side)
        z_BD = self.forward(images).float()
        terms = self._terms(z_BD, rows)
        total = self._weigh(terms)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self.stepper.step()
        return {**terms, "total": total}, z_BD

    def _terms(self, z_BD: torch.Tensor, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the terms of the objective that have begun."""
        labels_BC = self._labels[rows]
        if self._binary_terms is not None:
            return self._binary_terms(z_BD, labels_BC)
        learner = self.learner
        terms = {
            "softmax": losses.softmax_loss(
                z_BD,
                learner.weight,
                learner.bias,
                labels_BC,
                0.0 if self.settled else self.config.label_smoothing,
                self.config.softmax_margin * self.config.softmax_scale,
            )
        }
        if self.centres is not None:
            centre_BD = centres_of(labels_BC, self.centres, normalised=self.config.normalised)
            terms["centre"] = losses.centre_loss(z_BD, centre_BD)
            if self.reconstructions is not None:
                x_BD = self.reconstructions[rows]
                terms["quantization"] = losses.quantization_loss(z_BD, x_BD)
                terms["discriminative"] = losses.discriminative_loss(centre_BD, x_BD)
        return terms

    def _weigh(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        weights = {
            "softmax": 1.0,
            "central": 1.0,
            "orthogonal": 1.0,
            "quantization": self.config.quantization_weight,
            "centre": self.config.centre_weight,
            "discriminative": self.config.discriminative_weight,
        }
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    def _set_rate(self, step: int) -> None:
        factor = rate_factor(step, self.steps)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor

    def _learn_codes(self, *, last: bool) -> tuple[Codebooks, torch.Tensor]:
        """Embed the clean images, then learn centres, codebooks and codes of them.

        The codebooks are learned from the start: the embeddings have moved since the last round.

        Args:
            last: learn what the model keeps, from embeddings made as it makes them: with mirror
                images, in float32.
        """
        self._say("quantize")
        z_ND = self._embed_clean(self.images.pixels, last=last)
        normalised = self.config.normalised
        sums = CentreSums(self._labels.shape[1], z_ND.shape[1], normalised=normalised)
        labels = torch.from_numpy(self.images.labels)
        sums.add(torch.from_numpy(z_ND), labels)
        centres = sums.centres()
        if self.config.binary:
            self.centres = centres.to(self.fabric.device)
            return sign_codebooks(self.config.bits, unit=True), centres
        if last:
            self._ask_held_out(self._class_target(centres), z_ND)
        u_ND = self._to_be_encoded(z_ND, centres) if last else self._target(z_ND, centres)
        device = self.fabric.device
        codebooks = learn_codebooks(
            torch.from_numpy(u_ND).to(device),
            self.config.n_codebooks,
            N_CODEWORDS,
            iterations=DEFAULT_ITERATIONS if last else _ROUND_ITERATIONS,
            seed=seed_for("codebooks", self.config.seed, self.epoch),
            sparsity=self.config.nonzero_budget(z_ND.shape[1]),
        )
        if not last:
            decoded_ND = codebooks.decode(Encoder(codebooks).encode(u_ND))
            self.reconstructions = torch.from_numpy(decoded_ND).to(device)
            self.centres = centres.to(device)
        return codebooks, centres

    def _to_be_encoded(self, z_ND: np.ndarray, centres: torch.Tensor) -> np.ndarray:
        """Return what the codebooks that the model keeps are learned from.

        Rows like those that the encoder will see of any image, for which no label is given: they
        are shorter where the network is unsure. Without an encoding toward the class the
        discriminative term is in the codebooks alone, learned from given labels.
        """
        if self.config.pull and not self.config.encode_toward_class:
            return self._target(z_ND, centres)
        seed = seed_for("mixtures", self.config.seed)
        rows_ND = with_mixtures(z_ND, seed, normalised=self.config.normalised)
        if self.config.encode_toward_class:
            return self._class_target(centres).target(rows_ND)
        return rows_ND

    def _target(self, z_ND: np.ndarray, centres: torch.Tensor) -> np.ndarray:
        """Return u: embeddings blended with the centres of their given labels."""
        labels = torch.from_numpy(self.images.labels)
        phi_ND = centres_of(labels, centres, normalised=self.config.normalised).numpy()
        pull = self.config.pull
        return np.asarray((z_ND + pull * phi_ND) / (1 + pull), np.float32)

    def _embed_clean(self, pixels_BSS3: np.ndarray, *, last: bool) -> np.ndarray:
        self.learner.eval()
        quick = self.config.precision == "bfloat16" and not last
        z_ND = embed_batches(
            folded(self.learner.network, self.preprocessing.size),
            self.preprocessing,
            pixels_BSS3,
            batch=self.config.batch_size,
            mirror=self.config.mirror and last,
            autocast=torch.bfloat16 if quick else None,
        )
        if not np.isfinite(z_ND).all():
            raise SpherequantError(
                f"after epoch {self.epoch} the network's embeddings are no longer numbers: train "
                f"with a smaller learning_rate than {self.config.learning_rate:g}, and look "
                "whether the images differ at all"
            )
        return z_ND

    def _ask_held_out(self, target: ClassTarget, z_ND: np.ndarray) -> None:
        """Find what is not learned: how sure predictions are, and how many labels they have."""
        if self.held_out is None or not (self.config.encode_toward_class or target.multi_label):
            return
        held_out = LabelledVectors(
            self._embed_clean(self.held_out.pixels, last=True), self.held_out.labels
        )
        if self.config.encode_toward_class:
            sample = shuffled(self._hashes, self.config.seed)[:MOST_SEARCHED]
            trained = LabelledVectors(z_ND[sample], self.images.labels[sample])
            self.sharpness = choose_sharpness(
                target, trained, held_out, normalised=self.config.normalised
            )
        if target.multi_label:
            self.reach = choose_reach(target, held_out)

    def _class_target(self, centres: torch.Tensor) -> ClassTarget:
        return ClassTarget(
            self.learner.weight.detach().cpu().numpy(),
            self.learner.bias.detach().cpu().numpy(),
            centres.cpu().numpy(),
            pull=self.config.pull if self.config.encode_toward_class else 0.0,
            multi_label=bool((self.images.labels.sum(axis=1) > 1).any()),
            sharpness=self.sharpness,
            levelling=self.config.levelling,
            reach=self.reach,
        )

    def _finish(self) -> Encoder:
        codebooks, centres = self._learn_codes(last=True)
        self._say("finish")
        return Encoder(codebooks, self._class_target(centres))

    # -- telling and keeping ------------------------------------------------------------------

    def _say(self, stage: str) -> None:
        self.report(
            TrainEvent(stage, self.epoch, self.config.epochs, self.epoch * self.batches, self.steps)
        )

    def _tell(
        self, step: int, terms: dict[str, torch.Tensor], begun: float, done_before: int
    ) -> None:
        now = time.perf_counter()
        last = step % self.batches == 0
        # A number is fetched from a GPU only when somebody looks at it.
        if now - self._last_report < 0.2 and not last:
            return
        self._last_report = now
        values = {name: value.item() for name, value in terms.items()}
        if not math.isfinite(values["total"]):
            raise SpherequantError(
                f"the loss is no longer a number after {step} steps: train with a smaller "
                f"learning_rate than {self.config.learning_rate:g}"
            )
        done = step - done_before * self.batches
        speed = done / (now - begun)
        before, so_far, whole = map(
            self._pixels_seen, (done_before, step / self.batches, self.config.epochs)
        )
        self.report(
            TrainEvent(
                "train",
                self.epoch + last,
                self.config.epochs,
                step,
                self.steps,
                values,
                speed * len(self.images.keys) / self.batches,
                (now - begun) * (whole - so_far) / (so_far - before),
            )
        )

    def _keep(self) -> None:
        if self.checkpoint_path is None:
            return
        tensors = {f"learner/{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        optimizer = checkpoint.optimizer_tensors(self.optimizer)
        tensors |= {f"optimizer/{k}": v for k, v in optimizer.items()}
        if self.centres is not None:
            tensors["centres"] = self.centres
        if self.reconstructions is not None:
            tensors["reconstructions"] = self.reconstructions
        checkpoint.save_checkpoint(self.checkpoint_path, tensors, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "seconds": self.earlier_seconds + time.perf_counter() - self._begun,
            **self._identity,
        }

    def _restore(self) -> None:
        if self.checkpoint_path is None or not self.checkpoint_path.exists():
            return
        tensors, facts = checkpoint.load_checkpoint(self.checkpoint_path)
        checkpoint.refuse_another(self.checkpoint_path, facts, self._identity)
        device = self.fabric.device
        self.epoch, self.earlier_seconds = int(facts["epoch"]), float(facts["seconds"])
        try:
            self.learner.load_state_dict(checkpoint.under("learner/", tensors))
            self.average.load_state_dict(checkpoint.under("average/", tensors))
            checkpoint.restore_optimizer(self.optimizer, checkpoint.under("optimizer/", tensors))
        except (RuntimeError, ValueError) as error:
            if is_of_the_gpu(error):
                raise
            raise FormatError(
                f"{self.checkpoint_path} holds the state of another network: start over with "
                "--overwrite"
            ) from error
        if "centres" in tensors:
            self.centres = tensors["centres"].to(device)
        if "reconstructions" in tensors:
            self.reconstructions = tensors["reconstructions"].to(device)


def round_epochs(config: TrainConfig) -> set[int]:
    """Return the epochs before which codes and codebooks are learned anew."""
    # At the latest before the last epoch, so that the terms act at all.
    first = min(math.ceil(config.warmup * config.epochs), config.epochs - 1)
    return {
        int(epoch) for epoch in np.linspace(first, config.epochs, config.rounds, endpoint=False)
    }
