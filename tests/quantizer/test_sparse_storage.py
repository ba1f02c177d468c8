from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spherequant.errors import FormatError
from spherequant.quantizer import Codebooks, Encoder, sparse_storage, storage


def sparse_array(shape, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < share, rng.normal(size=shape), 0).astype(np.float32)


def test_sparse_codebooks_are_stored_sparsely(tmp_path):
    codebooks = Codebooks(sparse_array((3, 16, 64)))
    path = tmp_path / "codebooks.safetensors"
    codebooks.save(path)
    tensors, about = storage.read(path)
    assert {name: (str(t.dtype), t.shape) for name, t in tensors.items()} == {
        "codebook_values": ("float32", (codebooks.nnz,)),
        "codebook_dims": ("uint16", (codebooks.nnz,)),
        "codebook_starts": ("uint32", (49,)),
        "codebook_shape": ("uint32", (3,)),
    }
    assert about["schema_version"] == 2
    assert path.stat().st_size < codebooks.array.nbytes / 2
    assert Codebooks.load(path).array.tobytes() == codebooks.array.tobytes()
    assert Encoder.load(path).codebooks == codebooks
    first = path.read_bytes()
    Encoder(codebooks).save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("array", [np.ones((2, 4, 8)), np.zeros((2, 4, 8))])
def test_other_codebooks_are_stored_as_before(tmp_path, array):
    path = tmp_path / "codebooks.safetensors"
    Codebooks(array).save(path)
    tensors, about = storage.read(path)
    assert list(tensors) == ["codebooks"]
    assert about["schema_version"] == 1


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)),
    st.floats(0, 0.7),
    st.integers(0, 99),
)
def test_every_value_comes_back_to_the_bit(shape, share, seed):
    array = sparse_array(shape, share, seed)
    array.flat[0] = -0.0
    again = sparse_storage.from_tensors(sparse_storage.to_tensors(array))
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape


def test_many_dimensions_are_numbered_in_32_bits():
    array = sparse_array((1, 2, 70_000), 0.01)
    tensors = sparse_storage.to_tensors(array)
    assert tensors["codebook_dims"].dtype == np.uint32
    assert sparse_storage.from_tensors(tensors).tobytes() == array.tobytes()


def damaged(**changes):
    tensors = sparse_storage.to_tensors(sparse_array((2, 4, 16)))
    for name, change in changes.items():
        value = tensors[f"codebook_{name}"].copy()
        tensors[f"codebook_{name}"] = change(value)
    return tensors


def put(position, value):
    def change(array):
        array[position] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": lambda s: s[:2]}, "implausible shape"),
        ({"shape": put(2, 2**32 - 1)}, "implausible shape"),
        ({"shape": put(0, 0)}, "implausible shape"),
        ({"shape": put(1, 5)}, "do not fit"),
        ({"starts": put(0, 1)}, "do not fit"),
        ({"starts": put(-1, 0)}, "do not fit"),
        ({"starts": put(3, 2**32 - 1)}, "do not fit"),
        ({"starts": lambda s: s[:-1]}, "do not fit"),
        ({"starts": lambda s: s[0].reshape(())}, "do not fit"),
        ({"dims": put(0, 16)}, "do not fit"),
        ({"dims": lambda d: d[:-1]}, "do not fit"),
        ({"dims": lambda d: d[::-1].copy()}, "ascending"),
        ({"dims": put(slice(None), 3)}, "ascending"),
        ({"values": lambda v: v[:, None]}, "do not fit"),
    ],
)
def test_damage_is_refused(tmp_path, changes, message):
    path = tmp_path / "codebooks.safetensors"
    storage.write(path, damaged(**changes), {})
    with pytest.raises(FormatError, match=rf"codebooks\.safetensors.*{message}"):
        Codebooks.load(path)


def test_a_missing_part_is_named(tmp_path):
    tensors = damaged()
    del tensors["codebook_dims"]
    storage.write(tmp_path / "codebooks.safetensors", tensors, {})
    with pytest.raises(FormatError, match="lack the tensor 'codebook_dims'"):
        Codebooks.load(tmp_path / "codebooks.safetensors")


def test_parts_of_another_type_are_refused(tmp_path):
    path = tmp_path / "codebooks.safetensors"
    storage.write(path, damaged(dims=lambda d: d.astype(np.float32)), {})
    with pytest.raises(FormatError, match="which no codebooks file holds"):
        Codebooks.load(path)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_damaged_byte_is_refused_or_read_as_codebooks(tmp_path, position, value):
    path = tmp_path / "codebooks.safetensors"
    Codebooks(sparse_array((2, 4, 16))).save(path)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(FormatError):
        assert Codebooks.load(path).array.ndim == 3
