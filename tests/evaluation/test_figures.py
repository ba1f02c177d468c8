from __future__ import annotations

import numpy as np
import pytest

from spherequant.evaluation.figures import QueryFigures, mean_figures
from spherequant.evaluation.rankings import Ranked


def ranked(ap):
    ap = np.array(ap, dtype=float)
    hits = np.stack([ap, 5 * ap, 6 * ap], axis=1)
    return Ranked(ap, ap / 2, hits, ap > 0.5)


@pytest.fixture
def rankings():
    ap = {
        "codes": [0.2, 0.4, 0.6, 0.9],
        "cosine": [0.3, 0.3, 0.6, 0.9],
        "euclidean": [0.1, 0.3, 0.5, 0.9],
        "float": [0.5, 0.5, 0.8, 0.9],
    }
    return {name: ranked(values) for name, values in ap.items()}


def test_figures_are_means_over_the_chosen_queries(rankings):
    chosen = np.array([True, True, True, False])
    right = np.array([True, False, True, True])
    figures = mean_figures(rankings, np.array([1, 5, 7]), chosen, right=right)
    assert figures.query_count == 3
    assert figures.map == pytest.approx(0.4)
    assert figures.map_recall_aware == pytest.approx(0.2)
    assert figures.map_standard_error == pytest.approx(0.2 / np.sqrt(3))
    assert figures.cosine_map == pytest.approx(0.4)
    assert figures.euclidean_map == pytest.approx(0.3)
    assert figures.float_map == pytest.approx(0.6)
    assert figures.accuracy == pytest.approx(2 / 3)
    assert figures.precision_at == {1: pytest.approx(0.4), 5: pytest.approx(0.4)}
    assert figures.ties == pytest.approx(1 / 3)
    assert figures.class_id_map is None
    assert figures.hamming_map is None
    assert figures.inner_product_map == figures.map
    assert figures.class_centre_map is None


def test_one_query_has_no_standard_error_and_a_lost_baseline_is_null(rankings):
    chosen = np.array([True, False, False, False])
    rankings["pq"] = ranked([0.1, 0, 0, 0])
    figures = mean_figures(
        rankings, np.array([1]), chosen, right=None, baselines=("pq", "rq")
    ).to_dict()
    assert figures["map_standard_error"] is None
    assert figures["accuracy"] is None
    assert figures["baselines"] == {"pq": pytest.approx(0.1), "rq": None}


def test_classes_of_several_labels_count_in_each(rankings):
    queries = QueryFigures(
        keys=("a", "b", "c", "d"),
        labels=(("x",), ("x", "y"), ("y",), ("z",)),
        headline=np.array([True, True, False, False]),
        relevant_counts=np.ones(4, dtype=np.int64),
        ranks=np.array([1]),
        rankings=rankings,
    )
    assert [(each.label, each.query_count, each.headline) for each in queries.by_class()] == [
        ("x", 2, True),
        ("y", 2, True),
        ("z", 1, False),
    ]
    assert [each.map for each in queries.by_class()] == pytest.approx([0.3, 0.5, 0.9])


def test_what_codes_are_not_ranked_by_stands_beside_them(rankings):
    rankings["inner_product"] = ranked([0.1, 0.1, 0.1, 0.3])
    rankings["hamming"] = ranked([0.2, 0.2, 0.2, 0.2])
    del rankings["euclidean"]
    figures = mean_figures(rankings, np.array([1]), np.ones(4, bool), right=None)
    assert figures.inner_product_map == pytest.approx(0.15)
    assert figures.euclidean_map == figures.map
    assert figures.hamming_map == pytest.approx(0.2)
