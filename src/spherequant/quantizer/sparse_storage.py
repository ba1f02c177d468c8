"""Codebooks as the tensors of a file: as they are, or their nonzeros where these take less room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import FormatError
from spherequant.quantizer.storage import MAX_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from spherequant.quantizer.vectors import FloatArray


def to_tensors(array_MKD: FloatArray) -> dict[str, npt.NDArray[Any]]:
    """The tensors that hold codebooks.

    Dense: ``codebooks``, float32 [M, K, D]. Sparse, where that is smaller: compressed sparse rows,
    one row a codeword, ``codebook_values`` float32 [nnz], ``codebook_dims`` uint16 [nnz] (uint32
    where D > 65,536), ``codebook_starts`` uint32 [M K + 1], ``codebook_shape`` uint32 [3].

    Args:
        array_MKD: float32 [M, K, D].
    """
    rows = array_MKD.reshape(-1, array_MKD.shape[2])
    # By their bits: -0 is kept, so that what is read has the fingerprint of what was written.
    stored = rows.view(np.uint32) != 0
    dims_type = np.uint16 if rows.shape[1] <= 1 << 16 else np.uint32
    starts = np.concatenate([[0], np.cumsum(stored.sum(axis=1))])
    size = int(starts[-1]) * (4 + np.dtype(dims_type).itemsize) + 4 * (len(starts) + 3)
    if starts[-1] == 0 or size >= array_MKD.nbytes:
        return {"codebooks": array_MKD}
    return {
        "codebook_values": rows[stored],
        "codebook_dims": stored.nonzero()[1].astype(dims_type),
        "codebook_starts": starts.astype(np.uint32),
        "codebook_shape": np.array(array_MKD.shape, np.uint32),
    }


def from_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
    """The codebooks among the tensors of a file: float32 [M, K, D].

    Raises:
        FormatError: there are none, or the sparse ones do not fit together.
    """
    if "codebook_values" not in tensors:
        if "codebooks" not in tensors:
            raise FormatError("it holds no tensor 'codebooks'")
        return tensors["codebooks"]
    try:
        values = tensors["codebook_values"]
        dims, starts, shape = (
            tensors[f"codebook_{name}"].astype(np.int64) for name in ("dims", "starts", "shape")
        )
    except KeyError as error:
        raise FormatError(f"sparse codebooks lack the tensor {error}") from error
    # In floats: a damaged shape must not overflow before it is refused.
    if shape.shape != (3,) or not 0 < np.prod(shape, dtype=float) <= MAX_VALUES:
        raise FormatError("sparse codebooks have an implausible shape")
    n_codebooks, n_codewords, dim = (int(length) for length in shape)
    rows = n_codebooks * n_codewords
    if starts.shape != (rows + 1,):
        raise FormatError("the tensors of sparse codebooks do not fit together")
    lengths = np.diff(starts)
    if (
        values.ndim != 1
        or dims.shape != values.shape
        or starts[0] != 0
        or starts[-1] != len(values)
        or (lengths < 0).any()
        or (dims >= dim).any()
    ):
        raise FormatError("the tensors of sparse codebooks do not fit together")
    places = np.repeat(np.arange(rows), lengths) * dim + dims
    if (np.diff(places) <= 0).any():
        raise FormatError("the dimensions of a sparse codeword are not in ascending order")
    array = np.zeros(rows * dim, np.float32)
    array[places] = values
    return array.reshape(n_codebooks, n_codewords, dim)
