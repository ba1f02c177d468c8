from __future__ import annotations

import numpy as np
import pytest

from spherequant.errors import ConfigError, InputError
from spherequant.images import Item
from spherequant.index import infer_metadata_columns
from spherequant.index.columns import OURS, check_metadata_columns, check_value, parse_text


def items(**texts):
    rows = zip(*texts.values(), strict=True)
    return [Item(str(i), metadata=dict(zip(texts, row, strict=True))) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", "+3", "0"], "int64"),
        (["1", "", " 2 "], "int64"),
        (["", ""], "string"),
        (["1", "2.5"], "float64"),
        ([".5", "5.", "1e3", "-1.5E-3"], "float64"),
        (["1", "2", "Rome"], "string"),
        (["007"], "string"),  # a name, not the number 7
        (["1_000"], "string"),
        (["9223372036854775807"], "int64"),
        (["9223372036854775808"], "float64"),
        (["9007199254740993", "2"], "int64"),
        (["9007199254740993", "2.5"], "string"),  # float64 would make it ...992
        (["2.5", "9007199254740993"], "string"),
        (["2.5", "9007199254740992"], "float64"),
        (["12345678901234567890"], "string"),
        (["9" * 309], "string"),
        (["1" + "0" * 5000], "string"),
        (["1e999"], "string"),
        (["nan"], "string"),
        (["inf"], "string"),
        (["."], "string"),
        (["e5"], "string"),
        (["1-2"], "string"),
        (["٣"], "string"),  # a digit to Python's int, not to a labels.csv
    ],
)
def test_types_are_inferred_from_texts(texts, kind):
    assert infer_metadata_columns(items(x=texts)) == {"x": kind}
    for text in texts:
        parse_text(text, kind)


def test_items_may_miss_columns():
    found = infer_metadata_columns(
        [Item("a"), Item("b", metadata={"x": "1"}), Item("c", metadata={"y": "b"})]
    )
    assert found == {"x": "int64", "y": "string"}


@pytest.mark.parametrize("name", [*OURS, "ID", "Labels"])
def test_our_names_are_refused_with_the_cure(name):
    with pytest.raises(ConfigError, match="Give it another name"):
        check_metadata_columns({name: "string"})


@pytest.mark.parametrize("name", ["", " ", "_rowid", "a.b", "a`b", "a\nb", "a\\b", "x" * 300])
def test_impossible_names_are_refused(name):
    with pytest.raises(ConfigError, match="cannot name a metadata column"):
        check_metadata_columns({name: "string"})


def test_names_that_filters_could_not_tell_apart_are_refused():
    with pytest.raises(ConfigError, match="clashes with the column 'City'"):
        check_metadata_columns({"City": "string", "city": "string"})


def test_unknown_types_are_refused():
    with pytest.raises(ConfigError, match="int64, float64, string"):
        check_metadata_columns({"x": "date"})


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (3, "int64", 3),
        (np.int32(3), "int64", 3),
        (3.0, "int64", 3),
        (3, "float64", 3.0),
        (np.float32(0.5), "float64", 0.5),
        ("x", "string", "x"),
        (None, "int64", None),
    ],
)
def test_values_of_the_type_are_taken(value, kind, stored):
    assert check_value("x", value, kind, "key") == stored


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3.5, "int64"),
        ("3", "int64"),
        (True, "int64"),
        (2**63, "int64"),
        (float("nan"), "int64"),
        (float("inf"), "int64"),
        ("x", "float64"),
        (3, "string"),
        (b"x", "string"),
        ([1], "float64"),
    ],
)
def test_values_of_another_type_are_refused(value, kind):
    with pytest.raises(InputError, match="does not fit the column's type"):
        check_value("x", value, kind, "key")


@pytest.mark.parametrize(("text", "kind"), [("x", "int64"), ("1.5", "int64"), ("x", "float64")])
def test_texts_that_do_not_fit_raise(text, kind):
    with pytest.raises(ValueError, match="is no"):
        parse_text(text, kind)
