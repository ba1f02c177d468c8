"""``spherequant train``: from images to a model."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spherequant.cli.options import (
    JsonOption,
    MaxMegabytesOption,
    MaxPixelsOption,
    SourceArgument,
    limits_from,
)
from spherequant.cli.output import figure, note, note_skips, one_line, say_facts, say_json
from spherequant.cli.progress import Progress

if TYPE_CHECKING:
    from spherequant.evaluation.validation import Validation
    from spherequant.images import Limits
    from spherequant.training import Model, TrainConfig

_WITHOUT_LABELS = (
    "No labels: nothing is learned from these images but the codes. The features of a pretrained "
    "backbone are projected to their principal directions and quantized as they are."
)


def train(  # noqa: PLR0913 - one parameter for each option of the shell
    source: SourceArgument,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="MODEL", help="Folder of the model to write.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="F.toml", help="Settings from a file; options given here win."
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="Length of a code, a multiple of 8.", show_default="32"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            help=(
                "What is minimised: dsq, the paper's terms as printed (paper), or an alternative "
                "to compare with: softmax, softmax-centre, no-discriminative, no-norm, csq or "
                "orthohash."
            ),
            show_default="dsq",
        ),
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            "--sparsity",
            metavar="S1|S2|COUNT|none",
            help="Most nonzeros of all codebooks together: a quicker query table, a larger error.",
            show_default="none",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="`small`, any timm model, or auto: small for labelled images up to 64 pixels.",
            show_default="auto",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|pretrained|none",
            help="What the backbone starts from.",
            show_default="auto",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            help="Side of the network's input in pixels.",
            show_default="the backbone's",
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim", help="Dimension of the embedding.", show_default="64; 128 without labels"
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="Which images are trained on; the others stay unseen.",
            show_default="holdout",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="MODE",
            help="Where labels come from: auto, folders, csv or none.",
            show_default="auto",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", help="Passes over the training images.", show_default="by their number"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Images a step.", show_default="by the backbone"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="Highest learning rate of the schedule.",
            show_default="by the backbone",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="Of training: auto, float32 or bfloat16. Codes always come from float32.",
            show_default="auto",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the training.", show_default="0")
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option("--split-seed", help="Seed of the protocol's split.", show_default="0"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a model or an unfinished training in MODEL."),
    ] = False,
    log_dir: Annotated[
        Path | None,
        typer.Option("--log-dir", metavar="DIR", help="Write a TensorBoard log there."),
    ] = None,
    max_pixels: MaxPixelsOption = None,
    max_megabytes: MaxMegabytesOption = None,
    json: JsonOption = False,
) -> None:
    """Train a network and a quantizer on SOURCE.

    A training that was stopped goes on where it stopped when the same command is given again.
    """
    given = {
        "bits": bits,
        "objective": objective,
        "sparsity": int(sparsity) if sparsity and sparsity.isdecimal() else sparsity,
        "backbone": backbone,
        "weights": weights,
        "image_size": image_size,
        "dim": dim,
        "protocol": protocol,
        "labels": labels,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "split_seed": split_seed,
    }
    from spherequant.images import Skip

    settings = _settings(config, given)
    limits = limits_from(max_pixels, max_megabytes)
    model, validation = _train(
        source, settings, limits=limits, out=out, overwrite=overwrite, log_dir=log_dir
    )
    summary = model.summary
    if not summary["supervised"]:
        note(_WITHOUT_LABELS)
    note_skips([Skip(**skip) for skip in summary["skipped"]])
    if json:
        say_json(_as_json(model, out))
    else:
        say_facts(_facts(model, validation, out, source))


def _settings(path: Path | None, given: dict[str, Any]) -> "TrainConfig":
    """Return the settings: those of the shell, else those of the file, else the defaults.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or impossible.
    """
    from spherequant.training import TrainConfig

    values = {} if path is None else TrainConfig.load(path).to_dict()
    values |= {name: value for name, value in given.items() if value is not None}
    return TrainConfig.from_dict(values)


def _train(
    source: str,
    settings: "TrainConfig",
    *,
    limits: "Limits",
    out: Path,
    overwrite: bool,
    log_dir: Path | None,
) -> "tuple[Model, Validation | None]":
    """Train, and note in the model how well it does on the images kept for validation."""
    from spherequant.evaluation.validation import validate
    from spherequant.images import open_source
    from spherequant.training import train as learn

    with open_source(source, labels=settings.labels, limits=limits) as opened, Progress() as bars:
        note(one_line(opened.label_note))
        model = learn(
            opened,
            settings,
            out=out,
            limits=limits,
            overwrite=overwrite,
            log_dir=log_dir,
            report=bars.training,
        )
        try:
            validation = validate(
                model, opened, limits, lambda done, total: bars.show("validating", done, total)
            )
        except KeyboardInterrupt:
            note(f"Stopped while it was validated: the model in {out} is complete.")
            raise typer.Exit(130) from None
    model.summary["validation_map"] = None if validation is None else validation.map
    model.save_summary(out)
    return model, validation


def _as_json(model: "Model", out: Path) -> dict[str, Any]:
    summary = model.summary
    return {
        "model": str(out),
        "bits": model.bits,
        "seconds": summary["seconds"],
        "images": summary["images"],
        "skipped": summary["skipped"],
        "validation_map": summary["validation_map"],
        "labels": summary["labels"],
    }


def _facts(
    model: "Model", validation: "Validation | None", out: Path, source: str
) -> list[tuple[str, object]]:
    summary = model.summary
    classes = f"of {summary['classes']:,} classes" if summary["supervised"] else "without labels"
    images = f"{summary['images']:,} images {classes}"
    split = f"protocol {summary['protocol']}, split seed {summary['split_seed']}"
    seeds = f"seed {summary['seed']}"
    judged = validation and (
        f"mAP {figure(validation.map)} at all ranks (found, ties averaged): "
        f"{validation.query_count:,} images never trained on ask "
        f"{validation.database_count:,} training images"
    )
    return [
        ("model", out),
        ("codes", f"{model.bits} bits, {model.codebooks.n_codebooks} bytes an image"),
        ("trained on", f"{images}, {split}, {seeds}, {summary['seconds']:.1f} s"),
        ("validation", judged),
        ("fingerprint", model.fingerprint),
        ("next", shlex.join(["spherequant", "index", str(out), source, "--out", "INDEX"])),
    ]
