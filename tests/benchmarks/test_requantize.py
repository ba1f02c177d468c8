"""Codes of another length on a frozen network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from requantize import requantize
from spherequant import TrainConfig, train
from spherequant.images import make_split, open_source
from spherequant.quantizer import Encoder

if TYPE_CHECKING:
    from spherequant import Model

CONFIG = TrainConfig(
    bits=16, image_size=16, dim=16, epochs=5, batch_size=48, precision="float32", seed=0
)


@pytest.fixture(scope="module")
def some_digits():
    with open_source("digits") as source:
        return [(item.key, source.image(item), item.labels) for item in source.items[::5]]


@pytest.fixture(scope="module")
def digits_model(some_digits) -> Model:
    return train(some_digits, CONFIG)


@pytest.fixture(scope="module")
def embedded(digits_model, some_digits) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of training images, and the centre of each one's class."""
    z = digits_model.embed([image for _, image, _ in some_digits])
    own = [digits_model.classes.index(label) for _, _, (label,) in some_digits]
    return z, digits_model.class_centres[own]


@pytest.mark.parametrize("objective", ["dsq", "paper", "softmax", "no-discriminative"])
def test_codebooks_of_the_same_length_are_those_of_the_training(some_digits, objective):
    model = train(some_digits, dataclasses.replace(CONFIG, objective=objective))
    with open_source(some_digits) as source:
        items = [source.items[i] for i in make_split(source.items).training]
        z = model.embed([source.image(item) for item in items])
    centre = model.class_centres[[model.classes.index(item.labels[0]) for item in items]]
    again = requantize(model, z, centre if objective == "paper" else None, model.bits)
    # Embeddings differ in their last bits: a row between two codewords may take the other one.
    same_MK = np.isclose(again.codebooks.array, model.codebooks.array, atol=1e-4).all(axis=2)
    assert same_MK.mean() > 0.95


@pytest.mark.parametrize("bits", [8, 24])
def test_codes_of_another_length_share_the_network(digits_model, some_digits, embedded, bits):
    model = requantize(digits_model, *embedded, bits)
    assert (model.bits, model.config.bits) == (bits, bits)
    assert model.network is digits_model.network
    assert model.encoder.target is digits_model.encoder.target
    assert model.fingerprint != digits_model.fingerprint
    assert model.summary == {**digits_model.summary, "requantized_from_bits": 16}
    assert "requantized_from_bits" not in digits_model.summary
    assert model.encode([some_digits[0][1]]).shape == (1, bits // 8)


def test_more_bits_reconstruct_the_blended_target_better(digits_model, embedded):
    z, centre = embedded
    u = (z + digits_model.config.pull * centre) / (1 + digits_model.config.pull)
    errors = []
    for bits in (8, 16):
        codebooks = requantize(digits_model, z, centre, bits).codebooks
        decoded = codebooks.decode(Encoder(codebooks).encode(u))
        errors.append(((u - decoded) ** 2).sum(axis=1).mean())
    # The margin leaves classes so tight that a second byte has little to add.
    assert errors[0] > 1.2 * errors[1]


def test_what_will_be_encoded_is_quantized(digits_model, embedded):
    z, centre = embedded
    pulled = requantize(digits_model, z, centre, 8)
    encoder, target = digits_model.encoder, digits_model.encoder.target
    still = dataclasses.replace(
        digits_model,
        config=dataclasses.replace(digits_model.config, encode_toward_class=False),
        encoder=Encoder(encoder.codebooks, dataclasses.replace(target, pull=0.0)),
    )
    plain, blended = requantize(still, z, None, 8), requantize(still, z, centre, 8)
    arrays = [model.codebooks.array.tobytes() for model in (pulled, plain, blended)]
    assert len(set(arrays)) == 3


def test_it_is_a_function_of_its_input(digits_model, embedded):
    first, again = (requantize(digits_model, *embedded, 8) for _ in range(2))
    assert first.fingerprint == again.fingerprint
