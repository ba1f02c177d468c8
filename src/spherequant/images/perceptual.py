"""Perceptual hashes: near-duplicates of an image differ in few of 64 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# The hash looks at 32 x 32 pixels; averaging squares down to this first costs less than resampling
# millions of them.
_SIDE = 128


def perceptual_hash(image: Image.Image) -> int:
    """The DCT hash of an image in 64 bits, as ImageHash defines it.

    Each bit says whether one of the 8 x 8 lowest frequencies of the grey image is above their
    median. Scaling, recompression and small corrections change few bits; a crop, a mirror image or
    a rotation change many.

    Args:
        image: RGB.

    Returns:
        The bits, row by row, the first one the highest.
    """
    import imagehash

    small = image.reduce(max(1, min(image.size) // _SIDE))
    bits = imagehash.phash(small).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
