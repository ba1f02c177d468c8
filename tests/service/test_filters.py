"""Filters from outside: which pass, and that what passes is cheap and the index's own."""

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import InputError
from spherequant.index import Index
from spherequant.service.filters import FUNCTIONS, check_filter
from spherequant.service.problems import Problem

COLUMNS = (
    "id",
    "key",
    "labels",
    "source",
    "size",
    "root",
    "year",
    "weight",
    "note",
    "changed",
    "my column",
    "thumbnail",
    "original",
    "vector",
    "code",
    "digest",
    "phash",
    "mtime",
)


@pytest.fixture(scope="module")
def searcher(shared):
    with Index.open(shared.folder) as index:
        yield index.searcher


@pytest.mark.parametrize(
    "where",
    [
        "array_has(labels, 'cat')",
        "array_has_any(labels, ['1', '2']) AND NOT key LIKE '%/00.png'",
        "array_has_all(labels, make_array('1')) or array_length(labels) > 1",
        "size > 1000 and (year is null or year between 2000 and 2020)",
        "lower(note) = 'it''s' OR starts_with(key, 'digits') or ends_with(key, '.png')",
        "contains(key, '3/') and upper(source) <> 'X' and length(key) >= 3",
        "round(weight) * abs(year) / 2 - year % 3 < 1.5e3",
        "coalesce(note, 'none') != 'x' and year in (1, 2, -3)",
        "`year` = cast('7' as int) or note ilike 'a%'",
        "changed > timestamp '2020-01-01 00:00:00'",
        "labels[1] = '3'",
        "KEY = 'digits/0/00.png'",
        "true",
    ],
)
def test_what_passes_is_understood_by_the_index(searcher, where):
    assert check_filter(where, COLUMNS, 2_000) == where
    searcher.search(searcher.query_vectors(["digits/0/00.png"])[0], 5, where=where)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_that_is_allowed_exists(searcher, name):
    arguments = {
        "abs": "year",
        "ceil": "weight",
        "floor": "weight",
        "round": "weight",
        "coalesce": "note, 'x'",
        "contains": "key, 'x'",
        "starts_with": "key, 'x'",
        "ends_with": "key, 'x'",
        "array_has": "labels, 'x'",
        "array_has_any": "labels, ['x']",
        "array_has_all": "labels, ['x']",
        "make_array": "'x'",
        "array_length": "labels",
    }.get(name, "key")
    where = f"{name}({arguments}) is not null"
    check_filter(where, COLUMNS, 2_000)
    searcher.search(searcher.query_vectors(["digits/0/00.png"])[0], 5, where=where)


@pytest.mark.parametrize(
    "where",
    [
        "root LIKE '/home/%'",
        "ROOT = 'x'",
        "`root` = 'x'",
        "`Root` = 'x'",
        "thumbnail is null",
        "original is null",
        "repeat('x', 1000000000) = key",
        "`repeat`('x', 1000000000) = key",
        "REPEAT ('x', 1000000000) = key",
        "lpad(key, 2000000000) = 'x'",
        "array_repeat(1, 1000000000)[1] = 1",
        "regexp_like(key, '(a{1000}){1000}')",
        "key ~ 'a'",
        "key = (SELECT key FROM t)",
        "EXISTS (SELECT 1)",
        "key IN (SELECT secret FROM passwords)",
        "key = 'a'; DROP TABLE items",
        "key = 'a' UNION SELECT 1",
        'key = "labels"',
        "key = 'a' -- b $",
        "_rowaddr = 1",
        "_rowid > 0",
        "key = $1",
        "key = ?",
        "key = @x",
        "key = 'open",
        "key = `open",
        "current_database() = 'x'",
        "now() > changed",
        "floor(weight) = 1",
        "random() > 0.5",
        "case when true then true else false end",
        "t.key = 'a'",
        "a\0b = 1",
        "\u202ekey = 1",
        " AND ".join(["key LIKE '%a%b%c%'"] * 61),
        "(" * 700,
        "key IN (" + ", ".join(["'a'"] * 600) + ")",
        "key = '" + "a" * 2_000 + "'",
    ],
)
def test_what_does_not_pass(where):
    with pytest.raises(Problem) as refused:
        check_filter(where, COLUMNS, 2_000)
    assert refused.value.status == 422


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "key",
                "year",
                "labels",
                "(",
                ")",
                "[",
                "]",
                ",",
                "=",
                "<",
                "-",
                "+",
                "not",
                "and",
                "or",
                "in",
                "is",
                "null",
                "like",
                "'a'",
                "''",
                "1",
                "2.5",
                "cast",
                "as",
                "int",
                "timestamp",
                "between",
                "lower",
                "make_array",
                "array_has",
                "true",
                "%",
                "*",
                "/",
            ]
        ),
        max_size=40,
    )
)
def test_whatever_passes_is_answered_or_refused_soon(searcher, words):
    where = " ".join(words)
    with suppress(Problem, InputError):
        check_filter(where, searcher.columns, 2_000)
        started = time.monotonic()
        searcher.search(searcher.query_vectors(["digits/0/00.png"])[0], 5, where=where)
        assert time.monotonic() - started < 5
