"""Images embedded a second: with batch normalisation folded into convolutions, and without.

    python benchmarks/embedding_speed.py [--repetitions 7]

Networks are built without weights, as their values do not change the time; their variances are
drawn, so that there is something to fold. Each embeds the same prepared images as indexing does
(batches of one size, with mirror images) and one image as a search does, as trained and folded in
turns.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

import results
from spherequant.embedding import EmbeddingNetwork, create_backbone, embed_batches, folded

# Of timm's names what `auto` takes and others that are often chosen; ours at its size.
NETWORKS = (("mobilenetv2_100", 224, 16), ("resnet50", 224, 16), ("small", 32, 512))


def main() -> None:
    """Measure, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[list[object]] = []
    for name, side, batch in NETWORKS:
        torch.manual_seed(0)
        backbone, features, preprocessing, _ = create_backbone(name, "none", side)
        network = EmbeddingNetwork(backbone, features, 64)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.uniform_(0.5, 1.5)
        network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the pair
        twin = folded(network, side)
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        for what, images in (("indexing", pixels), ("one query", pixels[:1])):
            seconds = []
            for _ in range(options.repetitions + 1):
                turn = []
                for asked in (network, twin):
                    begun = time.perf_counter()
                    embed_batches(
                        asked,
                        preprocessing,
                        images,
                        batch=batch,
                        mirror=True,
                        fill=what == "indexing",
                    )
                    turn.append(time.perf_counter() - begun)
                seconds.append(turn)
            plain, fold = np.array(seconds[1:]).T  # the first ones warm up
            low, middle, high = np.quantile(plain / fold, [0.1, 0.5, 0.9])
            rows.append(
                [
                    f"{name}, {side} px",
                    what,
                    float(len(images) / np.median(plain)),
                    float(len(images) / np.median(fold)),
                    f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                ]
            )
            print(*rows[-1], flush=True)
    results.record(
        "embedding-speed",
        "Embedding images, batch normalisation folded into convolutions",
        f"Images of random pixels, prepared beforehand, embedded with their mirror images in "
        f"float32 on {torch.get_num_threads()} threads; both ways in turns, "
        f"{options.repetitions} repetitions: medians, and of the ratio also the quantiles at .1 "
        "and .9.",
        [
            {
                "caption": "Images a second",
                "columns": ["network", "work", "as trained", "folded", "folded over as trained"],
                "rows": rows,
            }
        ],
    )


if __name__ == "__main__":
    main()
