from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant import _native
from spherequant.errors import InputError
from spherequant.index import comparison, scan
from spherequant.quantizer import Codebooks

LEVELS = _native.levels()


def scores_of(codes, lut):
    """The definition: float32 sums in the order of the codebooks."""
    scores = lut[0][codes[:, 0]]
    for m in range(1, codes.shape[1]):
        scores = scores + lut[m][codes[:, m]]
    return scores


def brute_force(codes, lut, k, mask=None, exclude=-1, min_score=None):
    """The k best positions and their scores: every item scored, sorted by (-score, position)."""
    scores = scores_of(codes, lut)
    keep = np.ones(len(codes), bool) if mask is None else mask.copy()
    if 0 <= exclude < len(codes):
        keep[exclude] = False
    if min_score is not None:
        keep &= scores >= np.float32(min_score)
    positions = np.flatnonzero(keep)
    order = np.lexsort((positions, -scores[positions]))[:k]
    return scores[positions[order]], positions[order]


def assert_same(found, codes, lut_QMK, k, masks=None, exclude=None, min_score=None):
    scores, positions = found
    assert scores.dtype == np.float32
    assert positions.dtype == np.int64
    assert scores.shape == positions.shape == (len(lut_QMK), k)
    for q, lut in enumerate(lut_QMK):
        left_out = -1 if exclude is None else exclude[q]
        expected, where = brute_force(codes, lut, k, masks, left_out, min_score)
        n = len(where)
        assert positions[q, :n].tolist() == where.tolist()
        assert scores[q, :n].tobytes() == expected.tobytes()
        assert (positions[q, n:] == -1).all()
        assert np.isneginf(scores[q, n:]).all()


def books(m, k):
    return Codebooks(np.random.default_rng(1).normal(size=(m, k, 4)).astype(np.float32))


def layout_of(codes, n_codewords, bucketed, batch=1000):
    def batches():
        for start in range(0, len(codes), batch):
            yield codes[start : start + batch]

    codebooks = books(codes.shape[1], n_codewords)
    return scan.build_layout(batches, len(codes), codebooks, bucketed=bucketed)


def random_case(rng, n, m, n_codewords, levels, clusters):
    """Codes, some of them in clusters, and tables; few levels make ties everywhere."""
    codes = rng.integers(0, n_codewords, (n, m), np.uint8)
    if clusters and n:
        centres = rng.integers(0, n_codewords, (clusters, m), np.uint8)
        stay = rng.random((n, m)) < 0.8
        codes = np.where(stay, centres[rng.integers(0, clusters, n)], codes)
    lut = rng.normal(size=(3, m, n_codewords)).astype(np.float32)
    if levels:
        lut = np.round(lut * levels).astype(np.float32) / levels
    return codes, lut


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(0, 700),
    m=st.integers(1, 16),
    n_codewords=st.sampled_from([1, 2, 16, 100, 129, 256]),
    k=st.integers(1, 300),
    tie_levels=st.sampled_from([0, 1, 4]),
    clusters=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([None, 0.0, 0.01, 0.5, 1.0]),
    min_score=st.none() | st.integers(-4, 8).map(lambda x: x / 4),
    bucketed=st.booleans(),
    route=st.sampled_from(["auto", "flat", "buckets"]),
    threads=st.integers(1, 3),
    level=st.sampled_from(LEVELS),
)
def test_every_way_equals_the_definition(
    n,
    m,
    n_codewords,
    k,
    tie_levels,
    clusters,
    seed,
    share,
    min_score,
    bucketed,
    route,
    threads,
    level,
):
    rng = np.random.default_rng(seed)
    codes, lut = random_case(rng, n, m, n_codewords, tie_levels, clusters)
    layout = layout_of(codes, n_codewords, bucketed, batch=int(rng.integers(1, 300)))
    mask = None if share is None else rng.random(n) < share
    allowed = None if mask is None else scan.compile_filter(layout, mask)
    exclude = rng.integers(-1, max(n, 1), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(scan.LEVEL_VARIABLE, level)
        found = scan.top_k(
            [scan.Part(layout, allowed=allowed)],
            lut,
            k,
            exclude=exclude,
            min_score=min_score,
            threads=threads,
            route=route,
        )
    assert_same(found, codes, lut, k, mask, exclude, min_score)


def test_many_items_lie_in_buckets(monkeypatch):
    monkeypatch.setattr(scan, "BUCKETS_FROM", 100)
    rng = np.random.default_rng(0)
    for n, bucketed in ((99, False), (100, True)):
        codes = rng.integers(0, 16, (n, 3)).astype(np.uint8)
        layout = scan.build_layout(lambda codes=codes: [codes], n, books(3, 16))
        assert (layout.books is not None) is bucketed


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("m", [1, 2, 4, 8])
def test_many_items(level, bucketed, m, monkeypatch):
    # Enough for samples, chunks, doubling runs, and the choice between buckets and a flat scan.
    monkeypatch.setenv(scan.LEVEL_VARIABLE, level)
    rng = np.random.default_rng(m)
    n = 300_000
    codes, lut = random_case(rng, n, m, 256, 0, 50)
    codes = codes[np.lexsort(codes.T)] if m == 4 else codes  # as where items come class by class
    layout = layout_of(codes, 256, bucketed, batch=100_000)
    for threads, k in ((1, 10), (2, 10), (1, 1000)):
        found = scan.top_k([scan.Part(layout)], lut, k, threads=threads)
        assert_same(found, codes, lut, k)
    single = [scan.top_k([scan.Part(layout)], lut[q : q + 1], 10, threads=2) for q in range(3)]
    whole = scan.top_k([scan.Part(layout)], lut, 10)
    assert np.array_equal(np.concatenate([p for _, p in single]), whole[1])


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("m", [2, 4])
def test_parts_are_searched_as_one(bucketed, m):
    rng = np.random.default_rng(3)
    codes, lut = random_case(rng, 5000, m, 256, 2, 5)
    later = rng.random(5000) < 0.2  # ids of the parts interleave, as where items were updated
    parts = [
        scan.Part(layout_of(codes[part], 256, bucketed), np.flatnonzero(part))
        for part in (~later, later)
    ]
    exclude = np.array([-1, 4500, 7])
    assert_same(scan.top_k(parts, lut, 50, exclude=exclude), codes, lut, 50, exclude=exclude)
    mask = rng.random(5000) < 0.01
    few = [scan.Part(p.layout, p.ids, scan.compile_filter(p.layout, mask[p.ids])) for p in parts]
    assert_same(scan.top_k(few, lut, 50), codes, lut, 50, mask)


def test_threads_share_the_buckets_of_one_query():
    # Codes without structure: most buckets are visited, which is enough work for three threads.
    collection = comparison.make_collection(1_000_000, 64, clusters=0)
    codes = collection.codes_NM
    layout = scan.build_layout(lambda: [codes], len(codes), collection.codebooks, bucketed=True)
    lut_QMK = collection.codebooks.lookup_table(collection.queries_QD)
    mask = np.random.default_rng(0).random(len(codes)) < 0.7
    for allowed in (None, scan.compile_filter(layout, mask)):
        for q in range(4):
            part, lut = [scan.Part(layout, allowed=allowed)], lut_QMK[q : q + 1]
            one = scan.top_k(part, lut, 200, threads=1, route="buckets")
            several = scan.top_k(part, lut, 200, threads=3, route="buckets")
            assert one[0].tobytes() == several[0].tobytes()
            np.testing.assert_array_equal(one[1], several[1])


def test_a_few_queries_of_a_batch_that_buckets_do_not_suit():
    # 3 of these 64 are left for a flat scan at first, fewer than it was counted on for.
    collection = comparison.make_collection(200_000, 32, clusters=10)
    codes = collection.codes_NM
    layout = scan.build_layout(lambda: [codes], len(codes), collection.codebooks, bucketed=True)
    lut_QMK = collection.codebooks.lookup_table(collection.queries_QD)
    scores, positions = scan.top_k([scan.Part(layout)], lut_QMK, 10, threads=1)
    for route in ("flat", "buckets"):
        others = scan.top_k([scan.Part(layout)], lut_QMK, 10, threads=1, route=route)
        assert others[0].tobytes() == scores.tobytes()
        np.testing.assert_array_equal(others[1], positions)
    assert_same((scores[:4], positions[:4]), codes, lut_QMK[:4], 10)


def test_too_few_ids_are_refused():
    layout = layout_of(np.zeros((3, 2), np.uint8), 256, False)
    with pytest.raises(ValueError, match="too few ids"):
        scan.top_k([scan.Part(layout, np.arange(2))], np.zeros((1, 2, 256), np.float32), 1)


class TestBinding:
    """What Python's side never asks for ends in an error, not in the process."""

    @pytest.fixture
    def layout(self):
        return layout_of(np.zeros((3, 2), np.uint8), 4, bucketed=False)

    @staticmethod
    def search(layout, ids=None, k=1, queries=2):
        lut = np.zeros((queries, 2, 4), np.float32)
        return _native.search([layout], [ids], [None], lut, None, k, -1.0, 1, "auto", "float")

    @pytest.mark.parametrize("k", [2**63, 2**62 - 1, 2**60])
    def test_more_results_than_memory_has_room_for(self, layout, k):
        with pytest.raises(ValueError, match="no memory holds so many results"):
            self.search(layout, k=k)

    def test_no_layout(self):
        with pytest.raises(ValueError, match="a layout is missing"):
            self.search(None)

    @pytest.mark.parametrize("ids", [np.array([1.5, 2.5, 3.5]), np.arange(3, dtype=np.int32)])
    def test_ids_are_not_converted(self, layout, ids):
        with pytest.raises(TypeError):
            self.search(layout, ids)

    @pytest.mark.parametrize("verb", ["count", "place"])
    def test_codes_are_not_converted(self, verb):
        first = 0 if verb == "count" else -1
        builder = _native.LayoutBuilder(1, np.zeros((1, 1), np.uint8), first, 0)
        with pytest.raises(TypeError):
            getattr(builder, verb)(np.array([[300]]), *[1] * (verb == "place"))


def test_more_items_share_the_best_code_than_are_asked_for():
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 256, (20_000, 4), np.uint8)
    codes[rng.random(20_000) < 0.7] = [3, 1, 4, 1]
    lut = np.zeros((3, 4, 256), np.float32)
    lut[0, range(4), [3, 1, 4, 1]] = 1
    lut[1] = 0.25  # everything ties
    lut[2] = -1e-30
    for bucketed in (False, True):
        found = scan.top_k([scan.Part(layout_of(codes, 256, bucketed))], lut, 100)
        assert_same(found, codes, lut, 100)


@pytest.mark.parametrize("level", LEVELS)
def test_tables_of_extreme_values(level, monkeypatch):
    monkeypatch.setenv(scan.LEVEL_VARIABLE, level)
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (30_000, 3), np.uint8)
    lut = rng.normal(size=(6, 3, 256)).astype(np.float32)
    lut[0] *= 3e38 / np.abs(lut[0]).max()  # sums overflow
    lut[1] *= np.float32(1e-44)  # denormal
    lut[2, 0] += 1e6  # one codebook decides, the others are lost in rounding
    lut[3] = np.where(rng.random((3, 256)) < 0.5, 0.0, -0.0)
    lut[4, :, :] = -1
    lut[4, :, 7] = 1e30
    for bucketed in (False, True):
        layout = layout_of(codes, 256, bucketed)
        with np.errstate(over="ignore"):
            assert_same(scan.top_k([scan.Part(layout)], lut, 70), codes, lut, 70)


def test_the_order_of_the_sum_is_part_of_the_definition():
    lut = np.array([[[1e8], [-1e8], [1.0]]], np.float32)
    layout = layout_of(np.zeros((1, 3), np.uint8), 1, False)
    scores, _ = scan.top_k([scan.Part(layout)], lut, 1)
    assert scores[0, 0] == 1.0  # (1e8 - 1e8) + 1, not 1e8 + (-1e8 + 1)


def test_few_allowed_items_are_copied_and_many_are_not():
    codes = np.random.default_rng(0).integers(0, 256, (10_000, 4), np.uint8)
    layout = layout_of(codes, 256, True)
    few = scan.compile_filter(layout, np.arange(10_000) < 100)
    many = scan.compile_filter(layout, np.arange(10_000) < 5_000)
    assert few.slots is None
    assert len(few.layout) == 100
    assert few.memory_bytes < 5_000
    assert many.layout is layout
    assert many.memory_bytes == -(-10_000 // 64) * 8


def test_an_unknown_level_is_refused(monkeypatch):
    monkeypatch.setenv(scan.LEVEL_VARIABLE, "avx1024")
    with pytest.raises(InputError, match=r"avx1024.*portable"):
        scan.level()
    monkeypatch.setenv(scan.LEVEL_VARIABLE, "")
    assert scan.level() == LEVELS[0]


def test_a_code_that_names_no_codeword_is_refused():
    codes = np.array([[0, 9]], np.uint8)
    with pytest.raises(InputError, match="names no codeword"):
        layout_of(codes, 9, False)


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("total", [4, 6])
def test_another_number_of_codes_than_announced_is_refused(bucketed, total):
    codes = np.zeros((5, 2), np.uint8)
    with pytest.raises(InputError, match=r"announced|counted"):
        scan.build_layout(lambda: [codes], total, books(2, 256), bucketed=bucketed)


def test_codes_that_change_between_counting_and_placing_are_refused():
    versions = iter([[np.zeros((3, 2), np.uint8)], [np.ones((3, 2), np.uint8)]])
    with pytest.raises(InputError, match="counted"):
        scan.build_layout(lambda: next(versions), 3, books(2, 256), bucketed=True)


def test_lines_of_the_codebooks_of_buckets_come_last():
    codes = np.random.default_rng(0).integers(0, 64, (64, 5), np.uint8)  # too few to be renumbered
    layout = layout_of(codes, 64, bucketed=True)
    blocks, order, _ = layout.arrays()
    first, second = sorted(layout.books)
    lines = [*(set(range(5)) - {first, second}), first, second]
    assert lines != list(range(5))
    assert np.array_equal(blocks.reshape(5, 64), codes[order][:, lines].T)


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_codes_can_be_read_back(bucketed, m):
    codes = np.random.default_rng(0).integers(0, 256, (200, m), np.uint8)
    layout = layout_of(codes, 256, bucketed)
    assert np.array_equal(layout.codes(), codes)
    few = scan.compile_filter(layout, np.arange(200) < 2)
    with pytest.raises(ValueError, match="subset"):
        few.layout.codes()


def test_a_layout_is_taken_once():
    builder = _native.LayoutBuilder(1, np.zeros((2, 1), np.uint8), -1, -1)
    builder.place(np.zeros((1, 2), np.uint8), 1)
    builder.finish()
    for again in (builder.finish, lambda: builder.place(np.zeros((1, 2), np.uint8), 1)):
        with pytest.raises(ValueError, match="taken"):
            again()


def restored(arrays, n, m, books):
    numbers = np.tile(np.arange(16, dtype=np.uint8), (m, 1))
    image = _native.LayoutImage(n, numbers, *(books or (-1, -1)))
    for room, values in zip(image.arrays(), arrays, strict=True):
        room[:] = values
    return image.finish(2)


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 64, 200])
def test_a_layout_comes_back_from_its_arrays(bucketed, m, n):
    codes = np.random.default_rng(0).integers(0, 16, (n, m), np.uint8)
    layout = layout_of(codes, 16, bucketed)
    assert (layout.books is not None) == bucketed
    again = restored(layout.arrays(), n, m, layout.books)
    assert again.books == layout.books
    assert np.array_equal(again.codes(), codes)
    assert not any(array.flags.writeable for array in layout.arrays() if len(array))


def test_arrays_that_are_no_layout_are_refused():
    codes = np.random.default_rng(0).integers(0, 16, (200, 3), np.uint8)
    layout = layout_of(codes, 16, bucketed=True)
    crowded = int(np.argmax(np.diff(layout.arrays()[2].astype(np.int64))))
    first = int(layout.arrays()[2][crowded])
    lane = 64  # of three lines the first is of no bucket
    bad = {
        "no codeword": lambda blocks, *_: blocks.__setitem__(130, 16),
        "another bucket": lambda blocks, *_: blocks.__setitem__(lane, blocks[lane] ^ 1),
        "behind the last item": lambda blocks, *_: blocks.__setitem__(-1, 1),
        "a position twice": lambda _, order, __: order.__setitem__(0, order[50]),
        "past the end": lambda _, order, __: order.__setitem__(0, 200),
        "out of order": lambda _, order, __: order.__setitem__(
            slice(first, first + 2), order[first : first + 2][::-1].copy()
        ),
        "a start too far": lambda *arrays: arrays[2].__setitem__(-1, 201),
        "starts fall": lambda *arrays: arrays[2].__setitem__(1, 200),
        "not from 0": lambda *arrays: arrays[2].__setitem__(0, 1),
    }
    for spoil in bad.values():
        arrays = [array.copy() for array in layout.arrays()]
        spoil(*arrays)
        with pytest.raises(ValueError, match="no layout"):
            restored(arrays, 200, 3, layout.books)


@pytest.mark.parametrize("level", LEVELS)
def test_one_codeword_in_each_of_many_codebooks(level, monkeypatch):
    """One bucket, and its bound counts the codewords of both of its codebooks."""
    monkeypatch.setenv(scan.LEVEL_VARIABLE, level)
    lut = np.ones((1, 9, 1), np.float32)
    layout = layout_of(np.zeros((1, 9), np.uint8), 1, bucketed=True)
    scores, ids = scan.top_k([scan.Part(layout)], lut, 1, min_score=8.5)
    assert (scores.tolist(), ids.tolist()) == ([[9.0]], [[0]])
