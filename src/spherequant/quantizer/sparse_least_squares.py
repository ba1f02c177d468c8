"""Sparse codebooks given codes: least squares with at most S nonzeros.

The problem ``min ‖AC - U‖² + ε ‖C - C_old‖²  subject to  ‖C‖₀ <= S`` is NP-hard. As in Sparse
Composite Quantization (Zhang, Qi, Tang and Wang, CVPR 2015) the count is first relaxed to an L1
norm; the support that this finds is kept, and the values on it are solved for anew, without the
shrinkage of the relaxation. The norm is that of the adaptive lasso (Zou, "The Adaptive Lasso and
Its Oracle Properties", JASA 101, 2006): ``Σ |c_e| / |ĉ_e|``, ĉ the solution without a budget; the
plain norm would shrink large values as much as small ones. All steps see the items through
``AᵀA`` and ``AᵀU``.

A has one 1 in each of its M blocks of a row, so ``‖Ax‖² <= M Σ_e n_e x_e²``, n_e the items that
use codeword e: ``M diag(n) + εI`` bounds ``AᵀA + εI``. In it each codeword takes steps of its own
length, where one step for all would be as short as the most used codeword's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spherequant.errors import InputError
from spherequant.quantizer.codebooks import Codebooks
from spherequant.quantizer.least_squares import as_tensor

if TYPE_CHECKING:
    from spherequant.quantizer.least_squares import CodebookSums

_FISTA_STEPS = 10  # few: only the support is taken from them, the values are solved for anew
_MOST_CG_STEPS = 100
_CG_TOLERANCE = 1e-5  # of the norm of the right-hand side


@dataclass(frozen=True, slots=True)
class _Problem:
    """``min Σ_d  x_dᵀ G x_d - 2 b_dᵀ x_d`` over the columns x_d of X [MK, D].

    Attributes:
        gram: float64 [MK, MK], G = AᵀA + εI.
        moment: float64 [MK, D], b = AᵀU + ε C_old.
        bound: float64 [MK, 1], a diagonal H with H - G positive semidefinite.
    """

    gram: torch.Tensor
    moment: torch.Tensor
    bound: torch.Tensor

    def value(self, x: torch.Tensor) -> float:
        """The squared error with its ε term, less what no X changes."""
        return float((x * (self.gram @ x - 2 * self.moment)).sum())


def solve_sparse(sums: CodebookSums, old: Codebooks, epsilon: float, budget: int) -> Codebooks:
    """Codebooks of at most S nonzeros and small ``‖AC - U‖² + ε ‖C - C_old‖²``.

    Where C_old is within the budget, the result is never worse than it, nor than the best values
    on its support.

    Args:
        sums: AᵀA and AᵀU.
        old: C_old, the codebooks to start from and to stay near.
        epsilon: ε > 0, in items, as ``CodebookSums.solve`` has it.
        budget: S >= 1.

    Returns:
        The new codebooks, float32.

    Raises:
        InputError: ε or the budget is not positive, or ``old`` has another shape.
    """
    shape = (sums.n_codebooks, sums.n_codewords, sums.dim)
    if not epsilon > 0 or budget < 1:
        raise InputError(f"epsilon and budget must be positive, not {epsilon} and {budget}")
    if old.array.shape != shape:
        raise InputError(
            f"sums of {list(shape)} cannot update codebooks of {list(old.array.shape)}"
        )
    if budget >= old.array.size:
        return sums.solve(old, epsilon)
    start = as_tensor(old.array, torch.float64, sums.gram.device).reshape(-1, sums.dim)
    gram = sums.gram.clone()
    gram.diagonal().add_(epsilon)
    bound = sums.n_codebooks * sums.gram.diagonal()[:, None] + epsilon
    problem = _Problem(gram, sums.moment + epsilon * start, bound)
    dense = torch.cholesky_solve(problem.moment, torch.linalg.cholesky(gram)).contiguous()
    found = _on_support(problem, dense, relaxed_support(problem, dense, budget))
    if torch.count_nonzero(start) <= budget:
        kept = _on_support(problem, start, start != 0)
        if problem.value(kept) <= problem.value(found):
            found = kept
    return Codebooks(found.reshape(shape).to("cpu", torch.float32).numpy())


def relaxed_support(problem: _Problem, dense: torch.Tensor, budget: int) -> torch.Tensor:
    """Where the L1-relaxed problem has its S nonzeros: bool [MK, D].

    FISTA (Beck and Teboulle, SIAM Journal on Imaging Sciences 2(1), 2009) on
    ``value(X) + 2 λ Σ_e |x_e| / |ĉ_e|`` from X = ĉ. λ is not given but follows: at each step it is
    the value at which S entries survive.

    Args:
        problem: The sums.
        dense: float64 [MK, D], ĉ, the minimum of ``value``.
        budget: S, below M K D.
    """
    x = momentum = dense
    t = 1.0
    size = dense.abs()
    trust = size  # 1 / the weight of the norm
    for _ in range(_FISTA_STEPS):
        # H times the point that the gradient leads to; what exceeds λ / |ĉ| survives.
        pull = problem.bound * momentum - (problem.gram @ momentum - problem.moment)
        size = pull.abs() * trust
        threshold = size.flatten().kthvalue(size.numel() - budget).values
        kept = size > threshold
        shrunk = pull.abs() - threshold / trust.clamp(min=torch.finfo(trust.dtype).tiny)
        new = torch.where(kept, pull.sign() * shrunk / problem.bound, 0.0)
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        momentum = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
    # Of equal entries at the threshold as many as there is room for.
    support = torch.zeros_like(size, dtype=torch.bool)
    support.view(-1)[size.flatten().topk(budget).indices] = True
    return support & (size > 0)


def _on_support(problem: _Problem, start: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The minimum over X that are zero off the support, by conjugate gradients from ``start``.

    Each dimension has its own system, the rows and columns of G in its support; all take their
    steps together, one product with G a step, preconditioned by the diagonal of G. The value falls
    at every step, so stopping early costs precision only.
    """
    mask = support.to(start.dtype)
    inverse = 1 / problem.gram.diagonal()[:, None]
    x = start * mask
    residual = (problem.moment - problem.gram @ x) * mask
    limit = _CG_TOLERANCE * (problem.moment * mask).norm(dim=0)
    scaled = inverse * residual
    direction = scaled
    energy = (residual * scaled).sum(dim=0)
    for _ in range(_MOST_CG_STEPS):
        if bool((residual.norm(dim=0) <= limit).all()):
            break
        product = (problem.gram @ direction) * mask
        curvature = (direction * product).sum(dim=0)
        # A dimension that is solved stays where it is.
        step = torch.where(curvature > 0, energy / curvature, 0.0)
        x = x + step * direction
        residual = residual - step * product
        scaled = inverse * residual
        new_energy = (residual * scaled).sum(dim=0)
        direction = scaled + torch.where(energy > 0, new_energy / energy, 0.0) * direction
        energy = new_energy
    return torch.where(support, x, 0.0)  # never -0
