from __future__ import annotations

import numpy as np
import pytest

from spherequant.evaluation import binary_baselines
from spherequant.evaluation.baselines import rank_baselines
from spherequant.evaluation.binary_baselines import (
    FACTOR_BITS,
    learn_itq,
    rabitq_ranker,
    sign_codes,
    sign_ranker,
)
from spherequant.evaluation.metrics import average_precision
from spherequant.evaluation.rankings import Relevance
from spherequant.quantizer import normalise_rows

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
pytestmark = pytest.mark.usefixtures("one_faiss_thread")

BITS, D, T, N, Q = 16, 24, 400, 300, 9


@pytest.fixture(scope="module")
def world():
    """Training vectors, database and queries around five centres away from the origin's mean."""
    generator = np.random.default_rng(0)
    centres = 1 + generator.normal(size=(5, D))
    return [
        normalise_rows(
            centres[generator.integers(0, 5, count)] + 0.5 * generator.normal(size=(count, D))
        )
        for count in (T, N, Q)
    ]


def itq_matrix(transform):
    """The learned projection, [BITS, D]: principal components, rotated."""
    return faiss.vector_to_array(transform.pca_then_itq.A).reshape(BITS, D).astype(np.float64)


def test_itq_codes_are_signs_of_the_rotated_centred_projection(world, monkeypatch):
    training, database, _ = world
    monkeypatch.setattr(binary_baselines, "CHUNK_ITEMS", 7)
    transform = learn_itq(faiss, training, BITS, 0)
    codes = sign_codes(transform, database)
    assert codes.shape == (N, BITS // 8)
    assert codes.dtype == np.uint8
    projected = (database - training.mean(axis=0, dtype=np.float64)) @ itq_matrix(transform).T
    assert np.abs(projected).min() > 1e-6  # no sign hangs on rounding
    for item in range(N):
        for bit in range(BITS):
            assert codes[item, bit // 8] >> (bit % 8) & 1 == (projected[item, bit] < 0)


def test_itq_rotates_within_the_first_principal_components(world):
    training, *_ = world
    matrix = itq_matrix(learn_itq(faiss, training, BITS, 0))
    assert np.allclose(matrix @ matrix.T, np.eye(BITS), atol=1e-5)
    centred = normalise_rows(training - training.mean(axis=0)).astype(np.float64)
    centred -= centred.mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    kept = matrix @ components[:BITS].T
    assert np.allclose(kept @ kept.T, np.eye(BITS), atol=1e-3)


def test_itq_scores_are_hamming_distances(world):
    training, database, queries = world
    ranker = sign_ranker(faiss, training, database, queries, BITS, 0, asymmetric=False)
    (scores,) = ranker.scores(slice(0, Q))
    transform = learn_itq(faiss, training, BITS, 0)
    item_codes, query_codes = sign_codes(transform, database), sign_codes(transform, queries)
    for query in range(Q):
        for item in range(N):
            different = query_codes[query] ^ item_codes[item]
            distance = int.from_bytes(different.tobytes(), "little").bit_count()
            assert scores[query, item] == BITS - 2 * distance


def test_asymmetric_itq_scores_are_products_with_signs(world):
    training, database, queries = world
    ranker = sign_ranker(faiss, training, database, queries, BITS, 0, asymmetric=True)
    (scores,) = ranker.scores(slice(2, Q))
    matrix, mean = itq_matrix(learn_itq(faiss, training, BITS, 0)), training.mean(axis=0)
    signs = np.sign((database - mean) @ matrix.T)
    # FAISS divides a centred vector by its norm; the order of items does not change
    centred = queries[2:] - mean
    projected = centred / np.linalg.norm(centred, axis=1)[:, None] @ matrix.T
    assert np.allclose(scores, projected @ signs.T, atol=1e-5)


def test_itq_average_precision_is_that_of_brute_force(world):
    training, database, queries = world
    generator = np.random.default_rng(1)
    labels = [(str(number),) for number in generator.integers(0, 3, N)]
    asked = [(str(number),) for number in generator.integers(0, 3, Q)]
    measured = rank_baselines(
        training, database, queries, Relevance(asked, labels), BITS, names=["itq"]
    )["itq"]
    transform = learn_itq(faiss, training, BITS, 0)
    index = faiss.IndexBinaryFlat(BITS)
    index.add(sign_codes(transform, database))
    distances, items = index.search(sign_codes(transform, queries), N)
    for query in range(Q):
        relevant = np.array([labels[item] == asked[query] for item in items[query]])
        expected = average_precision(-distances[query].astype(np.float32), relevant)
        assert measured.ap[query] == pytest.approx(expected)
    assert measured.tied.all()


@pytest.mark.parametrize("bits", [72, 80, 88, 96, 128])
def test_rabitq_items_take_exactly_the_bytes_of_the_code(world, bits):
    ranker = rabitq_ranker(faiss, *world, bits, 0)
    index = ranker._index
    assert index.d == bits - FACTOR_BITS
    assert index.code_size == bits // 8
    assert index.codes.size() == N * bits // 8


@pytest.mark.parametrize("bits", [80, 88, 128])  # fewer signs than D, as many, more
def test_rabitq_scores_are_the_estimate_of_the_paper(world, bits, monkeypatch):
    training, database, queries = world
    monkeypatch.setattr(binary_baselines, "CHUNK_ITEMS", 64)
    ranker = rabitq_ranker(faiss, *world, bits, 0)
    (scores,) = ranker.scores(slice(1, Q))
    dim = bits - FACTOR_BITS
    matrix = binary_baselines._sign_projection(faiss, training, dim, 0).astype(np.float64)
    centre = (training @ matrix.T).mean(axis=0)
    for row, query in enumerate(queries[1:] @ matrix.T):
        for item in range(0, N, 11):
            rest = matrix @ database[item] - centre  # o_r - c
            length = np.linalg.norm(rest)
            sign = np.where(rest > 0, 1, -1) / np.sqrt(dim)  # the code as a unit vector
            estimate = length * (sign @ (query - centre)) / (sign @ (rest / length))
            product = estimate + centre @ query + centre @ rest
            assert scores[row, item] == pytest.approx(product, abs=2e-5)


@pytest.mark.parametrize("dim_out", [16, D, 64])
def test_the_projection_of_rabitq_is_orthonormal(world, dim_out):
    matrix = binary_baselines._sign_projection(faiss, world[0], dim_out, 5)
    assert matrix.shape == (dim_out, D)
    gram = matrix @ matrix.T if dim_out < D else matrix.T @ matrix
    assert np.allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_rabitq_estimates_come_near_the_inner_product(world):
    ranker = rabitq_ranker(faiss, *world, 128, 0)
    (scores,) = ranker.scores(slice(0, Q))
    errors = scores - world[2] @ world[1].T
    assert np.abs(errors.mean()) < 0.01
    assert errors.std() < 0.1
