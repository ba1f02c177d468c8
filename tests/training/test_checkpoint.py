from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from spherequant.errors import FormatError
from spherequant.training import checkpoint
from spherequant.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)

FACTS = {"epoch": 3, "config": {"bits": 32, "learning_rate": 0.1, "mirror": True, "é": "ü"}}


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.randn(4, 3, 2, 2)
    return {
        "learner/a": shared,
        "learner/b": shared,  # the same memory
        "learner/view": shared[1:],
        "average/layout": shared.to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 5),
        "half": torch.randn(3).bfloat16(),
        "grown": torch.randn(2, requires_grad=True),
    }


def test_it_brings_back_tensors_and_facts(tmp_path):
    given = tensors()
    save_checkpoint(tmp_path / "c.safetensors", given, FACTS)
    found, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == FACTS
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.detach())
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_one_that_is_cut_off_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.zeros(3)}, {"epoch": 1})

    def cut_off(values, draft, metadata):
        save_file(values, draft, metadata)
        draft.write_bytes(draft.read_bytes()[:-3])
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", cut_off)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"a": torch.ones(3)}, {"epoch": 2})
    monkeypatch.undo()
    found, facts = load_checkpoint(path)
    assert (facts, found["a"].tolist()) == ({"epoch": 1}, [0, 0, 0])
    save_checkpoint(path, {"a": torch.ones(3)}, {"epoch": 2})
    assert load_checkpoint(path)[1] == {"epoch": 2}


class TestDamage:
    @pytest.fixture
    def path(self, tmp_path):
        save_checkpoint(tmp_path / "c.safetensors", {"a": torch.zeros(300)}, FACTS)
        return tmp_path / "c.safetensors"

    @pytest.mark.parametrize("keep", [0, 5, 60, -1])
    def test_a_short_file(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(FormatError, match="Start over with --overwrite"):
            load_checkpoint(path)

    def test_another_file(self, path):
        path.write_bytes(b"not a checkpoint at all" * 100)
        with pytest.raises(FormatError, match=r"c\.safetensors cannot be read"):
            load_checkpoint(path)

    @pytest.mark.parametrize("metadata", [None, {"x": "y"}, {"facts": "{"}])
    def test_no_facts(self, path, metadata):
        save_file({"a": torch.zeros(3)}, path, metadata)
        with pytest.raises(FormatError, match="cannot be read"):
            load_checkpoint(path)

    def test_a_directory(self, tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            load_checkpoint(tmp_path)


def optimizers(kind: str, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimizer_goes_on_to_the_byte(tmp_path, kind):
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (8,), (5, 8)]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(6)]

    def step(
        optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], turn: int
    ) -> None:
        for p, gradient in zip(parameters, gradients[turn], strict=True):
            p.grad = gradient.to(memory_format=torch.channels_last) if p.ndim == 4 else gradient
        optimizer.step()

    def fresh() -> list[torch.nn.Parameter]:
        values = [torch.ones(shape) for shape in shapes]
        values[0] = values[0].to(memory_format=torch.channels_last)
        return [torch.nn.Parameter(value) for value in values]

    whole = fresh()
    optimizer = optimizers(kind, whole)
    for turn in range(3):
        step(optimizer, whole, turn)
    state = optimizer_tensors(optimizer) | {f"p{i}": p for i, p in enumerate(whole)}
    save_checkpoint(tmp_path / "c.safetensors", state, {})
    found, _ = load_checkpoint(tmp_path / "c.safetensors")
    resumed = fresh()
    with torch.no_grad():
        for i, p in enumerate(resumed):
            p.copy_(found.pop(f"p{i}"))
    again = optimizers(kind, resumed)
    restore_optimizer(again, found)
    for turn in range(3, 6):
        step(optimizer, whole, turn)
        step(again, resumed, turn)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_before_its_first_step_has_no_state():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers("adamw", [parameter])
    assert optimizer_tensors(optimizer) == {}
    restore_optimizer(optimizer, {})


def test_names_below_a_prefix():
    values = {"a/x": torch.zeros(1), "a/b/y": torch.ones(1), "ab/x": torch.ones(2)}
    assert list(under("a/", values)) == ["x", "b/y"]


def test_facts_are_json(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", {"a": torch.zeros(1)}, FACTS)
    header = (tmp_path / "c.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    described = json.loads(header[8 : 8 + length])
    assert json.loads(described["__metadata__"]["facts"]) == FACTS
