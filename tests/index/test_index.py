from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from spherequant.errors import (
    DuplicateKeyError,
    FormatError,
    InputError,
    RemovalRefusedError,
    UnknownKeyError,
)
from spherequant.index import Index
from spherequant.index.catalogue import Change, Removal
from spherequant.quantizer import Codebooks


def test_an_empty_index_answers(index, unit_rows):
    assert len(index) == index.ntotal == 0
    result = index.search(vectors=unit_rows(2), k=3)
    assert result.ids.tolist() == [[-1] * 3] * 2
    assert np.isneginf(result.scores).all()
    assert result.scores.dtype == np.float32
    assert result.keys == [[None] * 3] * 2
    assert result.items == [[], []]
    assert index.get(["a"]) == [None]
    assert index.remove(["a"]) == 0
    assert index.search(vectors=unit_rows(1), where="size > 3").items == [[]]
    for nothing in ({"vectors": np.empty((0, 16))}, {"keys": []}):
        assert index.search(**nothing).items == []


def test_an_empty_add_changes_nothing(index):
    assert index.add([], vectors=np.empty((0, 16))).tolist() == []
    assert index.add([], codes=np.empty((0, 3), np.uint8)).tolist() == []
    assert index.remove([]) == 0
    assert len(index) == 0


def test_items_are_stored_and_found(tmp_path, codebooks, unit_rows):
    columns = {"city": "string", "year": "int64"}
    with Index.create(tmp_path / "i", codebooks, metadata_columns=columns) as index:
        ids = index.add(
            ["b", "a", "ü/日本.jpg"],
            vectors=unit_rows(3) * 7,  # rows are normalised
            labels=["cat", ["dog", "x"], []],
            metadata=[{"city": "Rome"}, None, {"year": 3}],
        )
    assert ids.tolist() == [0, 1, 2]
    with Index.open(tmp_path / "i") as index:
        found = index.get(["a", "nope", "ü/日本.jpg", "a"])
        assert found[1] is None
        assert found[0].labels == ("dog", "x")
        assert found[0].metadata == {"city": None, "year": None}
        assert found[2].id == 2
        assert found[2].metadata == {"city": None, "year": 3}
        assert found[2].source is None
        assert found[3].key == "a"
        result = index.search(vectors=unit_rows(3)[1], k=5)
        assert result.items[0][0].rank == 1
        assert [hit.id for hit in result.items[0]] == result.ids[0][:3].tolist()
        assert [hit.key for hit in result.items[0]] == result.keys[0][:3]
        assert result.keys[0][3:] == [None, None]
        by_key = {hit.key: hit for hit in result.items[0]}
        assert by_key["b"].labels == ("cat",)
        assert by_key["b"].metadata == {"city": "Rome", "year": None}


def test_codes_and_vectors_make_the_same_items(index, unit_rows, codebooks):
    from spherequant.quantizer import Encoder

    codes = Encoder(codebooks).encode(unit_rows(5))
    index.add([f"v{i}" for i in range(5)], vectors=unit_rows(5))
    index.add([f"c{i}" for i in range(5)], codes=codes)
    for i in range(5):
        first, second = index.get([f"v{i}", f"c{i}"])
        assert np.array_equal(first.code, second.code)
        assert np.array_equal(first.code, codes[i])


def test_scores_follow_the_definition(index, unit_rows, codebooks):
    keys = [str(i) for i in range(200)]
    index.add(keys, vectors=unit_rows(200))
    queries = unit_rows(70, seed=1)  # more than one block of queries
    result = index.search(vectors=queries, k=7)
    lut = codebooks.lookup_table(queries)
    codes = np.stack([item.code for item in index.get(keys)])
    for q in range(len(queries)):
        scores = lut[q, 0][codes[:, 0]]
        for m in range(1, 3):
            scores = scores + lut[q, m][codes[:, m]]
        order = np.lexsort((np.arange(200), -scores))[:7]
        assert result.ids[q].tolist() == order.tolist()
        assert np.array_equal(result.scores[q], scores[order])
    alone = index.search(vectors=queries[3], k=7)
    assert np.array_equal(alone.scores[0], result.scores[3])


def test_ties_go_to_the_lower_id_whatever_the_storage_order(index):
    codes = np.zeros((6, 3), np.uint8)
    index.add(list("abcdef"), codes=codes)
    index.add(["b"], codes=codes[:1])  # an update moves the row to the end of the storage
    result = index.search(vectors=np.ones(16), k=4)
    assert result.ids[0].tolist() == [0, 1, 2, 3]
    assert result.keys[0] == ["a", "b", "c", "d"]


def test_an_update_keeps_the_id_and_replaces_the_rest(index, unit_rows):
    index.add(["a", "b"], vectors=unit_rows(2), labels=["x", "y"])
    before = index.get(["a"])[0]
    assert index.add(["c", "a"], vectors=unit_rows(2, seed=5)).tolist() == [2, 0]
    after = index.get(["a"])[0]
    assert after.id == before.id
    assert after.labels == ()
    assert not np.array_equal(after.code, before.code)
    assert len(index) == 3


def test_ids_are_never_used_again(index, unit_rows):
    index.add(["a", "b"], vectors=unit_rows(2))
    assert index.remove(["b", "nope", "b"]) == 1
    assert index.add(["c"], vectors=unit_rows(1)).tolist() == [2]
    assert index.remove(["a", "c"]) == 2
    with Index.open(index.folder) as reopened:
        assert reopened.add(["c"], vectors=unit_rows(1)).tolist() == [3]
        assert reopened.get(["b", "a"]) == [None, None]


@pytest.mark.parametrize(
    "keys", [["a", "a"], ["x", "\u00e9", "e\u0301"]], ids=["same", "same in NFC"]
)
def test_a_key_twice_in_one_call_is_refused(index, keys, unit_rows):
    with pytest.raises(DuplicateKeyError, match="comes twice"):
        index.add(keys, vectors=unit_rows(len(keys)))
    assert len(index) == 0


@pytest.mark.parametrize(
    "key",
    [
        "it's",
        'say "x"',
        "a\\b",
        "tab\tnew\nline",
        "%_",
        "日本/ü.jpg",
        "🙂",
        " ",
        "x" * 5000,
        "--",
        "`",
    ],
)
def test_any_text_is_a_key(index, key, unit_rows):
    index.add([key, "other"], vectors=unit_rows(2))
    index.add([key], vectors=unit_rows(1, seed=3))
    assert index.get([key])[0].key == key
    assert key in index.search(vectors=unit_rows(1), k=2).keys[0]
    assert index.search(keys=[key]).keys[0][0] == "other"
    assert index.remove([key]) == 1
    assert len(index) == 1


def test_bad_arguments_of_add_are_refused(tmp_path, index, codebooks, unit_rows, picture):
    refused = [
        ({"keys": ["a"]}, "needs images, codes or vectors"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "vectors": unit_rows(1)}, "got codes and vectors"),
        ({"keys": ["a", "b"], "vectors": unit_rows(1)}, "1 given for 2 keys"),
        ({"keys": ["a"], "vectors": unit_rows(2)}, "2 given for 1 keys"),
        ({"keys": ["a"], "vectors": np.ones((1, 5))}, r"shape \[n, 16\]"),
        ({"keys": ["a"], "vectors": np.zeros((1, 16))}, "zero"),
        ({"keys": ["a"], "vectors": np.full((1, 16), np.nan)}, "NaN"),
        ({"keys": ["a"], "vectors": [["x"] * 16]}, "numbers"),
        ({"keys": ["a"], "codes": [[0, 0]]}, r"shape \[n, 3\]"),
        ({"keys": ["a"], "codes": [[0, 0, 16]]}, r"0\.\.15"),
        ({"keys": ["a"], "codes": [[0, 0, -1]]}, r"0\.\.15; got -1"),
        ({"keys": ["a"], "codes": [[0.0, 0.0, 0.0]]}, "whole numbers"),
        ({"keys": ["a"], "codes": [[0, 0, 0], [0, 0, 0]]}, "2 given for 1 keys"),
        ({"keys": [""], "codes": [[0, 0, 0]]}, "at least one character"),
        ({"keys": [5], "codes": [[0, 0, 0]]}, "at least one character"),
        ({"keys": ["a\0"], "codes": [[0, 0, 0]]}, "cannot be stored"),
        ({"keys": ["\ud800"], "codes": [[0, 0, 0]]}, "cannot be stored"),
        ({"keys": 5, "codes": [[0, 0, 0]]}, "list of texts"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": []}, "0 given for 1 keys"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": "cat"}, "one entry for each"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": [[1]]}, "labels of 'a' are texts"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": [None]}, "labels of 'a' are texts"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": [3]}, "labels of 'a' are texts"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "labels": ["\ud800"]}, "valid Unicode"),
        ({"keys": ["a", "b"], "codes": [[0, 0, 0], [1]]}, "codes cannot be read"),
        ({"keys": ["a", "b"], "vectors": [[0, 1], [1]]}, "vectors cannot be read"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "metadata": [3]}, "metadata of 'a' maps names"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "metadata": [{1: 2}]}, "metadata of 'a' maps names"),
        ({"keys": ["a"], "codes": [[0, 0, 0]], "metadata": []}, "0 given for 1 keys"),
        ({"keys": ["a"], "images": [picture(1)]}, "made from codebooks alone"),
    ]
    for arguments, reason in refused:
        with pytest.raises(InputError, match=reason):
            index.add(**arguments)
    assert len(index) == 0
    keeping = Index.create(tmp_path / "k", codebooks, keep_vectors=True)
    with pytest.raises(InputError, match="keeps vectors"):
        keeping.add(["a"], codes=[[0, 0, 0]])


def test_bad_arguments_of_search_are_refused(index, unit_rows, picture):
    index.add(["a"], vectors=unit_rows(1))
    one = unit_rows(1)
    refused = [
        ({}, "exactly one of"),
        ({"vectors": one, "keys": ["a"]}, "exactly one of"),
        ({"vectors": one[:, :5]}, r"shape \[n, 16\]"),
        ({"vectors": np.full((1, 16), np.inf)}, "infinite"),
        ({"vectors": np.zeros(16)}, "zero"),
        ({"vectors": [[1, 2], [3]]}, "vectors cannot be read"),
        ({"vectors": one, "k": 0}, "k is a whole number"),
        ({"vectors": one, "k": 2.5}, "k is a whole number"),
        ({"vectors": one, "k": True}, "k is a whole number"),
        ({"vectors": one, "k": 10**9}, "ask for fewer"),
        ({"vectors": one, "min_score": float("nan")}, "NaN"),
        ({"vectors": one, "min_score": "x"}, "is a number"),
        ({"vectors": one, "rerank": 10}, "keeps no vectors"),
        ({"keys": ["a", "nope"]}, "no item has the key 'nope'"),
        ({"images": [picture(1)]}, "made from codebooks alone"),
        ({"images": "a.jpg"}, "images are a list"),
    ]
    for arguments, reason in refused:
        with pytest.raises(InputError, match=reason):
            index.search(**arguments)
    with pytest.raises(InputError, match="no item has the id 77"):
        index.thumbnails([77])


def test_no_queries_give_no_results(index, unit_rows):
    index.add(["a"], vectors=unit_rows(1))
    result = index.search(vectors=np.empty((0, 16)), k=3)
    assert result.ids.shape == result.scores.shape == (0, 3)
    assert result.items == []


def test_k_may_exceed_the_items(index, unit_rows):
    index.add(["a", "b"], vectors=unit_rows(2))
    result = index.search(vectors=unit_rows(1), k=1000)
    assert result.ids.shape == (1, 1000)
    assert sorted(result.ids[0][:2].tolist()) == [0, 1]
    assert set(result.ids[0][2:].tolist()) == {-1}


def test_min_score_leaves_out_the_rest(index, unit_rows):
    index.add([str(i) for i in range(50)], vectors=unit_rows(50))
    full = index.search(vectors=unit_rows(1, seed=9), k=50)
    cut = float(full.scores[0, 10])
    result = index.search(vectors=unit_rows(1, seed=9), k=50, min_score=cut)
    assert result.ids[0][:11].tolist() == full.ids[0][:11].tolist()
    assert (result.ids[0][11:] == -1).all()


def test_a_search_by_key_leaves_the_item_out(index, unit_rows, codebooks):
    index.add([str(i) for i in range(20)], vectors=unit_rows(20))
    result = index.search(keys=["3", "7", "3"], k=20)
    for row, own in zip(result.ids, (3, 7, 3), strict=True):
        assert own not in row
        assert (row >= 0).sum() == 19
    with_self = index.search(keys="3", k=20, include_self=True)
    assert 3 in with_self.ids[0]
    code = index.get(["3"])[0].code
    query = codebooks.decode(code[None])
    query /= np.linalg.norm(query)
    assert np.allclose(with_self.scores[0], index.search(vectors=query, k=20).scores[0], atol=1e-6)


def test_a_code_of_length_zero_is_no_query(tmp_path):
    books = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)
    books[0, 2] = 0
    with Index.create(tmp_path / "i", Codebooks(books)) as index:
        index.add(["ok", "nowhere"], codes=[[1], [2]])
        assert index.search(keys=["ok"], k=1).keys == [["nowhere"]]
        with pytest.raises(
            InputError, match="code of 'nowhere' stands for a vector of length zero"
        ):
            index.search(keys=["ok", "nowhere"], k=1)


def test_items_by_id_are_those_of_the_snapshot(index, unit_rows):
    index.add(["a"], vectors=unit_rows(1))
    assert [item.key for item in index.searcher.items_by_id([0])] == ["a"]
    for number in (-1, 7):
        with pytest.raises(InputError, match=str(number)):
            index.searcher.items_by_id([number])


def test_kept_vectors_rerank_and_answer_by_key(tmp_path, codebooks, unit_rows):
    rows = unit_rows(100)
    with Index.create(tmp_path / "i", codebooks, keep_vectors=True) as index:
        index.add([str(i) for i in range(100)], vectors=rows)
        query = unit_rows(2, seed=4)
        result = index.search(vectors=query, k=5, rerank=100)
        halves = rows.astype(np.float16).astype(np.float32)
        for q in range(2):
            exact = halves @ query[q]
            order = np.argsort(-exact)[:5]
            assert result.ids[q].tolist() == order.tolist()
            assert np.allclose(result.scores[q], exact[order], atol=1e-6)
        by_code = index.search(vectors=query, k=20)
        some = index.search(vectors=query, k=5, rerank=20)
        assert set(some.ids[0].tolist()) <= set(by_code.ids[0].tolist())
        cut = index.search(vectors=query, k=5, rerank=100, min_score=float(result.scores[0, 2]))
        assert cut.ids[0].tolist() == [*result.ids[0][:3].tolist(), -1, -1]
        with pytest.raises(InputError, match="at least k"):
            index.search(vectors=query, k=5, rerank=4)
        by_key = index.search(keys=["8"], k=1, rerank=100, include_self=True)
        assert by_key.ids.tolist() == [[8]]
        assert by_key.scores[0, 0] == pytest.approx(1, abs=2e-3)


def test_own_writes_are_seen_and_others_after_refresh(index, unit_rows):
    with Index.open(index.folder) as other:
        assert len(other) == 0
        index.add(["a"], vectors=unit_rows(1))
        assert len(index) == 1
        assert len(other) == 0
        other.refresh()
        assert len(other) == 1
        assert other.get(["a"])[0].id == 0


def test_a_result_outlives_its_items(index, unit_rows):
    index.add(["a", "b"], vectors=unit_rows(2), labels=["x", "y"])
    result = index.search(vectors=unit_rows(1), k=2)
    index.remove(["a", "b"])
    assert len(index) == 0
    assert sorted(result.keys[0]) == ["a", "b"]
    assert sorted(hit.labels for hit in result.items[0]) == [("x",), ("y",)]


def test_images_are_added_and_found(photo_index, picture, embedder):
    ids = photo_index.add(["a", "b"], images=[picture(1), np.asarray(picture(2))])
    result = photo_index.search(images=[picture(2)], k=2)
    assert set(result.ids[0].tolist()) == set(ids.tolist())
    code = photo_index.get(["b"])[0].code
    assert np.array_equal(code, embedder.encoder.encode(embedder.embed([picture(2)]))[0])
    small = photo_index.thumbnails(ids)[0]
    with Image.open(io.BytesIO(small)) as image:
        assert image.format == "JPEG"
    assert [len(row) for row in result.thumbnails] == [2]
    with pytest.raises(InputError, match="more images than that"):
        photo_index.add(["c"], images=[picture(1), picture(2)])
    assert photo_index.search(images=[], k=2).ids.shape == (0, 2)
    with pytest.raises(InputError, match="1 given for 2 keys"):
        photo_index.add(["c", "d"], images=[picture(1)])
    with pytest.raises(InputError, match="images are a list"):
        photo_index.add(["c"], images=picture(1))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        "a.jpg",
    ],
    ids=lambda image: f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else image,
)
def test_what_is_no_picture_is_refused(photo_index, image):
    with pytest.raises(InputError, match=r"uint8|without pixels"):
        photo_index.add(["a"], images=[image])
    assert len(photo_index) == 0


def test_pictures_are_arrays_of_every_shape_that_a_source_takes(photo_index):
    grey = np.full((4, 4), 9, np.uint8)
    pictures = [grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 3 + [grey | 255])]
    ids = photo_index.add(list("abcd"), images=pictures)
    shown = photo_index.thumbnails(ids)
    assert len({shown[i] for i in ids.tolist()}) == 1


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "I;16", "F", "I", "1", "CMYK"])
def test_a_picture_of_any_mode_is_added(photo_index, mode):
    photo_index.add(["a"], images=[Image.new(mode, (20, 10))])
    with Image.open(io.BytesIO(photo_index.thumbnails([0])[0])) as image:
        assert (image.mode, image.size) == ("RGB", (20, 10))


def test_a_turned_picture_is_embedded_and_shown_upright(photo_index, picture, tmp_path):
    lying = picture(1).resize((20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 270 degrees to see it upright
    lying.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        photo_index.add(
            ["turned", "upright"], images=[turned, lying.transpose(Image.Transpose.ROTATE_270)]
        )
    first, second = photo_index.get(["turned", "upright"])
    assert np.array_equal(first.code, second.code)
    small = photo_index.thumbnails([0, 1])
    assert small[0] == small[1]
    with Image.open(io.BytesIO(small[0])) as image:
        assert image.size == (10, 20)


def test_pictures_to_search_with_are_taken_one_by_one(photo_index, picture, embedder):
    def pictures():
        for number in range(5):
            assert embedder.embedded == number
            yield picture(number)

    assert photo_index.search(images=pictures(), k=1).ids.shape == (5, 1)


def test_what_is_asked_with_is_no_stored_image_to_the_model(photo_index, picture, embedder):
    photo_index.add(["a", "b"], images=[picture(1), picture(2)])
    assert (embedder.embedded, embedder.asked_with) == (2, 0)
    photo_index.search(images=[picture(1)], k=1)
    assert (embedder.embedded, embedder.asked_with) == (3, 1)


def test_vectors_of_images_are_not_made_again(photo_index, embedder, picture):
    images = [picture(i) for i in range(3)]
    vectors = embedder.embed(images)
    embedder.embedded = 0
    photo_index.add(["a", "b", "c"], images=images, vectors=vectors)
    assert embedder.embedded == 0
    photo_index.add(["d"], images=[picture(1)])
    given, made = photo_index.get(["b", "d"])
    assert given.code.tolist() == made.code.tolist()
    assert given.phash == made.phash
    thumbnails = photo_index.thumbnails([given.id, made.id])
    assert thumbnails[given.id] == thumbnails[made.id] is not None
    with pytest.raises(InputError, match="vectors: 2 given for 3 keys"):
        photo_index.add(["a", "b", "c"], images=images, vectors=vectors[:2])
    with pytest.raises(InputError, match="images: 2 given for 3 keys"):
        photo_index.add(["a", "b", "c"], images=images[:2], vectors=vectors)


def test_a_batch_given_twice_changes_nothing_but_the_time(index, unit_rows):
    keys = [f"k{i}" for i in range(20)]
    ids = index.add(keys, vectors=unit_rows(20))
    before = index.get(keys)
    assert index.add(keys, vectors=unit_rows(20)).tolist() == ids.tolist()
    for old, new in zip(before, index.get(keys), strict=True):
        assert new.changed > old.changed
        assert (new.id, new.code.tolist()) == (old.id, old.code.tolist())
    assert len(index) == 20


def test_labels_and_metadata_change_alone(tmp_path, embedder, picture):
    columns = {"year": "int64", "place": "string"}
    with Index.create(
        tmp_path / "i", embedder, metadata_columns=columns, keep_vectors=True
    ) as index:
        index.add(
            ["a", "b"],
            images=[picture(1), picture(2)],
            originals=[b"file", None],
            labels=["x", "y"],
            metadata=[{"year": 1, "place": "Rome"}, None],
        )
        before = index.get(["a", "b"])
        vector = index.searcher.rows([0], ["vector", "thumbnail"])
        assert index.update(["a"], metadata=[{"year": 2}]).tolist() == [0]
        assert index.update(["a", "b"], labels=[("z", "w"), ()]).tolist() == [0, 1]
        a, b = index.get(["a", "b"])
        assert (a.labels, a.metadata) == (("z", "w"), {"year": 2, "place": "Rome"})
        assert (b.labels, b.metadata) == ((), {"year": None, "place": None})
        assert a.changed > before[0].changed
        assert (a.digest, a.phash, a.size) == (before[0].digest, before[0].phash, 4)
        assert index.searcher.rows([0], ["vector", "thumbnail"]) == vector
        assert index.original("a") == b"file"
        index.update(["a"], metadata=[{"place": None}])
        assert index.get(["a"])[0].metadata == {"year": 2, "place": None}
        assert [item.key for item in index.latest()] == ["a", "b"]
        for arguments, reason in (
            ({}, "needs labels or metadata"),
            ({"labels": []}, "0 given for 1"),
            ({"metadata": [{"nope": 1}]}, "no column here"),
            ({"metadata": [{"year": "x"}]}, "does not fit"),
            ({"metadata": [{"place": "\ud800"}]}, "does not fit"),
            ({"labels": ["\ud800"]}, "valid Unicode"),
        ):
            with pytest.raises(InputError, match=reason):
                index.update(["a"], **arguments)
        with pytest.raises(DuplicateKeyError, match="one call of update"):
            index.update(["a", "a"], labels=["x", "x"])
        assert index.update([], labels=[]).tolist() == []


class TestColumnsOfTheFirstItems:
    """An index that was made without a word on metadata."""

    def test_the_first_items_bring_them(self, tmp_path, codebooks, unit_rows):
        given = [{"year": 2019, "price": 3, "note": None}, None, {"year": None, "price": 2.5}]
        with Index.create(tmp_path / "index", codebooks) as index:
            index.add(["a", "b", "c"], vectors=unit_rows(3), metadata=given)
            assert index.header.metadata == {"year": "int64", "price": "float64", "note": "string"}
            found = index.search(vectors=unit_rows(1), k=3, where="year > 2015")
            assert found.keys == [["a", None, None]]
        with Index.open(tmp_path / "index") as index:
            index.update(["b"], metadata=[{"note": "new"}])
            assert [item.metadata for item in index.get(["a", "b", "c"])] == [
                {"year": 2019, "price": 3.0, "note": None},
                {"year": None, "price": None, "note": "new"},
                {"year": None, "price": 2.5, "note": None},
            ]
            with pytest.raises(InputError, match=r"'size_cm' of 'd' has no column.*year, price"):
                index.add(["d"], vectors=unit_rows(1), metadata=[{"size_cm": 2}])
            assert index.columns["year"] == "int64"

    def test_items_without_metadata_leave_it_open(self, index_without_a_word, unit_rows):
        index = index_without_a_word
        index.add(["a", "b"], vectors=unit_rows(2))
        with Index.open(index.folder) as reader:
            before = reader.searcher
            index.add(["c"], vectors=unit_rows(1), metadata=[{"year": 2019}])
            assert [item.metadata for item in index.get(["a", "c"])] == [
                {"year": None},
                {"year": 2019},
            ]
            assert index.search(vectors=unit_rows(1), k=9, where="year > 0").keys[0][0] == "c"
            with pytest.raises(InputError, match="fixed when the index was made or by the first"):
                index.add(["d"], vectors=unit_rows(1), metadata=[{"note": "x"}])
            assert [item.metadata for item in before.items(["a", "b"])] == [{}, {}]
            reader.update(["b"], metadata=[{"year": 2020}])
            assert reader.get(["b"])[0].metadata == {"year": 2020}

    def test_an_update_may_bring_them(self, index_without_a_word, unit_rows):
        index_without_a_word.add(["a", "b"], vectors=unit_rows(2))
        index_without_a_word.write_cache()
        index_without_a_word.update(["b"], metadata=[{"note": "x"}])
        with Index.open(index_without_a_word.folder) as opened:
            assert [item.metadata["note"] for item in opened.get(["a", "b"])] == [None, "x"]
            assert opened.search(vectors=unit_rows(1), k=2).ids.shape == (1, 2)

    def test_a_table_beside_a_folder_may_come_later(self, tmp_path, embedder, write_pictures):
        folder = tmp_path / "photos"
        write_pictures(folder, {"cat/0.png": 0, "cat/1.png": 1})
        with Index.create(tmp_path / "index", embedder) as index:
            assert index.sync(folder).added == 2
            (folder / "labels.csv").write_text("path,labels,year\ncat/0.png,cat,7\n")
            report = index.sync(folder)
            assert (report.added, report.notes) == (0, [])
            years = [item.metadata["year"] for item in index.get(["cat/0.png", "cat/1.png"])]
            assert years == [7, None]

    def test_none_were_asked_for(self, tmp_path, codebooks, unit_rows):
        with Index.create(tmp_path / "index", codebooks, metadata_columns={}) as index:
            with pytest.raises(InputError, match="has no column"):
                index.add(["a"], vectors=unit_rows(1), metadata=[{"year": 2019}])
            assert index.columns.get("year") is None

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ([{"year": 1}, {"year": "old"}], InputError, "'year' of 'a' is 1.*type string"),
            ([{"year": True}, None], InputError, "'year' of 'a' is True"),
            ([{"year": [1]}, None], InputError, "'year' of 'a'"),
            ([{"key": "x"}, None], InputError, "clashes with a column of the index"),
            ([{"a.b": 1}, None], InputError, "cannot name a metadata column"),
            ([{"n": 2**53 + 1}, {"n": 0.5}], InputError, "'n' of 'a'.*type float64"),
        ],
    )
    def test_what_cannot_be_stored_decides_nothing(
        self, index_without_a_word, unit_rows, given, error, message
    ):
        index = index_without_a_word
        with pytest.raises(error, match=message):
            index.add(["a", "b"], vectors=unit_rows(2), metadata=given)
        assert (len(index), index.header.metadata) == (0, {})
        index.add(["a", "b"], vectors=unit_rows(2), metadata=[{"year": 1}, {"year": 2}])
        assert index.header.metadata == {"year": "int64"}

    def test_items_that_could_not_be_added_leave_room_for_others(
        self, index_without_a_word, unit_rows
    ):
        index = index_without_a_word
        with pytest.raises(InputError, match="NaN"):
            index.add(["a"], vectors=unit_rows(1) * np.nan, metadata=[{"year": 1}])
        index.add(["a"], vectors=unit_rows(1), metadata=[{"year": 3, "note": "x"}])
        assert index.get(["a"])[0].metadata == {"year": 3, "note": "x"}

    def test_a_refused_write_decides_nothing(self, index_without_a_word, unit_rows):
        index = index_without_a_word
        index.add(["a"], vectors=unit_rows(1))
        with pytest.raises(UnknownKeyError):
            index.update(["none"], metadata=[{"typo": 1}])
        index.refresh()
        assert index.header.metadata == {}
        index.update(["a"], metadata=[{"year": 2019}])
        assert index.get(["a"])[0].metadata == {"year": 2019}

    def test_writes_of_one_commit_bring_their_columns_together(
        self, index_without_a_word, unit_rows
    ):
        index = index_without_a_word
        index.add(["a", "b", "c"], vectors=unit_rows(3))
        writes = [
            Change(["a"], [{"year": 1}], columns={"year": "int64"}),
            Change(["none"], [{"typo": 1}], columns={"typo": "int64"}),
            Change(["b"], [{"year": "x", "note": "n"}], columns={"year": "string"}),
            Change(["c"], [{"note": "n"}], columns={"note": "string"}),
        ]
        first, unknown, unfit, last = index._catalogue.commit(writes)
        assert (first.tolist(), last.tolist()) == ([0], [2])
        assert isinstance(unknown, UnknownKeyError)
        with pytest.raises(InputError, match=r"'year' is string here, .* its column int64"):
            raise unfit
        index.refresh()
        assert index.header.metadata == {"year": "int64", "note": "string"}
        assert [item.metadata for item in index.get(["a", "b", "c"])] == [
            {"year": 1, "note": None},
            {"year": None, "note": None},
            {"year": None, "note": "n"},
        ]

    @pytest.mark.parametrize("kind", ["add", "update"])
    def test_columns_in_any_order_and_of_several_writes(
        self, index_without_a_word, unit_rows, kind
    ):
        index = index_without_a_word
        given = [{"year": 1, "place": "x"}, {"place": "y", "weight": 2}, {"year": 3}]
        keys, rows = ["a", "b", "c"], unit_rows(3)
        if kind == "update":
            index.add(keys, vectors=rows)
        barrier = threading.Barrier(3)

        def write(number):
            barrier.wait()
            if kind == "add":
                one = slice(number, number + 1)
                return index.add(keys[one], vectors=rows[one], metadata=[given[number]])
            return index.update([keys[number]], metadata=[given[number]])

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(write, number) for number in range(3)]:
                assert len(done.result()) == 1
        index.refresh()
        assert index.header.metadata == {"year": "int64", "place": "string", "weight": "int64"}
        for key, metadata in zip(keys, given, strict=True):
            assert {n: v for n, v in index.get([key])[0].metadata.items() if v} == metadata

    def test_a_write_that_contradicts_another_of_its_commit_brings_nothing(
        self, index_without_a_word, unit_rows
    ):
        index = index_without_a_word
        index.add(["a", "b"], vectors=unit_rows(2))
        first, second = index._catalogue.commit(
            [
                Change(["a"], [{"x": 1}], columns={"x": "int64"}),
                Change(["b"], [{"x": "t", "y": 1}], columns={"x": "string", "y": "int64"}),
            ]
        )
        assert first.tolist() == [0]
        assert isinstance(second, InputError)
        index.refresh()
        assert index.header.metadata == {"x": "int64"}

    def test_an_error_of_one_kind_of_write_leaves_the_others_their_outcome(
        self, index, unit_rows, monkeypatch
    ):
        index.add(["a"], vectors=unit_rows(1))

        def fail(*_):
            raise pa.ArrowInvalid("something unforeseen")

        monkeypatch.setattr(index._catalogue, "_try_change", fail)
        done = index._catalogue.commit([Removal(["a"]), Change(["a"], [{"labels": []}])])
        assert done[0] == 1
        assert isinstance(done[1], pa.ArrowInvalid)

    def test_what_is_no_list(self, index, unit_rows):
        with pytest.raises(InputError, match="labels are a list with one entry for each key"):
            index.add(["a"], vectors=unit_rows(1), labels=(label for label in ["x"]))
        with pytest.raises(InputError, match="metadata are a list with one entry for each key"):
            index.add(["a"], vectors=unit_rows(1), metadata=({} for _ in range(1)))

    def test_who_comes_too_late_is_told_the_columns(self, index_without_a_word, unit_rows):
        index = index_without_a_word
        index.add(["a"], vectors=unit_rows(1), metadata=[{"year": 1}])
        (late,) = index._catalogue.commit([Change(["a"], [{"b": 1}], columns={"b": "int64"})])
        with pytest.raises(InputError, match=r"'b' has no column here: .* which are year"):
            raise late

    def test_a_refused_sync_decides_nothing(self, tmp_path, embedder, write_pictures):
        folder, names = tmp_path / "photos", [f"{n}.png" for n in range(4)]
        write_pictures(folder, {name: n for n, name in enumerate(names)})
        with Index.create(tmp_path / "index", embedder) as index:
            index.sync(folder)
            for name in names[:3]:
                (folder / name).unlink()
            table = folder / "labels.csv"
            table.write_text(f"path,labels,yaer\n{names[3]},cat,2003\n")
            with pytest.raises(RemovalRefusedError, match="Nothing was changed"):
                index.sync(folder)
            index.refresh()
            assert index.header.metadata == {}
            table.write_text(f"path,labels,year\n{names[3]},cat,2003\n")
            dry = index.sync(folder, allow_removal=True, dry_run=True)
            assert (dry.updated, dry.removed, dry.notes) == (1, 3, [])
            done = index.sync(folder, allow_removal=True)
            assert (done.updated, done.removed, done.notes) == (1, 3, [])
            assert index.get([names[3]])[0].metadata == {"year": 2003}

    def test_another_writer_and_another_reader(self, index_without_a_word, unit_rows):
        index = index_without_a_word
        with Index.open(index.folder) as other, Index.open(index.folder) as reader:
            assert len(other) == len(reader) == 0
            index.add(["a"], vectors=unit_rows(1), metadata=[{"year": 2019}])
            other.add(["b"], vectors=unit_rows(1))  # knows of no column yet
            other.add(["c"], vectors=unit_rows(1), metadata=[{"year": 2020}])
            reader.refresh()
            assert [item.metadata["year"] for item in reader.get(["a", "b", "c"])] == [
                2019,
                None,
                2020,
            ]

    def test_many_first_writers(self, index_without_a_word, unit_rows):
        folder = index_without_a_word.folder
        names = ["year", "note", "weight", "year"]
        added = []

        def write(number):
            with Index.open(folder) as index, suppress(InputError):
                given = [{names[number]: "x" if names[number] == "note" else number}]
                index.add([str(number)], vectors=unit_rows(1), metadata=given)
                added.append(number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        index_without_a_word.refresh()
        assert added  # who came too late was refused, and nothing of it is stored
        assert len(index_without_a_word) == len(added)
        for number in added:
            (item,) = index_without_a_word.get([str(number)])
            assert item.metadata[names[number]] == ("x" if names[number] == "note" else number)

    def test_a_folder_brings_its_own(self, tmp_path, embedder, write_pictures):
        folder, names = tmp_path / "photos", ["0.png", "1.png", "2.png"]
        write_pictures(folder, {name: n for n, name in enumerate(names)})
        rows = [f"{name},cat,{2000 + n},{n / 2}" for n, name in enumerate(names)]
        (folder / "labels.csv").write_text("path,labels,year,weight\n" + "\n".join(rows))
        with Index.create(tmp_path / "index", embedder) as index:
            assert index.sync(folder, dry_run=True).added == 3
            assert index.header.metadata == {}
            report = index.sync(folder)
            assert (report.added, report.notes) == (3, [])
            assert index.header.metadata == {"year": "int64", "weight": "float64"}
            assert index.get([names[1]])[0].metadata == {"year": 2001, "weight": 0.5}
            assert index.sync(folder).unchanged == 3


@pytest.fixture
def index_without_a_word(tmp_path, codebooks):
    with Index.create(tmp_path / "without", codebooks) as made:
        yield made


def test_unknown_and_foreign_keys_are_not_updated(photo_index, tmp_path, write_pictures, picture):
    write_pictures(tmp_path / "p", {"a.png": 1})
    photo_index.sync(tmp_path / "p")
    photo_index.add(["mine"], images=[picture(2)])
    with pytest.raises(UnknownKeyError, match="'none' and 1 more") as caught:
        photo_index.update(["mine", "none", "nil"], labels=["x", "x", "x"])
    assert caught.value.keys == ["none", "nil"]
    with pytest.raises(DuplicateKeyError, match="belongs to source 'p'"):
        photo_index.update(["mine", "a.png"], labels=["x", "x"])
    assert photo_index.get(["mine"])[0].labels == ()


def test_the_latest_come_first(index, unit_rows):
    index.add(["a", "b", "c"], vectors=unit_rows(3), labels=["x", "y", "x"])
    index.add(["d"], vectors=unit_rows(1))
    index.update(["b"], labels=["x"])
    assert [item.key for item in index.latest()] == ["b", "d", "c", "a"]
    assert [item.key for item in index.latest(2, where="array_has(labels, 'x')")] == ["b", "c"]
    assert index.latest()[0].changed.utcoffset().total_seconds() == 0
    with pytest.raises(InputError, match="n is a whole number"):
        index.latest(0)


def test_the_footprint_says_what_is_taken(photo_index, picture):
    photo_index.add(["a"], images=[picture(1)], originals=[b"x" * 1000])
    taken = photo_index.footprint()
    assert (taken.items, taken.bytes_per_item, taken.bytes_originals) == (1, 3, 1000)
    assert taken.bytes_disk > taken.bytes_thumbnails > 0
    assert taken.bytes_memory == photo_index.searcher.memory_bytes


def test_an_index_without_the_columns_of_today_says_what_to_do(index):
    lance.dataset(str(index.folder / "items.lance")).drop_columns(["phash", "changed"])
    with Index.open(index.folder) as old, pytest.raises(FormatError, match="make it anew"):
        len(old)


def test_thumbnails_can_be_left_out(tmp_path, embedder, picture):
    with Index.create(tmp_path / "i", embedder, thumbnails=False) as index:
        index.add(["a"], images=[picture(1)])
        assert index.thumbnails([0, -1]) == {0: None}
        with pytest.raises(InputError, match="99"):
            index.thumbnails([99])
        assert index.search(images=[picture(1)]).thumbnails == [[None]]


def test_threads_share_commits_and_each_sees_its_own_item(index, unit_rows):
    rows = unit_rows(120)
    before = index.searcher.version

    def work(start):
        for i in range(start, 120, 12):
            assert len(index.add([f"k{i}"], vectors=rows[i : i + 1])) == 1
            assert index.get([f"k{i}"])[0] is not None

    threads = [threading.Thread(target=work, args=(start,)) for start in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index) == 120
    assert index.searcher.ids.tolist() == list(range(120))
    # 120 adds, each a reservation of ids and an upsert, would be 240 versions.
    assert index.searcher.version - before < 120


def test_opening_and_searching_leave_torch_unloaded(tmp_path, embedder, picture):
    with Index.create(tmp_path / "i", embedder, metadata_columns={"x": "int64"}) as index:
        index.add(["a", "b"], images=[picture(1), picture(2)], metadata=[{"x": 1}, {"x": 2}])
    code = (
        "import sys, numpy as np\n"
        "from spherequant import Index\n"
        "with Index.open(sys.argv[1]) as index:\n"
        "    index.search(vectors=np.ones((1, 16)), where='x > 1').items\n"
        "    index.search(keys=['a']).keys\n"
        "    index.add(['c'], vectors=np.ones((1, 16)))\n"
        "    index.get(['c']), index.remove(['c'])\n"
        "heavy = {'torch', 'timm', 'faiss', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "i")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_an_index_can_be_moved(index, unit_rows, tmp_path):
    index.add(["a"], vectors=unit_rows(1))
    index.folder.rename(tmp_path / "moved")
    with Index.open(tmp_path / "moved") as moved:
        assert moved.get(["a"])[0].id == 0
        assert moved.add(["b"], vectors=unit_rows(1)).tolist() == [1]


def test_embeddings_off_the_sphere_are_refused(tmp_path, embedder):
    embedder.normalised = False
    with pytest.raises(InputError, match=r"without normalising .* for `evaluate` only"):
        Index.create(tmp_path / "index", embedder)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["photos.model", np.eye(4), None])
def test_an_index_is_made_from_a_model(tmp_path, model):
    with pytest.raises(InputError, match="an index takes a model"):
        Index.create(tmp_path / "i", model)
    assert not (tmp_path / "i").exists()


def test_columns_are_named_by_a_mapping(tmp_path, codebooks):
    with pytest.raises(InputError, match="are a mapping"):
        Index.create(tmp_path / "i", codebooks, metadata_columns=["year"])


def test_tensors_are_vectors(index, unit_rows):
    rows = torch.from_numpy(unit_rows(3))
    index.add(["a", "b", "c"], vectors=rows.requires_grad_())
    found = index.search(vectors=rows.detach().bfloat16(), k=1)
    assert found.ids.shape == (3, 1)
    with pytest.raises(InputError, match="not a generator"):
        index.search(vectors=(row for row in unit_rows(3)))


def test_it_says_what_it_is(index):
    assert repr(index) == f"<Index: {index.folder}, {8 * index.header.n_codebooks} bits>"
