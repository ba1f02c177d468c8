"""``spherequant export``."""

import pytest

from spherequant.index import Index
from spherequant.index.faiss_files import KINDS, read_faiss

pytest.importorskip("faiss", reason="the export needs the extra 'faiss'")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_holds_the_codes(kind, indexed, spherequant_json, tmp_path):
    out = tmp_path / "x.faiss"
    value = spherequant_json("export", indexed.path, "--to", "faiss", "--kind", kind, "--out", out)
    assert value["total"] == 36
    assert value["bytes"] == out.stat().st_size
    codebooks, ids, codes = read_faiss(out)
    with Index.open(indexed.path) as index:
        assert ids.tolist() == index.searcher.ids.tolist()
        assert codes.tolist() == index.searcher.codes().tolist()
        assert codebooks == index.codebooks


def test_it_says_what_it_wrote(indexed, spherequant, tmp_path):
    text = spherequant("export", indexed.path, "--to", "faiss", "--out", tmp_path / "x").stdout
    assert f"36 items written to {tmp_path / 'x'}" in text


def test_wrong_use(indexed, spherequant, tmp_path):
    out = tmp_path / "x"
    wrong = spherequant("export", indexed.path, "--to", "annoy", "--out", out, code=2)
    assert "annoy" in wrong.stderr
    missing = spherequant("export", tmp_path, "--to", "faiss", "--out", out, code=1)
    assert str(tmp_path) in missing.stderr
    assert not out.exists()
