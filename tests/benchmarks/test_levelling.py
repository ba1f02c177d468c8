from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from levelling import mean_and_interval


def test_the_interval_over_classes_is_that_of_student():
    values = np.array([-0.006, -0.003, 0.023])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_and_interval(values) == f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
    assert low < values.min()  # wider than any resample of three classes


@pytest.mark.parametrize("value", [0.25, -0.5])
def test_one_class_has_no_interval(value):
    assert mean_and_interval(np.array([value])) == f"{value:+.4f}, no interval"
