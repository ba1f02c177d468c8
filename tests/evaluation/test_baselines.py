from __future__ import annotations

import sys

import numpy as np
import pytest

from spherequant.errors import ConfigError, InputError, MissingDependencyError
from spherequant.evaluation import baselines
from spherequant.evaluation.baselines import (
    BASELINES,
    CODEBOOK_BASELINES,
    check_baseline,
    learn_baseline,
    rank_baselines,
)
from spherequant.evaluation.rankings import CodeRanker, Relevance, rank_queries
from spherequant.quantizer import normalise_rows

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
pytestmark = pytest.mark.usefixtures("one_faiss_thread")


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    centres = normalise_rows(generator.normal(size=(5, 10)))
    return normalise_rows(
        centres[generator.integers(0, 5, 700)] + 0.2 * generator.normal(size=(700, 10))
    )


def test_product_codebooks_decode_as_faiss_does(vectors):
    codebooks, codes = learn_baseline("pq", vectors[:400], vectors[400:], 16, seed=3)
    quantizer = faiss.ProductQuantizer(10, 2, 8)
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = 3, 1
    quantizer.train(vectors[:400])
    assert codebooks.bits == 16
    assert np.array_equal(codes, quantizer.compute_codes(vectors[400:]))
    assert np.array_equal(codebooks.decode(codes), quantizer.decode(codes))


@pytest.mark.parametrize("name", ["pq", "opq"])
def test_parts_that_do_not_divide_the_dimension_are_padded(vectors, name):
    codebooks, codes = learn_baseline(name, vectors[:300], vectors[300:], 24)
    assert codebooks.array.shape == (3, 256, 10)
    errors = ((codebooks.decode(codes) - vectors[300:]) ** 2).sum(axis=1)
    assert errors.mean() < 0.1


def test_residual_codebooks_decode_as_faiss_does(vectors):
    codebooks, codes = learn_baseline("rq", vectors[:300], vectors[300:340], 8, seed=3)
    quantizer = faiss.ResidualQuantizer(10, 1, 8)
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = 3, 1
    quantizer.train(vectors[:300])
    decoded = quantizer.decode(quantizer.compute_codes(vectors[300:340]))
    assert np.allclose(codebooks.decode(codes), decoded, atol=1e-6)


def test_local_search_codebooks_reconstruct(vectors):
    codebooks, codes = learn_baseline("lsq", vectors[:300], vectors[:50], 8)
    errors = ((codebooks.decode(codes) - vectors[:50]) ** 2).sum(axis=1)
    spread = ((vectors[:50] - vectors[:50].mean(axis=0)) ** 2).sum(axis=1)
    assert errors.mean() < spread.mean() / 4


def test_rotated_codebooks_decode_as_faiss_does(vectors):
    codebooks, codes = learn_baseline("opq", vectors[:400], vectors[400:], 16, seed=3)
    rotation, start = faiss.OPQMatrix(10, 2), faiss.RandomRotationMatrix(10, 10)
    start.init(3)
    faiss.copy_array_to_vector(faiss.vector_to_array(start.A), rotation.A)
    inner, outer = faiss.ProductQuantizer(10, 2, 8), faiss.ProductQuantizer(10, 2, 8)
    for quantizer in (inner, outer):
        quantizer.cp.seed, quantizer.cp.min_points_per_centroid = 3, 1
    rotation.pq = inner
    rotation.train(vectors[:400])
    outer.train(rotation.apply(vectors[:400]))
    assert np.array_equal(codes, outer.compute_codes(rotation.apply(vectors[400:])))
    decoded = rotation.reverse_transform(outer.decode(codes))
    assert np.allclose(codebooks.decode(codes), decoded, atol=1e-5)


def test_a_rotation_helps_where_parts_depend_on_each_other():
    generator = np.random.default_rng(0)
    spread = np.array([4, 4, 1, 1, 0.1, 0.1, 0.1, 0.1])
    data = (generator.normal(size=(2000, 8)) * spread).astype(np.float32)

    def error(name):
        codebooks, codes = learn_baseline(name, data, data[:500], 16)
        return ((codebooks.decode(codes) - data[:500]) ** 2).sum(axis=1).mean()

    assert error("opq") < 0.8 * error("pq")


def test_rank_baselines_gives_average_precisions_of_each_query(vectors):
    labels = [(str(number),) for number in np.arange(300) % 5]
    relevance = Relevance(labels[:9], labels)
    ticks = []
    measured = rank_baselines(
        vectors[:300],
        vectors[:300],
        vectors[:9],
        relevance,
        8,
        names=["pq"],
        tick=lambda *values: ticks.append(values),
    )
    assert list(measured) == ["pq", "pq_cosine", "pq_euclidean"]
    assert measured["pq"].ap.shape == (9,)
    assert ticks == [("pq", 9, 9)]
    codebooks, codes = learn_baseline("pq", vectors[:300], vectors[:300], 8)
    expected = rank_queries(
        CodeRanker(codebooks, codes, vectors[:9]), relevance, at=None, ranks=np.array([1])
    )
    for name, score in [("pq", "codes"), ("pq_cosine", "cosine"), ("pq_euclidean", "euclidean")]:
        assert np.array_equal(measured[name].ap, expected[score].ap)


def test_of_many_training_vectors_some_are_drawn(vectors, monkeypatch):
    monkeypatch.setattr(baselines, "MOST_TRAINING", 300)
    drawn, _ = learn_baseline("pq", vectors, vectors[:10], 8, seed=1)
    rows = np.sort(np.random.default_rng(1).choice(len(vectors), 300, replace=False))
    given, _ = learn_baseline("pq", vectors[rows], vectors[:10], 8, seed=1)
    assert np.array_equal(drawn.array, given.array)


@pytest.mark.parametrize("name", BASELINES)
def test_equal_seeds_rank_alike(name):
    generator = np.random.default_rng(0)
    vectors = normalise_rows(generator.normal(size=(300, 96)))
    labels = [(str(number),) for number in np.arange(300) % 5]
    relevance = Relevance(labels[:9], labels)

    bits = 8 if name in CODEBOOK_BASELINES else 72 if name == "rabitq" else 16

    def rank(seed):
        measured = rank_baselines(
            vectors, vectors, vectors[:9], relevance, bits, names=[name], seed=seed
        )
        return measured[name].ap

    assert np.array_equal(rank(1), rank(1))
    assert not np.array_equal(rank(1), rank(2))


@pytest.mark.parametrize(("name", "bits"), [("sq", 16), ("pq", 12), ("pq", 0), ("itq", 9)])
def test_unknown_baselines_are_refused(vectors, name, bits):
    with pytest.raises(ConfigError, match="multiple of 8"):
        learn_baseline(name, vectors, vectors, bits)


@pytest.mark.parametrize(
    ("name", "bits", "dim", "count", "error", "message"),
    [
        ("itq", 24, 16, 300, ConfigError, "16 dimensions give at most 16 bits, not 24"),
        ("itq_asymmetric", 24, 16, 300, ConfigError, "at most 16 bits"),
        ("rabitq", 64, 16, 300, ConfigError, "no room for signs, those of 72 or more have"),
        ("itq", 16, 16, 15, InputError, "at least 16 of them to learn 16 principal components"),
        ("rabitq", 96, 64, 31, InputError, "at least 32 of them"),
        ("opq", 16, 16, 255, InputError, "at least 256 of them to learn 256 codewords a codebook"),
    ],
)
def test_lengths_that_a_baseline_cannot_have_are_refused(name, bits, dim, count, error, message):
    with pytest.raises(error, match=message):
        check_baseline(name, bits, dim, count)


def test_what_each_baseline_can_just_learn_passes():
    for name, bits, dim, count in [("itq", 16, 16, 16), ("rabitq", 72, 4, 8), ("lsq", 8, 4, 256)]:
        check_baseline(name, bits, dim, count)


def test_binary_codes_have_no_codebooks_of_the_embeddings(vectors):
    with pytest.raises(ConfigError, match="'itq' has no codebooks"):
        learn_baseline("itq", vectors, vectors, 8)


def test_a_faiss_without_rabitq_is_told_apart(monkeypatch):
    monkeypatch.delattr(faiss, "IndexRaBitQ")
    with pytest.raises(ConfigError, match="has no RaBitQ: upgrade"):
        check_baseline("rabitq", 128, 64, 300)


def test_too_few_vectors_are_refused(vectors):
    with pytest.raises(InputError, match="at least 256"):
        learn_baseline("pq", vectors[:255], vectors, 16)


def test_without_faiss_the_error_names_its_cure(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spherequant\[faiss\]'"):
        learn_baseline("pq", vectors, vectors, 16)
