"""``train``: from a source of images to a model."""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric

from spherequant.embedding import EmbeddingNetwork, create_backbone, folded
from spherequant.embedding.small import Small
from spherequant.errors import ConfigError, InputError, LabelError
from spherequant.images import Limits, PixelCache, Source, Split, make_split, open_source
from spherequant.quantizer import Encoder
from spherequant.quantizer.learning import learn_codebooks
from spherequant.system import forget
from spherequant.training.binary_terms import class_targets
from spherequant.training.checkpoint import load_facts, refuse_another
from spherequant.training.config import N_CODEWORDS, TrainConfig
from spherequant.training.learner import Learner
from spherequant.training.loop import Report, Trainer, TrainEvent, TrainingImages
from spherequant.training.model import Model, item_hashes
from spherequant.training.randomness import (
    key_hashes,
    seed_for,
    shuffled,
    torch_generator_kept,
)
from spherequant.training.recipe import choose_backbone, resolve
from spherequant.training.sharpness import MOST_ASKING
from spherequant.training.tensorboard import log_to
from spherequant.training.unsupervised import (
    LEARNING_SAMPLE,
    backbone_features,
    fit_projection,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from spherequant.embedding import BackboneSpec, Preprocessing
    from spherequant.images import Item

# Images whose size is looked at to choose a backbone.
_SIZED = 200
_WHITENED_IMAGES = 5_000
# An image that is stored alone takes as long as a whole batch.
_INFERENCE_BATCH = 16


def train(
    source: str | os.PathLike[str] | Source | Iterable[tuple[str, Any, Any]],
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    overwrite: bool = False,
    log_dir: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> Model:
    """Train a network and a quantizer on the training images of a source.

    With labels: the objective of Deep Spherical Quantization (arXiv:1906.02865), or the
    alternative that ``config`` names (docs/alternatives.md).
    Without: the features of a pretrained backbone, projected to their principal directions and
    quantized as they are.

    Args:
        source: a folder, .zip, .tar, ``digits``, a known data set's name, or a re-iterable of
            (key, image, labels).
        config: the settings; ``None`` for the defaults.
        out: the model's directory. The state of the training is kept in it after each epoch, and
            the same call goes on from there.
        limits: bounds on the pixels and bytes of an image; None for those of an open source, or
            the usual.
        overwrite: replace a model or an unfinished training in ``out``.
        log_dir: write a TensorBoard log there.
        report: called with a ``TrainEvent`` as the training goes on.

    Returns:
        the model; saved too when ``out`` is given. ``model.summary`` has the figures, and under
        ``skipped`` the images that could not be read. Validation images are read as well: the
        network is not trained on them, and they find how sure its predictions are.

    Raises:
        SourceError: the source cannot be read, or has no images.
        LabelError: the protocol leaves no image to train on, there are neither labels nor
            pretrained weights, or images of one label alone can be read.
        InputError: too few images can be read.
        ConfigError: settings that do not fit the source.
        SpherequantError: an unfinished training of other settings stands in ``out``.
    """
    config = config or TrainConfig()
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"config is a TrainConfig, not {type(config).__name__}")
    begun = time.perf_counter()
    checkpoint = _prepare_out(out, overwrite=overwrite)
    with ExitStack() as stack:
        stack.enter_context(torch_generator_kept())
        # An open source has its labels already.
        labels = "auto" if isinstance(source, Source) else config.labels
        opened = open_source(source, labels=labels, limits=limits or Limits())
        limits = limits or opened.limits  # an open source has bounds of its own
        if opened is not source:  # what the caller opened, the caller closes
            stack.enter_context(opened)
        tell = stack.enter_context(log_to(log_dir, report or _silent))
        split = make_split(opened.items, config.protocol, config.split_seed)
        items, labelled = _training_items(opened, split, config)
        setup = _set_up(opened, items, config, limits, labelled=labelled)
        _refuse_checkpoint(checkpoint, setup.config)
        cache = stack.enter_context(_decode(opened, items, setup, limits, tell))
        if len(cache.items) < 2:
            first = f"; {cache.skips[0].path}: {cache.skips[0].reason}" if cache.skips else ""
            raise InputError(
                f"{len(cache.items)} of the {len(items)} training images could be read, and at "
                f"least two are needed{first}"
            )
        classes = _classes(cache.items)
        if labelled and len(classes) == 1:
            raise LabelError(
                f"of the training images only those of {classes[0]!r} could be read, and at least "
                f"two labels are needed; {cache.skips[0].path}: {cache.skips[0].reason}"
            )
        if labelled:
            held_out = _held_out(opened, split, cache, setup, limits)
            if held_out is not None:
                stack.enter_context(held_out)
            model = _train_supervised(cache, held_out, classes, setup, checkpoint, tell)
        else:
            held_out = None
            model = _train_unsupervised(cache, setup, tell)
        skips = (*opened.skips, *cache.skips, *(() if held_out is None else held_out.skips))
        model.summary.update(
            _facts(opened, split, cache, classes, labelled=labelled),
            skipped=[asdict(skip) for skip in skips],
            objective=config.objective if labelled else "unsupervised",
            seed=config.seed,
            seconds=round(model.summary.get("seconds", 0.0) + time.perf_counter() - begun, 1),
        )
        if out is not None and checkpoint is not None:
            model.save(out)
            forget(checkpoint)
    return model


def _training_items(source: Source, split: Split, config: TrainConfig) -> tuple[list[Item], bool]:
    """Return the images to learn from, and whether there are classes to learn."""
    items = [source.items[i] for i in split.training]
    if not items:
        raise LabelError(
            f"protocol {config.protocol} leaves no image of {source.name} to train on: all "
            f"{len(source.items)} are queries or unlabelled"
        )
    if len(_classes(items)) > 1:
        items = [item for item in items if item.labels]
        _refuse_labels(config, items)
        return items, True
    chosen = shuffled(key_hashes(item.identity for item in items), config.seed)
    return [items[i] for i in np.sort(chosen[:LEARNING_SAMPLE])], False


def _refuse_labels(config: TrainConfig, items: Sequence[Item]) -> None:
    """Refuse labels that the objective has no use for, before images are decoded."""
    if not config.normalised and any(len(item.labels) > 1 for item in items):
        raise ConfigError(
            f"objective {config.objective} is for images of one label each: take another"
        )
    if config.binary:
        class_targets(config, len(_classes(items)))


def _refuse_checkpoint(checkpoint: Path | None, config: TrainConfig) -> None:
    """Refuse to go on from a training of other settings, before images are decoded."""
    if checkpoint is not None and checkpoint.exists():
        refuse_another(checkpoint, load_facts(checkpoint), {"config": config.to_dict()})


def _classes(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(sorted({label for item in items for label in item.labels}))


@dataclass(frozen=True, slots=True)
class _Setup:
    """Resolved settings, and the network that they ask for."""

    config: TrainConfig
    network: EmbeddingNetwork
    preprocessing: Preprocessing
    spec: BackboneSpec
    fabric: Fabric


def _silent(event: TrainEvent) -> None:
    """Report to nobody."""


def _prepare_out(out: str | os.PathLike[str] | None, *, overwrite: bool) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    checkpoint = folder / "checkpoint.safetensors"
    # A checkpoint beside a model is of the training that was to replace it.
    if (folder / "model.json").exists() and not (overwrite or checkpoint.exists()):
        raise ConfigError(f"{folder} already holds a model: name another, or give --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the directory {folder} cannot be made: {error.strerror}") from error
    if overwrite:
        forget(checkpoint)
    return checkpoint


def _set_up(
    source: Source, items: Sequence[Item], config: TrainConfig, limits: Limits, *, labelled: bool
) -> _Setup:
    config = choose_backbone(
        config, labelled=labelled, typical_side=_typical_side(source, items, limits)
    )
    if not labelled and config.weights == "none":
        raise LabelError(
            "without at least two labels nothing can be trained, and a backbone without weights "
            "knows nothing: give labels (--labels folders or csv), or a pretrained backbone "
            "(--backbone NAME --weights pretrained, or --weights FILE)"
        )
    if not labelled and config.objective != "dsq":
        raise LabelError(
            f"objective {config.objective} is learned from labels, and there are not two of them: "
            "give labels (--labels folders or csv), or leave the objective out"
        )
    config = resolve(
        config,
        images=len(items),
        classes=len(_classes(items)) if labelled else 0,
        bf16_pays=_bf16_pays(),
    )
    torch.manual_seed(seed_for("weights", config.seed))
    backbone, features, preprocessing, spec = create_backbone(
        config.backbone, config.weights, config.image_size
    )
    one_size = getattr(backbone, "pretrained_cfg", {}).get("fixed_input_size")
    if labelled and config.progressive and one_size:
        raise ConfigError(
            f"the backbone {config.backbone} sees images of one size only: leave out progressive, "
            "or make it 0"
        )
    config = dataclasses.replace(config, image_size=preprocessing.size)
    network = EmbeddingNetwork(
        backbone, features, config.dim, normalised=config.normalised, shifted=config.binary
    )
    with _without_notices():
        fabric = Fabric(
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        )
    return _Setup(config, network, preprocessing, spec, fabric)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep Lightning's notes on precision and devices off the terminal; its warnings stay."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _typical_side(source: Source, items: Sequence[Item], limits: Limits) -> int:
    """Return the median of the shorter sides of some images, chosen by hash, in pixels."""
    sides = []
    for position in shuffled(key_hashes(item.identity for item in items), 0)[:_SIZED]:
        try:
            sides.append(min(source.image(items[position], limits).size))
        except InputError:
            continue  # reported when the image is decoded for training
    return int(np.median(sides)) if sides else 0


def _bf16_pays() -> bool:
    """Tell whether convolutions are faster in bfloat16 here: on GPUs, and on CPUs with AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _decode(
    source: Source, items: Sequence[Item], setup: _Setup, limits: Limits, report: Report
) -> PixelCache:
    def tell(done: int) -> None:
        report(TrainEvent("decode", 0, setup.config.epochs, done, len(items)))

    return PixelCache.fill(source, items, setup.preprocessing.prepare, limits=limits, progress=tell)


def _held_out(
    source: Source, split: Split, trained: PixelCache, setup: _Setup, limits: Limits
) -> PixelCache | None:
    """Decode validation images whose labels are all trained, where something is found by them.

    That is how sure predictions are, where codes follow them, and how many labels they have, where
    there may be several.
    """
    config, known = setup.config, {label for item in trained.items for label in item.labels}
    judged = [source.items[i] for i in split.validation]
    items = [item for item in judged if item.labels and known.issuperset(item.labels)]
    follows = config.encode_toward_class and config.pull > 0
    several = not config.binary and any(len(item.labels) > 1 for item in trained.items)
    if not items or not (follows or several):
        return None
    chosen = shuffled(key_hashes(item.identity for item in items), split.split_seed)[:MOST_ASKING]
    asking = [items[i] for i in np.sort(chosen)]
    return PixelCache.fill(source, asking, setup.preprocessing.prepare, limits=limits)


def _train_supervised(
    cache: PixelCache,
    held_out: PixelCache | None,
    classes: tuple[str, ...],
    setup: _Setup,
    checkpoint: Path | None,
    report: Report,
) -> Model:
    config = setup.config
    images = _with_labels(cache, classes)
    if isinstance(setup.network.backbone, Small):
        sample = np.sort(shuffled(key_hashes(images.keys), config.seed)[:_WHITENED_IMAGES])
        pixels = torch.from_numpy(np.array(cache.pixels[sample]))
        setup.network.backbone.fit_whitening(setup.preprocessing.standardise(pixels))
    learner = Learner(
        setup.network,
        len(classes),
        config.dim,
        config.softmax_scale,
        targets=class_targets(config, len(classes)) if config.binary else None,
        raw=config.objective == "csq",
    )
    trainer = Trainer(
        learner,
        setup.preprocessing,
        images,
        config,
        setup.fabric,
        report,
        checkpoint,
        _with_labels(held_out, classes) if held_out is not None and held_out.items else None,
    )
    encoder = trainer.run()
    multi_label = encoder.target is not None and encoder.target.multi_label
    model = _model(setup, cache, classes, encoder, multi_label)
    model.summary["seconds"] = trainer.earlier_seconds
    return model


def _train_unsupervised(cache: PixelCache, setup: _Setup, report: Report) -> Model:
    config = setup.config
    report(TrainEvent("quantize", 0, 0, 0, 0))
    setup.network.to(setup.fabric.device).eval()
    features = backbone_features(
        folded(setup.network, setup.preprocessing.size),
        setup.preprocessing,
        cache.pixels,
        batch=config.batch_size,
        mirror=config.mirror,
    )
    fit_projection(setup.network, features)
    # The model takes the mean of both sides after the projection, on the sphere. To learn from, the
    # mean of their features is near enough: another pass of all images would double the time.
    with torch.inference_mode():
        device = setup.fabric.device
        projected = setup.network.projection(torch.from_numpy(features).to(device))
        lengths = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
        directions = (projected / lengths)[lengths[:, 0] > 0]
    codebooks = learn_codebooks(
        directions,
        config.n_codebooks,
        N_CODEWORDS,
        seed=seed_for("codebooks", config.seed),
        sparsity=config.nonzero_budget(config.dim),
    )
    return _model(setup, cache, (), Encoder(codebooks), multi_label=False)


def _model(
    setup: _Setup,
    cache: PixelCache,
    classes: tuple[str, ...],
    encoder: Encoder,
    multi_label: bool,
) -> Model:
    return Model(
        config=setup.config,
        classes=classes,
        network=setup.network,
        backbone=setup.spec,
        preprocessing=setup.preprocessing,
        encoder=encoder,
        inference_batch=_INFERENCE_BATCH,
        multi_label=multi_label,
        trained_hashes=np.sort(item_hashes(cache.items)),
        summary={},
    )


def _with_labels(cache: PixelCache, classes: Sequence[str]) -> TrainingImages:
    labels = _label_matrix(cache.items, classes)
    return TrainingImages(cache.pixels, labels, [item.identity for item in cache.items])


def _label_matrix(items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
    """Return which image has which label: bool [N, C]."""
    column = {name: position for position, name in enumerate(classes)}
    labels = np.zeros((len(items), len(classes)), bool)
    for row, item in enumerate(items):
        labels[row, [column[label] for label in item.labels]] = True
    return labels


def _facts(
    source: Source,
    split: Split,
    cache: PixelCache,
    classes: tuple[str, ...],
    *,
    labelled: bool,
) -> dict[str, Any]:
    return {
        "source": source.name,
        "labels": source.label_note,
        "supervised": labelled,
        "classes": len(classes),
        "images": len(cache.items),
        "validation_images": len(split.validation),
        "protocol": split.protocol,
        "split_seed": split.split_seed,
    }
