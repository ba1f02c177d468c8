from __future__ import annotations

import numpy as np
import pytest
import torch

from spherequant.errors import InputError
from spherequant.quantizer import Codebooks, Encoder, batch_encoding, encode_batch, learn_codebooks

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("effort", [(8, 2, 1), (8, 2, 5), (4, 3, 16), (4, 0, 4)])
def test_it_hardly_ever_disagrees_with_the_canonical_encoder(m, effort, device, clustered):
    x, _ = clustered(3000, d=16)
    codebooks = learn_codebooks(x, m, 64, iterations=1)
    ours = encode_batch(torch.from_numpy(x).to(device), codebooks, *effort)
    assert ours.dtype == torch.uint8
    canonical = Encoder(codebooks, None, *effort).encode(x)
    differing = (ours.cpu().numpy() != canonical).any(axis=1).mean()
    assert differing < 0.005


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    codebooks = Codebooks(rng.normal(size=(3, 10, 4)))
    u = torch.from_numpy(rng.normal(size=(57, 4)).astype(np.float32))
    whole = encode_batch(u, codebooks)
    monkeypatch.setattr(batch_encoding, "_MAX_COSTS", 10 * 16 * 5)
    assert torch.equal(encode_batch(u, codebooks), whole)


def test_edges():
    codebooks = Codebooks(np.random.default_rng(0).normal(size=(3, 2, 4)))
    assert encode_batch(torch.zeros(0, 4), codebooks).shape == (0, 3)
    assert encode_batch(torch.zeros(2, 4, requires_grad=True), codebooks, beam=100).shape == (2, 3)
    with pytest.raises(InputError, match=r"\[N, 4\]"):
        encode_batch(torch.zeros(2, 5), codebooks)
    for setting, value in (("beam", 0), ("icm_rounds", -1), ("icm_starts", 0)):
        with pytest.raises(InputError, match=setting):
            encode_batch(torch.zeros(2, 4), codebooks, **{setting: value})
