"""Room 4: network and quantizer learned together; the model on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spherequant.training.config import TrainConfig

if TYPE_CHECKING:
    from spherequant.training.loop import Report, TrainEvent
    from spherequant.training.model import Model, read_description
    from spherequant.training.run import train

__all__ = ["Model", "Report", "TrainConfig", "TrainEvent", "read_description", "train"]

# These need torch, which takes a second to load: reading a configuration does not.
_HOME = {
    "Model": "spherequant.training.model",
    "Report": "spherequant.training.loop",
    "TrainEvent": "spherequant.training.loop",
    "read_description": "spherequant.training.model",
    "train": "spherequant.training.run",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'spherequant.training' has no attribute {name!r}")
