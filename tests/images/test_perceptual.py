from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageDraw

from spherequant.images import perceptual_hash


def scene(number, side=300):
    """A picture with large shapes, as photographs have."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (side, side * 3 // 4), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = rng.integers(0, side, 4).tolist()
        draw.ellipse((x, y, x + w // 2, y + h // 2), tuple(rng.integers(0, 256, 3).tolist()))
    return image


def distance(a, b):
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def test_a_small_image_has_the_hash_of_the_library():
    image = scene(1, 120)
    assert f"{perceptual_hash(image):016x}" == str(imagehash.phash(image))


@pytest.mark.parametrize("number", range(4))
def test_near_duplicates_are_near_and_others_far(number, tmp_path):
    image = scene(number, 900)
    image.save(tmp_path / "small.jpg", quality=40)
    with Image.open(tmp_path / "small.jpg") as recompressed:
        assert distance(image, recompressed.convert("RGB")) <= 4
    assert distance(image, image.resize((200, 150))) <= 4
    assert distance(image, image.point(lambda value: value * 0.9)) <= 4
    assert distance(image, scene(number + 10, 900)) > 12


def test_every_shape_has_a_hash_of_64_bits():
    for size in ((1, 1), (1, 5000), (3000, 2), (31, 33)):
        assert 0 <= perceptual_hash(Image.new("RGB", size, (9, 9, 9))) < 1 << 64
