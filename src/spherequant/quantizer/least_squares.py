"""Codebooks given codes: one least-squares problem from sums that add up over batches."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from spherequant.errors import InputError
from spherequant.quantizer.codebooks import Codebooks

_MAX_ONE_HOT = 1 << 22  # entries of A held at once: 32 MiB
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_tensor(
    array: npt.ArrayLike | torch.Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """A tensor of the values, sharing memory where that is safe."""
    if isinstance(array, torch.Tensor):
        return array.detach().to(device=device, dtype=dtype)
    values = np.asarray(array)
    # torch has no read-only tensors and warns.
    return torch.as_tensor(values if values.flags.writeable else values.copy()).to(
        device=device, dtype=dtype
    )


class CodebookSums:
    """The sums ``AᵀA`` and ``AᵀU`` of items with one-hot codes A [N, MK] and targets U [N, D].

    They are exact however the items are divided into batches and machines: float64, and the
    entries of AᵀA are counts. Memory is 8 (MK)² bytes for AᵀA (134 MB for M = 16, K = 256), and
    twice that again while solving.

    Args:
        n_codebooks: M.
        n_codewords: K.
        dim: D.
        device: Where the sums lie; it must have float64 (CPU, CUDA).

    Attributes:
        gram: float64 [MK, MK], AᵀA.
        moment: float64 [MK, D], AᵀU.
    """

    def __init__(
        self, n_codebooks: int, n_codewords: int, dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.n_codebooks = n_codebooks
        self.n_codewords = n_codewords
        self.dim = dim
        size = n_codebooks * n_codewords
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.moment = torch.zeros(size, dim, dtype=torch.float64, device=device)

    @property
    def counts(self) -> torch.Tensor:
        """float64 [M, K]: how many items use each codeword."""
        return self.gram.diagonal().reshape(self.n_codebooks, self.n_codewords)

    def add(
        self, codes_NM: npt.ArrayLike | torch.Tensor, u_ND: npt.ArrayLike | torch.Tensor
    ) -> None:
        """Add items.

        Args:
            codes_NM: integers [N, M] below K.
            u_ND: [N, D], what the codes stand for.

        Raises:
            InputError: shapes that do not agree, codes that are no integers, or a number that names
                no codeword.
        """
        device = self.gram.device
        codes = as_tensor(codes_NM, device=device)
        if codes.dtype not in _INTEGERS:
            raise InputError(f"codes must be integers, not {codes.dtype}")
        codes = codes.to(torch.int64)
        u = as_tensor(u_ND, torch.float64, device)
        if codes.shape != (len(u), self.n_codebooks) or u.shape[1:] != (self.dim,):
            raise InputError(
                f"codes {list(codes.shape)} and vectors {list(u.shape)} must be "
                f"[N, {self.n_codebooks}] and [N, {self.dim}]"
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.n_codewords:
            raise InputError(
                f"codes must lie between 0 and {self.n_codewords - 1}; these go from "
                f"{int(codes.min())} to {int(codes.max())}"
            )
        size = len(self.gram)
        offsets_M = torch.arange(self.n_codebooks, device=device) * self.n_codewords
        rows = min(max(1, _MAX_ONE_HOT // size), max(1, len(codes)))
        one = torch.ones((), dtype=torch.float64, device=device)
        for start in range(0, len(codes), rows):
            columns_BM = codes[start : start + rows] + offsets_M
            pairs = (columns_BM[:, :, None] * size + columns_BM[:, None, :]).flatten()
            # Counts are exact in float64, in any order.
            self.gram.view(-1).scatter_add_(0, pairs, one.expand_as(pairs))
            self._add_moment(columns_BM, u[start : start + rows])

    def _add_moment(self, columns_BM: torch.Tensor, u_BD: torch.Tensor) -> None:
        """Add ``AᵀU`` of items whose ones stand in these columns of A."""
        if columns_BM.device.type == "cpu":
            for columns_B in columns_BM.T:
                self.moment.index_add_(0, columns_B, u_BD)
            return
        # A product with the one-hot matrix: on a GPU the atomic additions of index_add_ come in no
        # fixed order.
        one_hot = self.moment.new_zeros(len(columns_BM), len(self.gram))
        self.moment += one_hot.scatter_(1, columns_BM, 1.0).T @ u_BD

    def __iadd__(self, other: CodebookSums) -> Self:
        """Take over the sums of other items (of another batch or machine)."""
        if self.moment.shape != other.moment.shape or self.n_codebooks != other.n_codebooks:
            raise InputError("sums of codebooks of different shapes cannot be added")
        self.gram += other.gram.to(self.gram.device)
        self.moment += other.moment.to(self.moment.device)
        return self

    def solve(self, old: Codebooks, epsilon: float) -> Codebooks:
        """The codebooks C of least ``‖AC - U‖² + ε ‖C - C_old‖²``.

        That is ``(AᵀA + εI) C = AᵀU + ε C_old``, by Cholesky in float64. AᵀA is singular, hence
        ε > 0. A codeword that no item uses stays where it was.

        Args:
            old: C_old, the codebooks to stay near.
            epsilon: ε, in items: small against the N / K items of a codeword.

        Returns:
            The new codebooks, float32.

        Raises:
            InputError: ε is not positive, or ``old`` has another shape.
        """
        if not epsilon > 0:
            raise InputError(f"epsilon must be positive, not {epsilon}")
        if old.array.shape != (self.n_codebooks, self.n_codewords, self.dim):
            raise InputError(
                f"sums of {[self.n_codebooks, self.n_codewords, self.dim]} cannot update "
                f"codebooks of {list(old.array.shape)}"
            )
        device = self.gram.device
        old_MKxD = as_tensor(old.array, torch.float64, device).reshape(-1, self.dim)
        counts_MK, right_MKxD = self.gram.diagonal(), self.moment + epsilon * old_MKxD
        if self.n_codebooks == 1:  # AᵀA is diagonal
            new_MKxD = right_MKxD / (counts_MK + epsilon)[:, None]
        else:
            system = self.gram.clone()
            system.diagonal().add_(epsilon)
            new_MKxD = torch.cholesky_solve(right_MKxD, torch.linalg.cholesky(system))
        unused = counts_MK == 0
        new_MKxD[unused] = old_MKxD[unused]
        return Codebooks(new_MKxD.reshape(old.array.shape).to("cpu", torch.float32).numpy())
