"""A training cut short goes on: its whole state in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spherequant.errors import FormatError
from spherequant.system import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118  # no mapping
    except (OSError, KeyError, ValueError, RecursionError, SafetensorError) as error:
        raise FormatError(
            f"the checkpoint {path} cannot be read ({error}). Start over with --overwrite."
        ) from error


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
