from __future__ import annotations

import numpy as np
import pytest

from spherequant.errors import InputError, SpherequantError
from spherequant.index import comparison


@pytest.mark.parametrize("bits", [8, 16, 24, 64])
def test_faiss_gets_the_same_codes_and_finds_the_same(bits):
    pytest.importorskip("faiss", reason="compares with FAISS")
    collection = comparison.make_collection(3000, bits)
    flat = comparison.Ours(collection, bucketed=False)
    peer = comparison.faiss_pq(collection)
    comparison.check_same(flat, peer, collection, 20)
    assert np.array_equal(
        flat(collection.queries_QD, 20),
        comparison.Ours(collection, bucketed=True)(collection.queries_QD, 20),
    )


def test_fast_scan_answers():
    pytest.importorskip("faiss", reason="compares with FAISS")
    collection = comparison.make_collection(3000, 32)
    found = comparison.faiss_fast_scan(collection)(collection.queries_QD[:3], 5)
    assert found.shape == (3, 5)
    assert ((found >= 0) & (found < 3000)).all()


def test_clusters_share_codewords():
    uniform = comparison.make_collection(2000, 32).codes_NM
    clustered = comparison.make_collection(2000, 32, clusters=3).codes_NM
    assert len(np.unique(uniform[:, 0])) == 256
    counts = np.bincount(clustered[:, 0], minlength=256)
    assert np.sort(counts)[-3:].sum() > 1400


def test_two_searches_that_differ_are_noticed():
    collection = comparison.make_collection(500, 16)
    search = comparison.Ours(collection, bucketed=False)
    with pytest.raises(SpherequantError, match="other scores"):
        comparison.check_same(search, lambda q, k: search(-q, k), collection, 10)


def test_bits_that_cannot_be_had():
    with pytest.raises(InputError, match="multiple of 8"):
        comparison.make_collection(10, 12)


def test_ratios_are_taken_repetition_by_repetition():
    peer = comparison.Timing("peer", 1, (4.0, 9.0, 2.0))
    mine = comparison.Timing("ours", 1, (2.0, 3.0, 2.0))
    assert comparison.ratio(peer, mine) == (2.0, 1.0, 3.0)


def test_every_engine_is_timed_as_often():
    collection = comparison.make_collection(200, 8)
    search = comparison.Ours(collection, bucketed=False)
    timings = comparison.time_searches({"a": search, "b": search}, collection, 5, 3)
    assert [(t.engine, t.batch, len(t.milliseconds)) for t in timings] == [
        ("a", 1, 3), ("a", 64, 3), ("b", 1, 3), ("b", 64, 3),
    ]  # fmt: skip
