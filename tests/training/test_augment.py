from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.training import augment

# Numbers that leave `crop` an image as it is: the whole area, square, no light, nothing erased.
IDENTITY = np.array([0.9, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5])

sides = st.integers(8, 64)
numbers_of_three = st.lists(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12), min_size=3, max_size=3
).map(np.array)


def pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def numbers(**at: float) -> np.ndarray:
    """One row of numbers that leave the image alone but for those given, as ``u3=0.2``."""
    row = IDENTITY.copy()
    for name, value in at.items():
        row[int(name[1:])] = value
    return row[None]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("none", torch.uint8), ("shift", torch.uint8), ("crop", torch.float32)]
)
class TestEveryKind:
    @settings(max_examples=15, deadline=None)
    @given(side=sides, u=numbers_of_three, epoch=st.integers(0, 9))
    def test_shape_type_and_bounds(self, kind, dtype, side, u, epoch):
        pixels = pictures(3, side)
        before = pixels.copy()
        result = augment.augmentation(kind)(pixels, u, epoch)
        assert result.shape == (3, side, side, 3)
        assert result.dtype == dtype
        assert result.min() >= 0
        assert result.max() <= 255
        np.testing.assert_array_equal(pixels, before)

    def test_the_same_numbers_make_the_same_pixels_among_any_others(self, kind, dtype):
        pixels, u = pictures(6, 20), np.random.default_rng(1).random((6, 12))
        change = augment.augmentation(kind)
        together = change(pixels, u, 3)
        assert torch.equal(change(pixels, u, 3), together)
        for i in range(6):
            assert torch.equal(change(pixels[i : i + 1], u[i : i + 1], 3)[0], together[i])

    def test_an_image_is_mirrored_in_every_other_epoch(self, kind, dtype):
        pixels = pictures(1, 16)
        change = augment.augmentation(kind)
        for first in (0.2, 0.8):  # below a half: mirrored in epoch 0
            u = numbers(u0=first)
            if kind == "shift":
                u[0, 1:3] = 0.5  # no shift
            for epoch in range(4):
                mirrored = (first < 0.5) == (epoch % 2 == 0) and kind != "none"
                expected = pixels[:, :, ::-1] if mirrored else pixels
                np.testing.assert_allclose(change(pixels, u, epoch), expected, atol=2e-3)


class TestShift:
    @pytest.mark.parametrize(
        ("side", "reach"), [(8, 1), (15, 1), (16, 1), (32, 2), (48, 3), (64, 4)]
    )
    def test_content_moves_by_every_distance_within_reach(self, side, reach):
        pixels = pictures(1, side)
        padded = np.pad(pixels[0], ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        places = 2 * reach + 1
        for down in range(places):
            for right in range(places):
                u = numbers(u1=(down + 0.5) / places, u2=(right + 0.5) / places)
                shifted = augment.shift(pixels, u, 0)[0].numpy()
                np.testing.assert_array_equal(
                    shifted, padded[down : down + side, right : right + side]
                )

    def test_numbers_above_a_half_move_content_up_and_left(self):
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        pixels[0, 16, 16] = 255
        shifted = augment.shift(pixels, numbers(u1=0.99, u2=0.99), 0)[0, :, :, 0].numpy()
        down, left = np.argwhere(shifted)[0]
        assert (down, left) == (14, 14)

    def test_extreme_numbers_stay_inside(self):
        below_one = np.nextafter(1, 0)
        for value in (0.0, below_one):
            assert augment.shift(pictures(1, 64), numbers(u1=value, u2=value), 0).shape[1] == 64


def reflected(x: float, size: int) -> float:
    """Reflect a coordinate at the image's edges, -.5 and size - .5, into the picture."""
    x = abs(x + 0.5) % (2 * size)
    return min(max((2 * size - x if x > size else x) - 0.5, 0), size - 1)


def slow_crop(image: np.ndarray, u: np.ndarray, epoch: int) -> np.ndarray:
    """`crop` of one image in plain loops and float64."""
    size = len(image)
    ratio = math.exp((u[2] * 2 - 1) * math.log(4 / 3) / 2)
    side = math.sqrt(0.5 + 0.5 * u[1])
    width, height = side * ratio, side / ratio
    across = (u[3] * 2 - 1) * abs(1 - width)
    down = (u[4] * 2 - 1) * abs(1 - height)
    mirrored = (u[0] < 0.5) != (epoch % 2 == 1)
    result = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            # Places from -1 to 1 over the image; the middle of a pixel is half a pixel inside.
            x = (2 * column + 1) / size - 1
            x = (-x if mirrored else x) * width + across
            y = ((2 * row + 1) / size - 1) * height + down
            at_x = reflected(((x + 1) * size - 1) / 2, size)
            at_y = reflected(((y + 1) * size - 1) / 2, size)
            for yy in (math.floor(at_y), math.floor(at_y) + 1):
                for xx in (math.floor(at_x), math.floor(at_x) + 1):
                    share = (1 - abs(at_y - yy)) * (1 - abs(at_x - xx))
                    if share > 0:
                        result[row, column] += share * image[min(yy, size - 1), min(xx, size - 1)]
    result *= 0.7 + 0.6 * u[5]
    result = result.mean() + (result - result.mean()) * (0.7 + 0.6 * u[6])
    grey = result.mean(axis=2, keepdims=True)
    result = np.clip(grey + (result - grey) * (0.7 + 0.6 * u[7]), 0, 255)
    if u[8] < 0.5:
        for row in range(size):
            for column in range(size):
                if abs(row - u[9] * size) < size / 4 and abs(column - u[10] * size) < size / 4:
                    result[row, column] = 127.5
    return result


class TestCrop:
    @pytest.mark.parametrize("side", [8, 13, 32, 64])
    def test_numbers_of_the_identity_leave_an_image_alone(self, side):
        pixels = pictures(2, side)
        result = augment.crop(pixels, np.repeat(IDENTITY[None], 2, axis=0), 0)
        np.testing.assert_allclose(result, pixels, atol=2e-3)

    @pytest.mark.parametrize("side", [8, 11])
    def test_it_is_the_slow_definition(self, side):
        pixels = pictures(8, side, seed=2)
        u = np.random.default_rng(3).random((8, 12))
        for epoch in (0, 1):
            fast = augment.crop(pixels, u, epoch).numpy()
            for i in range(8):
                np.testing.assert_allclose(fast[i], slow_crop(pixels[i], u[i], epoch), atol=0.05)

    def test_half_the_area_in_a_corner_is_that_corner_enlarged(self):
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        pixels[:, :16, :16] = 200  # upper left
        corner = augment.crop(pixels, numbers(u1=0.0, u3=0.0, u4=0.0), 0)[0, :, :, 0].numpy()
        # The rectangle begins at the corner and is sqrt(.5) of 32 = 22.6 wide: 16 / 22.6 of it lit.
        assert (corner > 100).sum() / 32**2 == pytest.approx(0.5, abs=0.03)
        assert corner[:20, :20].min() == pytest.approx(200, abs=1e-3)
        away = augment.crop(pixels, numbers(u1=0.0, u3=1.0, u4=1.0), 0)[0, :, :, 0].numpy()
        assert (away > 100).sum() / 32**2 == pytest.approx((6.6 / 22.6) ** 2, abs=0.03)

    def test_light_is_a_factor(self):
        pixels = np.full((1, 8, 8, 3), 100, np.uint8)
        for value, expected in ((0.0, 70.0), (0.5, 100.0), (1.0, 130.0)):
            result = augment.crop(pixels, numbers(u5=value), 0)
            np.testing.assert_allclose(result, np.full((1, 8, 8, 3), expected), atol=1e-3)

    def test_light_does_not_leave_the_range(self):
        pixels = np.full((1, 8, 8, 3), 255, np.uint8)
        np.testing.assert_array_equal(augment.crop(pixels, numbers(u5=1.0), 0), pixels)

    def test_half_of_the_images_lose_a_square_of_half_the_side(self):
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        kept = augment.crop(pixels, numbers(u8=0.5, u9=0.5, u10=0.5), 0)
        assert not kept.any()
        erased = augment.crop(pixels, numbers(u8=0.49, u9=0.5, u10=0.5), 0)[0, :, :, 0].numpy()
        rows, columns = np.nonzero(erased)
        assert set(erased[erased > 0]) == {127.5}
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (15, 15)
        assert (rows.mean(), columns.mean()) == (16, 16)
