from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from spherequant.errors import InputError, LabelError
from spherequant.quantizer import Encoder, SphericalQuantizer, normalise_rows, spherical
from spherequant.quantizer.spherical import _blended, _centres


def test_estimator_conventions(clustered):
    x, y = clustered(100)
    quantizer = SphericalQuantizer(2, 8, random_state=0)
    assert quantizer.get_params() == {
        "n_codebooks": 2,
        "n_codewords": 8,
        "sparsity": None,
        "random_state": 0,
    }
    assert clone(quantizer).set_params(n_codebooks=3).n_codebooks == 3
    assert not hasattr(quantizer, "codebooks_")
    for use in (quantizer.encode, quantizer.decode):
        with pytest.raises(NotFittedError, match="call fit first"):
            use(x)
    assert quantizer.fit(x, y) is quantizer
    assert quantizer.n_features_in_ == 16
    assert quantizer.codebooks_.array.shape == (2, 8, 16)
    assert "n_codebooks=2" in repr(quantizer)


@parametrize_with_checks(
    [
        SphericalQuantizer(2, 8, random_state=0),
        SphericalQuantizer(2, 8, sparsity="S1", random_state=0),
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    if check.func.__name__ == "check_estimators_dtypes":
        pytest.skip("its data hold a row of zeros, which has no direction")
    check(estimator)


def test_codes_there_and_back(clustered):
    x, _ = clustered(800)
    quantizer = SphericalQuantizer(3, 16, random_state=0).fit(x)
    codes = quantizer.encode(7 * x.astype(np.float64))  # rows are normalised
    assert codes.shape == (800, 3)
    assert codes.dtype == np.uint8
    assert ((quantizer.decode(codes) - x) ** 2).sum(axis=1).mean() < 0.1
    np.testing.assert_array_equal(quantizer.encode(x[5:6]), codes[5:6])


def test_random_state(clustered):
    x, _ = clustered(200)
    first = SphericalQuantizer(2, 8, random_state=1).fit(x)
    assert first.codebooks_ == SphericalQuantizer(2, 8, random_state=1).fit(x).codebooks_
    assert first.codebooks_ != SphericalQuantizer(2, 8, random_state=2).fit(x).codebooks_
    state = np.random.RandomState(1)
    assert SphericalQuantizer(2, 8, random_state=state).fit(x).codebooks_ == first.codebooks_


def test_labels_pull_the_codebooks_to_the_class_centres(clustered):
    x, y = clustered(1500)
    centres = normalise_rows(np.stack([x[y == c].mean(axis=0) for c in range(8)]))

    def distance(quantizer):
        decoded = quantizer.decode(quantizer.encode(x))
        return float(((decoded - centres[y]) ** 2).sum(axis=1).mean())

    plain = SphericalQuantizer(2, 16, random_state=0).fit(x)
    supervised = SphericalQuantizer(2, 16, random_state=0).fit(x, y)
    assert distance(supervised) < 0.8 * distance(plain)


@pytest.mark.parametrize(
    "kind", ["strings", "objects", "floats", "column", "multi-hot", "booleans"]
)
def test_labels_of_any_type_mean_the_same(kind, clustered):
    x, y = clustered(200)
    hot = np.eye(8, dtype=int)[y]
    labels = {
        "strings": np.array(list("abcdefgh"))[y],
        "objects": np.array(list("abcdefgh"), dtype=object)[y],
        "floats": y * 0.5,
        "column": y[:, None],
        "multi-hot": hot,
        "booleans": hot.astype(bool),
    }[kind]
    expected = SphericalQuantizer(2, 8, random_state=0).fit(x, y).codebooks_
    assert SphericalQuantizer(2, 8, random_state=0).fit(x, labels).codebooks_ == expected


def test_a_column_of_two_classes_is_not_one_class_that_some_have(clustered):
    x, y = clustered(200)
    halves = (y > 3).astype(int)
    expected = SphericalQuantizer(2, 8, random_state=0).fit(x, halves).codebooks_
    assert SphericalQuantizer(2, 8, random_state=0).fit(x, halves[:, None]).codebooks_ == expected


@pytest.mark.parametrize("several", [False, True])
def test_rows_are_blended_some_at_a_time(several, clustered, monkeypatch):
    x, y = clustered(50)
    labels = np.eye(8, dtype=bool)[y] | (np.eye(8, dtype=bool)[(y + 1) % 8] & several)
    whole = _blended(x, _centres(x, labels), 1.0)
    monkeypatch.setattr(spherical, "_BLOCK_ROWS", 7)
    np.testing.assert_allclose(_blended(x, _centres(x, labels), 1.0), whole, atol=1e-7)


def test_multi_hot_blends_towards_the_mean_of_the_centres():
    z = normalise_rows([[1, 0, 0], [0, 1, 0], [0.9, 0.9, 0.1], [0, 0, 1], [0, 0, -1]])
    hot = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
    u = _blended(z, _centres(z, hot), 1.0)
    first = normalise_rows([z[0] + z[2]])[0]
    second = normalise_rows([z[1] + z[2]])[0]
    both = normalise_rows([first + second])[0]
    np.testing.assert_allclose(u[0], (z[0] + first) / 2, atol=1e-6)
    np.testing.assert_allclose(u[2], (z[2] + both) / 2, atol=1e-6)
    np.testing.assert_array_equal(u[3], z[3])  # no label
    # A class whose members cancel has no centre: they stay.
    opposite = np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    np.testing.assert_array_equal(
        _blended(opposite, _centres(opposite, np.ones((2, 1))), 1.0), opposite
    )


def test_more_codewords_than_rows(clustered):
    x, y = clustered(30)
    quantizer = SphericalQuantizer(random_state=0).fit(x, y)
    assert quantizer.encode(x).shape == (30, 4)
    assert SphericalQuantizer(1, 2).fit(x[:1]).encode(x).shape == (30, 1)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(9), "for 10 rows"),
        (np.zeros((10, 2, 2)), "for 10 rows"),
        (np.full(10, np.nan), "NaN"),
        (np.array([1, "a"] * 5, dtype=object), "one type"),
        (np.full((10, 2), 2), "multi-hot"),
        (np.full((10, 2), "a"), "multi-hot"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, message, clustered):
    with pytest.raises(LabelError, match=message):
        SphericalQuantizer(1, 2).fit(clustered(10)[0], y)


def test_rows_without_direction_are_refused(clustered):
    x, _ = clustered(10)
    quantizer = SphericalQuantizer(1, 2).fit(x)
    for bad in (0.0, np.nan, np.inf):
        broken = x.copy()
        broken[4] = bad
        with pytest.raises(InputError, match="X: row 4"):
            SphericalQuantizer(1, 2).fit(broken)
        with pytest.raises(InputError, match="X: row 4"):
            quantizer.encode(broken)
    with pytest.raises(InputError, match="X has 5 features"):
        quantizer.encode(x[:, :5])
    with pytest.raises(InputError, match="0 sample"):
        SphericalQuantizer(1, 2).fit(x[:0])


def test_sparse_codebooks(clustered):
    x, y = clustered(800)
    quantizer = SphericalQuantizer(3, 16, sparsity="S1", random_state=0).fit(x, y)
    assert quantizer.codebooks_.nnz == 16 * 16
    assert ((quantizer.decode(quantizer.encode(x)) - x) ** 2).sum(axis=1).mean() < 0.4
    with pytest.raises(InputError, match="1 to 768 nonzeros"):
        SphericalQuantizer(3, 16, sparsity=0).fit(x)
    one_class = SphericalQuantizer(2, 8, sparsity=20, random_state=0).fit(x[:50], np.zeros(50))
    assert one_class.codebooks_.nnz <= 20


def test_as_many_classes_as_rows_take_no_more_memory():
    x = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)
    tracemalloc.start()
    _centres(normalise_rows(x), np.arange(4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * x.nbytes  # a matrix of rows and classes has 16 MB, 125 times as much


def test_it_ends_a_pipeline(clustered):
    x, _ = clustered(100)
    pipe = make_pipeline(PCA(6), SphericalQuantizer(2, 8, random_state=0)).fit(x)
    codes = pipe.transform(x)
    quantizer = pipe[-1]
    np.testing.assert_array_equal(codes, quantizer.encode(pipe[0].transform(x)))
    np.testing.assert_array_equal(quantizer.inverse_transform(codes), quantizer.decode(codes))
    again = SphericalQuantizer(2, 8, random_state=0)
    np.testing.assert_array_equal(again.fit_transform(x), again.encode(x))


def test_tables_are_made_once(clustered, monkeypatch):
    x, _ = clustered(100)
    made = []

    def counted(*arguments):
        made.append(1)
        return Encoder(*arguments)

    monkeypatch.setattr(spherical, "Encoder", counted)
    quantizer = SphericalQuantizer(2, 8, random_state=0).fit(x)
    first = quantizer.encode(x)
    np.testing.assert_array_equal(quantizer.encode(x), first)
    assert len(made) == 1
    other = clone(quantizer).fit(x[::-1])
    quantizer.codebooks_ = other.codebooks_
    np.testing.assert_array_equal(quantizer.encode(x), other.encode(x))
