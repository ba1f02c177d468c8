from __future__ import annotations

import pickle

import numpy as np
import pytest

from spherequant.errors import FormatError, InputError
from spherequant.quantizer import Codebooks


@pytest.fixture
def codebooks() -> Codebooks:
    return Codebooks(np.random.default_rng(0).normal(size=(3, 5, 4)))


def test_shape_and_size(codebooks):
    assert (codebooks.n_codebooks, codebooks.n_codewords, codebooks.dim) == (3, 5, 4)
    assert codebooks.code_size == 3
    assert codebooks.bits == 9  # five codewords take three bits to number
    assert Codebooks(np.zeros((4, 256, 2))).bits == 32
    assert Codebooks(np.zeros((4, 1, 2))).bits == 0
    assert codebooks.array.dtype == np.float32
    assert repr(codebooks) == "Codebooks(n_codebooks=3, n_codewords=5, dim=4)"


def test_it_is_a_value(codebooks):
    source = codebooks.array.copy()
    again = Codebooks(source)
    source[:] = 0
    assert again == codebooks
    assert hash(again) == hash(codebooks)
    assert again != Codebooks(source)
    assert again != Codebooks(codebooks.array[:2])
    assert codebooks != "codebooks"
    assert hash(Codebooks([[[0.0]]])) == hash(Codebooks([[[-0.0]]]))
    with pytest.raises(ValueError, match="read-only"):
        codebooks.array[0] = 0
    copied = pickle.loads(pickle.dumps(codebooks))
    assert copied == codebooks
    assert not copied.array.flags.writeable


def test_decode_adds_in_order():
    rng = np.random.default_rng(1)
    codebooks = Codebooks(rng.normal(size=(6, 9, 5)))
    codes = rng.integers(9, size=(30, 6)).astype(np.uint8)
    for code, decoded in zip(codes, codebooks.decode(codes), strict=True):
        expected = codebooks.array[0, code[0]].copy()
        for m in range(1, 6):
            expected = expected + codebooks.array[m, code[m]]
        assert decoded.tobytes() == expected.tobytes()
    assert codebooks.decode(codes[:0]).shape == (0, 5)
    one = Codebooks(codebooks.array[:1])
    one.decode(codes[:, :1])[:] = 7
    np.testing.assert_array_equal(one.array, codebooks.array[:1])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 0]], "shape"),
        ([0, 0, 0], "shape"),
        ([[0.0, 0.0, 0.0]], "integers"),
        ([[0, 0, 5]], "between 0 and 4"),
        ([[0, -1, 0]], "between 0 and 4"),
    ],
)
def test_decode_refuses_what_is_no_code(codebooks, codes, message):
    with pytest.raises(InputError, match=message):
        codebooks.decode(codes)


def test_lookup_table_to_the_bit(codebooks, reference_products):
    q = np.random.default_rng(2).normal(size=(7, 4)).astype(np.float32)
    expected = reference_products(q, codebooks.array.reshape(-1, 4)).reshape(7, 3, 5)
    assert codebooks.lookup_table(q).tobytes() == expected.tobytes()
    assert codebooks.lookup_table(q[3:4]).tobytes() == expected[3:4].tobytes()
    with pytest.raises(InputError, match="4 values"):
        codebooks.lookup_table(q[:, :3])
    with pytest.raises(InputError, match="row 0"):
        codebooks.lookup_table(np.full((1, 4), np.nan))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), r"\[M, K, D\]"),
        (np.zeros((17, 2, 2)), "1 to 16"),
        (np.zeros((1, 257, 2)), "1 to 256"),
        (np.zeros((0, 2, 2)), "1 to 16"),
        (np.zeros((1, 0, 2)), "1 to 256"),
        (np.zeros((1, 2, 0)), "dimension"),
        (np.full((1, 1, 1), np.nan), "NaN"),
        (np.full((1, 1, 1), 1e300), "infinite"),
        (np.zeros((1, 1, 1), complex), "real"),
    ],
)
def test_impossible_codebooks_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        Codebooks(array)


def test_save_and_load(codebooks, tmp_path):
    path = tmp_path / "codebooks.safetensors"
    codebooks.save(path)
    assert Codebooks.load(path) == codebooks
    first = path.read_bytes()
    codebooks.save(path)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_without_codebooks_is_refused(tmp_path):
    from spherequant.quantizer import storage

    path = tmp_path / "other.safetensors"
    storage.write(path, {"weights": np.ones((1, 2, 3), np.float32)}, {})
    with pytest.raises(FormatError, match="no tensor 'codebooks'"):
        Codebooks.load(path)
    storage.write(path, {"codebooks": np.ones((17, 2, 3), np.float32)}, {})
    with pytest.raises(FormatError, match="1 to 16"):
        Codebooks.load(path)
