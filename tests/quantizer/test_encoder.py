from __future__ import annotations

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from spherequant import _native
from spherequant.errors import FormatError, InputError
from spherequant.quantizer import ClassTarget, Codebooks, Encoder, normalise_rows, storage
from spherequant.quantizer import encoder as encoder_module
from spherequant.quantizer.codebooks import (
    DEFAULT_BEAM,
    DEFAULT_ICM_ROUNDS,
    DEFAULT_ICM_STARTS,
)


def random_case(n, m, k, d, seed=0):
    rng = np.random.default_rng(seed)
    x = normalise_rows(rng.normal(size=(n, d)))
    return x, Codebooks(rng.normal(size=(m, k, d)) / (d * m) ** 0.5)


LEVELS = _native.encoding_levels()


def squared_error(codebooks, codes, x):
    return ((codebooks.decode(codes).astype(np.float64) - x) ** 2).sum(axis=1)


@pytest.mark.parametrize(
    ("n", "m", "k", "d", "effort"),
    [
        (5, 1, 1, 1, (1, 1, 1)),
        (9, 4, 256, 16, (8, 3, 1)),
        (9, 4, 256, 16, (20, 0, 1)),
        (9, 3, 17, 5, (16, 2, 16)),
        (9, 16, 4, 7, (5, 4, 3)),
        (70, 3, 16, 8, (1, 3, 4)),
        (9, 2, 256, 3, (1, 1, 1)),
        (5, 5, 33, 20, (300, 2, 200)),
        (5, 16, 1, 3, (4, 2, 4)),
        (9, 4, 65, 3, (60, 9, 20)),
        (9, 4, 256, 16, (16, 3, 16)),
        (30, 6, 32, 4, (16, 1, 8)),
    ],
)
def test_every_level_equals_the_reference_to_the_byte(n, m, k, d, effort, reference_encode):
    x, codebooks = random_case(n, m, k, d)
    expected = reference_encode(x, codebooks.array, *effort)
    codes = Encoder(codebooks, None, *effort).encode(x)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, expected)
    for level in LEVELS:
        tables = _native.EncodingTables(codebooks.array, 2, level)
        np.testing.assert_array_equal(tables.encode(x, *effort, 2), expected)


def test_levels_agree_on_many_rows():
    x, codebooks = random_case(1000, 4, 200, 24)
    codes = [
        _native.EncodingTables(codebooks.array, 2, level).encode(x, 6, 3, 4, 2) for level in LEVELS
    ]
    assert LEVELS[-1] == "portable"
    for others in codes:
        np.testing.assert_array_equal(others, codes[0])


def test_a_level_that_does_not_run_here_is_refused():
    with pytest.raises(ValueError, match="does not encode with mmx"):
        _native.EncodingTables(np.ones((1, 1, 1), np.float32), 1, "mmx")


@settings(deadline=None, max_examples=40)
@given(
    m=st.integers(1, 5),
    k=st.integers(1, 20),
    d=st.integers(1, 4),
    beam=st.integers(1, 90),
    rounds=st.integers(0, 3),
    starts=st.integers(1, 90),
    seed=st.integers(0, 1000),
)
def test_ties_fall_as_stated(m, k, d, beam, rounds, starts, seed, reference_encode):
    # Small integers: sums are exact and a great many costs are equal.
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, size=(3, d)).astype(np.float32)
    codebooks = Codebooks(rng.integers(-1, 2, size=(m, k, d)))
    codes = Encoder(codebooks, None, beam, rounds, starts).encode(x, threads=1)
    expected = reference_encode(x, codebooks.array, beam, rounds, starts)
    np.testing.assert_array_equal(codes, expected)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(0, 200),
    split=st.integers(0, 200),
    threads=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_a_code_depends_on_its_row_alone(n, split, threads, seed):
    x, codebooks = random_case(n, 3, 20, 6, seed)
    encoder = Encoder(codebooks)
    whole = encoder.encode(x, threads=threads)
    parts = np.concatenate([encoder.encode(x[:split]), encoder.encode(x[split:], threads=1)])
    np.testing.assert_array_equal(whole, parts)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_array_equal(encoder.encode(x[order]), whole[order])


def test_a_full_beam_finds_the_optimum():
    x, codebooks = random_case(40, 3, 5, 4)
    codes = Encoder(codebooks, beam=125, icm_rounds=0).encode(x)
    every = np.array(list(itertools.product(range(5), repeat=3)), np.uint8)
    decoded = codebooks.decode(every).astype(np.float64)
    best = ((x[:, None, :] - decoded[None]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(squared_error(codebooks, codes, x), best, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), m=st.integers(1, 8), beam=st.integers(1, 8))
def test_icm_never_raises_the_error(seed, m, beam):
    x, codebooks = random_case(20, m, 12, 5, seed)
    errors = [
        squared_error(codebooks, Encoder(codebooks, beam=beam, icm_rounds=r).encode(x), x)
        for r in range(4)
    ]
    for before, after in itertools.pairwise(errors):
        assert (after <= before + 1e-6).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), m=st.integers(1, 8), rounds=st.integers(0, 3))
def test_more_starts_never_raise_the_error(seed, m, rounds):
    x, codebooks = random_case(20, m, 12, 5, seed)
    errors = [
        squared_error(codebooks, Encoder(codebooks, None, 8, rounds, starts).encode(x), x)
        for starts in (1, 2, 5, 8)
    ]
    for before, after in itertools.pairwise(errors):
        assert (after <= before + 1e-6).all()


def test_several_starts_find_what_the_best_alone_does_not():
    x, codebooks = random_case(200, 6, 32, 12)
    one, several = (
        squared_error(codebooks, Encoder(codebooks, None, 16, 3, starts).encode(x), x)
        for starts in (1, 16)
    )
    assert several.mean() < 0.99 * one.mean()


def test_starts_beyond_the_beam_are_as_many_as_it_has():
    x, codebooks = random_case(50, 4, 32, 12)
    np.testing.assert_array_equal(
        Encoder(codebooks, None, 3, 2, 3).encode(x), Encoder(codebooks, None, 3, 2, 4096).encode(x)
    )


@pytest.mark.parametrize("m", range(1, 17))
def test_every_number_of_codebooks(m):
    x, codebooks = random_case(5, m, 256, 8)
    codes = Encoder(codebooks, beam=4).encode(x)
    assert codes.shape == (5, m)
    assert (squared_error(codebooks, codes, x) < 1).all()


@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 255, 256])
def test_no_codeword_beyond_the_last_is_chosen(k):
    # All codewords far away: a padded zero codeword would be nearest.
    codebooks = Codebooks(np.full((2, k, 3), 100.0))
    codes = Encoder(codebooks).encode(-np.ones((3, 3)))
    np.testing.assert_array_equal(codes, 0)


def test_one_codeword_that_is_the_row_is_chosen():
    x, codebooks = random_case(1, 1, 256, 10)
    array = codebooks.array.copy()
    array[0, 255] = x[0]
    assert Encoder(Codebooks(array)).encode(x)[0, 0] == 255


def test_costs_that_overflow_do_no_harm():
    codes = Encoder(Codebooks(np.full((3, 20, 4), 3e38)), beam=7).encode(np.ones((2, 4)))
    assert codes.shape == (2, 3)


def class_target(d, pull=1.0, multi_label=False):
    rng = np.random.default_rng(5)
    return ClassTarget(
        rng.normal(size=(4, d)),
        rng.normal(size=4),
        normalise_rows(rng.normal(size=(4, d))),
        pull,
        multi_label,
    )


def test_with_a_class_target_that_is_what_is_encoded():
    x, codebooks = random_case(30, 3, 16, 6)
    target = class_target(6)
    plain = Encoder(codebooks)
    np.testing.assert_array_equal(
        Encoder(codebooks, target).encode(x), plain.encode(target.target(x))
    )
    assert (Encoder(codebooks, target).encode(x) != plain.encode(x)).any()


def test_class_targets_are_made_for_some_rows_at_a_time(monkeypatch):
    x, codebooks = random_case(30, 3, 16, 6)
    encoder = Encoder(codebooks, class_target(6))
    whole, made = encoder.encode(x), []
    target = ClassTarget.target
    monkeypatch.setattr(encoder_module, "_TARGET_ROWS", 7)
    monkeypatch.setattr(
        ClassTarget, "target", lambda self, z, n: (made.append((len(z), n)), target(self, z, n))[1]
    )
    np.testing.assert_array_equal(encoder.encode(x, threads=1), whole)
    assert made == [(7, 1)] * 4 + [(2, 1)]
    assert encoder.encode(x[:0]).shape == (0, 3)


def test_shortened_it_encodes_anew_with_the_first_codebooks():
    x, codebooks = random_case(200, 4, 16, 8)
    longer = Encoder(codebooks, class_target(8), beam=5, icm_rounds=2, icm_starts=3)
    shorter = longer.shortened(2)
    assert (shorter.beam, shorter.icm_rounds, shorter.icm_starts) == (5, 2, 3)
    assert shorter.target is longer.target
    first = Codebooks(codebooks.array[:2])
    assert shorter.codebooks == first
    codes = shorter.encode(x)
    np.testing.assert_array_equal(codes, Encoder(first, longer.target, 5, 2, 3).encode(x))
    u, cut = longer.target.target(x), longer.encode(x)[:, :2]
    assert squared_error(first, codes, u).mean() < squared_error(first, cut, u).mean()
    assert longer.codebooks == codebooks


@pytest.mark.parametrize("n", [-1, 0, 3])
def test_it_keeps_at_least_one_codebook_and_adds_none(n):
    _, codebooks = random_case(1, 2, 4, 3)
    with pytest.raises(InputError, match="of 2 codebooks, 1 to 2 can be kept"):
        Encoder(codebooks).shortened(n)


@pytest.mark.parametrize(
    "target",
    [
        None,
        class_target(4, 2.5),
        class_target(4, 0.5, multi_label=True),
        dataclasses.replace(class_target(4), levelling=0.7),
        dataclasses.replace(class_target(4, 0.5, multi_label=True), reach=2.0),
    ],
)
def test_save_and_load(target, tmp_path):
    x, codebooks = random_case(30, 3, 16, 4)
    encoder = Encoder(codebooks, target, beam=5, icm_rounds=2, icm_starts=3)
    path = tmp_path / "codebooks.safetensors"
    encoder.save(path)
    for again in (Encoder.load(path), pickle.loads(pickle.dumps(encoder))):
        assert again.codebooks == codebooks
        assert again.target == target
        assert (again.beam, again.icm_rounds, again.icm_starts) == (5, 2, 3)
        np.testing.assert_array_equal(again.encode(x), encoder.encode(x))
    assert Codebooks.load(path) == codebooks
    first = path.read_bytes()
    Encoder.load(path).save(path)
    assert path.read_bytes() == first


def test_a_file_from_before_levelling_and_starts_has_none_and_one(tmp_path):
    _, codebooks = random_case(1, 2, 3, 4)
    encoder = Encoder(codebooks, class_target(4))
    encoder.save(tmp_path / "c")
    tensors, about = storage.read(tmp_path / "c")
    settings_of_its_day = {
        name: about[name] for name in ("beam", "icm_rounds", "pull", "sharpness", "multi_label")
    }
    storage.write(tmp_path / "c", tensors, settings_of_its_day)
    read = Encoder.load(tmp_path / "c")
    assert read.target == encoder.target
    assert read.icm_starts == 1


def test_a_file_that_pulls_towards_predicted_labels_is_refused(tmp_path):
    _, codebooks = random_case(1, 2, 3, 4)
    Encoder(codebooks, class_target(4, multi_label=True)).save(tmp_path / "c")
    tensors, about = storage.read(tmp_path / "c")
    assert about.pop("centre") == "expected"
    storage.write(tmp_path / "c", tensors, {k: about[k] for k in about if k != "schema_version"})
    with pytest.raises(FormatError, match="train the model again"):
        Encoder.load(tmp_path / "c")


def test_a_file_of_codebooks_alone_keeps_the_settings_of_its_day(tmp_path):
    _, codebooks = random_case(1, 2, 3, 4)
    codebooks.save(tmp_path / "c")
    encoder = Encoder.load(tmp_path / "c")
    assert (encoder.beam, encoder.icm_rounds) == (DEFAULT_BEAM, DEFAULT_ICM_ROUNDS)
    assert encoder.icm_starts == DEFAULT_ICM_STARTS
    assert encoder.target is None


@pytest.mark.parametrize(
    ("about", "tensors"),
    [
        ({"icm_rounds": 1}, {}),
        ({"beam": 0, "icm_rounds": 1}, {}),
        ({"beam": None, "icm_rounds": 1}, {}),
        ({"beam": 1, "icm_rounds": 1}, {"class_weight": np.ones((2, 4), np.float32)}),
    ],
)
def test_incomplete_files_are_refused(about, tensors, tmp_path):
    _, codebooks = random_case(1, 2, 3, 4)
    metadata = json.dumps({"kind": "codebooks", "schema_version": 1, **about})
    save_file(
        {"codebooks": codebooks.array, **tensors},
        tmp_path / "c",
        metadata={"spherequant": metadata},
    )
    with pytest.raises(FormatError, match="damaged"):
        Encoder.load(tmp_path / "c")


def test_what_cannot_be_encoded_is_refused():
    _, codebooks = random_case(1, 2, 3, 4)
    for beam in (0, 4097):
        with pytest.raises(InputError, match="beam must be 1 to 4096"):
            Encoder(codebooks, beam=beam)
    for rounds in (-1, 1001):
        with pytest.raises(InputError, match="icm_rounds must be 0 to 1000"):
            Encoder(codebooks, icm_rounds=rounds)
    for starts in (0, 4097):
        with pytest.raises(InputError, match="icm_starts must be 1 to 4096"):
            Encoder(codebooks, icm_starts=starts)
    with pytest.raises(InputError, match="class target has 5"):
        Encoder(codebooks, class_target(5))
    encoder = Encoder(codebooks)
    with pytest.raises(InputError, match="4 values"):
        encoder.encode(np.ones((1, 5)))
    with pytest.raises(InputError, match="row 1"):
        encoder.encode(np.array([[1, 1, 1, 1], [1, np.nan, 1, 1]]))
    with pytest.raises(InputError, match="threads"):
        encoder.encode(np.ones((1, 4)), threads=0)
    assert encoder.encode(np.ones((0, 4))).shape == (0, 2)
    assert "classes=0, beam=16" in repr(encoder)
