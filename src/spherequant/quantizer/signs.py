"""Binary codes as additive codebooks: a byte is a codeword that holds eight signs."""

from __future__ import annotations

import math

import numpy as np

from spherequant.quantizer.codebooks import Codebooks


def sign_codebooks(bits: int, *, unit: bool = False) -> Codebooks:
    """Codebooks [M, 256, bits] that decode the bytes of `pack_signs` to vectors of +1 and -1.

    Codeword c of codebook m holds signs in the dimensions 8m to 8m + 7 and zero elsewhere. Bit b of
    c is set where the sign of dimension 8m + b is negative. The nearest code of a vector is then
    made of its signs, and that of a zero is +1, since the encoder takes the lowest of equally near
    codewords. A coordinate between -1e-7 and 0 may be lost in the encoder's rounding, and then
    counts as zero. The inner product of two vectors of signs is a small whole number: exact in
    float32, in any order.

    Args:
        bits: a multiple of 8.
        unit: divide by the square root of ``bits``, so that reconstructions have length one.
    """
    bytes_K = np.arange(256, dtype=np.uint8)[:, None]
    signs_K8 = 1 - 2 * np.unpackbits(bytes_K, axis=1, bitorder="little").astype(np.float32)
    if unit:
        signs_K8 /= np.float32(math.sqrt(bits))
    array_MKP = np.zeros((bits // 8, 256, bits), dtype=np.float32)
    for m in range(bits // 8):
        array_MKP[m, :, 8 * m : 8 * (m + 1)] = signs_K8
    return Codebooks(array_MKP)


def pack_signs(rows_NP: np.ndarray) -> np.ndarray:
    """Signs of each row, bit b of byte m for dimension 8m + b, set where it is negative.

    Args:
        rows_NP: real numbers [N, P], P a multiple of 8.

    Returns:
        uint8 [N, P / 8].
    """
    return np.packbits(rows_NP < 0, axis=1, bitorder="little")
