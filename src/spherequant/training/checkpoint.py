"""A training cut short goes on: its whole state in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spherequant.errors import FormatError, SpherequantError
from spherequant.system import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint. A process killed meanwhile leaves the one before.

    Args:
        path: the file.
        tensors: of any shape and type.
        facts: plain values.
    """
    # A copy of its own for each: tensors that share memory are refused by the format.
    separate = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with replacing(path) as draft:
        save_file(separate, draft, {"facts": json.dumps(dict(facts))})


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        FormatError: the file is damaged.
    """
    with _opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, _facts(file)


def load_facts(path: Path) -> dict[str, Any]:
    """Read the plain values of a checkpoint alone.

    Raises:
        FormatError: the file is damaged.
    """
    with _opened(path) as file:
        return _facts(file)


def refuse_another(path: Path, facts: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another training.

    Args:
        path: of the checkpoint.
        facts: that stand in it.
        own: those that must be the same.

    Raises:
        SpherequantError: another training wrote it; the message names the settings that differ.
    """
    if all(facts.get(name) == value for name, value in own.items()):
        return
    theirs = facts.get("config", {})
    other = [name for name, value in own["config"].items() if theirs.get(name) != value]
    what = f"settings ({', '.join(other)})" if other else "images or labels"
    raise SpherequantError(
        f"{path} belongs to a training with other {what}: go on with those, name another --out, or "
        "start over with --overwrite"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise FormatError(
            f"the checkpoint {path} cannot be read ({error}). Start over with --overwrite."
        ) from error


def _facts(file: Any) -> dict[str, Any]:
    return dict(json.loads((file.metadata() or {})["facts"]))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimizer's state as named tensors: ``position/name``."""
    state: dict[int, dict[str, torch.Tensor | None]] = optimizer.state_dict()["state"]
    return {
        f"{position}/{name}": value
        for position, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Set an optimizer's state from named tensors; its groups stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for path, value in tensors.items():
        position, name = path.split("/")
        state.setdefault(int(position), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors below a prefix, named without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
