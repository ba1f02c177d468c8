"""Many searches at once: each gets what it would get alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import InputError
from spherequant.index import Index
from spherequant.quantizer import Codebooks
from spherequant.service.metrics import Metrics
from spherequant.service.problems import Problem
from spherequant.service.scanning import Query, as_json, search_together

WHERES = (None, "array_has(labels, '3')", "key LIKE '%/0_.png'", "size < 0")


@pytest.fixture(scope="module")
def searcher(shared):
    with Index.open(shared.folder) as index:
        yield index.searcher


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


queries = st.builds(
    lambda asked, k, offset, where, min_score: Query(
        unit(asked) if isinstance(asked, int) else None,
        asked if isinstance(asked, str) else None,
        k,
        offset,
        where,
        min_score,
    ),
    st.integers(0, 5) | st.sampled_from(["digits/0/00.png", "digits/3/07.png", "none"]),
    st.sampled_from([1, 3, 40, 300]),
    st.sampled_from([0, 1, 35, 190, 500]),
    st.sampled_from(WHERES),
    st.sampled_from([None, -0.5, 0.3, 0.9, 5.0]),
)


def alone(searcher, query):
    """The definition: a search of its own, cut to its page."""
    if query.key == "none":
        return None
    vector, ids = query.vector, [-1]
    if query.key is not None:
        vectors, ids = searcher.query_vectors([query.key])
        vector = vectors[0]
    result = searcher.search(
        vector[None],
        query.depth,
        where=query.where,
        min_score=query.min_score,
        exclude=np.array(ids, np.int64),
    )
    return [
        {
            "rank": hit.rank,
            "key": hit.key,
            "score": hit.score,
            "labels": list(hit.labels),
            "metadata": hit.metadata,
        }
        for hit in result.items[0][query.offset :]
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(queries, min_size=1, max_size=12))
def test_together_as_alone(searcher, some):
    outcomes = search_together(searcher, some, Metrics())
    for query, outcome in zip(some, outcomes, strict=True):
        expected = alone(searcher, query)
        if expected is None:
            assert isinstance(outcome, Problem)
            assert outcome.status == 404
        else:
            assert outcome.results == expected
            assert outcome.total == len(searcher)


def test_a_filter_that_cannot_be_used_fails_its_own_searches_alone(searcher):
    some = [
        Query(unit(0), None, 5),
        Query(unit(1), None, 5, where="nonsense"),
        Query(unit(2), None, 5, where="nonsense"),
        Query(unit(3), None, 5, where="array_has(labels, '1')"),
    ]
    first, second, third, fourth = search_together(searcher, some, Metrics())
    assert isinstance(second, InputError)
    assert isinstance(third, InputError)
    assert len(first.results) == len(fourth.results) == 5


def test_one_that_orders_too_few_anew_fails_alone(tmp_path):
    codebooks = Codebooks(np.random.default_rng(0).normal(size=(2, 16, 8)))
    with Index.create(tmp_path / "i", codebooks, keep_vectors=True) as index:
        index.add([str(n) for n in range(50)], vectors=np.stack([unit(n) for n in range(50)]))
        good = Query(unit(50), None, 20, rerank=25)
        bad = Query(unit(51), None, 20, offset=10, rerank=25)
        (expected,) = search_together(index.searcher, [good], Metrics())
        found, failure = search_together(index.searcher, [good, bad], Metrics())
    assert found == expected
    assert len(found.results) == 20
    assert isinstance(failure, InputError)
    assert "rerank=25 must be at least offset + k=30" in str(failure)


def test_searches_without_difference_share_one_scan(searcher):
    scans = []

    class Noting:
        header = searcher.header
        rows = staticmethod(searcher.rows)
        query_vectors = staticmethod(searcher.query_vectors)

        def search(self, vectors, k, **options):
            scans.append((len(vectors), k))
            return searcher.search(vectors, k, **options)

        def __len__(self):
            return len(searcher)

    some = [Query(unit(i), None, 5 + i, min_score=i / 10) for i in range(6)]
    some += [Query(unit(9), None, 300), Query(None, "digits/0/00.png", 10)]
    search_together(Noting(), some, Metrics())
    assert sorted(scans) == [(1, 300), (7, 10)]


def test_what_json_cannot_say_is_null():
    assert [as_json(v) for v in (float("nan"), float("inf"), 1.5, 3, "x", None)] == [
        None,
        None,
        1.5,
        3,
        "x",
        None,
    ]
