"""How many nonzeros sparse codebooks may hold."""

from __future__ import annotations

import operator

from spherequant.errors import InputError

NAMED_BUDGETS = ("S1", "S2")


def nonzero_budget(
    sparsity: int | str | None, n_codebooks: int, n_codewords: int, dim: int
) -> int | None:
    """The number S of nonzeros that all codebooks together may hold: ``‖C‖₀ <= S``.

    The named budgets are those of Zhang, Qi, Tang and Wang, "Sparse Composite Quantization",
    CVPR 2015: ``S1 = K D``, what the table of a product quantizer costs, and
    ``S2 = min(K D + D², M K D)``, that and a rotation of the query.

    Args:
        sparsity: ``"S1"``, ``"S2"``, a count from 1 to M K D, or None for dense codebooks.
        n_codebooks: M.
        n_codewords: K.
        dim: D.

    Returns:
        S, or None for dense codebooks.

    Raises:
        InputError: another name, or a count out of range.
    """
    if sparsity is None:
        return None
    entries = n_codebooks * n_codewords * dim
    if isinstance(sparsity, str):
        if sparsity not in NAMED_BUDGETS:
            raise InputError(
                f"sparsity {sparsity!r} is not known: give 'S1', 'S2', a number of nonzeros from 1 "
                f"to {entries}, or None for dense codebooks"
            )
        product = n_codewords * dim
        return product if sparsity == "S1" else min(product + dim * dim, entries)
    try:
        count = operator.index(sparsity)
    except TypeError as error:
        raise InputError(
            f"sparsity must be 'S1', 'S2', a whole number or None, not {sparsity!r}"
        ) from error
    if isinstance(sparsity, bool) or not 1 <= count <= entries:
        raise InputError(
            f"{n_codebooks} codebooks of {n_codewords} codewords of {dim} dimensions hold 1 to "
            f"{entries} nonzeros, not {sparsity}; 'S1' would be {n_codewords * dim}"
        )
    return count
