from __future__ import annotations

import numpy as np
import pytest

from spherequant import _native
from spherequant.errors import LabelError
from spherequant.evaluation import rankings
from spherequant.evaluation.metrics import average_precision, precision_at
from spherequant.evaluation.rankings import (
    ClassRanker,
    CodeRanker,
    FloatRanker,
    HammingRanker,
    PredictedSets,
    Relevance,
    distinct_rows,
    rank_queries,
    reconstruction_norms,
)
from spherequant.quantizer import Codebooks, normalise_rows
from spherequant.quantizer.signs import pack_signs

N, Q, D = 300, 17, 8


@pytest.fixture
def world():
    generator = np.random.default_rng(0)
    codebooks = Codebooks(generator.normal(0, 0.4, (3, 4, D)).astype(np.float32))
    codes = generator.integers(0, 4, (N, 3)).astype(np.uint8)
    queries = normalise_rows(generator.normal(size=(Q, D)))
    database = normalise_rows(generator.normal(size=(N, D)))
    labels = [(f"c{number}",) for number in generator.integers(0, 4, N)]
    query_labels = [(f"c{number}",) for number in generator.integers(0, 4, Q)]
    return codebooks, codes, queries, database, Relevance(query_labels, labels)


def relevant_matrix(relevance):
    matrix = np.zeros((len(relevance), relevance.database_count), dtype=bool)
    for query in range(len(relevance)):
        matrix[query, relevance.positions(query)] = True
    return matrix


def test_scores_of_codes_are_the_definition_to_the_bit(world):
    codebooks, codes, queries, *_ = world
    tables = codebooks.lookup_table(queries)
    scores = next(CodeRanker(codebooks, codes, queries).scores(slice(0, Q)))
    for query in range(Q):
        for item in range(0, N, 13):
            total = tables[query, 0, codes[item, 0]]
            for m in range(1, 3):
                total = np.float32(total + tables[query, m, codes[item, m]])
            assert scores[query, item] == total


def test_codes_that_name_no_codeword_are_refused(world):
    codebooks, codes, queries, *_ = world
    tables = codebooks.lookup_table(queries)
    with pytest.raises(ValueError, match="names no codeword"):
        _native.sum_tables(tables, np.full_like(codes, 4))
    with pytest.raises(ValueError, match="another number of codebooks"):
        _native.sum_tables(tables, np.ascontiguousarray(codes[:, :2]))


def test_cosine_and_euclidean_rank_by_angle_and_distance(world):
    codebooks, codes, queries, *_ = world
    reconstructions = codebooks.decode(codes).astype(np.float64)
    _, cosine, euclidean = CodeRanker(codebooks, codes, queries).scores(slice(0, Q))
    angles = queries @ (reconstructions / np.linalg.norm(reconstructions, axis=1)[:, None]).T
    assert np.allclose(cosine, angles, atol=1e-6)
    distances = ((queries[:, None] - reconstructions[None]) ** 2).sum(axis=2)
    assert np.allclose(1 - euclidean, distances, atol=1e-5)


def test_a_reconstruction_at_the_origin_scores_0_by_cosine():
    codebooks = Codebooks(np.array([[[0, 0], [1, 0]]], dtype=np.float32))
    codes = np.array([[0], [1]], dtype=np.uint8)
    query = np.array([[1, 0]], dtype=np.float32)
    _, cosine, _ = CodeRanker(codebooks, codes, query).scores(slice(0, 1))
    assert cosine.tolist() == [[0, 1]]


def test_measured_figures_are_those_of_the_metrics(world):
    codebooks, codes, queries, _, relevance = world
    ranker = CodeRanker(codebooks, codes, queries)
    ranks = np.array([1, 5, 20])
    for at in (None, 10):
        measured = rank_queries(ranker, relevance, at=at, ranks=ranks)
        assert list(measured) == ["codes", "cosine", "euclidean"]
        matrix = relevant_matrix(relevance)
        for name, scores in zip(measured, ranker.scores(slice(0, Q)), strict=True):
            found = measured[name]
            assert np.array_equal(found.ap, average_precision(scores, matrix, at))
            aware = average_precision(scores, matrix, at, "recall-aware")
            assert np.array_equal(found.ap_recall_aware, aware)
            assert np.allclose(found.hits / ranks, precision_at(scores, matrix, [1, 5, 20]))
            assert found.tied.all()  # 300 items, 64 codes


def test_figures_do_not_depend_on_blocks_or_threads(world, monkeypatch):
    _, _, queries, database, relevance = world
    ticks = []
    wide = rank_queries(FloatRanker(database, queries), relevance, at=None, ranks=np.array([3]))
    monkeypatch.setattr(rankings, "BLOCK_BYTES", 4 * N * 2)
    monkeypatch.setattr(rankings, "CHUNK_ITEMS", 31)
    narrow = rank_queries(
        FloatRanker(database, queries),
        relevance,
        at=None,
        ranks=np.array([3]),
        threads=3,
        tick=lambda done, total: ticks.append((done, total)),
    )
    assert np.array_equal(wide["float"].ap, narrow["float"].ap)
    assert np.array_equal(wide["float"].hits, narrow["float"].hits)
    assert ticks[0] == (2, Q)
    assert ticks[-1] == (Q, Q)
    assert not wide["float"].tied.any()


def test_float_control_ranks_by_inner_product(world):
    _, _, queries, database, _ = world
    scores = next(FloatRanker(database, queries).scores(slice(2, 5)))
    assert np.allclose(scores, queries[2:5] @ database.T, atol=1e-6)


def test_class_controls_of_one_label_each():
    centres = np.eye(3, dtype=np.float32)
    database = np.eye(3, dtype=bool)[[0, 1, 2, 1]]
    queries = normalise_rows(np.array([[3.0, 2.0, 1.0], [0.0, 1.0, 5.0]]))
    ranker = ClassRanker(
        PredictedSets.gather([np.eye(3, dtype=bool)[[0, 2]]], 3),
        PredictedSets.gather([database[:1], database[1:]], 3),
        centres,
        queries,
    )
    class_id, class_centre = ranker.scores(slice(0, 2))
    assert class_id.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert np.allclose(class_centre, queries[:, [0, 1, 2, 1]])


def test_class_controls_of_several_labels():
    centres = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    database = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], dtype=bool)
    query = np.array([[0.6, 0.8]], dtype=np.float32)
    ranker = ClassRanker(
        PredictedSets.gather([np.array([[1, 1, 0]], dtype=bool)], 3),
        PredictedSets.gather([database], 3),
        centres,
        query,
    )
    class_id, class_centre = ranker.scores(slice(0, 1))
    assert class_id.tolist() == [[2, 1, 1]]
    # the third item's centres cancel: the first of them stands alone
    assert np.allclose(class_centre, [[1.4 / np.sqrt(2), 0.6, 0.6]])


def test_predicted_sets_restore_every_row():
    generator = np.random.default_rng(3)
    rows = generator.random((200, 11)) < 0.2
    gathered = PredictedSets.gather([rows[:50], rows[50:51], rows[51:]], 11)
    sets = gathered.sets.toarray()
    assert np.array_equal(sets[gathered.of_item], rows)
    assert len({row.tobytes() for row in sets}) == len(sets)
    empty = PredictedSets.gather([], 11)
    assert (empty.sets.shape, empty.of_item.shape) == ((0, 11), (0,))


def test_class_controls_hold_no_square_of_the_classes():
    """A dense set of each class would be a thousand times as large."""
    count = 4_000
    labels = np.arange(count)

    def blocks():
        for number in labels:
            yield labels[None] == number

    predicted = PredictedSets.gather(blocks(), count)
    held = predicted.sets.data.nbytes + predicted.sets.indices.nbytes + predicted.sets.indptr.nbytes
    assert held < count * count / 100
    queries = normalise_rows(np.random.default_rng(0).normal(size=(2, 4)))
    centres = normalise_rows(np.random.default_rng(1).normal(size=(count, 4)))
    own = PredictedSets.gather([labels[None] == np.array([[5], [7]])], count)
    class_id, near = ClassRanker(own, predicted, centres, queries).scores(slice(0, 2))
    assert class_id.argmax(axis=1).tolist() == [5, 7]
    assert class_id.sum() == 2
    assert np.allclose(near, queries @ centres.T, atol=1e-6)


def test_relevance_is_a_shared_label():
    relevance = Relevance(
        [("a",), ("a", "b"), ("z",), ("b", "a")], [("a",), ("b", "c"), (), ("b", "a")]
    )
    assert relevance.positions(0).tolist() == [0, 3]
    assert relevance.positions(1).tolist() == [0, 1, 3]
    assert relevance.positions(2).tolist() == []
    assert relevance.counts().tolist() == [2, 3, 0, 3]


@pytest.mark.parametrize("n_codebooks", [1, 4, 8, 11])
def test_distinct_codes_and_norms(n_codebooks):
    generator = np.random.default_rng(n_codebooks)
    codebooks = Codebooks(generator.normal(size=(n_codebooks, 3, 5)).astype(np.float32))
    codes = generator.integers(0, 3, (60, n_codebooks)).astype(np.uint8)
    codes = np.concatenate([codes, codes[:20]])
    distinct, code_of = distinct_rows(codes)
    assert np.array_equal(distinct[code_of], codes)
    assert len({row.tobytes() for row in codes}) == len(distinct)
    norms = reconstruction_norms(codebooks, codes)
    assert np.allclose(norms, np.linalg.norm(codebooks.decode(codes), axis=1), atol=1e-6)
    assert np.array_equal(norms[:20], norms[60:])


def test_nothing_to_rank_is_an_error(world):
    *_, queries, database, _ = world
    with pytest.raises(LabelError, match="nothing to rank"):
        rank_queries(
            FloatRanker(database, queries), Relevance([], [("a",)]), at=None, ranks=np.array([1])
        )


def test_off_the_sphere_codes_and_floats_rank_by_distance(world):
    codebooks, codes, queries, database, _ = world
    queries, database = 3 * queries, np.linspace(0.5, 2, N, dtype=np.float32)[:, None] * database
    reconstructions = codebooks.decode(codes).astype(np.float64)
    ranker = CodeRanker(codebooks, codes, queries, normalised=False)
    assert ranker.names == ("codes", "cosine", "inner_product")
    by_distance, cosine, products = ranker.scores(slice(0, Q))
    squared = ((queries[:, None] - reconstructions[None]) ** 2).sum(axis=2)
    assert np.allclose(9 - by_distance, squared, atol=1e-4)
    assert np.allclose(products, queries @ reconstructions.T, atol=1e-5)
    lengths = np.linalg.norm(reconstructions, axis=1)
    assert np.allclose(cosine, products / lengths, atol=1e-5)
    (alone,) = CodeRanker(codebooks, codes, queries, every_measure=False, normalised=False).scores(
        slice(0, Q)
    )
    assert np.array_equal(alone, by_distance)
    (floats,) = FloatRanker(database, queries, normalised=False).scores(slice(0, Q))
    apart = ((queries[:, None] - database[None]) ** 2).sum(axis=2)
    assert np.allclose(9 - floats, apart, atol=1e-4)


def test_off_the_sphere_a_class_centre_is_a_mean():
    centres = np.array([[2, 0], [0, 0.5]], dtype=np.float32)
    queries = np.array([[0, 3]], dtype=np.float32)
    predicted = PredictedSets.gather([np.eye(2, dtype=bool)[[0, 1, 1]]], 2)
    own = PredictedSets.gather([np.eye(2, dtype=bool)[[1]]], 2)
    ranker = ClassRanker(own, predicted, centres, queries, normalised=False)
    class_id, near = ranker.scores(slice(0, 1))
    assert class_id.tolist() == [[0, 1, 1]]
    assert np.allclose(9 - near, [[13, 6.25, 6.25]])


def test_hamming_scores_are_bits_less_twice_the_distance():
    generator = np.random.default_rng(3)
    signs, query_signs = (generator.choice([-1.0, 1.0], (n, 24)) for n in (N, Q))
    ranker = HammingRanker(pack_signs(signs), pack_signs(query_signs))
    assert ranker.names == ("hamming",)
    (scores,) = ranker.scores(slice(0, Q))
    distances = (signs[None] != query_signs[:, None]).sum(axis=2)
    assert np.array_equal(scores, 24 - 2 * distances)
