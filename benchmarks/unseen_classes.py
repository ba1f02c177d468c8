"""A quarter of the classes of Tiny-ImageNet or CIFAR-10 never trained on: codes and controls.

    SPHEREQUANT_DATA=... SPHEREQUANT_WEIGHTS=... python benchmarks/unseen_classes.py

The MobileNetV2 was pretrained on ImageNet, which has the classes of Tiny-ImageNet and most of those
of CIFAR-10: contaminated, "unseen" means unseen by the objective only. `--backbone small` starts
from nothing.
"""

from __future__ import annotations

import argparse

import results
from spherequant import TrainConfig, evaluate
from training_runs import baseline_rows, setting, trained

WEIGHTS = "mobilenetv2_100.tf_in1k"
TITLES = {"tiny-imagenet": "Tiny-ImageNet", "cifar10": "CIFAR-10"}
SIDES = {"tiny-imagenet": 64, "cifar10": 32}
EPOCHS = {"tiny-imagenet": 18, "cifar10": 15}
MEASURES = (
    ("DSQ, mAP", "map"),
    ("float embeddings", "float_map"),
    ("class-id", "class_id_map"),
    ("class centre", "class_centre_map"),
    ("expected centre, not compressed", "expected_centre_map"),
    ("DSQ, by cosine", "cosine_map"),
    ("DSQ, by Euclidean distance", "euclidean_map"),
)


def main() -> None:
    """Train, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split-seed", type=int, default=0, help="which classes are unseen")
    parser.add_argument("--backbone", choices=("mobilenetv2", "small"), default="small")
    parser.add_argument("--source", choices=TITLES, default="tiny-imagenet")
    parser.add_argument("--image-size", type=int, help="the source's own unless given")
    parser.add_argument("--epochs", type=int, help="18 or, of CIFAR-10, 15 unless given")
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", f"{options.source}.zip"))
    side = options.image_size or SIDES[options.source]
    epochs = options.epochs or EPOCHS[options.source]
    backbone, weights, note = "small", "none", "`small` from scratch"
    if options.backbone == "mobilenetv2":
        folder = results.data_file("SPHEREQUANT_WEIGHTS", WEIGHTS)
        backbone, weights = f"local-dir:{folder}", "pretrained"
        note = f"{WEIGHTS}, pretrained on ImageNet, so contaminated: it has met these classes"
    config = TrainConfig(
        bits=32,
        backbone=backbone,
        weights=weights,
        image_size=side,
        epochs=epochs,
        protocol="unseen-classes",
        seed=options.seed,
        split_seed=options.split_seed,
    )
    name = f"unseen-classes-{options.backbone}-{side}px-{epochs}-epochs-seed-{options.seed}"
    if options.source != "tiny-imagenet":
        name = name.replace("unseen-classes", f"unseen-classes-{options.source}")
    if options.split_seed:
        name += f"-split-{options.split_seed}"
    model = trained(f"{name}/dsq-32", source, config)
    report = evaluate(model, source, "unseen-classes", baselines=True, out=f"results/{name}/report")
    unseen = report.to_dict()
    classes = len(model.classes)
    left_out = -(-classes // 3)  # a quarter of all, rounded up
    results.record(
        name,
        f"{TITLES[options.source]}, `unseen-classes`, {options.backbone}",
        f"{note}; {side} pixels, {epochs} epochs of {model.summary['images']} images in "
        f"{model.summary['seconds']:.0f} s. {classes} classes seen, {left_out} unseen; "
        f"{unseen['query_count']} queries of unseen and {unseen['seen']['query_count']} of seen "
        f"classes against {unseen['database_count']}. 32 bits, mAP@all, seed {options.seed}, split "
        f"seed {options.split_seed}, one seed. FAISS's quantizers are learned on the same "
        "embeddings, of the training images only.",
        [
            {
                "caption": "mAP over queries of unseen and of seen classes",
                "columns": ["measure", "unseen", "seen"],
                "rows": [
                    *[[title, unseen[key], unseen["seen"][key]] for title, key in MEASURES],
                    *[
                        [title, value, seen]
                        for (title, value), (_, seen) in zip(
                            baseline_rows(unseen), baseline_rows(unseen["seen"]), strict=True
                        )
                    ],
                    ["accuracy", None, unseen["seen"]["accuracy"]],
                ],
            }
        ],
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
