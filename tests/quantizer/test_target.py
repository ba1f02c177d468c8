from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from spherequant.errors import InputError
from spherequant.quantizer import ClassTarget, normalise_rows
from spherequant.quantizer import target as target_module
from spherequant.quantizer.target import SHARPNESS

EYE = np.eye(3, dtype=np.float32)


def three_classes(multi_label: bool, pull: float = 1.0, scale: float = 1.0) -> ClassTarget:
    return ClassTarget(EYE * scale, np.zeros(3, np.float32), EYE, pull, multi_label)


def test_single_label_is_the_largest_logit_lowest_of_equal():
    target = ClassTarget(EYE, np.array([0, 0, 0.5]), EYE[[2, 0, 1]], 1.0, multi_label=False)
    z = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.7], [0.6, 0.6, 0.0]], np.float32)
    predicted = target.predict(z)
    np.testing.assert_array_equal(predicted.argmax(axis=1), [0, 1, 2, 0])
    np.testing.assert_array_equal(predicted.sum(axis=1), 1)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("sharpness", [SHARPNESS, 0.35, 2.0])
def test_the_centre_is_the_expected_one(sharpness, multi_label):
    centres = normalise_rows([[1, 0.2, 0], [0, 1, 0.1], [0.3, 0, 1]])
    bias = np.array([0.1, 0, -0.2])
    target = ClassTarget(EYE * 2, bias, centres, 1.0, multi_label, sharpness=sharpness)
    z = normalise_rows([[1, 0.1, 0.2], [0.1, -0.3, 0.9], [0.5, 0.5, 0.4]])
    mass = np.exp(sharpness * (z.astype(float) @ (EYE * 2) + bias))
    p = mass / mass.sum(axis=1, keepdims=True)
    expected = normalise_rows(p @ centres) if multi_label else p @ centres
    np.testing.assert_allclose(target.centre(z), expected, atol=1e-5)
    sure = ClassTarget(EYE * 50, bias, centres, 1.0, multi_label)
    np.testing.assert_allclose(sure.centre(z[:2]), centres[[0, 2]], atol=1e-7)


def test_probabilities_are_whole_steps():
    z = normalise_rows(np.random.default_rng(0).normal(size=(200, 3)))
    steps = three_classes(multi_label=False).centre(z).astype(np.float64) * 2**20
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert len(np.unique(steps)) > 300


def test_codes_do_not_depend_on_the_processors_exponential():
    """NumPy has others for other processors: here the plain one beside the one in use."""
    code = (
        "import hashlib, numpy as np\n"
        "from spherequant.quantizer import ClassTarget, Codebooks, Encoder, normalise_rows\n"
        "random = np.random.default_rng(0)\n"
        "centres = normalise_rows(random.normal(size=(50, 16)))\n"
        "target = ClassTarget(8 * centres, np.zeros(50), centres, 4.0, False, sharpness=0.7)\n"
        "encoder = Encoder(Codebooks(random.normal(size=(4, 64, 16)) / 4), target)\n"
        "z = normalise_rows(random.normal(size=(5_000, 16)))\n"
        "print(hashlib.sha256(target.centre(z).tobytes()).hexdigest())\n"
        "print(hashlib.sha256(encoder.encode(z).tobytes()).hexdigest())\n"
    )
    features = [*np.show_config(mode="dicts")["SIMD Extensions"]["found"]]
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(off)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for off in ([], features)
    }
    assert len(printed) == 1


def test_an_unsure_prediction_points_less_far():
    target = three_classes(multi_label=False, scale=20)
    lengths = np.linalg.norm(target.centre(normalise_rows([[1, 0, 0], [1, 0.9, 0]])), axis=1)
    assert lengths[0] == 1
    assert lengths[1] < 0.95


def test_multi_label_takes_what_is_above_half_of_the_best():
    target = three_classes(multi_label=True)
    near, far = 1 - math.log(2) + 1e-3, 1 - math.log(2) - 1e-3
    predicted = target.predict(np.array([[1, near, far], [far, 1, -1]], np.float32))
    np.testing.assert_array_equal(predicted, [[True, True, False], [False, True, False]])


def test_multi_label_takes_what_is_within_its_reach():
    target = dataclasses.replace(three_classes(multi_label=True), reach=1.5)
    predicted = target.predict(np.array([[1, -0.4, -0.6], [1, 1, 1]], np.float32))
    np.testing.assert_array_equal(predicted, [[True, True, False], [True, True, True]])
    with pytest.raises(InputError, match="reach"):
        dataclasses.replace(target, reach=-1.0)
    codes = [dataclasses.replace(target, reach=reach).target(EYE) for reach in (0.0, 9.0)]
    np.testing.assert_array_equal(*codes)


def test_several_sure_labels_have_the_centre_of_given_ones():
    centres = normalise_rows([[1, 0.2, 0], [0, 1, 0.1], [0.3, 0, 1]])
    target = ClassTarget(EYE * 50, np.zeros(3), centres, 1.0, multi_label=True)
    z = np.array([[0.8, 0.8, -0.5], [-1, -1, 1]], np.float32)
    expected = normalise_rows([centres[0] + centres[1], centres[2]])
    np.testing.assert_allclose(target.centre(z), expected, atol=1e-6)


def test_centres_that_cancel_leave_the_best():
    centres = np.array([[0, 0, 1], [1, 0, 0], [-1, 0, 0]])
    target = ClassTarget(EYE * 50, np.zeros(3), centres, 1.0, multi_label=True)
    np.testing.assert_array_equal(
        target.centre(np.array([[-1, 0.7, 0.7]], np.float32)), [[1, 0, 0]]
    )


def test_target_is_the_blend():
    z = normalise_rows([[1, 0.1, 0.2], [0.1, -0.3, 0.9]])
    target = three_classes(multi_label=False, pull=3.0, scale=50)
    np.testing.assert_allclose(target.target(z), (z + 3 * EYE[[0, 2]]) / 4, atol=1e-7)
    still = three_classes(multi_label=False, pull=0.0)
    assert still.target(z).tobytes() == z.tobytes()


@pytest.mark.parametrize("levelling", [0.0, 0.25, 0.7, 1.0])
def test_levelling_divides_by_a_power_of_the_length(levelling):
    z = normalise_rows([[1, 0.1, 0.2], [1, 0.9, 0.8], [0.1, -0.3, 0.9]])
    plain = three_classes(multi_label=False, pull=3.0, scale=4)
    u = plain.target(z)
    lengths = np.linalg.norm(u, axis=1)
    assert lengths[1] < 0.9 * lengths[0]  # unsure
    found = dataclasses.replace(plain, levelling=levelling).target(z)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, u / lengths[:, None] ** levelling, rtol=1e-6)


def test_levelling_leaves_plain_vectors_and_zeros_alone():
    z = normalise_rows([[1, 0.1, 0.2], [0.1, -0.3, 0.9]])
    still = dataclasses.replace(three_classes(multi_label=False, pull=0.0), levelling=1.0)
    assert still.target(z).tobytes() == z.tobytes()
    opposite = ClassTarget(EYE[:1], [0], -EYE[:1], 1.0, multi_label=False, levelling=1.0)
    np.testing.assert_array_equal(opposite.target(EYE[:1]), [[0, 0, 0]])


@pytest.mark.parametrize(("multi_label", "levelling"), [(False, 0.0), (True, 0.0), (False, 0.7)])
def test_each_row_stands_alone(multi_label, levelling):
    rng = np.random.default_rng(0)
    target = ClassTarget(
        rng.normal(size=(11, 9)),
        rng.normal(size=11),
        normalise_rows(rng.normal(size=(11, 9))),
        1.5,
        multi_label,
        levelling=levelling,
    )
    z = normalise_rows(rng.normal(size=(70, 9)))
    whole = target.target(z)
    rows = np.concatenate([target.target(z[i : i + 1]) for i in range(70)])
    assert whole.tobytes() == rows.tobytes()


def test_it_is_a_value():
    first, second = three_classes(multi_label=True), three_classes(multi_label=True)
    assert first == second
    assert first != three_classes(multi_label=False)
    assert first != three_classes(multi_label=True, scale=2)
    assert first != dataclasses.replace(first, levelling=0.5)
    assert first != 3
    assert (first.n_classes, first.dim) == (3, 3)
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)
    with pytest.raises(ValueError, match="read-only"):
        first.centres_CD[0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weight_CD": np.ones((0, 3)), "bias_C": [], "centres_CD": np.ones((0, 3))},
            "at least one class",
        ),
        ({"centres_CD": EYE[:2]}, "3 weights and 2 centres"),
        ({"centres_CD": np.ones((3, 2))}, "3 values"),
        ({"bias_C": np.zeros(2)}, "biases must have 3 values"),
        ({"bias_C": np.array([0, np.nan, 0])}, "biases"),
        ({"pull": -1.0}, "pull"),
        ({"pull": math.nan}, "pull"),
        ({"pull": math.inf}, "pull"),
        ({"sharpness": 0.0}, "sharpness"),
        ({"levelling": -0.1}, "levelling"),
        ({"levelling": 1.1}, "levelling"),
        ({"levelling": math.nan}, "levelling"),
    ],
)
def test_impossible_targets_are_refused(change, message):
    arguments = {
        "weight_CD": EYE,
        "bias_C": np.zeros(3),
        "centres_CD": EYE,
        "pull": 1.0,
        "multi_label": False,
    }
    with pytest.raises(InputError, match=message):
        ClassTarget(**{**arguments, **change})


def test_blocks_of_rows_change_nothing_and_bound_memory(monkeypatch):
    rng = np.random.default_rng(0)
    centres = normalise_rows(rng.normal(size=(500, 4)))
    target = ClassTarget(5 * centres, np.zeros(500), centres, 2.0, multi_label=False)
    z = normalise_rows(rng.normal(size=(9000, 4)))
    tracemalloc.start()
    whole = target.target(z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9000 * 500 * 4  # what the probabilities of all rows take
    monkeypatch.setattr(target_module, "_BLOCK_ROWS", 7)
    assert target.target(z).tobytes() == whole.tobytes()


def test_a_class_without_a_centre_is_refused():
    with pytest.raises(InputError, match="centre of class 1 is zero"):
        ClassTarget(EYE, np.zeros(3), EYE * [[1], [0], [1]], 1.0, multi_label=False)
