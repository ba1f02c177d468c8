"""``spherequant info``: what a folder is, or a service holds."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from spherequant.cli.options import JsonOption, is_url
from spherequant.cli.output import bytes_text, disk_text, figure, say, say_facts, say_json
from spherequant.errors import FormatError

_ADDED = "(added by the API)"


def info(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A model or an index, or the URL of a service.", show_default=False
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Say what a model, an index or a service holds: sizes, codes, fingerprint, training."""
    facts = _service_facts(path) if is_url(path) else _folder_facts(Path(path))
    if json:
        say_json(facts)
    elif facts["kind"] == "service":
        _say_service(facts)
    else:
        _say(facts)


def _folder_facts(path: Path) -> dict[str, Any]:
    if (path / "index.json").exists():
        return _index_facts(path)
    if (path / "model.json").exists():
        return _model_facts(path)
    raise FormatError(_neither(path))


def _service_facts(url: str) -> dict[str, Any]:
    from spherequant.service.client import Client

    with Client(url) as client:
        held = client.collection()
        return {
            "kind": "service",
            "url": client.url,
            "version": held.version,
            "index_version": held.index_version,
            "total": held.items,
            "labels": held.labels,
            "bits": held.bits,
            "bytes_per_item": held.bytes_per_item,
            "dim": held.dim,
            "bytes_memory": held.bytes_memory,
            "bytes_thumbnails": held.bytes_thumbnails,
            "bytes_disk": held.bytes_disk,
            "takes_images": held.takes_images,
            "keep_vectors": held.keeps_vectors,
            "fingerprint": held.fingerprint,
        }


def _say_service(facts: dict[str, Any]) -> None:
    say_facts(
        [
            ("service", facts["url"]),
            ("items", f"{facts['total']:,}"),
            ("labels", facts["labels"]),
            ("codes", f"{facts['bits']} bits, {facts['bytes_per_item']} bytes an item"),
            ("takes", "images and vectors" if facts["takes_images"] else "vectors, no images"),
            ("in memory", bytes_text(facts["bytes_memory"])),
            ("on disk", disk_text(facts["bytes_disk"], facts["bytes_thumbnails"])),
            ("vectors kept", "yes" if facts["keep_vectors"] else "no"),
            ("index", f"version {facts['index_version']}"),
            ("made with", f"spherequant {facts['version']}"),
            ("fingerprint", facts["fingerprint"]),
        ]
    )


def _neither(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist: give the folder of a model or of an index"
    if (path / "checkpoint.safetensors").exists():
        return (
            f"{path} holds a training that was stopped, and no model yet: give the same train "
            "command again, and it goes on"
        )
    return f"{path} is neither a model (model.json) nor an index (index.json)"


def _model_facts(path: Path) -> dict[str, Any]:
    from spherequant.index.footprint import bytes_on_disk
    from spherequant.training import read_description

    values = read_description(path)
    try:
        return {
            "kind": "model",
            "path": str(path),
            "schema": values["schema"],
            "bits": values["bits"],
            "bytes_per_item": values["n_codebooks"],
            "dim": values["dim"],
            "backbone": values["backbone"]["name"],
            "image_size": values["preprocessing"]["size"],
            "classes": list(values["classes"]),
            "bytes_disk": bytes_on_disk(path),
            "fingerprint": values["fingerprint"],
            "made_with": dict(values["made_with"]),
            "training": dict(values["training"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path / 'model.json'} is damaged ({error}); restore it from a copy."
        ) from error


def _index_facts(path: Path) -> dict[str, Any]:
    from spherequant.index import Index

    with Index.open(path) as opened:
        header, taken = opened.header, opened.footprint()
        rows = opened.searcher.scan(["source", "root"])
        sources = Counter((row["source"], row["root"]) for row in rows)
        facts = {
            "kind": "index",
            "path": str(path),
            "schema": header.schema,
            "total": taken.items,
            "bytes_per_item": taken.bytes_per_item,
            "dim": header.dim,
            "bytes_memory": taken.bytes_memory,
            "bytes_thumbnails": taken.bytes_thumbnails,
            "bytes_disk": taken.bytes_disk,
            "keep_vectors": header.keep_vectors,
            "thumbnails": header.thumbnails,
            "metadata": dict(header.metadata),
            "sources": [
                {"name": name, "root": root, "items": count}
                for (name, root), count in sorted(
                    sources.items(), key=lambda pair: (pair[0][0] or "", pair[0][1] or "")
                )
            ],
            "created_by": header.created_by,
            "fingerprint": header.fingerprint,
            "encoder": header.encoder,
        }
    own = path / "model"
    # An embedder of the caller's own keeps its model in a form of its own.
    facts["model"] = _model_facts(own) if (own / "model.json").exists() else None
    return facts


def _say(facts: dict[str, Any]) -> None:
    model = facts if facts["kind"] == "model" else facts["model"]
    if facts["kind"] == "index":
        say_facts(
            [
                ("index", facts["path"]),
                ("items", f"{facts['total']:,}"),
                *(
                    (
                        "source",
                        f"{source['name'] or _ADDED}: {source['items']:,} items"
                        + (f" from {source['root']}" if source["root"] else ""),
                    )
                    for source in facts["sources"]
                ),
                ("codes", f"{facts['bytes_per_item']} bytes an item"),
                ("in memory", bytes_text(facts["bytes_memory"])),
                ("on disk", disk_text(facts["bytes_disk"], facts["bytes_thumbnails"])),
                ("vectors kept", "yes" if facts["keep_vectors"] else "no"),
                ("metadata", ", ".join(f"{n} ({t})" for n, t in facts["metadata"].items()) or None),
                ("schema", f"{facts['schema']}, {facts['created_by']}"),
                ("fingerprint", facts["fingerprint"]),
            ]
        )
        say()
    if model is None:
        own = facts["encoder"] == "model"
        say(
            "made with an embedder of your own, which opens it: Index.open(folder, model)"
            if own
            else "made from codebooks alone: it takes vectors or codes, no images"
        )
        return
    training = model["training"]
    validation = training.get("validation_map")
    seeds = [f"{name.replace('_', ' ')} {training.get(name)}" for name in ("split_seed", "seed")]
    say_facts(
        [
            ("model", model["path"]),
            ("codes", f"{model['bits']} bits, {model['bytes_per_item']} bytes an image"),
            ("network", f"{model['backbone']} at {model['image_size']} pixels, D {model['dim']}"),
            ("objective", training.get("objective")),
            ("classes", _names(model["classes"])),
            ("trained on", f"{training.get('images', 0):,} images of {training.get('source')}"),
            ("labels", training.get("labels")),
            ("protocol", f"{training.get('protocol')}, {', '.join(seeds)}"),
            ("validation", None if validation is None else f"mAP {figure(validation)}"),
            ("seconds", training.get("seconds")),
            ("made with", ", ".join(f"{n} {v}" for n, v in model["made_with"].items())),
            ("on disk", bytes_text(model["bytes_disk"])),
            ("schema", model["schema"]),
            ("fingerprint", model["fingerprint"]),
        ]
    )


def _names(classes: list[str]) -> str:
    if not classes:
        return "none: pretrained features, projected and quantized without labels"
    more = ", ..." if len(classes) > 8 else ""
    return f"{len(classes)}: {', '.join(classes[:8])}{more}"
