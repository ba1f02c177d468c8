from __future__ import annotations

import numpy as np

from spherequant.evaluation.examples import choose_examples


def test_good_and_bad_queries_come_from_the_two_ends():
    ap = np.linspace(0, 1, 400)
    chosen = choose_examples(ap, np.ones(400, bool), 8, seed=0)
    good = [query for kind, query in chosen if kind == "good"]
    bad = [query for kind, query in chosen if kind == "bad"]
    assert (len(good), len(bad)) == (4, 4)
    assert ap[good].min() >= 0.75
    assert ap[bad].max() <= 0.25
    assert chosen == choose_examples(ap, np.ones(400, bool), 8, seed=0)
    assert chosen != choose_examples(ap, np.ones(400, bool), 8, seed=1)


def test_only_the_queries_asked_for_are_drawn():
    wanted = np.arange(50) % 3 == 0
    chosen = choose_examples(np.random.default_rng(0).random(50), wanted, 6, seed=0)
    assert all(wanted[query] for _, query in chosen)
    assert len({query for _, query in chosen}) == 6


def test_few_queries_are_shown_once_each():
    for count in range(4):
        chosen = choose_examples(np.zeros(count), np.ones(count, bool), 8, seed=0)
        assert sorted(query for _, query in chosen) == list(range(count))
    assert choose_examples(np.zeros(9), np.ones(9, bool), 0, seed=0) == []
