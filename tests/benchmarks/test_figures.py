"""What the drawings take from other scripts' records, and the network's output before its norm."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import figures
import results
from spherequant.embedding import EmbeddingNetwork, Preprocessing, create_backbone, embed_batches


def cell(**values):
    base = {"protocol": "cifar10-54k", "method": "dsq", "bits": 32, "seed": 0, "epochs": 20}
    return SimpleNamespace(**{**base, "maps": {"codes": 0.5}, **values})


def test_lengths_of_trainings():
    cells = [
        cell(maps={"codes": 0.5, "rq": 0.4}),
        cell(seed=1, maps={"codes": 0.7, "rq": 0.6}),
        cell(bits=64),
        cell(method="csq"),
        cell(method="no-norm"),
        cell(protocol="cifar10-full"),
    ]
    found = figures._trained_lengths(cells, "cifar10-54k")
    assert found.methods == {
        "DSQ": {32: [0.5, 0.7], 64: [0.5]},
        "FAISS RQ, DSQ's network": {32: [0.4, 0.6]},
        "CSQ-like": {32: [0.5]},
    }
    assert "20 epochs, seeds: 0, 1," in found.notes


def test_lengths_of_a_frozen_network(tmp_path):
    for seed in (0, 1):
        table = {
            "caption": "mAP@all by code length",
            "columns": ["bits", "DSQ", "other"],
            "rows": [[16, 0.1 + seed, 0.3], [32, 0.2, 0.4]],
        }
        (tmp_path / f"cifar10-full-{seed}.json").write_text(json.dumps({"tables": [table]}))
    (tmp_path / "cifar10-full-2-epochs-0.json").write_text("{}")
    found = figures._frozen_lengths(tmp_path)
    assert found.methods == {
        "DSQ": {16: [0.1, 1.1], 32: [0.2, 0.2]},
        "other": {16: [0.3, 0.3], 32: [0.4, 0.4]},
    }


def test_without_lengths_nothing_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "DOCS", tmp_path)
    figures.draw_bits(SimpleNamespace(), argparse.Namespace())
    assert "left out" in capsys.readouterr().out
    assert not (tmp_path / "figures").exists()


def test_mosaics_without_a_model_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "RUNS", tmp_path)
    options = argparse.Namespace(mosaics=5, mosaic_side=32, mosaic_epochs=1, seed=0)
    figures.draw_mosaics(SimpleNamespace(), options)
    assert "has not trained multi-label-5-32px-1-epochs-seed-0 yet" in capsys.readouterr().out


def test_raw_output_points_where_the_embedding_does():
    backbone, features, preprocessing, _ = create_backbone("small", "none", 16)
    assert isinstance(preprocessing, Preprocessing)
    network = EmbeddingNetwork(backbone, features, 8).eval()
    model = SimpleNamespace(network=network, preprocessing=preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    raw = figures.RawOutputs(model).embed_prepared(pixels)
    z = embed_batches(network, preprocessing, pixels, batch=3, mirror=False)
    assert np.linalg.norm(raw, axis=1) != pytest.approx(1)
    assert raw / np.linalg.norm(raw, axis=1, keepdims=True) == pytest.approx(z, abs=1e-5)
    assert not torch.is_inference_mode_enabled()
