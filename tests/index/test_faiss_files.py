from __future__ import annotations

import numpy as np
import pytest

from spherequant.errors import FormatError, SpherequantError
from spherequant.index import Index
from spherequant.index.faiss_files import KINDS, read_faiss, write_faiss
from spherequant.quantizer import Codebooks

faiss = pytest.importorskip("faiss", reason="the export needs the extra 'faiss'")


def case(m, k, d, n):
    rng = np.random.default_rng(m)
    codebooks = Codebooks(rng.normal(size=(m, k, d)).astype(np.float32))
    codes = rng.integers(0, k, (n, m), np.uint8)
    ids = np.sort(rng.choice(10 * n, n, replace=False)).astype(np.int64)
    return codebooks, ids, codes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "k", "d"), [(1, 256, 8), (2, 16, 5), (4, 256, 64), (8, 256, 32)])
def test_faiss_finds_what_we_find(kind, m, k, d, tmp_path):
    codebooks, ids, codes = case(m, k, d, 3000)
    write_faiss(tmp_path / "x.faiss", codebooks, ids, codes, kind)
    index = faiss.read_index(str(tmp_path / "x.faiss"))
    queries = np.random.default_rng(9).normal(size=(7, d)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores, found = index.search(queries, 20)
    with Index.create(tmp_path / "index", codebooks) as ours:
        ours.add([str(i) for i in range(3000)], codes=codes)
        result = ours.search(vectors=queries, k=20)
    np.testing.assert_allclose(scores, result.scores, atol=1e-5)
    lut = codebooks.lookup_table(queries)
    by_id = np.empty((7, ids.max() + 1), np.float32)
    for q in range(7):
        by_id[q, ids] = sum(lut[q, j][codes[:, j]] for j in range(m))
    for q in range(7):
        mine, theirs = ids[result.ids[q]], found[q]
        for a, b in zip(mine, theirs, strict=True):  # another order only among scores that tie
            assert a == b or abs(by_id[q, a] - by_id[q, b]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_our_exports_are_read_back(kind, tmp_path):
    codebooks, ids, codes = case(3, 256, 6, 100)
    write_faiss(tmp_path / "x.faiss", codebooks, ids, codes, kind)
    books, back_ids, back_codes = read_faiss(tmp_path / "x.faiss")
    assert books == codebooks
    assert np.array_equal(back_ids, ids)
    assert np.array_equal(back_codes, codes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index(kind, tmp_path):
    codebooks, ids, codes = case(2, 256, 4, 1)
    write_faiss(tmp_path / "x.faiss", codebooks, ids[:0], codes[:0], kind)
    assert faiss.read_index(str(tmp_path / "x.faiss")).ntotal == 0
    assert read_faiss(tmp_path / "x.faiss")[2].shape == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_exports_itself(kind, tmp_path):
    codebooks, _, codes = case(4, 256, 8, 50)
    with Index.create(tmp_path / "index", codebooks) as index:
        index.add([f"k{i}" for i in range(50)], codes=codes)
        index.remove(["k7"])
        index.export_faiss(tmp_path / "x.faiss", kind)
    _, ids, back = read_faiss(tmp_path / "x.faiss")
    kept = [i for i in range(50) if i != 7]
    assert ids.tolist() == kept
    assert np.array_equal(back, codes[kept])


def test_what_is_no_export_of_ours_is_refused(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_faiss(tmp_path / "nothing.faiss")
    (tmp_path / "text").write_text("no index")
    with pytest.raises(FormatError, match="cannot be read"):
        read_faiss(tmp_path / "text")
    faiss.write_index(faiss.IndexFlatIP(4), str(tmp_path / "flat"))
    with pytest.raises(FormatError, match="not one that spherequant exported"):
        read_faiss(tmp_path / "flat")
    faiss.write_index(faiss.IndexIDMap(faiss.IndexFlatIP(4)), str(tmp_path / "mapped"))
    with pytest.raises(FormatError, match="not one that spherequant exported"):
        read_faiss(tmp_path / "mapped")


def made_by_faiss(name):
    """An index of FAISS's own with ten vectors, near to what is exported."""
    quantizers = faiss.AdditiveQuantizer
    index = {
        "norms": lambda: faiss.IndexResidualQuantizer(
            8, 4, 8, faiss.METRIC_INNER_PRODUCT, quantizers.ST_norm_float
        ),
        "distance": lambda: faiss.IndexResidualQuantizer(
            8, 4, 8, faiss.METRIC_L2, quantizers.ST_LUT_nonorm
        ),
        "rotated": lambda: faiss.index_factory(8, "PCA8,PQ1x8", faiss.METRIC_INNER_PRODUCT),
        "flat": lambda: faiss.index_factory(8, "PCA4,Flat", faiss.METRIC_INNER_PRODUCT),
    }[name]()
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    index.train(vectors)
    mapped = faiss.IndexIDMap(index)
    mapped.add_with_ids(vectors[:10], np.arange(10))
    return mapped


@pytest.mark.parametrize("name", ["norms", "distance", "rotated", "flat"])
def test_what_faiss_makes_itself_is_refused(name, tmp_path):
    faiss.write_index(made_by_faiss(name), str(tmp_path / "x.faiss"))
    with pytest.raises(FormatError, match="not one that spherequant exported"):
        read_faiss(tmp_path / "x.faiss")


def test_a_file_that_cannot_be_written(tmp_path):
    codebooks, ids, codes = case(1, 256, 4, 3)
    with pytest.raises(SpherequantError, match="cannot write"):
        write_faiss(tmp_path / "no" / "x.faiss", codebooks, ids, codes)
    assert list(tmp_path.iterdir()) == []
