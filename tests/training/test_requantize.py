from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spherequant.quantizer import ClassTarget, Encoder
from spherequant.training.requantize import requantize, true_centres


@pytest.fixture(scope="module")
def embedded(digits_model, some_digits) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of training images, and the centre of each one's class."""
    z = digits_model.embed([image for _, image, _ in some_digits])
    labels = np.array([[c in own for c in digits_model.classes] for _, _, own in some_digits])
    return z, true_centres(digits_model.encoder.target, labels)


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
        digits_model, encoder=Encoder(encoder.codebooks, dataclasses.replace(target, pull=0.0))
    )
    plain, blended = requantize(still, z, None, 8), requantize(still, z, centre, 8)
    arrays = [model.codebooks.array.tobytes() for model in (pulled, plain, blended)]
    assert len(set(arrays)) == 3


def test_it_is_a_function_of_its_input(digits_model, embedded):
    first, again = (requantize(digits_model, *embedded, 8) for _ in range(2))
    assert first.fingerprint == again.fingerprint


def test_the_centre_of_several_labels_is_their_normalised_mean():
    centres = np.eye(3, dtype=np.float32)
    target = ClassTarget(centres, np.zeros(3), centres, pull=1.0, multi_label=True)
    labels = np.array([[True, False, False], [True, True, False]])
    half = 0.5**0.5
    found = true_centres(target, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0, 0], [half, half, 0]], atol=1e-6)
