from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.quantizer import Encoder, normalise_rows
from spherequant.quantizer.signs import pack_signs, sign_codebooks

TINY = 1e-6  # coordinates this far from zero are never lost in the encoder's rounding


def slow_signs(rows_NP: np.ndarray) -> np.ndarray:
    """+1 for what is not negative, value by value."""
    return np.array([[1.0 if value >= 0 else -1.0 for value in row] for row in rows_NP])


def test_a_byte_is_eight_signs_and_zero_elsewhere():
    array = sign_codebooks(16).array
    assert array.shape == (2, 256, 16)
    np.testing.assert_array_equal(array[0, 0], [1] * 8 + [0] * 8)
    np.testing.assert_array_equal(array[1, 0b101], [0] * 8 + [-1, 1, -1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("bits", [8, 32, 48, 128])
def test_unit_reconstructions_have_length_one(bits):
    codes = np.random.default_rng(0).integers(0, 256, (20, bits // 8))
    decoded = sign_codebooks(bits, unit=True).decode(codes)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(np.sign(decoded), sign_codebooks(bits).decode(codes))


def test_packed_signs_decode_as_signs():
    rows = np.random.default_rng(1).normal(size=(30, 24))
    rows[0, 3] = 0
    codes = pack_signs(rows)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(sign_codebooks(24).decode(codes), slow_signs(rows))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 32, 64, 128]), st.floats(0, 0.5))
def test_the_canonical_encoder_gives_the_signs(seed, bits, share_of_zeros):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(16, bits))
    rows[generator.random(rows.shape) < share_of_zeros] = 0
    rows[np.abs(rows) < TINY * np.sqrt(bits)] = 0
    rows[:, 0] = 1  # no row of zeros only
    z = normalise_rows(rows)
    codes = Encoder(sign_codebooks(bits, unit=True)).encode(z)
    np.testing.assert_array_equal(codes, pack_signs(z))


def test_a_zero_is_encoded_as_plus_one():
    z = np.zeros((2, 16), np.float32)
    z[0, 5], z[1, 0] = 1, -1
    codes = Encoder(sign_codebooks(16, unit=True)).encode(z)
    decoded = sign_codebooks(16).decode(codes)
    np.testing.assert_array_equal(decoded, [[1] * 16, [-1] + [1] * 15])


def test_inner_products_of_signs_are_bits_less_twice_the_hamming_distance():
    generator = np.random.default_rng(2)
    codes, query = generator.integers(0, 256, (50, 6), np.uint8), generator.integers(0, 256, 6)
    codebooks = sign_codebooks(48)
    scores = codebooks.decode(codes) @ codebooks.decode(query[None])[0]
    distance = [
        sum(int(a ^ b).bit_count() for a, b in zip(row, query, strict=True)) for row in codes
    ]
    np.testing.assert_array_equal(scores, 48 - 2 * np.array(distance))
