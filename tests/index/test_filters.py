from __future__ import annotations

import pytest

from spherequant.errors import InputError
from spherequant.index import Index
from spherequant.index import searcher as searcher_module
from spherequant.index.filters import check_where


@pytest.fixture(scope="module")
def searched(tmp_path_factory, make_codebooks, unit_rows):
    folder = tmp_path_factory.mktemp("filters") / "index"
    columns = {"year": "int64", "Taken at": "string", "größe": "float64"}
    with Index.create(folder, make_codebooks(), metadata_columns=columns) as index:
        index.add(
            ["a/1.jpg", "a/it's.jpg", "b/ä.jpg", "b/2.jpg"],
            vectors=unit_rows(4),
            labels=[["cat", "dog"], "cat", [], "bird; drop"],
            metadata=[
                {"year": 2019, "Taken at": "Rome", "größe": 1.5},
                {"year": 2020, "Taken at": "Oslo"},
                None,
                {"year": 2021, "größe": 2.0},
            ],
        )
        yield index


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("array_has(labels, 'cat')", {0, 1}),
        ("array_has(labels, 'bird; drop')", {3}),
        ("key LIKE 'a/%'", {0, 1}),
        ("key = 'a/it''s.jpg'", {1}),
        ("key = 'b/ä.jpg'", {2}),
        ("year >= 2020 AND NOT array_has(labels, 'cat')", {3}),
        ("YEAR = 2019", {0}),
        ("`Taken at` IN ('Rome', 'Oslo')", {0, 1}),
        ("größe > 1.6 or year is null", {2, 3}),
        ("array_length(labels) = 2", {0}),
        ("source IS NULL", {0, 1, 2, 3}),
        ("1 = 0", set()),
        ("id = -1", set()),
        ("(year = 2019) OR (year = 2021)", {0, 3}),
        ("changed > timestamp '2020-01-01' and cast(year as string) = '2020'", {1}),
        ("year + 1 in (2020, 2021) and key is not distinct from key", {0, 1}),
    ],
)
def test_filters_select_what_they_say(searched, unit_rows, where, ids):
    found = searched.search(vectors=unit_rows(1), k=10, where=where)
    assert set(found.ids[0][found.ids[0] >= 0].tolist()) == ids


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("", "a filter is a text"),
        ("   ", "a filter is a text"),
        (5, "a filter is a text"),
        ("nope = 1", "no column 'nope'. The columns are: id, key, changed, labels"),
        ("Taken at = 'Rome'", "no valid expression|no column"),
        ("year", "no condition"),
        ("year = 'abc'", "different types"),
        ("labels = 'cat'", "array_has"),
        ("year >", "no valid expression"),
        ("year = 1; DROP TABLE t", "';'"),
        ("year = 2019 LIMIT 1", "no column 'LIMIT'"),
        ("year = 2019 ORDER BY id", "no column 'ORDER'"),
        ("year = 1) LIMIT (1", "parentheses"),
        ("1 = 1 -- all", "comments"),
        ("1 = 1 /* all */", "comments"),
        ("\"Taken at\" = 'Rome'", "backticks"),
        ("key = 'open", "single quote"),
        ("`year = 1", "backtick"),
        ("(year = 1", "parentheses"),
        ("id IN (SELECT id FROM t)", "cannot be"),
        ("foo(year) = 1", "function"),
        ("year / 0 = 1", "cannot be evaluated"),
        ("regexp_like(key, '(')", "cannot be"),
        ("count(*) > 1", "cannot be"),
        ("year = 1 \0", "NUL"),
        ("year" + "+1" * 5000 + " > 1", "operators"),
        ("year" + " IS NULL" * 5000, "operators"),
        ("(" * 3000 + "year = 1" + ")" * 3000, "cannot be used"),
        ("x" * 200_000, "characters"),
    ],
)
def test_bad_filters_are_refused_in_our_words(searched, unit_rows, where, reason):
    with pytest.raises(InputError, match=reason) as caught:
        searched.search(vectors=unit_rows(1), where=where)
    text = str(caught.value)
    for leak in (".rs:", "LanceError", "DataFusion", "/home", str(searched.folder), "Utf8"):
        assert leak not in text
    assert len(text) < 600


def test_the_longest_allowed_chains_do_not_end_the_process(searched, unit_rows):
    chain = "year" + "+1" * 248 + " > 1"
    found = searched.search(vectors=unit_rows(1), k=10, where=chain)
    assert (found.ids[0] >= 0).sum() == 3
    many = ", ".join(str(year) for year in range(15_000))
    found = searched.search(vectors=unit_rows(1), k=10, where=f"year IN ({many})")
    assert (found.ids[0] >= 0).sum() == 3


def test_filters_are_cached_and_the_cache_is_bounded(searched, unit_rows):
    searcher = searched.searcher
    for year in range(200):
        searched.search(vectors=unit_rows(1), where=f"year = {year}")
    assert len(searcher._filters) == 64
    before = searcher._filters["year = 199"]
    searched.search(vectors=unit_rows(1), where="year = 199")
    assert searcher._filters["year = 199"] is before


def test_the_cache_of_filters_is_bounded_in_bytes(searched, unit_rows, monkeypatch):
    searcher = searched.searcher
    searcher._filters.clear()
    for year in range(20):
        searched.search(vectors=unit_rows(1), where=f"year != {year}")
    sizes = {where: searcher_module._bytes_of(p) for where, p in searcher._filters.items()}
    assert min(sizes.values()) > 0
    bound = sum(sizes.values()) // 2
    monkeypatch.setattr(searcher_module, "_CACHED_BYTES", bound)
    searched.search(vectors=unit_rows(1), where="year != 20")
    kept = list(searcher._filters)
    assert kept[-1] == "year != 20"
    assert kept[:-1] == list(sizes)[-len(kept) + 1 :]  # those that were used last
    held = sum(map(searcher_module._bytes_of, searcher._filters.values()))
    assert held <= bound < held + sizes[f"year != {20 - len(kept)}"]
    monkeypatch.setattr(searcher_module, "_CACHED_BYTES", 1)
    searched.search(vectors=unit_rows(1), where="year = 50")
    assert list(searcher._filters) == ["year = 50"]  # the last one always stays


def test_a_filter_is_parenthesised():
    assert check_where("a = 1 OR b = 2", ["a", "b"]) == "(a = 1 OR b = 2)"
    assert check_where("key = 'a;--\"'", ["key"])


def test_chains_of_any_word_do_not_end_the_process(searched, run_script):
    script = """
import sys
import numpy as np
from spherequant.errors import InputError
from spherequant.index import Index
from spherequant.index.filters import _FREE, _KEYWORD, MAX_OPERATORS

def ask(where):
    try:
        index.search(vectors=np.ones(index.codebooks.dim), where=where)
    except InputError:
        pass

words = sorted(set(f"{_KEYWORD.pattern}|{_FREE.pattern}".split("|")))
with Index.open(sys.argv[1]) as index:
    for word in words:
        for count in (MAX_OPERATORS, 4_000):
            ask(f"{word} " * count + "1")
            ask("key " + f"{word} key " * count)
print(len(words))
"""
    process = run_script(script, searched.folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert int(out) > 50
