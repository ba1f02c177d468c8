from __future__ import annotations

import sys

import numpy as np
import pytest

from spherequant.errors import ConfigError, InputError, MissingDependencyError
from spherequant.evaluation.baselines import learn_baseline, rank_baselines
from spherequant.evaluation.rankings import Relevance
from spherequant.quantizer import normalise_rows

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")


@pytest.fixture(autouse=True)
def one_thread():
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # OpenMP threads that wait for each other cost most on busy cores
    yield
    faiss.omp_set_num_threads(threads)


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


def test_parts_that_do_not_divide_the_dimension_are_padded(vectors):
    codebooks, codes = learn_baseline("pq", vectors[:300], vectors[300:], 24)
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
    assert list(measured) == ["pq"]
    assert measured["pq"].ap.shape == (9,)
    assert ticks == [("pq", 9, 9)]


@pytest.mark.parametrize(("name", "bits"), [("opq", 16), ("pq", 12), ("pq", 0)])
def test_unknown_baselines_are_refused(vectors, name, bits):
    with pytest.raises(ConfigError, match="multiple of 8"):
        learn_baseline(name, vectors, vectors, bits)


def test_too_few_vectors_are_refused(vectors):
    with pytest.raises(InputError, match="at least 256"):
        learn_baseline("pq", vectors[:255], vectors, 16)


def test_without_faiss_the_error_names_its_cure(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spherequant\[faiss\]'"):
        learn_baseline("pq", vectors, vectors, 16)
