from __future__ import annotations

import pytest

from spherequant.errors import InputError
from spherequant.index import Index, counts
from spherequant.index.counts import Counts


@pytest.fixture
def filled(tmp_path, codebooks, unit_rows):
    columns = {"year": "int64", "place": "string", "weight": "float64"}
    with Index.create(tmp_path / "i", codebooks, metadata_columns=columns) as index:
        index.add(
            ["a", "b", "c", "d"],
            vectors=unit_rows(4),
            labels=[["cat", "cat"], ["dog", "cat"], (), "dog"],
            metadata=[{"year": 1}, {"year": 2, "place": "Rome"}, {"year": 2}, None],
        )
        yield index


def test_labels_and_values_are_counted(filled):
    assert filled.counts() == {
        "labels": Counts([("cat", 2), ("dog", 2)], 2, 1),
        "year": Counts([(2, 2), (1, 1)], 2, 1),
        "place": Counts([("Rome", 1)], 1, 3),
    }


def test_they_are_counted_under_a_filter_and_in_part(filled):
    assert filled.counts(["year"], where="year > 1") == {"year": Counts([(2, 2)], 1, 0)}
    assert filled.counts(["labels"], where="year = 99") == {"labels": Counts([], 0, 0)}
    assert filled.counts(["year"], limit=1)["year"].values == [(2, 2)]
    with pytest.raises(InputError, match="no column 'nope'"):
        filled.counts(where="nope = 1")


@pytest.mark.parametrize("name", ["weight", "key", "code", "nope"])
def test_what_has_no_kinds_is_refused(filled, name):
    with pytest.raises(InputError, match="those of labels, year, place can"):
        filled.counts([name])


def test_a_column_of_too_many_values_is_not_counted(filled, monkeypatch):
    monkeypatch.setattr(counts, "MAX_DISTINCT", 1)
    assert filled.counts(["year", "place"]) == {
        "year": Counts([], None, 1),
        "place": Counts([("Rome", 1)], 1, 3),
    }


def test_columns_have_the_types_that_filters_need(filled):
    assert filled.columns == {
        "id": "int64",
        "key": "string",
        "changed": "timestamp",
        "labels": "list of string",
        "source": "string",
        "root": "string",
        "size": "int64",
        "mtime": "float64",
        "digest": "string",
        "phash": "uint64",
        "year": "int64",
        "place": "string",
        "weight": "float64",
    }
    for name in filled.columns:
        filled.counts(["labels"], where=f"{name} IS NOT NULL")
