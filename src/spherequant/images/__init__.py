"""A folder, archive, known set or list of images -> keys, labels, safe decoding, splits."""

from __future__ import annotations

from spherequant.images.decoding import decode, thumbnail
from spherequant.images.items import Item, Limits, Skip
from spherequant.images.known import KNOWN_SETS
from spherequant.images.labels import LABEL_MODES
from spherequant.images.opening import open_source
from spherequant.images.perceptual import perceptual_hash
from spherequant.images.pixels import PixelCache
from spherequant.images.source import Source
from spherequant.images.splits import PROTOCOLS, Split, make_split
from spherequant.images.streaming import stream

__all__ = [
    "KNOWN_SETS",
    "LABEL_MODES",
    "PROTOCOLS",
    "Item",
    "Limits",
    "PixelCache",
    "Skip",
    "Source",
    "Split",
    "decode",
    "make_split",
    "open_source",
    "perceptual_hash",
    "stream",
    "thumbnail",
]
