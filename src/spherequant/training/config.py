"""The settings of a training: one frozen dataclass; TOML in, TOML out."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from spherequant.errors import ConfigError, InputError
from spherequant.images import LABEL_MODES, PROTOCOLS
from spherequant.quantizer.sparsity import NAMED_BUDGETS, nonzero_budget

AUTO = "auto"
N_CODEWORDS = 256  # K: a codeword is named by a byte
_MOST_DIM = 4_096

_CHOICES = {
    "optimizer": ("auto", "sgd", "adamw"),
    "augment": ("auto", "none", "shift", "crop"),
    "precision": ("auto", "float32", "bfloat16"),
    "labels": LABEL_MODES,
    "objective": (
        "dsq",
        "paper",
        "softmax",
        "softmax-centre",
        "no-discriminative",
        "no-norm",
        "csq",
        "orthohash",
    ),
}

# Each dimension of the embedding is a bit, and codes are signs.
BINARY = ("csq", "orthohash")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of ``train``. ``auto``, 0 and -1 are replaced by what suits the backbone.

    Attributes:
        bits: length of a code; a multiple of 8 from 8 to 128: M = bits / 8 codebooks.
        objective: ``dsq``, the four terms with a margin; ``paper``, the same as they are printed;
            or one of the alternatives that they are compared with (docs: alternatives). All but
            ``dsq`` replace the settings that they have no use for.
        sparsity: the most nonzeros that all codebooks together may hold: ``none`` for any number
            (dense codebooks), ``S1`` = K D, ``S2`` = min(K D + D², M K D), or a count.
        backbone: ``small``, a timm model, or ``auto``: ``small`` for labelled images up to 64
            pixels, else a timm default.
        weights: ``pretrained``, ``none``, a .safetensors file or a folder in timm's local form.
        image_size: side of the network's input in pixels.
        dim: D, dimension of the embedding.
        protocol: which images are trained on (docs: protocols); the rest stays unseen.
        labels: where labels come from: ``auto``, ``folders``, ``csv`` or ``none``.
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: ``sgd`` (networks from scratch) or ``adamw`` (pretrained ones).
        learning_rate: its highest value in the schedule.
        weight_decay: of the backbone and the projection.
        label_smoothing: share of the label's mass that is spread over all classes; -1 for what
            suits the margin.
        softmax_scale: s, the length that the classifier's rows start with; 0 for what suits the
            number of classes.
        softmax_margin: cosine by which the classifier must prefer an image's own classes while it
            learns: their logits are lowered by softmax_margin · softmax_scale; -1 for .4, with
            ``orthohash`` .2; ``paper`` and ``csq`` have none.
        quantization_weight: λ1, weight of ‖z - x̂‖²; with ``csq`` of its own quantization term.
        centre_weight: λ2, weight of ‖z - φ‖².
        discriminative_weight: λ3, weight of ‖φ - x̂‖².
        warmup: share of the epochs before the quantization terms begin.
        rounds: how often codes and codebooks are learned anew after that.
        encode_toward_class: encode the blend of z and the centre of the predicted class, not z.
        levelling: 0 to 1, how far what is encoded toward a class is brought to one length: 0 ranks
            images that the classifier is unsure of below the others, best for classes that were
            trained; 1 ranks by direction alone, better for classes that were not (docs: protocols).
        mirror: embed an image as the mean of itself and its mirror image, normalised.
        progressive: share of the epochs, the first ones, that see smaller images: half the side,
            then three quarters, in steps of 8 pixels and never less than 16; -1 for what suits the
            backbone.
        settle: share of the epochs, the last ones, that see images as they are stored, mirrored at
            most, and labels without smoothing; -1 for what suits the backbone.
        augment: ``none``, ``shift`` (small images) or ``crop`` (photographs).
        precision: of the layers in training; stored codes always come from float32.
        seed: of training.
        split_seed: of the protocol's split.
    """

    bits: int = 32
    objective: str = "dsq"
    sparsity: int | str = "none"
    backbone: str = AUTO
    weights: str = AUTO
    image_size: int = 0
    dim: int = 0
    protocol: str = "holdout"
    labels: str = AUTO
    epochs: int = 0
    batch_size: int = 0
    optimizer: str = AUTO
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    label_smoothing: float = -1.0
    softmax_scale: float = 0.0
    softmax_margin: float = -1.0
    quantization_weight: float = 0.1
    centre_weight: float = 0.1
    discriminative_weight: float = 0.5
    warmup: float = 0.5
    rounds: int = 2
    encode_toward_class: bool = True
    levelling: float = 0.0
    mirror: bool = True
    progressive: float = -1.0
    settle: float = -1.0
    augment: str = AUTO
    precision: str = AUTO
    seed: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            wanted = (str, int) if setting.name == "sparsity" else (type(setting.default),)
            self._check_type(setting.name, getattr(self, setting.name), wanted)
        if self.bits % 8 or not 8 <= self.bits <= 128:
            raise ConfigError(f"bits must be a multiple of 8 from 8 to 128, not {self.bits}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(_unknown(getattr(self, name), choices, f"a value of {name}"))
        if self.protocol not in PROTOCOLS:
            raise ConfigError(_unknown(self.protocol, PROTOCOLS, "a protocol"))
        if isinstance(self.sparsity, str) and self.sparsity not in ("none", *NAMED_BUDGETS):
            choices = ("none", *NAMED_BUDGETS)
            raise ConfigError(
                _unknown(self.sparsity, choices, "a budget of nonzeros (name or count)")
            )
        self._check_ranges()
        self._check_chosen()
        if self.binary:
            self._check_binary()
        if self.dim:  # 0 is replaced before anything is learned
            self.nonzero_budget(self.dim)

    def _check_type(self, name: str, value: object, wanted: tuple[type, ...]) -> None:
        fits = type(value) in wanted or (wanted == (float,) and type(value) is int)
        if not fits:
            types = " or ".join(kind.__name__ for kind in wanted)
            raise ConfigError(f"{name} must be {types}, not {type(value).__name__}: {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} must be a finite number, not {value}")

    def _check_ranges(self) -> None:
        at_least_zero = (
            "image_size",
            "dim",
            "epochs",
            "batch_size",
            "learning_rate",
            "quantization_weight",
            "centre_weight",
            "discriminative_weight",
            "softmax_scale",
            "seed",
            "split_seed",
        )
        for name in at_least_zero:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be below 0: {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must lie in [0, 1), not {self.warmup}")
        if self.discriminative_weight > 0 and self.quantization_weight == 0:
            raise ConfigError(
                "a discriminative_weight needs a quantization_weight above 0: codes are pulled "
                "towards their class by the quotient of the two"
            )
        if self.dim > _MOST_DIM:
            raise ConfigError(f"dim must be at most {_MOST_DIM:,}, not {self.dim:,}")
        if not 0 <= self.levelling <= 1:
            raise ConfigError(f"levelling must lie in [0, 1], not {self.levelling}")
        if self.rounds < 0:
            raise ConfigError(f"rounds must not be below 0: {self.rounds}")

    def _check_chosen(self) -> None:
        """Check the settings of which -1 leaves the choice to the recipe."""
        fits = {
            "label_smoothing must lie in [0, 1)": 0 <= self.label_smoothing < 1,
            "softmax_margin must not be below 0": self.softmax_margin >= 0,
            "progressive must lie in [0, 1)": 0 <= self.progressive < 1,
            "settle must lie in [0, 1]": 0 <= self.settle <= 1,
            "weight_decay must not be below 0": self.weight_decay >= 0,
        }
        for rule, kept in fits.items():
            value = getattr(self, rule.split()[0])
            if value != -1 and not kept:
                raise ConfigError(f"{rule}, or be -1: {value}")

    def _check_binary(self) -> None:
        if self.dim not in (0, self.bits):
            raise ConfigError(
                f"objective {self.objective} makes a bit of each dimension: dim must be 0 or "
                f"{self.bits}, not {self.dim}"
            )
        if self.sparsity != "none":
            raise ConfigError(
                f"objective {self.objective} has codes of signs, no codebooks that could be "
                f"sparse: sparsity must be 'none', not {self.sparsity!r}"
            )

    @property
    def binary(self) -> bool:
        """Whether codes are the signs of the embedding, one bit a dimension."""
        return self.objective in BINARY

    @property
    def normalised(self) -> bool:
        """Whether embeddings lie on the unit sphere, as an index needs them."""
        return self.objective != "no-norm"

    @property
    def n_codebooks(self) -> int:
        """M: one codebook of 256 codewords for each byte."""
        return self.bits // 8

    def nonzero_budget(self, dim: int) -> int | None:
        """S, the most nonzeros of all codebooks of D = ``dim``; None for dense codebooks.

        Raises:
            ConfigError: an unknown name, or more than there are values.
        """
        if self.sparsity == "none":
            return None
        try:
            return nonzero_budget(self.sparsity, self.n_codebooks, N_CODEWORDS, dim)
        except InputError as error:
            raise ConfigError(str(error)) from error

    @property
    def pull(self) -> float:
        """λ3 / λ1: how far the blended target lies towards the class centre."""
        if self.quantization_weight == 0:
            return 0.0
        return self.discriminative_weight / self.quantization_weight

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read a TOML file.

        Raises:
            ConfigError: the file cannot be read, a key is unknown, or a value is impossible.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"the configuration {path} cannot be read: {error}") from error
        return cls.from_dict(values, where=str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "the configuration") -> TrainConfig:
        """Build from plain values; an unknown key is an error that names the nearest."""
        known = [setting.name for setting in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"{where}: {_unknown(name, known, 'a setting')}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return the text of a configuration file with every setting."""
        return tomli_w.dumps(self.to_dict())


def _unknown(name: str, known: tuple[str, ...] | list[str], kind: str) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(known)}"
    return f"{name!r} is not {kind}{hint}"
