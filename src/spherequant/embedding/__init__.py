"""Room 2: an image becomes a unit vector: backbone, linear projection, normalisation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spherequant.embedding.preprocessing import Preprocessing

if TYPE_CHECKING:
    from spherequant.embedding.backbone import BackboneSpec, create_backbone
    from spherequant.embedding.folding import folded
    from spherequant.embedding.network import EmbeddingNetwork, embed_batches

__all__ = [
    "BackboneSpec",
    "EmbeddingNetwork",
    "Preprocessing",
    "create_backbone",
    "embed_batches",
    "folded",
]

# These need torch, which takes a second to load: an index is searched without it.
_HOME = {
    "BackboneSpec": "spherequant.embedding.backbone",
    "EmbeddingNetwork": "spherequant.embedding.network",
    "create_backbone": "spherequant.embedding.backbone",
    "embed_batches": "spherequant.embedding.network",
    "folded": "spherequant.embedding.folding",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'spherequant.embedding' has no attribute {name!r}")
