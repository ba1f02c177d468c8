"""Where the codes' gain comes from: the network that was trained, or what is encoded of it.

    SPHEREQUANT_DATA=... python benchmarks/attribution.py
    SPHEREQUANT_DATA=... python benchmarks/attribution.py --methods orthohash --bits 64

Takes networks of the grid (grid.py; those that it has not trained yet are trained as it does) and
makes codes of each in the same ways: of the embedding, and of what DSQ encodes, the embedding
pulled towards the centre that the network's own classifier expects, by our quantizer and FAISS's,
learned from the training images with and without mixtures of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

import numpy as np

import results
from embeddings import embedded
from grid import SEEDS, Wanted, chosen_setting, network
from grid_tables import verdict_of
from spherequant.evaluation import paired_bootstrap, rank_baselines
from spherequant.quantizer import Encoder, learn_codebooks
from spherequant.training.config import N_CODEWORDS
from spherequant.training.mixtures import with_mixtures
from spherequant.training.randomness import seed_for
from training_runs import (
    expected_centres,
    rank_class_centres,
    rank_codes,
    rank_floats,
    setting,
    toward_class,
)

if TYPE_CHECKING:
    from embeddings import Embedded
    from spherequant import Model
    from spherequant.quantizer import ClassTarget

PROTOCOL, BITS = "cifar10-54k", 32
OWN = "the method's own codes"
QUANTIZERS = ("pq", "rq")
NETWORKS = {
    "dsq": "DSQ",
    "softmax": "softmax",
    "softmax-centre": "softmax and centre",
    "no-discriminative": "DSQ without the discriminative term",
    "orthohash": "OrthoHash",
}
TOWARD = "our quantizer, toward the class"
_ALONE = 1e6  # a pull that leaves nothing of the embedding
Rankings = dict[str, np.ndarray]  # AP of each query, by what was ranked


def main() -> None:
    """Train where that is left to do, make codes, rank, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--bits", type=int, choices=(32, 64), default=BITS)
    options = parser.parse_args()
    amount = chosen_setting()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    models: list[Model] = []
    found: dict[str, list[Rankings]] = {}
    for method in dict.fromkeys(["dsq", *options.methods]):
        for seed in options.seeds:
            model = network(Wanted(PROTOCOL, method, options.bits, seed), amount, source)
            ranked = _rankings(model, embedded(model, source))
            found.setdefault(method, []).append(ranked)
            models += [model] if method == "dsq" else []
            print(
                method, seed, {name: round(float(ap.mean()), 4) for name, ap in ranked.items()},
                file=sys.stderr, flush=True,
            )  # fmt: skip
    ours = np.stack([ranked[TOWARD] for ranked in found["dsq"]])
    names = list(found["dsq"][0])
    results.record(
        f"attribution-{amount.name}" + (f"-{options.bits}" if options.bits != BITS else ""),
        "Where the gain comes from: the network, or what is encoded "
        f"({amount.name} setting, {options.bits} bits)",
        f"Networks of the grid, `{PROTOCOL}`, {options.bits} bits, frozen; 1,000 queries against "
        "54,000, mAP@all, the mean over the seeds. Toward the class: the embedding, pulled with "
        "DSQ's weight towards the centre that the network's own classifier expects, with the "
        "sharpness that validation images choose. Expected centre: that centre alone, not "
        "compressed; and coded, which keeps the classifier's answer and nothing of the image. All "
        "quantizers learn from the training images' embeddings and mixtures of two of them, or "
        "without mixtures. Differences of the AP of each query, averaged over the seeds, with "
        "their 95 % interval.",
        [
            {
                "caption": "mAP by network and code",
                "columns": ["code", *(NETWORKS[method] for method in found)],
                "rows": [
                    [name, *(_mean(ranked, name) for ranked in found.values())] for name in names
                ],
            },
            {
                "caption": f"DSQ, {TOWARD}, less the others",
                "columns": ["network", "code", "difference", "DSQ is"],
                "rows": [
                    [NETWORKS[method], name, *_difference(ours, ranked, name)]
                    for method, ranked in found.items()
                    for name in names
                    if (method, name) != ("dsq", TOWARD)
                ],
            },
        ],
        setting=setting(*models),
    )


def _rankings(model: Model, data: Embedded) -> Rankings:
    """AP of each query by every code of one network."""
    them, config, bits = data.collection, model.config, model.bits
    follows = toward_class(model, data)
    target = follows.encoder.target
    if target is None:
        raise SystemExit("a network without a classifier has no place here")
    images = them.training
    seed = seed_for("mixtures", config.seed)  # of the training
    mixed = with_mixtures(images, seed, normalised=model.normalised)
    rankings: Rankings = {OWN: rank_codes(model, them).ap}
    for title, aim in (("of the embedding", None), ("toward the class", target)):
        database = them.database if aim is None else aim.target(them.database)
        for rows, without in ((mixed, ""), (images, ", without mixtures")):
            learned_from = rows if aim is None else aim.target(rows)
            coded = _coded(model, learned_from, aim, bits)
            rankings[f"our quantizer, {title}{without}"] = rank_codes(coded, them).ap
            faiss = rank_baselines(
                learned_from, database, them.queries, them.relevance, bits, names=QUANTIZERS
            )
            rankings |= {
                f"FAISS {name.upper()}, {title}{without}": faiss[name].ap for name in QUANTIZERS
            }
    alone = dataclasses.replace(target, pull=_ALONE)
    for length in (8, bits):
        coded = _coded(model, alone.target(mixed), alone, length)
        rankings[f"our quantizer, expected centre alone, {length} bits"] = rank_codes(
            coded, them
        ).ap
    rankings["float embeddings"] = rank_floats(them).ap
    rankings["expected centre"] = rank_floats(expected_centres(follows, them)).ap
    rankings["class centre"] = rank_class_centres(model, them).ap
    return rankings


def _coded(model: Model, u_ND: np.ndarray, target: ClassTarget | None, bits: int) -> Model:
    """The network with codebooks learned from these rows."""
    seed = seed_for("codebooks", model.config.seed, model.config.epochs)  # of the training
    codebooks = learn_codebooks(u_ND, bits // 8, N_CODEWORDS, seed=seed)
    return dataclasses.replace(model, encoder=Encoder(codebooks, target))


def _mean(ranked: list[Rankings], name: str) -> float:
    return float(np.mean([one[name] for one in ranked]))


def _difference(ours_SQ: np.ndarray, ranked: list[Rankings], name: str) -> tuple[str, str]:
    result = paired_bootstrap(ours_SQ, np.stack([one[name] for one in ranked]))
    return f"{result.difference:+.4f} [{result.low:+.4f}, {result.high:+.4f}]", verdict_of(result)


if __name__ == "__main__":
    main()
