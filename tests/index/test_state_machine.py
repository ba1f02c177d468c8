"""The index against a dict: adds, updates, removals, searches, refreshes and reopenings."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spherequant.errors import UnknownKeyError
from spherequant.index import Index, keys, upkeep
from spherequant.index.upkeep import tidy
from spherequant.quantizer import Codebooks

KEYS = st.lists(st.sampled_from(["a", "b/ü", "it's", "d", "e e", "日本"]), max_size=4, unique=True)
LABELS = st.sampled_from([(), ("x",), ("x", "y'z")])
CODE = st.integers(0, 2)  # few codes: ties everywhere


CODEBOOKS = Codebooks(np.random.default_rng(0).normal(size=(3, 4, 16)))


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "index"
        self.index = Index.create(self.folder, CODEBOOKS, metadata_columns={"n": "int64"})
        self.model = {}  # key -> (id, code, labels, n)
        self.used = set()

    @rule(keys=KEYS, code=CODE, labels=LABELS, n=st.none() | st.integers(-3, 3))
    def add(self, keys, code, labels, n):
        codes = [[code, (code + i) % 3, i % 2] for i in range(len(keys))]
        ids = self.index.add(
            keys,
            codes=np.array(codes, np.int64).reshape(-1, 3),
            labels=[labels] * len(keys),
            metadata=[{"n": n}] * len(keys),
        )
        for key, row_id, one in zip(keys, ids.tolist(), codes, strict=True):
            if key in self.model:
                assert row_id == self.model[key][0]
            else:
                assert row_id not in self.used
                self.used.add(row_id)
            self.model[key] = (row_id, one, labels, n)

    @rule(keys=KEYS, labels=st.none() | LABELS, n=st.none() | st.integers(-3, 3))
    def update(self, keys, labels, n):
        arguments = {
            "labels": None if labels is None else [labels] * len(keys),
            "metadata": [{"n": n}] * len(keys),
        }
        if not self.model.keys() >= set(keys):
            with pytest.raises(UnknownKeyError):
                self.index.update(keys, **arguments)
            return
        ids = self.index.update(keys, **arguments)
        assert ids.tolist() == [self.model[key][0] for key in keys]
        for key in keys:
            row_id, code, before, _ = self.model[key]
            self.model[key] = (row_id, code, before if labels is None else labels, n)

    @rule(keys=KEYS)
    def remove(self, keys):
        there = [key for key in keys if key in self.model]
        assert self.index.remove(keys) == len(there)
        for key in there:
            del self.model[key]

    @rule(k=st.integers(1, 8), filtered=st.booleans(), seed=st.integers(0, 3))
    def search(self, k, filtered, seed):
        query = np.random.default_rng(seed).normal(size=16)
        where = "n > 0 AND array_has(labels, 'x')" if filtered else None
        result = self.index.search(vectors=query, k=k, where=where)
        lut = CODEBOOKS.lookup_table((query / np.linalg.norm(query))[None].astype(np.float32))[0]
        expected = []
        for key, (row_id, code, labels, n) in self.model.items():
            if not filtered or (n is not None and n > 0 and "x" in labels):
                score = lut[0][code[0]] + lut[1][code[1]] + lut[2][code[2]]
                expected.append((-float(score), row_id, key))
        expected.sort()
        real = result.ids[0] >= 0
        assert result.ids[0][real].tolist() == [row_id for _, row_id, _ in expected[:k]]
        assert [key for key in result.keys[0] if key] == [key for *_, key in expected[:k]]
        assert np.allclose(-result.scores[0][real], [s for s, *_ in expected[:k]], atol=1e-6)

    @rule(key=st.sampled_from(["a", "it's", "日本"]))
    def search_by_key(self, key):
        if key in self.model:
            ids = self.index.search(keys=[key], k=10).ids[0]
            assert set(ids[ids >= 0].tolist()) == {
                row_id for other, (row_id, *_) in self.model.items() if other != key
            }

    @rule()
    def reopen(self):
        self.index.close()
        self.index = Index.open(self.folder)

    @precondition(lambda self: len(self.used) > 3)
    @rule()
    def tidy_up(self):
        tidy(self.folder / "items.lance", self.folder / "leases", grace_seconds=0)
        self.index.refresh()

    @rule()
    def count(self):
        values = [n for *_, n in self.model.values()]
        found = self.index.counts(["n"])["n"]
        assert dict(found.values) == {n: values.count(n) for n in set(values) - {None}}
        assert found.empty == values.count(None)

    @rule(n=st.integers(1, 4))
    def ask_for_the_latest(self, n):
        latest = self.index.latest(n)
        assert len(latest) == min(n, len(self.model))
        every = {item.key: item.changed for item in self.index.get(list(self.model))}
        assert [item.changed for item in latest] == sorted(every.values(), reverse=True)[:n]

    @invariant()
    def holds_what_the_dict_holds(self):
        assert len(self.index) == len(self.model)
        found = self.index.get(list(self.model))
        for key, item in zip(self.model, found, strict=True):
            row_id, code, labels, n = self.model[key]
            assert (item.key, item.id, item.labels) == (key, row_id, labels)
            assert item.code.tolist() == code
            assert item.metadata == {"n": n}

    def teardown(self):
        self.index.close()
        shutil.rmtree(self.folder.parent)


def test_the_index_behaves_like_a_dict(monkeypatch):
    monkeypatch.setattr(upkeep, "CROWD", 2)
    monkeypatch.setattr(keys, "_READ_FOR_ONE", 0)  # through the index, however small
    monkeypatch.setattr("spherequant.index.commits.WAIT_SECONDS", 0.0)
    case = Machine.TestCase
    case.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
    result = unittest.TestResult()
    case("runTest").run(result)  # the rules and the invariant assert
    assert result.testsRun == 1
    assert result.wasSuccessful(), [text for _, text in result.failures + result.errors]
