"""What goes to stdout and stderr."""

import io
import json
import sys

import pytest

from spherequant.cli.output import (
    bytes_text,
    figure,
    note_skips,
    one_line,
    say_facts,
    say_json,
)
from spherequant.images import Skip


def test_json_has_no_nan(capsys):
    say_json({"a": float("nan"), "b": [float("inf"), 0.5], "c": {"d": (-float("inf"), 2)}})
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "a": None,
        "b": [None, 0.5],
        "c": {"d": [None, 2]},
    }


def test_facts_are_aligned_and_absent_ones_left_out(capsys):
    say_facts([("a", 1), ("long name", "x\ny"), ("gone", None)])
    assert capsys.readouterr().out == "a          1\nlong name  x\\ny\n"
    say_facts([])
    assert capsys.readouterr().out == ""


def test_few_skips_are_all_shown(capsys):
    note_skips([])
    assert capsys.readouterr().err == ""
    note_skips([Skip("a.jpg", "empty file"), Skip("folder/b.jpg", "not an image")])
    assert capsys.readouterr().err == (
        "Skipped (2):\n  a.jpg         empty file\n  folder/b.jpg  not an image\n"
    )


def test_many_skips_are_counted_by_reason(capsys):
    skips = [Skip(f"{n}.jpg", f"{n * 1000:,} x 7 pixels, above the bound") for n in range(30)]
    skips += [Skip(f"{n}.txt", "not an image") for n in range(3)]
    note_skips(skips)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Skipped (33):"
    assert len([line for line in lines if ".jpg" in line]) == 20
    assert "  ... and 13 more. All of them by reason:" in lines
    assert lines[-2:] == ["        30  N x N pixels, above the bound", "         3  not an image"]


def test_names_cannot_write_to_the_terminal():
    assert one_line("a\x1b[31mb\nc\u202ed") == "a\\x1b[31mb\\nc\\u202ed"
    assert one_line("grün ☘ 绿 🍀") == "grün ☘ 绿 🍀"
    assert one_line("\udcff") == "\\udcff"


def test_figures_and_sizes():
    assert (figure(0.12345), figure(None), figure(float("nan"))) == ("0.123", "-", "-")
    assert bytes_text(1023) == "1,023 bytes"
    assert bytes_text(1536) == "1.5 KiB"
    assert bytes_text(3 << 40) == "3.0 TiB"
    assert bytes_text(5000 << 40) == "5,000.0 TiB"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_json_in_any_encoding(encoding, monkeypatch):
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding, errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    say_json({"key": "grün/绿 😀"})
    assert json.loads(out.getvalue().decode(encoding)) == {"key": "grün/绿 😀"}
    assert ("绿" in out.getvalue().decode(encoding)) == (encoding == "utf-8")
