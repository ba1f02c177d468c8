"""How far to pull a code towards the predicted class, and how sure the prediction must look.

    SPHEREQUANT_DATA=... python benchmarks/class_target.py results/cifar10-full-0/dsq-32

Ranks uncompressed targets, so that the choice stands apart from the codebooks: validation images
(never trained on, and no queries of any protocol) ask the training images.
"""

from __future__ import annotations

import argparse

import numpy as np

import results
from spherequant import Model
from spherequant.evaluation import FloatRanker, Relevance, rank_queries
from spherequant.evaluation.embeddings import embed_source
from spherequant.images import make_split, open_source
from spherequant.training.sharpness import SHARPNESSES
from training_runs import setting

PULLS = (0, 1, 3, 5, 8)


def main() -> None:
    """Rank each target, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    model = Model.load(parser.parse_args().model)
    target = model.encoder.target
    if target is None:
        parser.error("the model has no labels")
    with open_source(str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))) as source:
        split = make_split(source.items, model.config.protocol, model.config.split_seed)
        asked = embed_source(model, source, split.validation, None)
        searched = embed_source(model, source, split.training, None)
        relevance = Relevance(
            [source.items[i].labels for i in asked.positions],
            [source.items[i].labels for i in searched.positions],
        )
    z_ND = searched.vectors
    logits_NC = z_ND @ target.weight_CD.T + target.bias_C
    hard_ND = target.centres_CD[logits_NC.argmax(axis=1)]
    points = {"centre of the best class": hard_ND}
    for sharpness in SHARPNESSES:
        mass_NC = np.exp(sharpness * (logits_NC - logits_NC.max(axis=1, keepdims=True)))
        expected_ND = (mass_NC / mass_NC.sum(axis=1, keepdims=True)) @ target.centres_CD
        points[f"expected centre, logits times {sharpness:g}"] = expected_ND
    rows = []
    for name, centre_ND in points.items():
        figures = []
        for pull in PULLS:
            u_ND = ((z_ND + pull * centre_ND) / (1 + pull)).astype(np.float32)
            ranker = FloatRanker(u_ND, asked.vectors)
            ranked = rank_queries(ranker, relevance, at=None, ranks=np.zeros(0, np.int64))["float"]
            figures.append(float(ranked.ap.mean()))
        rows.append([name, *figures])
    results.record(
        f"class-target-{model.config.protocol}",
        f"What a code is pulled towards: `{model.config.protocol}`",
        f"{len(asked.positions)} validation images ask {len(searched.positions)} training images "
        f"of `{model.config.protocol}`; float targets `(z + pull * centre) / (1 + pull)`, inner "
        "product, mAP@all, one seed.",
        [
            {
                "caption": "mAP by the centre and by the pull",
                "columns": ["centre", *[f"pull {pull}" for pull in PULLS]],
                "rows": rows,
            }
        ],
        setting=setting(model),
    )


if __name__ == "__main__":
    main()
