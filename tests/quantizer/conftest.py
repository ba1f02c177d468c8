"""Slow references and seeded vectors for the quantizer's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from spherequant.quantizer import normalise_rows

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[np.float32]
F32 = np.float32


def slow_products(x_ND: Array, y_KD: Array) -> Array:
    """Inner products in the documented order: float32, d ascending, rounded once for each d."""
    total = np.zeros((len(x_ND), len(y_KD)), F32)
    for d in range(x_ND.shape[1]):
        total = fused(x_ND[:, d, None], y_KD[None, :, d], total)
    return total


def fused(x: Array, y: Array, total: Array) -> Array:
    """x * y + total, rounded to float32 once.

    Float64 holds the product. Where it does not hold the sum, that is rounded to odd: of the two
    nearest values the one whose last bit is set, from which float32 rounds as from the exact sum.
    """
    product = x.astype(np.float64) * y
    sums = product + total
    back = sums - product
    lost = (product - (sums - back)) + (total - back)  # exact (Knuth, TAOCP 2, 4.2.2)
    even = sums.view(np.int64) % 2 == 0
    towards = np.nextafter(sums, np.where(lost > 0, np.inf, -np.inf))
    return np.where(even & (lost != 0), towards, sums).astype(F32)


def slow_encode_row(
    a_MK: Array, pair: Array, beam: int, icm_rounds: int, icm_starts: int
) -> list[int]:
    """native/encode.h, word for word, in NumPy float32."""
    n_codebooks, k = a_MK.shape
    prefixes: list[tuple[np.float32, list[int]]] = [(F32(0), [])]
    for m in range(n_codebooks):
        candidates = []
        for b, (g, codes) in enumerate(prefixes):
            for c in range(k):
                step = a_MK[m, c]
                for j, chosen in enumerate(codes):
                    step = step + pair[j, chosen, m, c]
                candidates.append((g + step, b, c))
        candidates.sort()
        prefixes = [(cost, [*prefixes[b][1], c]) for cost, b, c in candidates[:beam]]
    reached = [slow_icm(a_MK, pair, codes, icm_rounds) for _, codes in prefixes[:icm_starts]]
    return min(reached, key=lambda codes: slow_cost(a_MK, pair, codes))  # the first of equal ones


def slow_cost(a_MK: Array, pair: Array, codes: list[int]) -> np.float32:
    cost = F32(0)
    for m, c in enumerate(codes):
        step = a_MK[m, c]
        for j in range(m):
            step = step + pair[j, codes[j], m, c]
        cost = cost + step
    return cost


def slow_icm(a_MK: Array, pair: Array, codes: list[int], icm_rounds: int) -> list[int]:
    n_codebooks = len(a_MK)
    for _ in range(icm_rounds):
        changed = False
        for m in range(n_codebooks):
            cost_K = a_MK[m].copy()
            for j in range(n_codebooks):
                if j != m:
                    cost_K = cost_K + pair[j, codes[j], m]
            best = int(cost_K.argmin())
            if cost_K[best] < cost_K[codes[m]]:
                codes[m] = best
                changed = True
        if not changed:
            break
    return codes


def slow_encode(
    x_ND: Array, codebooks_MKD: Array, beam: int, icm_rounds: int, icm_starts: int
) -> npt.NDArray[np.uint8]:
    m, k, d = codebooks_MKD.shape
    flat = codebooks_MKD.reshape(m * k, d)
    products = slow_products(flat, flat)
    pair = (F32(2) * products).reshape(m, k, m, k)
    norm_MK = products.diagonal().reshape(m, k)
    inner_NMK = slow_products(x_ND, flat).reshape(-1, m, k)
    codes = [
        slow_encode_row(norm_MK - F32(2) * inner_MK, pair, beam, icm_rounds, icm_starts)
        for inner_MK in inner_NMK
    ]
    return np.array(codes, np.uint8).reshape(len(x_ND), m)


@pytest.fixture(scope="session")
def reference_products() -> Callable[[Array, Array], Array]:
    return slow_products


@pytest.fixture(scope="session")
def reference_encode() -> Callable[[Array, Array, int, int, int], npt.NDArray[np.uint8]]:
    return slow_encode


@pytest.fixture(scope="session")
def clustered() -> Callable[..., tuple[Array, npt.NDArray[np.int64]]]:
    """Unit vectors in clusters, as supervised embeddings are, and their clusters."""

    def make(
        n: int, d: int = 16, clusters: int = 8, seed: int = 0
    ) -> tuple[Array, npt.NDArray[np.int64]]:
        centres = normalise_rows(np.random.default_rng(123).normal(size=(clusters, d)))
        rng = np.random.default_rng(seed)
        labels = rng.integers(clusters, size=n)
        return normalise_rows(centres[labels] + rng.normal(0, 0.5 / d**0.5, (n, d))), labels

    return make
