"""Rows of float32: checks, normalisation and inner products, each row on its own.

Results here never depend on which other rows are in the batch, nor on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spherequant import _native
from spherequant.errors import InputError
from spherequant.system import usable_processors

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_MOST_THREADS = 256  # each has scratch memory of its own
_CHUNK_ROWS = 16_384  # rows normalised together: bounds the float64 copies


def thread_count(threads: int | None) -> int:
    """The number of threads to use: as given, or one for each CPU this process may run on.

    Args:
        threads: A number of at least 1, or None. Never more than 256.

    Raises:
        InputError: ``threads`` is below 1.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    return min(threads or usable_processors(), _MOST_THREADS)


def as_rows(x_ND: npt.ArrayLike, dim: int | None = None, what: str = "vectors") -> FloatArray:
    """Check that x is a matrix of finite numbers and return it as C-contiguous float32.

    Args:
        x_ND: Anything NumPy reads as a real [N, D] array; N may be 0.
        dim: The D that is wanted, or None for any of at least 1.
        what: What the rows are, for messages.

    Returns:
        float32 [N, D]; the array itself where it already is one.

    Raises:
        InputError: not two-dimensional, not real numbers, another D, or a row with NaN or
            infinity (the message names the first such row).
    """
    array = np.asarray(x_ND)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} must be real numbers, not {array.dtype}")
    if array.ndim != 2:
        raise InputError(f"{what} must have two dimensions [N, D], not the shape {array.shape}")
    if array.shape[1] == 0 or (dim is not None and array.shape[1] != dim):
        wanted = "at least 1 value" if dim is None else f"{dim} values"
        raise InputError(f"{what} must have {wanted} a row, not {array.shape[1]}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite: refused below
        rows = np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
    flat = rows.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        # One quick pass, and not of BLAS, whose threads would be in the way of ours. Squares may
        # overflow, too.
        finite = np.isfinite(np.einsum("i,i", flat, flat))
    if not finite:
        finite_N = np.isfinite(rows).all(axis=1)
        if not finite_N.all():
            row = int(np.argmin(finite_N))
            raise InputError(f"{what}: row {row} holds a NaN or an infinite value")
    return rows


def inner_products(
    x_ND: npt.ArrayLike, y_KD: npt.ArrayLike, threads: int | None = None
) -> FloatArray:
    """Inner products of all rows of x with all rows of y, in one stated order of operations.

    ``out[n, k]`` starts at 0 and adds ``x[n, d] * y[k, d]`` for d = 0..D-1 in this order, rounded
    to float32 once for each d (a fused multiply-add). (A BLAS product would change with the shape
    of the batch.)

    Args:
        x_ND: [N, D], finite.
        y_KD: [K, D], finite.
        threads: None for one for each CPU; the result is the same with any number.

    Returns:
        float32 [N, K].

    Raises:
        InputError: not matrices of finite numbers of one D.
    """
    x = as_rows(x_ND, what="x")
    y = as_rows(y_KD, x.shape[1], what="y")
    return _native.Columns(y).inner_products(x, thread_count(threads))


def normalise_rows(x_ND: npt.ArrayLike, what: str = "vectors") -> FloatArray:
    """Divide each row by its L2 norm (summed in float64, d = 0..D-1).

    Args:
        x_ND: [N, D], any real numbers.
        what: What the rows are, for messages.

    Returns:
        float32 [N, D], rows of norm 1.

    Raises:
        InputError: a row is zero, or holds NaN or infinity; the message names the first one.
    """
    array = np.asarray(x_ND)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.shape[1] == 0:
        as_rows(array, what=what)  # raises, and says what is wrong
    out = np.empty(array.shape, dtype=np.float32)
    for start in range(0, len(array), _CHUNK_ROWS):
        chunk = array[start : start + _CHUNK_ROWS].astype(np.float64)
        largest_N = np.abs(chunk).max(axis=1)
        # NaN fails both comparisons.
        usable_N = (largest_N > 0) & (largest_N < np.inf)
        if not usable_N.all():
            row = int(np.argmin(usable_N))
            reason = "is zero" if largest_N[row] == 0 else "holds a NaN or an infinite value"
            raise InputError(
                f"{what}: row {start + row} {reason}, so it has no direction; leave it out"
            )
        # Scaled first, so that no square overflows or vanishes.
        chunk /= largest_N[:, None]
        # A running sum is one order of additions; np.sum may choose another for another shape.
        norm_N = np.sqrt(np.cumsum(chunk * chunk, axis=1)[:, -1])
        out[start : start + _CHUNK_ROWS] = chunk / norm_N[:, None]
    return out


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, locked against writing."""
    array.flags.writeable = False
    return array
