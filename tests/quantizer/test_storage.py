from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from spherequant.errors import FormatError
from spherequant.quantizer import storage

TENSORS = {"codebooks": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "codebooks.safetensors"
    storage.write(path, TENSORS, {"beam": 4, "zone": "x", "icm_rounds": 1})
    return path


def test_round_trip(path):
    tensors, about = storage.read(path)
    assert list(tensors) == ["codebooks"]
    np.testing.assert_array_equal(tensors["codebooks"], TENSORS["codebooks"])
    assert about == {
        "kind": "codebooks",
        "schema_version": 1,
        "beam": 4,
        "zone": "x",
        "icm_rounds": 1,
    }


def test_missing(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        storage.read(tmp_path / "nothing")
    with pytest.raises(FormatError, match="cannot be read"):
        storage.read(tmp_path)


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            storage.read(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused_never_worse(path, position, value):
    whole = bytearray(path.read_bytes())
    damaged = whole.copy()
    damaged[position % len(whole)] = value
    path.write_bytes(damaged)
    try:
        tensors, _ = storage.read(path)
    except FormatError:
        pass
    else:
        assert all(np.isfinite(t).all() for t in tensors.values())
    finally:
        path.write_bytes(whole)


def test_what_others_wrote_is_refused(path):
    save_file(TENSORS, path)
    with pytest.raises(FormatError, match="not written by spherequant"):
        storage.read(path)
    save_file(TENSORS, path, metadata={"spherequant": "{"})
    with pytest.raises(FormatError, match="not written by spherequant"):
        storage.read(path)
    save_file(TENSORS, path, metadata={"spherequant": "[]"})
    with pytest.raises(FormatError, match="not written by spherequant"):
        storage.read(path)
    about = json.dumps({"kind": "weights", "schema_version": 1})
    save_file(TENSORS, path, metadata={"spherequant": about})
    with pytest.raises(FormatError, match="does not hold codebooks"):
        storage.read(path)


def test_a_newer_schema_is_refused(path):
    about = json.dumps({"kind": "codebooks", "schema_version": 3})
    save_file(TENSORS, path, metadata={"spherequant": about})
    with pytest.raises(FormatError, match="install a newer spherequant"):
        storage.read(path)


@pytest.mark.parametrize(
    "tensor", [np.zeros((2, 3)), np.zeros((0, 3), np.float32), np.zeros(3, np.int32)]
)
def test_implausible_tensors_are_refused(path, tensor):
    about = json.dumps({"kind": "codebooks", "schema_version": 1})
    save_file({"codebooks": tensor}, path, metadata={"spherequant": about})
    with pytest.raises(FormatError, match="which no codebooks file holds"):
        storage.read(path)


def test_sizes_are_bounded_before_anything_is_allocated(path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_VALUES", 23)
    with pytest.raises(FormatError, match="which no codebooks file holds"):
        storage.read(path)


def test_values_that_are_not_finite_are_refused(path):
    storage.write(path, {"codebooks": np.full((1, 1, 1), np.nan, np.float32)}, {})
    with pytest.raises(FormatError, match="not finite"):
        storage.read(path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(_descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write(path, TENSORS, {})
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1
