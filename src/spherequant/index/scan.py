"""Exact top-k over codes: the boundary between the index and the native scan.

The score of an item with code b for a query with look-up table ``lut`` [M, K] is the float32 sum
``(((lut[0, b_0] + lut[1, b_1]) + lut[2, b_2]) + ...)``, added in the order m = 0..M-1. Higher
scores come first; of equal scores, the lower id. Every instruction set, layout, thread count and
batch gives these results to the bit (native/scan says why); the tests hold the definition in NumPy
beside them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from spherequant import _native
from spherequant._native import Layout, LayoutImage
from spherequant.errors import InputError
from spherequant.quantizer.vectors import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spherequant.quantizer import Codebooks

__all__ = [
    "Allowed",
    "Layout",
    "LayoutImage",
    "Part",
    "bits_of",
    "build_layout",
    "compile_filter",
    "level",
    "numbers_of",
    "top_k",
]

# Names the instruction set to scan with, for tests and comparisons.
LEVEL_VARIABLE = "SPHEREQUANT_SIMD"
# Below this many items a flat scan takes microseconds, and buckets hold one item or none.
BUCKETS_FROM = 1 << 18
# A filter that lets fewer than one item in this many through gets a copy of their codes.
COPY_BELOW = 50

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
Route = Literal["auto", "flat", "buckets"]


@dataclass(frozen=True, slots=True)
class Part:
    """Codes to be searched together with others.

    Attributes:
        layout: the codes.
        ids: int64 [n], ascending, the id of each position; None where the position is the id.
        allowed: the items of it that may be found, all when None.
    """

    layout: Layout
    ids: Int64 | None = None
    allowed: Allowed | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """A filter compiled for one layout: a bitmap in its order, or a copy of the few codes left.

    Attributes:
        layout: what is scanned.
        slots: uint64 words, one bit for each slot of ``layout``; None for all.
    """

    layout: Layout
    slots: Words | None

    @property
    def memory_bytes(self) -> int:
        """Bytes that the filter holds beside the layout that it was compiled for."""
        return self.layout.memory_bytes if self.slots is None else self.slots.nbytes


def level() -> str:
    """The instruction set that scans: the fastest that runs here, or what SPHEREQUANT_SIMD names.

    Raises:
        InputError: the variable names one that does not run here.
    """
    levels = _native.levels()
    wanted = os.environ.get(LEVEL_VARIABLE, "")
    if not wanted:
        return levels[0]
    if wanted not in levels:
        raise InputError(
            f"{LEVEL_VARIABLE}={wanted!r}: this machine runs {', '.join(levels)}; "
            "unset the variable for the fastest."
        )
    return wanted


def build_layout(
    batches: Callable[[], Iterable[NDArray[np.uint8]]],
    total: int,
    codebooks: Codebooks,
    *,
    bucketed: bool | None = None,
) -> Layout:
    """Lay codes out for scanning, in bounded memory beside the layout itself.

    Args:
        batches: yields uint8 [n, M] in order of position; called twice for buckets.
        total: items in all batches.
        codebooks: that the codes name codewords of.
        bucketed: whether items that share codewords lie together; None decides by their number.

    Raises:
        InputError: a code names no codeword, or there are more or fewer than ``total``.
    """
    if bucketed is None:
        bucketed = total >= BUCKETS_FROM
    first, second = _bucket_books(codebooks) if bucketed else (-1, -1)
    threads = thread_count(None)
    try:
        builder = _native.LayoutBuilder(total, numbers_of(codebooks), first, second)
        if bucketed and total:
            for codes_nM in batches():
                builder.count(np.ascontiguousarray(codes_nM))
        for codes_nM in batches():
            builder.place(np.ascontiguousarray(codes_nM), threads)
        return builder.finish()
    except ValueError as error:
        raise InputError(f"these codes cannot be laid out: {error}.") from error


@lru_cache(maxsize=4)  # every tail of an index needs it anew
def numbers_of(codebooks: Codebooks) -> NDArray[np.uint8]:
    """The numbers by which codewords are stored for scanning: uint8 [M, K]."""
    return _native.number_codewords(codebooks.array, thread_count(None))


def _bucket_books(codebooks: Codebooks) -> tuple[int, int]:
    """The two codebooks whose codewords differ most: their choice says most about the score."""
    array = codebooks.array.astype(np.float64)
    energy_M = ((array - array.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    first, second, *_ = [*np.argsort(-energy_M, kind="stable"), 0]
    return int(first), int(second)


def bits_of(mask_N: NDArray[np.bool_]) -> Words:
    """A mask as words of 64 bits, the first item lowest."""
    packed = np.packbits(mask_N, bitorder="little")
    padded = np.zeros(-(-len(mask_N) // 64) * 8, np.uint8)
    padded[: len(packed)] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def compile_filter(layout: Layout, mask_N: NDArray[np.bool_]) -> Allowed:
    """Prepare a layout to be searched for some of its items only.

    Args:
        layout: its codes.
        mask_N: bool [N], by position.
    """
    slots = layout.to_slots(bits_of(mask_N))
    if np.count_nonzero(mask_N) * COPY_BELOW < len(mask_N):
        return Allowed(layout.subset(slots), None)
    return Allowed(layout, slots)


def top_k(
    parts: Sequence[Part],
    lut_QMK: Float32,
    k: int,
    *,
    exclude: Int64 | None = None,
    min_score: float | None = None,
    threads: int | None = None,
    route: Route = "auto",
) -> tuple[Float32, Int64]:
    """The k best items for each query.

    Args:
        parts: what is searched; no id may stand in two of them.
        lut_QMK: float32 [Q, M, K], the table of each query, finite.
        k: how many to return, at least 1; may exceed N.
        exclude: int64 [Q], an id that must not be returned to that query, or -1.
        min_score: items that score less are left out.
        threads: None for one for each CPU.
        route: how bucketed layouts are read; every way finds the same.

    Returns:
        Scores float32 [Q, k] and ids int64 [Q, k], best first; past the end -inf and -1.
    """
    scores, ids, _ = _search(
        parts, lut_QMK, k, exclude, -np.inf if min_score is None else min_score, threads, route
    )
    return scores, ids


def visited(parts: Sequence[Part], lut_QMK: Float32, k: int, route: Route = "auto") -> Words:
    """How many items' codes :func:`top_k` reads for each query, uint64 [Q], on one thread."""
    return _search(parts, lut_QMK, k, None, -np.inf, 1, route)[2]


def _search(
    parts: Sequence[Part],
    lut_QMK: Float32,
    k: int,
    exclude: Int64 | None,
    min_score: float,
    threads: int | None,
    route: Route,
) -> tuple[Float32, Int64, Words]:
    layouts = [part.layout if part.allowed is None else part.allowed.layout for part in parts]
    return _native.search(
        layouts,
        [part.ids for part in parts],
        [None if part.allowed is None else part.allowed.slots for part in parts],
        np.ascontiguousarray(lut_QMK, np.float32),
        exclude,
        k,
        min_score,
        thread_count(threads),
        route,
        level(),
    )
