"""JSON batches: what they may be, and that no more than an entry is read at once."""

import json

import pytest

from spherequant.service import batches
from spherequant.service.batches import LONGEST_ENTRY, read_batch
from spherequant.service.problems import Problem
from spherequant.service.schemas import Batch

PUT = {"key": 'a, ]é"\\', "vector": [1, -2.5e-3], "labels": ["x"], "metadata": {"n": None}}


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"put": [], "delete": []},
        {"delete": ["a", "b"]},
        {"delete": ["[a"], "put": [PUT, {"key": "b"}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_it_is_what_the_schema_makes_of_it(batch, indent):
    data = json.dumps(batch, indent=indent).encode()
    assert read_batch(data, "body") == Batch.model_validate_json(data)


NONE = "body is no JSON object with the lists put and delete, of entries of at most 1 MiB."


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", NONE),
        (b"[]", NONE),
        (b'"put"', NONE),
        (b"{", NONE),
        (b'{"put"}', NONE),
        (b'{"put": {}}', NONE),
        (b'{"put": [}', NONE),
        (b'{"put": [] "delete": []}', NONE),
        (b'{"put": []}x', NONE),
        (b'{"put": [], "put": []}', NONE),
        (b'{"removed": []}', NONE),
        (b"{1: []}", NONE),
        (b'{"delete": ["a",]}', NONE),
        (b'{"delete": ["a" "b"]}', NONE),
        (b'{"delete": ["a"', NONE),
        (b'{"delete": ["\xff"]}', NONE),
        (b'{"put": [' + b"[" * 100_000, NONE),
        (b'{"put": [' + b"9" * 5_000 + b"]}", NONE),
        (b'{"delete": ["' + b"x" * LONGEST_ENTRY + b'"]}', NONE),
        (b'{"delete": ["\\ud800"]}', "body.delete.0 is not JSON."),
        (b'{"delete": ["a", ""]}', "body.delete.1 has at least 1 characters."),
        (b'{"put": [{"key": "a"}, {"x": 1}]}', "body.put.1.key is missing."),
        (b'{"put": [{"key": "a", "vector": [NaN]}]}', "body.put.0.vector.0 is a finite number."),
        (b'{"delete": [' + b'"a",' * 1_024 + b'"a"]}', "body.delete has at most 1024 entries."),
    ],
)
def test_what_is_no_batch(data, told):
    with pytest.raises(Problem) as caught:
        read_batch(data, "body")
    assert caught.value.status == 422
    assert caught.value.detail == told


def test_one_entry_is_read_at_a_time_and_none_behind_the_first_that_is_wrong(monkeypatch):
    read = []

    class Decoder(json.JSONDecoder):
        def raw_decode(self, text):
            value, length = super().raw_decode(text)
            read.append(text[:length])
            return value, length

    monkeypatch.setattr(batches, "_DECODER", Decoder())
    with pytest.raises(Problem):
        read_batch(b'{"delete": ["a", "b"], "put": [[],' + b"[]," * 100_000 + b"[]]}", "body")
    assert read == ['"delete"', '"a"', '"b"', '"put"', "[]"]
