"""The model finds what is wrong in an answer, and lets pass what may be right."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from service_model import (
    Asked,
    ModelItems,
    Scoring,
    State,
    WrongAnswerError,
    check_exactly,
    check_item,
    check_search,
    expected,
)
from spherequant.index import Index
from spherequant.quantizer import Codebooks

# Of 16 codes for 60 items, many tie.
SHAPE = (2, 4, 3)
COUNT = 60


@pytest.fixture(scope="module")
def codebooks():
    return Codebooks(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))


@pytest.fixture(scope="module")
def scoring(codebooks):
    return Scoring(codebooks)


@pytest.fixture
def items():
    random = np.random.default_rng(1)
    model = ModelItems()
    for number in range(COUNT):
        code = random.integers(0, SHAPE[1], SHAPE[0], np.uint8).tobytes()
        labels = tuple(label for label in ("a", "b") if random.random() < 0.5)
        model.adopt(f"{number}", State(f"{number}", code, labels, {"serial": number}), number)
    return model


def question(scoring, **more):
    return replace(Asked(scoring.unit([1.0, -0.5, 0.2]), 10), **more)


def told(scoring, items, asked):
    """The right answer, as the service writes it."""
    results = expected(scoring, asked, items.current.values())[: asked.k]
    hits = [
        {
            "rank": rank,
            "key": one.state.key,
            "score": float(one.score),
            "labels": list(one.state.labels),
            "metadata": dict(one.state.metadata),
        }
        for rank, one in enumerate(results, start=asked.offset + 1)
    ]
    return {"results": hits, "total": len(items.current)}


def item(state, number):
    return {
        "id": number,
        "key": state.key,
        "labels": list(state.labels),
        "metadata": dict(state.metadata),
        "digest": state.digest,
        "original": state.digest is not None,
    }


QUESTIONS = (
    {},
    {"k": COUNT + 5},
    {"offset": 7},
    {"offset": COUNT + 1},
    {"label": "a"},
    {"since": 40},
    {"label": "b", "since": 100},
    {"min_score": 0.1},
    {"without": "3"},
)


@pytest.mark.parametrize("more", QUESTIONS)
def test_right_answers_pass(scoring, items, more):
    asked = question(scoring, **more)
    with items.window() as window:
        found = check_search(scoring, window, asked, told(scoring, items, asked))
    assert len(found) == len(told(scoring, items, asked)["results"])


def test_the_definition_is_that_of_the_index(scoring, codebooks, items, tmp_path):
    asked = question(scoring, k=COUNT)
    states = list(items.current.values())
    with Index.create(tmp_path / "index", codebooks, thumbnails=False) as index:
        codes = np.array([list(state.code) for state in states], np.uint8)
        index.add([state.key for state in states], codes=codes)
        found = index.search(vectors=asked.query, k=COUNT)
    results = expected(scoring, asked, states)
    assert found.keys[0] == [one.state.key for one in results]
    assert found.scores[0].tolist() == [float(one.score) for one in results]


def spoil_score(hits):
    hits[4]["score"] = float(np.nextafter(np.float32(hits[4]["score"]), np.float32(9)))


def spoil_labels(hits):
    hits[4]["labels"] = ["another"]


def spoil_metadata(hits):
    hits[4]["metadata"]["serial"] -= 1


def spoil_key(hits):
    hits[4]["key"] = "never put"


def spoil_rank(hits):
    hits[4]["rank"] = 4


def lose_first(hits):
    del hits[0]
    renumber(hits)


def lose_one(hits):
    del hits[5]
    renumber(hits)


def lose_all(hits):
    hits.clear()


def repeat_one(hits):
    hits[5] = dict(hits[4], rank=6)


def swap(hits):
    hits[0], hits[-1] = hits[-1], hits[0]
    renumber(hits)


def swap_ties(hits):
    place = next(n for n in range(9) if hits[n]["score"] == hits[n + 1]["score"])
    hits[place], hits[place + 1] = hits[place + 1], hits[place]
    renumber(hits)


def renumber(hits):
    for rank, hit in enumerate(hits, start=1):
        hit["rank"] = rank


SPOILS = (
    spoil_score, spoil_labels, spoil_metadata, spoil_key, spoil_rank, lose_first, lose_one,
    lose_all, repeat_one, swap, swap_ties,
)  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS)
def test_wrong_answers_are_found(scoring, items, spoil):
    asked = question(scoring)
    answer = told(scoring, items, asked)
    spoil(answer["results"])
    with items.window() as window, pytest.raises(WrongAnswerError):
        check_search(scoring, window, asked, answer)


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_comparison_at_rest_finds_them_too(scoring, items, spoil):
    asked = question(scoring)
    right = told(scoring, items, asked)["results"]
    results = expected(scoring, asked, items.current.values())[:10]
    check_exactly(right, results)
    spoilt = copy.deepcopy(right)
    spoil(spoilt)
    with pytest.raises(WrongAnswerError):
        check_exactly(spoilt, results)


def test_another_total_is_found(scoring, items):
    asked = question(scoring)
    answer = told(scoring, items, asked) | {"total": COUNT - 1}
    with items.window() as window, pytest.raises(WrongAnswerError, match="total"):
        check_search(scoring, window, asked, answer)


@pytest.mark.parametrize("moved", [-1, 1])
def test_a_page_that_begins_elsewhere_is_found(scoring, items, moved):
    asked = question(scoring, offset=20)
    answer = told(scoring, items, replace(asked, offset=20 + moved))
    for hit in answer["results"]:
        hit["rank"] -= moved
    first = told(scoring, items, asked)["results"]
    assert first != answer["results"]
    with items.window() as window, pytest.raises(WrongAnswerError):
        check_search(scoring, window, asked, answer)


def test_what_a_filter_keeps_out_is_found(scoring, items):
    answer = told(scoring, items, question(scoring))
    asked = question(scoring, label="a")
    with items.window() as window, pytest.raises(WrongAnswerError):
        check_search(scoring, window, asked, answer)


@pytest.mark.parametrize("seen", ["before", "after"])
def test_a_write_on_its_way_may_be_seen_or_not(scoring, items, seen):
    asked = question(scoring)
    best = told(scoring, items, asked)["results"][0]["key"]
    answers = {"before": told(scoring, items, asked)}
    wanted = replace(items.current[best], labels=("new",))
    with items.window() as window:
        items.begin(best, wanted)
        items.acknowledge(best, int(best))
        answers["after"] = told(scoring, items, asked)
        check_search(scoring, window, asked, answers[seen])


def test_what_is_stale_after_the_acknowledgement_is_found(scoring, items):
    asked = question(scoring)
    before = told(scoring, items, asked)
    best = before["results"][0]["key"]
    items.begin(best, replace(items.current[best], labels=("new",)))
    items.acknowledge(best, int(best))
    with items.window() as window:
        check_search(scoring, window, asked, told(scoring, items, asked))
        with pytest.raises(WrongAnswerError):
            check_search(scoring, window, asked, before)


def test_what_was_deleted_is_found(scoring, items):
    asked = question(scoring)
    before = told(scoring, items, asked)
    best = before["results"][0]["key"]
    items.begin(best, None)
    with items.window() as window:
        check_search(scoring, window, asked, before)
    items.acknowledge(best)
    with items.window() as window, pytest.raises(WrongAnswerError):
        check_search(scoring, window, asked, before)


def test_answers_about_an_item(items):
    state = items.current["3"]
    right = item(state, 3)
    with items.window() as window:
        check_item(window, "3", 200, right)
        check_item(window, "none", 404, {})
        for wrong in ({"id": 4}, {"labels": ["x"]}, {"metadata": {}}, {"digest": "0"}):
            with pytest.raises(WrongAnswerError):
                check_item(window, "3", 200, right | wrong)
        with pytest.raises(WrongAnswerError):
            check_item(window, "3", 404, {})
        with pytest.raises(WrongAnswerError):
            check_item(window, "none", 200, right)
        items.begin("3", None)
        check_item(window, "3", 404, {})
        check_item(window, "3", 200, right)


def test_ids_are_never_given_again(items):
    items.begin("3", replace(items.current["3"]))
    with pytest.raises(WrongAnswerError, match="had the id 3"):
        items.acknowledge("3", 4)
    items.begin("5", None)
    items.acknowledge("5")
    items.begin("new", State("new", b"\0\0", (), {"serial": 1}))
    with pytest.raises(WrongAnswerError, match="of another item"):
        items.acknowledge("new", 5)
