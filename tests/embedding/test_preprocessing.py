from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spherequant.embedding import Preprocessing
from spherequant.errors import ConfigError, FormatError, InputError
from spherequant.images import decode


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


class TestPrepare:
    def test_an_image_of_the_right_size_keeps_its_pixels(self):
        image = random_image(24, 24)
        np.testing.assert_array_equal(Preprocessing(24).prepare(image), np.asarray(image))

    def test_what_was_prepared_is_writable_and_apart_from_the_image(self):
        image = random_image(16, 16)
        prepared = Preprocessing(16).prepare(image)
        before = np.asarray(image).copy()
        prepared[:] = 0
        np.testing.assert_array_equal(np.asarray(image), before)

    @pytest.mark.parametrize("portrait", [False, True])
    def test_the_central_square_of_an_oblong_image_is_taken(self, portrait):
        stripes = np.zeros((12, 36, 3), np.uint8)
        stripes[:, :12, 0] = stripes[:, 12:24, 1] = stripes[:, 24:, 2] = 255
        if portrait:
            stripes = stripes.transpose(1, 0, 2)
        prepared = Preprocessing(12).prepare(Image.fromarray(stripes))
        np.testing.assert_array_equal(prepared, np.broadcast_to([0, 255, 0], (12, 12, 3)))

    @pytest.mark.parametrize("size", [10, 20])
    def test_the_crop_is_a_share_of_the_shorter_side_also_at_the_images_own_size(self, size):
        framed = np.zeros((20, 20, 3), np.uint8)
        framed[5:15, 5:15] = 255
        prepared = Preprocessing(size, crop=0.5, interpolation="nearest").prepare(
            Image.fromarray(framed)
        )
        np.testing.assert_array_equal(prepared, np.full((size, size, 3), 255, np.uint8))

    def test_resizing_is_pillows_with_the_named_filter(self):
        image = random_image(30, 30)
        for name, filter_ in (
            ("bilinear", Image.Resampling.BILINEAR),
            ("lanczos", Image.Resampling.LANCZOS),
        ):
            expected = image.resize((16, 16), filter_)
            prepared = Preprocessing(16, interpolation=name).prepare(image)
            np.testing.assert_array_equal(prepared, np.asarray(expected))

    @settings(max_examples=30, deadline=None)
    @given(
        st.integers(1, 70),
        st.integers(1, 70),
        st.integers(8, 40),
        st.floats(0.1, 1.0),
        st.tuples(*[st.integers(0, 255)] * 3),
    )
    def test_an_image_of_one_colour_of_any_size_stays_of_that_colour(
        self, width, height, size, crop, colour
    ):
        image = Image.new("RGB", (width, height), colour)
        prepared = Preprocessing(size, crop=crop).prepare(image)
        assert prepared.dtype == np.uint8
        np.testing.assert_array_equal(prepared, np.broadcast_to(colour, (size, size, 3)))

    @pytest.mark.parametrize(
        "mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"]
    )
    def test_every_mode_becomes_rgb(self, mode):
        grey = random_image(20, 14).convert("L")
        if mode == "I;16":
            image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        else:
            image = (
                grey.convert("RGBA").convert("LA")
                if mode == "LA"
                else grey.convert("RGB").convert(mode)
            )
        prepared = Preprocessing(14).prepare(image)
        assert prepared.shape == (14, 14, 3)
        assert prepared.dtype == np.uint8
        if mode in {"L", "LA", "RGBA", "I;16"}:
            expected = np.asarray(grey.crop((3, 0, 17, 14)))
            np.testing.assert_array_equal(prepared, np.stack([expected] * 3, axis=2))

    def test_transparent_pixels_show_white(self):
        image = Image.new("RGBA", (9, 9), (10, 20, 30, 0))
        np.testing.assert_array_equal(
            Preprocessing(9).prepare(image), np.full((9, 9, 3), 255, np.uint8)
        )

    def test_a_picture_opened_by_pillow_is_the_one_that_a_source_decodes(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        file = io.BytesIO()
        random_image(32, 20).save(file, "JPEG", exif=exif)
        pre = Preprocessing(16)
        expected = pre.prepare(decode(file.getvalue()))
        np.testing.assert_array_equal(pre.prepare(Image.open(file)), expected)
        np.testing.assert_array_equal(pre.prepare(Image.open(file).copy()), expected)
        sideways = pre.prepare(Image.open(file).convert("RGB").resize((32, 20)))
        assert sideways.shape == expected.shape

    def test_a_damaged_file_is_an_input_error(self):
        file = io.BytesIO()
        random_image(64, 64).save(file, "PNG")
        with pytest.raises(InputError):
            Preprocessing(16).prepare(Image.open(io.BytesIO(file.getvalue()[:2000])))

    def test_threads_do_not_disturb_each_other(self):
        images = [random_image(30 + i, 41, seed=i) for i in range(24)]
        pre = Preprocessing(16, crop=0.9)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(pre.prepare, images))
        for image, prepared in zip(images, together, strict=True):
            np.testing.assert_array_equal(prepared, pre.prepare(image))


class TestStandardise:
    PRE = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_it_is_the_formula(self, dtype):
        pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(dtype)
        images = self.PRE.standardise(torch.from_numpy(pixels))
        expected = (pixels / 255.0 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 1.0]
        assert images.dtype == torch.float32
        np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)

    def test_it_lies_channels_last(self):
        images = self.PRE.standardise(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
        assert images.shape == (2, 3, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)


class TestValues:
    def test_they_survive_json(self):
        pre = Preprocessing(
            33, crop=0.875, interpolation="lanczos", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)
        )
        assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre

    @pytest.mark.parametrize(
        "broken",
        [
            {"size": "x"},
            {"size": 3},
            {"crop": None},
            {"mean": [1, 2]},
            {"std": 1},
            {"interpolation": "?"},
        ],
    )
    def test_a_damaged_value_is_a_format_error(self, broken):
        with pytest.raises(FormatError, match="preprocessing cannot be read"):
            Preprocessing.from_dict(Preprocessing(16).to_dict() | broken)

    def test_a_missing_value_is_a_format_error(self):
        values = Preprocessing(16).to_dict()
        del values["crop"]
        with pytest.raises(FormatError, match="crop"):
            Preprocessing.from_dict(values)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"size": 7}, "between 8 and 4096 pixels, not 7"),
            ({"size": 5000}, "not 5000"),
            ({"size": 8, "crop": 0.0}, r"\(0, 1\]"),
            ({"size": 8, "crop": 1.1}, "not 1.1"),
            ({"size": 8, "interpolation": "cubic"}, "one of nearest, bilinear"),
            ({"size": 8, "std": (1.0, 0.0, 1.0)}, "above 0"),
        ],
    )
    def test_impossible_ones_are_config_errors(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            Preprocessing(**arguments)
