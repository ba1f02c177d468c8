"""When a query's table is built from the nonzeros of the codebooks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spherequant.quantizer.vectors import FloatArray

# What is quicker was measured by benchmarks/sparse_tables.py. Many queries fill registers; few wait
# for gathered values; and one waits longer for columns that no cache near the processor holds.
_SHARE_FOR_MANY = 1 / 3
_SHARE_FOR_FEW = 1 / 8
_MANY_QUERIES = 16
_FAR_BYTES = 1 << 21
MAX_DIM = 1 << 16  # native/sparse.h numbers dimensions in 16 bits


def pays(array_MKD: FloatArray, nnz: int, queries: int) -> bool:
    """Whether a sparse product is expected to be quicker than the dense one.

    Args:
        array_MKD: The codebooks, float32.
        nnz: Their values that are not zero.
        queries: How many tables are built together.
    """
    alone_and_far = queries == 1 and array_MKD.nbytes >= _FAR_BYTES
    share = _SHARE_FOR_MANY if queries >= _MANY_QUERIES or alone_and_far else _SHARE_FOR_FEW
    return nnz <= share * array_MKD.size and array_MKD.shape[2] <= MAX_DIM
