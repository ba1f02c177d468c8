"""Codes of another length for a trained network, which stays as it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from spherequant.quantizer.learning import learn_codebooks
from spherequant.training.config import N_CODEWORDS
from spherequant.training.mixtures import with_mixtures
from spherequant.training.randomness import seed_for

if TYPE_CHECKING:
    from spherequant.training.model import Model


def requantize(model: Model, z_ND: np.ndarray, centre_ND: np.ndarray | None, bits: int) -> Model:
    """Learn codebooks of another length on a frozen network's embeddings, as its training would.

    The network was trained with codes of its own length in the loop; these codes were not. A
    training of its own for each length is the fair comparison where there is time for it.

    Args:
        model: any model.
        z_ND: float32, embeddings of training images.
        centre_ND: float32, the centre of each one's given labels, which only an objective asks for
            whose codes are not encoded toward the class; None where it is another.
        bits: the new length.

    Returns:
        a model that shares the network.
    """
    config = dataclasses.replace(model.config, bits=bits)
    target = model.encoder.target
    if config.pull and centre_ND is not None and not config.encode_toward_class:
        u_ND = ((z_ND + config.pull * centre_ND) / (1 + config.pull)).astype(np.float32)
    elif model.classes:
        seed = seed_for("mixtures", config.seed)
        u_ND = with_mixtures(z_ND, seed, normalised=model.normalised)
        if target is not None and target.pull > 0:
            u_ND = target.target(u_ND)  # what the encoder will encode
    else:
        u_ND = z_ND
    codebooks = learn_codebooks(
        u_ND,
        config.n_codebooks,
        N_CODEWORDS,
        seed=seed_for("codebooks", config.seed, config.epochs),
        sparsity=config.nonzero_budget(z_ND.shape[1]),
    )
    summary = {**model.summary, "requantized_from_bits": model.bits}
    encoder = model.encoder.with_codebooks(codebooks)
    return dataclasses.replace(model, config=config, encoder=encoder, summary=summary)
