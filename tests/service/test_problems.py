"""Problem documents: what the outside hears of each error, and what it never hears."""

import pytest
from pydantic import ValidationError

from spherequant.errors import (
    ConflictError,
    DuplicateKeyError,
    FormatError,
    InputError,
    OriginalError,
    SpherequantError,
    UnknownKeyError,
)
from spherequant.service.problems import Problem, problem_of, unusable
from spherequant.service.schemas import ItemChange
from spherequant.service.stages import BusyError

PRIVATE = "cannot read /srv/private/items.lance: LanceError(IO) lance-io.rs"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("the filter 'x' cannot be used."), 422),
        (DuplicateKeyError("twice."), 422),
        (UnknownKeyError(["a"]), 404),
        (OriginalError(PRIVATE), 404),
        (ConflictError(PRIVATE), 503),
        (BusyError(PRIVATE), 503),
        (FormatError(PRIVATE), 500),
        (SpherequantError(PRIVATE), 500),
    ],
)
def test_errors_have_a_status_and_keep_what_is_private(error, status):
    problem = problem_of(error)
    assert problem.status == status
    document = problem.document()
    assert document["status"] == status
    assert "private" not in str(document)
    assert ".rs" not in str(document)


def test_what_is_busy_says_when_to_come_again():
    assert Problem(503, "Later.").response().headers["retry-after"] == "1"
    assert "retry-after" not in Problem(500, "Failed.").response().headers


def test_an_objection_of_pydantic_is_said_in_our_words():
    found = [
        {"type": "greater_than_equal", "loc": ("query", "k"), "ctx": {"ge": 1}, "msg": "theirs"},
        {"type": "never_heard_of", "loc": ("body",), "msg": "theirs"},
    ]
    problem = unusable(found)
    assert problem.detail == "query.k is at least 1."
    assert problem.errors == [
        {"where": "query.k", "what": "is at least 1"},
        {"where": "body", "what": "is not usable"},
    ]


def test_a_value_that_may_be_of_several_kinds_is_told_once():
    with pytest.raises(ValidationError) as caught:
        ItemChange.model_validate({"metadata": {"note": True, "float": [1], "long": "x" * 20_000}})
    assert unusable(caught.value.errors()).errors == [
        {"where": "metadata.note", "what": "is a text, a number or null"},
        {"where": "metadata.float", "what": "is a text, a number or null"},
        {"where": "metadata.long", "what": "has at most 16384 characters"},
    ]
