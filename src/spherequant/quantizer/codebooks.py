"""Codebooks: the value that training, encoding, search and the disk share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spherequant import _native
from spherequant.errors import FormatError, InputError
from spherequant.quantizer import sparse_storage, sparse_tables, storage
from spherequant.quantizer.vectors import (
    FloatArray,
    as_rows,
    read_only,
    thread_count,
)

if TYPE_CHECKING:
    import os

MAX_CODEBOOKS = 16
MAX_CODEWORDS = 256

# Multiply-adds of a look-up table from which on a second thread does more than it costs.
_THREADS_FROM = 1 << 24

# How codebooks are encoded with unless an Encoder says otherwise.
DEFAULT_BEAM = 16
DEFAULT_ICM_ROUNDS = 3
DEFAULT_ICM_STARTS = 16


class Codebooks:
    """M codebooks of K codewords of D dimensions; an item is the sum of one codeword from each.

    The reconstruction of codes b is ``x̂ = Σ_m C_m[b_m]`` (additive quantization: Babenko and
    Lempitsky, CVPR 2014). The value is immutable; equal codebooks compare and hash equal.

    Args:
        array_MKD: [M, K, D], finite; 1 <= M <= 16, 1 <= K <= 256, D >= 1. Copied to float32.

    Raises:
        InputError: another shape, or values that are not finite in float32.
    """

    __slots__ = ("_array", "_columns", "_nnz", "_sparse")
    _array: FloatArray
    # For look-up tables, made when the first is asked for: with all values, and with nonzeros only.
    _columns: _native.Columns | None
    _sparse: _native.SparseColumns | None
    _nnz: int | None

    def __init__(self, array_MKD: npt.ArrayLike) -> None:
        array = np.asarray(array_MKD)
        if array.ndim != 3 or array.dtype.kind not in "fiub":
            raise InputError(
                "codebooks must be real numbers of the shape [M, K, D], "
                f"not {array.dtype} {list(array.shape)}"
            )
        m, k, d = array.shape
        if not (1 <= m <= MAX_CODEBOOKS and 1 <= k <= MAX_CODEWORDS and d >= 1):
            raise InputError(
                f"codebooks of the shape {[m, k, d]}: there may be 1 to {MAX_CODEBOOKS} codebooks "
                f"of 1 to {MAX_CODEWORDS} codewords of at least 1 dimension"
            )
        with np.errstate(over="ignore"):  # becomes infinite: refused below
            copy = np.array(array, dtype=np.float32, order="C")
        if not np.isfinite(copy).all():
            raise InputError("codebooks hold NaN or infinite values")
        self._array = read_only(copy)
        self._columns = self._sparse = self._nnz = None

    @property
    def array(self) -> FloatArray:
        """The codewords: float32 [M, K, D], read-only."""
        return self._array

    @property
    def n_codebooks(self) -> int:
        """M."""
        return int(self._array.shape[0])

    @property
    def n_codewords(self) -> int:
        """K."""
        return int(self._array.shape[1])

    @property
    def dim(self) -> int:
        """D."""
        return int(self._array.shape[2])

    @property
    def nnz(self) -> int:
        """Values that are not zero, of the M K D."""
        if self._nnz is None:
            self._nnz = int(np.count_nonzero(self._array))
        return self._nnz

    @property
    def bits(self) -> int:
        """Information in a code, M times the bits that number K codewords."""
        return self.n_codebooks * (self.n_codewords - 1).bit_length()

    @property
    def code_size(self) -> int:
        """Bytes of a stored code: M."""
        return self.n_codebooks

    def decode(self, codes_NM: npt.ArrayLike) -> FloatArray:
        """Reconstructions ``C_0[b_0] + C_1[b_1] + ...``, added in float32 in this order.

        Args:
            codes_NM: integers [N, M], each below K.

        Returns:
            float32 [N, D].

        Raises:
            InputError: another shape, not integers, or a number that names no codeword.
        """
        codes = np.asarray(codes_NM)
        if codes.ndim != 2 or codes.shape[1] != self.n_codebooks or codes.dtype.kind not in "iu":
            raise InputError(
                f"codes must be integers of the shape [N, {self.n_codebooks}], "
                f"not {codes.dtype} {list(codes.shape)}"
            )
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < self.n_codewords:
            raise InputError(
                f"codes must lie between 0 and {self.n_codewords - 1}; "
                f"these go from {codes.min()} to {codes.max()}"
            )
        out_ND: FloatArray = self._array[0][codes[:, 0]]
        for m in range(1, self.n_codebooks):
            out_ND += self._array[m][codes[:, m]]
        return out_ND

    def lookup_table(self, q_QD: npt.ArrayLike, threads: int | None = None) -> FloatArray:
        """``lut[q, m, c] = <q, C_m[c]>``, summed as :func:`.inner_products` states.

        Where the codebooks are mostly zeros the terms of zero are left out: fewer operations, and
        the same bits.

        Args:
            q_QD: Queries [Q, D], finite.
            threads: None for one for each CPU where a table is large enough to gain by it; the
                result is the same with any number.

        Returns:
            float32 [Q, M, K]; an item's score is the sum of its M entries.

        Raises:
            InputError: another D, or values that are not finite.
        """
        q = as_rows(q_QD, self.dim, what="queries")
        work = len(q) * self._array.size
        count = thread_count(threads) if work >= _THREADS_FROM else 1
        flat = self._sparse_products(q, count)
        if flat is None:
            if self._columns is None:
                self._columns = _native.Columns(self._array.reshape(-1, self.dim))
            flat = self._columns.inner_products(q, count)
        return flat.reshape(len(q), self.n_codebooks, self.n_codewords)

    def _sparse_products(self, q_QD: FloatArray, threads: int) -> FloatArray | None:
        """Inner products with the nonzeros: float32 [Q, M K]; None where all values are quicker.

        Also None where the sign of a zero could be another: see ``native/sparse.h``.
        """
        if not sparse_tables.pays(self._array, self.nnz, len(q_QD)):
            return None
        if self._sparse is None:
            self._sparse = _native.SparseColumns(self._array.reshape(-1, self.dim))
        return self._sparse.inner_products(q_QD, threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``codebooks.safetensors``; the same codebooks always make the same bytes."""
        # The settings of the default encoder go with them: codes made from this file must not
        # change when a later version has other defaults.
        settings = {
            "beam": DEFAULT_BEAM,
            "icm_rounds": DEFAULT_ICM_ROUNDS,
            "icm_starts": DEFAULT_ICM_STARTS,
        }
        storage.write(path, self.to_tensors(), settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codebooks:
        """Read the codebooks of a file that :meth:`save` or ``Encoder.save`` wrote.

        Raises:
            FormatError: missing, damaged, or newer than this version reads.
        """
        return cls.from_tensors(path, storage.read(path)[0])

    def to_tensors(self) -> storage.Tensors:
        """The tensors of a file that hold the codebooks: their nonzeros where that is smaller."""
        return sparse_storage.to_tensors(self._array)

    @classmethod
    def from_tensors(cls, path: str | os.PathLike[str], tensors: storage.Tensors) -> Codebooks:
        """The codebooks among the tensors of the file at ``path``.

        Raises:
            FormatError: there are none, or they are none that could be used.
        """
        try:
            return cls(sparse_storage.from_tensors(tensors))
        except (FormatError, InputError) as error:
            raise FormatError(f"{path}: {error}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codebooks):
            return NotImplemented
        return self._array.shape == other._array.shape and bool((self._array == other._array).all())

    def __hash__(self) -> int:
        # Adding 0 turns -0 into 0: equal values hash equal.
        return hash((self._array.shape, (self._array + 0.0).tobytes()))

    def __repr__(self) -> str:
        return (
            f"Codebooks(n_codebooks={self.n_codebooks}, n_codewords={self.n_codewords}, "
            f"dim={self.dim})"
        )

    def __reduce__(self) -> tuple[type[Codebooks], tuple[FloatArray]]:
        return Codebooks, (self._array,)
