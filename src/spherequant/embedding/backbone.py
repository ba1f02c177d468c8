"""Backbones by name: ``small``, or any model of timm with its own preprocessing and weights."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from spherequant.embedding.preprocessing import Preprocessing
from spherequant.errors import ConfigError, FormatError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

SMALL = "small"
_LOCAL = "local-dir:"
# 5.5 M parameters, 0.22 G multiplications at 224 pixels: quick on a CPU, ImageNet accuracy .757.
DEFAULT_TIMM = "mobilenetv3_large_100.ra_in1k"
# Statistics of natural images (CIFAR-10's); `small` is never pretrained, so any would do.
_SMALL_MEAN = (0.4914, 0.4822, 0.4465)
_SMALL_STD = (0.2470, 0.2435, 0.2616)
SMALLEST = 16  # side in pixels: three halvings leave at least one place


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What is needed to build a backbone's architecture again, without its original weights.

    Attributes:
        name: ``small``, or an architecture of timm.
        arguments: keyword arguments of timm's constructor.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[nn.Module, int]:
        """Build the architecture with random weights.

        Returns:
            the module, float [B, 3, S, S] -> float [B, F], and F.

        Raises:
            FormatError: the installed timm has no such architecture, or it is more than that: a
                place to load something from.
        """
        if self.name == SMALL:
            from spherequant.embedding.small import Small

            small = Small()
            small.freeze_whitening()
            return small, small.num_features
        import timm

        self._refuse_loading()
        try:
            module = timm.create_model(self.name, pretrained=False, num_classes=0, **self.arguments)
        except (RuntimeError, TypeError) as error:
            raise FormatError(
                f"the model's backbone {self.name!r} cannot be built by timm "
                f"{timm.__version__}: {error}. Install the timm that the model was trained with."
            ) from error
        return module, feature_count(module)

    def _refuse_loading(self) -> None:
        """Refuse what would let timm read other files, which can run code, or ask a network.

        A model may come from anyone; only the constructor of a known architecture is called.
        """
        import timm

        own = inspect.signature(timm.create_model).parameters
        loading = [name for name in self.arguments if name in own or name.startswith("pretrained")]
        if loading or not self.name.isidentifier() or not timm.is_model(self.name):
            what = f"with {loading[0]!r}" if loading else f"of timm {timm.__version__}"
            raise FormatError(
                f"the model's backbone {self.name!r} is no architecture {what}. Install the timm "
                "that the model was trained with, and take models from whom you trust."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``model.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneSpec:
        """Read what ``to_dict`` wrote."""
        return cls(str(values["name"]), dict(values["arguments"]))


def create_backbone(
    name: str, weights: str, image_size: int = 0
) -> tuple[nn.Module, int, Preprocessing, BackboneSpec]:
    """Build a backbone and load the weights it starts from.

    Args:
        name: ``small``; a timm model name; or timm's ``local-dir:FOLDER`` and ``hf-hub:NAME``.
        weights: ``pretrained`` (timm's hub, or the folder that the name gives), ``none``, or a
            path: a ``.safetensors`` file, or a folder in timm's local form.
        image_size: side of the input in pixels; 0 for the backbone's own.

    Returns:
        the module, its number of features, its preprocessing, and how to build it again.

    Raises:
        ConfigError: no such backbone, or weights that do not fit it.
        SourceError: the weights could not be downloaded or read.
    """
    if name == SMALL:
        if weights not in {"none", "auto"}:
            raise ConfigError(
                "the backbone 'small' has no pretrained weights: use --weights none, or a timm "
                "model by --backbone"
            )
        spec = BackboneSpec(SMALL)
        module, features = spec.build()
        size = image_size or 32
        if size < SMALLEST:
            raise ConfigError(
                f"the backbone 'small' needs images of {SMALLEST} pixels or more, not {size}: "
                "give a larger image_size"
            )
        return module, features, Preprocessing(size, mean=_SMALL_MEAN, std=_SMALL_STD), spec
    module, spec, own = _create_timm(name, weights, image_size)
    size = image_size or int(own["input_size"][-1])
    # timm's crop is meant for its own size; an input of another size takes the whole square,
    # so that small images lose no border.
    crop = float(own["crop_pct"]) if size == int(own["input_size"][-1]) else 1.0
    red, green, blue = (float(value) for value in own["mean"])
    red_std, green_std, blue_std = (float(value) for value in own["std"])
    preprocessing = Preprocessing(
        size,
        crop=crop,
        interpolation=_interpolation(str(own["interpolation"])),
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
    )
    return module, feature_count(module), preprocessing, spec


def feature_count(module: nn.Module) -> int:
    """Return how many features a timm model without classifier gives for an image."""
    # Some models (MobileNetV3) end in a head wider than their last feature map.
    return int(getattr(module, "head_hidden_size", None) or module.num_features)  # type: ignore[arg-type]  # timm sets an int


def _create_timm(
    name: str, weights: str, image_size: int
) -> tuple[nn.Module, BackboneSpec, dict[str, Any]]:
    """Return the module, how to build it again, and timm's data configuration of it."""
    import timm
    import torch
    from timm.data import resolve_model_data_config

    source, options = _where(name, weights)
    state = torch.get_rng_state()
    try:
        arguments = _recorded_arguments(source)
        module = timm.create_model(source, num_classes=0, **options)
        own = resolve_model_data_config(module)
        # Such a network keeps something for each place, and is built for one size.
        if image_size and module.pretrained_cfg.get("fixed_input_size"):
            arguments["img_size"] = image_size
            torch.set_rng_state(state)
            module = timm.create_model(source, num_classes=0, img_size=image_size, **options)
    except SourceError:
        raise
    except RuntimeError as error:
        raise _cannot_build(source, error) from error
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise SourceError(
            f"the weights of {source!r} could not be read or downloaded "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}). Without a "
            "network, name a local copy: --backbone local-dir:FOLDER --weights pretrained, or "
            "--weights FILE.safetensors; --weights none starts from random weights."
        ) from error
    spec = BackboneSpec(str(module.pretrained_cfg["architecture"]), arguments)
    if source != name and spec.name != name.split(".", maxsplit=1)[0]:
        raise ConfigError(
            f"{weights} holds weights of {spec.name!r}, not of {name!r}: use "
            f"--backbone {source} --weights pretrained"
        )
    if options["pretrained"] and (weights != "pretrained" or source.startswith(_LOCAL)):
        torch.set_rng_state(state)
        _refuse_untouched(module, spec, weights if source == name else source)
    return module, spec, own


def _where(name: str, weights: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options by which timm finds architecture and weights."""
    if weights in {"none", "auto"}:
        return name, {"pretrained": False}
    if weights != "pretrained" and not Path(weights).is_dir():
        # Not where the name's own weights come from, and in the form that timm itself writes.
        overlay = {"file": str(_weight_file(weights)), "source": "file", "custom_load": False}
        return name, {"pretrained": True, "pretrained_cfg_overlay": overlay}
    source = name if weights == "pretrained" else f"{_LOCAL}{weights}"
    if source.startswith(_LOCAL):
        _weight_file(f"{source.removeprefix(_LOCAL)}/model.safetensors")
    return source, {"pretrained": True}


def _recorded_arguments(source: str) -> dict[str, Any]:
    """Return the constructor's arguments that a folder in timm's form, or a hub's page, records."""
    if source.startswith(("hf-hub:", "hf_hub:")):
        from timm.models import load_model_config_from_hf

        return dict(load_model_config_from_hf(source.partition(":")[2])[2] or {})
    if not source.startswith(_LOCAL):
        return {}
    folder = Path(source.removeprefix(_LOCAL))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return dict(config.get("model_args") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(
            f"{folder} is no folder in timm's local form: its config.json cannot be read ({error})"
        ) from error


def _weight_file(weights: str) -> Path:
    path = Path(weights)
    if path.suffix != ".safetensors" and path.is_file():
        raise SourceError(
            f"the weights {path} are no .safetensors file; other formats can run code when they "
            "are loaded, and are refused"
        )
    if not path.is_file():
        raise SourceError(f"the weights {path} do not exist: name a .safetensors file or a folder")
    return path


def _refuse_untouched(module: nn.Module, spec: BackboneSpec, weights: str) -> None:
    """Refuse weights that leave a filter at its random start.

    timm drops the classifier, and then passes over whatever else a file lacks without a word: the
    weights of another architecture would give random features.

    Args:
        module: with the weights loaded; torch's generator stands where it stood before.
        spec: how the same architecture is built without them.
        weights: where they came from, for the message.
    """
    import torch

    start = dict(spec.build()[0].named_parameters())
    untouched = [
        name
        for name, filters in module.named_parameters()
        if filters.ndim > 1 and torch.equal(filters, start[name]) and bool(filters.any())
    ]
    if untouched:
        raise ConfigError(
            f"the weights {weights} do not fit the backbone {spec.name!r}: they lack "
            f"{len(untouched)} of its tensors, such as {untouched[0]!r}"
        )


def _cannot_build(name: str, error: RuntimeError) -> ConfigError:
    import difflib

    import timm

    architecture = name.split(".", maxsplit=1)[0]
    known = [SMALL, *timm.list_models()]
    near = difflib.get_close_matches(architecture, known, n=3)
    hint = f" Did you mean {', '.join(near)}?" if near and architecture not in known else ""
    reason = str(error).rstrip(".")
    return ConfigError(f"the backbone {name!r} cannot be built: {reason}.{hint}")


def _interpolation(name: str) -> str:
    return name if name in {"bilinear", "bicubic", "lanczos", "nearest"} else "bicubic"
