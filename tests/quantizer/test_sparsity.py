from __future__ import annotations

import numpy as np
import pytest

from spherequant.errors import InputError
from spherequant.quantizer import nonzero_budget


@pytest.mark.parametrize(
    ("sparsity", "m", "k", "d", "budget"),
    [
        (None, 4, 256, 64, None),
        ("S1", 4, 256, 64, 256 * 64),
        ("S2", 4, 256, 64, 256 * 64 + 64 * 64),
        ("S2", 4, 256, 1024, 4 * 256 * 1024),  # not more than there are
        ("S1", 1, 8, 3, 24),
        (1, 2, 3, 4, 1),
        (24, 2, 3, 4, 24),
        (np.int64(7), 2, 3, 4, 7),
    ],
)
def test_budgets(sparsity, m, k, d, budget):
    assert nonzero_budget(sparsity, m, k, d) == budget


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (0, "1 to 24 nonzeros, not 0; 'S1' would be 12"),
        (-3, "1 to 24"),
        (25, "not 25"),
        (True, "not True"),
        ("S3", "'S3' is not known: give 'S1', 'S2', a number of nonzeros from 1 to 24, or None"),
        ("s1", "give 'S1'"),
        (2.5, "a whole number or None, not 2.5"),
    ],
)
def test_what_is_no_budget_is_refused_with_a_cure(sparsity, message):
    with pytest.raises(InputError, match=message):
        nonzero_budget(sparsity, 2, 3, 4)
