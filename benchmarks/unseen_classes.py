"""Tiny-ImageNet, a quarter of the classes never trained on: codes beside every control.

    SPHEREQUANT_DATA=... SPHEREQUANT_WEIGHTS=... python benchmarks/unseen_classes.py

The MobileNetV2 was pretrained on ImageNet, whose classes these are: contaminated, "unseen" means
unseen by the objective only. `--backbone small` starts from nothing.
"""

from __future__ import annotations

import argparse
from typing import Any

import results
from spherequant import TrainConfig, evaluate
from training_runs import setting, trained

WEIGHTS = "mobilenetv2_100.tf_in1k"
MEASURES = (
    ("DSQ, mAP", "map"),
    ("float embeddings", "float_map"),
    ("class-id", "class_id_map"),
    ("class centre", "class_centre_map"),
)


def main() -> None:
    """Train, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", choices=("mobilenetv2", "small"), default="small")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", "tiny-imagenet.zip"))
    backbone, weights, note = "small", "none", "`small` from scratch"
    if options.backbone == "mobilenetv2":
        folder = results.data_file("SPHEREQUANT_WEIGHTS", WEIGHTS)
        backbone, weights = f"local-dir:{folder}", "pretrained"
        note = f"{WEIGHTS}, pretrained on ImageNet, so contaminated: it has met these classes"
    config = TrainConfig(
        bits=32,
        backbone=backbone,
        weights=weights,
        image_size=options.image_size,
        epochs=options.epochs,
        protocol="unseen-classes",
        seed=options.seed,
    )
    name = (
        f"unseen-classes-{options.backbone}-{options.image_size}px-{options.epochs}-epochs-"
        f"seed-{options.seed}"
    )
    model = trained(f"{name}/dsq-32", source, config)
    report = evaluate(model, source, "unseen-classes", baselines=True, out=f"results/{name}/report")
    unseen = report.to_dict()
    results.record(
        name,
        f"Tiny-ImageNet, `unseen-classes`, {options.backbone}",
        f"{note}; {options.image_size} pixels, {options.epochs} epochs of "
        f"{model.summary['images']} images in {model.summary['seconds']:.0f} s. 150 classes seen, "
        f"50 unseen; {unseen['query_count']} queries of unseen and {unseen['seen']['query_count']} "
        f"of seen classes against {unseen['database_count']}. 32 bits, mAP@all, seed "
        f"{options.seed}, split seed 0, one seed. FAISS's quantizers are learned on the same "
        "embeddings, of the training images only.",
        [
            {
                "caption": "mAP over queries of unseen and of seen classes",
                "columns": ["measure", "unseen", "seen"],
                "rows": [
                    *[[title, unseen[key], unseen["seen"][key]] for title, key in MEASURES],
                    *_baselines(unseen),
                    ["accuracy", None, unseen["seen"]["accuracy"]],
                ],
            }
        ],
        setting=setting(model),
    )


def _baselines(unseen: dict[str, Any]) -> list[list[Any]]:
    seen = unseen["seen"]["baselines"]
    return [
        [f"FAISS {name.upper()}", value, seen[name]] for name, value in unseen["baselines"].items()
    ]


if __name__ == "__main__":
    main()
