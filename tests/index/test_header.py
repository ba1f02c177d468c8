from __future__ import annotations

import json

import pytest

from spherequant.errors import FingerprintError, FormatError, InputError
from spherequant.index import Index


def change(index, **values):
    path = index.folder / "index.json"
    header = json.loads(path.read_text())
    header.update(values)
    kept = {k: v for k, v in header.items() if k not in values or v is not None}
    path.write_text(json.dumps(kept))


def test_the_header_says_what_the_index_is(tmp_path, codebooks):
    Index.create(tmp_path / "i", codebooks, metadata_columns={"Größe": "int64"}, keep_vectors=True)
    header = json.loads((tmp_path / "i" / "index.json").read_text())
    assert header["schema"] == 1
    assert header["lance_storage"] == "2.1"
    assert header["fingerprint"] == header["codebooks_sha256"]
    assert header["metadata"] == {"Größe": "int64"}
    assert header["created_by"].startswith("spherequant ")


def test_a_folder_that_is_no_index(tmp_path):
    with pytest.raises(FormatError, match="is not an index"):
        Index.open(tmp_path)
    with pytest.raises(FormatError, match="is not an index"):
        Index.open(tmp_path / "missing")


def test_a_newer_schema_is_refused_with_a_hint(index):
    change(index, schema=2, created_by="spherequant 9.9")
    with pytest.raises(FormatError, match=r"schema 2, written by spherequant 9\.9.*Upgrade"):
        Index.open(index.folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": "1"}', "\x00\x01", "[" * 100_000]
)
def test_a_damaged_header_is_refused(index, text):
    (index.folder / "index.json").write_text(text)
    with pytest.raises(FormatError, match="damaged"):
        Index.open(index.folder)


def test_a_header_with_a_missing_field_is_refused(index):
    change(index, fingerprint=None)
    with pytest.raises(FormatError, match="fingerprint is missing"):
        Index.open(index.folder)


@pytest.mark.parametrize(
    "values",
    [
        {"metadata": {"year": "wat"}},
        {"metadata": {"year": 5}},
        {"metadata": {"year": ["int64"]}},
        {"encoder": "zzz"},
        {"n_codebooks": 1},
        {"n_codewords": 10**6},
        {"dim": -1},
    ],
)
def test_values_that_cannot_be_are_refused(index, values):
    change(index, **values)
    with pytest.raises(FormatError, match="damaged"):
        Index.open(index.folder)


def test_foreign_codebooks_are_refused(index, make_codebooks):
    make_codebooks(1).save(index.folder / "model" / "codebooks.safetensors")
    with pytest.raises(FormatError, match="every stored code would mean something else"):
        Index.open(index.folder)


def test_a_missing_file_is_named(index):
    (index.folder / "model" / "codebooks.safetensors").unlink()
    with pytest.raises(FormatError, match="missing"):
        Index.open(index.folder)


def test_columns_that_the_first_items_decide_are_null(tmp_path, codebooks, unit_rows):
    with Index.create(tmp_path / "i", codebooks) as index:
        before = (index.folder / "index.json").read_bytes()
        assert json.loads(before)["metadata"] is None
        index.add(["a"], vectors=unit_rows(1), metadata=[{"year": 1}])
    assert (tmp_path / "i" / "index.json").read_bytes() == before
    change(index, metadata={})
    with Index.open(index.folder) as opened, pytest.raises(FormatError, match="year"):
        len(opened)


def test_a_header_that_promises_other_columns_is_refused(index):
    change(index, keep_vectors=True)
    with Index.open(index.folder) as opened, pytest.raises(FormatError, match="vector"):
        len(opened)


def test_missing_items_are_reported(index, tmp_path):
    (index.folder / "items.lance").rename(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="a file of the index is missing"):
        Index.open(index.folder)


def test_another_model_is_refused(photo_index, make_embedder):
    with pytest.raises(FingerprintError, match="another model"):
        Index.open(photo_index.folder, make_embedder(1))
    with pytest.raises(FingerprintError, match="codebooks are not those"):
        Index.open(photo_index.folder, make_embedder(1).codebooks)
    Index.open(photo_index.folder, make_embedder(0)).close()


def test_a_changed_copy_of_the_model_is_refused(photo_index, monkeypatch, make_embedder, picture):
    def load(folder):
        assert folder == photo_index.folder / "model"
        return make_embedder(1)

    monkeypatch.setattr("spherequant.index.index.load_embedder", load)
    opened = Index.open(photo_index.folder)
    with pytest.raises(FingerprintError, match="not the one that the index was made with"):
        opened.add(["a"], images=[picture(1)])


def test_create_refuses_what_is_there(index, codebooks, tmp_path):
    with pytest.raises(InputError, match="already an index"):
        Index.create(index.folder, codebooks)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InputError, match="not empty"):
        Index.create(tmp_path / "full", codebooks)
    with pytest.raises(InputError, match="not empty"):
        Index.create(tmp_path / "full" / "x", codebooks)
    (tmp_path / "empty").mkdir()
    Index.create(tmp_path / "empty", codebooks).close()


def test_a_failed_creation_leaves_nothing(tmp_path, embedder, monkeypatch):
    def save(directory):
        directory.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedder, "save", save)
    with pytest.raises(Exception, match="no space left on device; free some space"):
        Index.create(tmp_path / "i", embedder)
    assert list(tmp_path.iterdir()) == []
