"""Decoding: what each kind of file becomes, and that every failure is one plain reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from spherequant.errors import InputError
from spherequant.images import Limits, decode, thumbnail
from spherequant.images import decoding as module
from spherequant.images.decoding import HEAD_BYTES, sniff


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    """No two rows or columns alike, so that every orientation differs."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 9, y * 13, (x + y) * 5], axis=2).astype(np.uint8))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


NOISE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 24, 3), np.uint8))
FORMATS = {
    "JPEG": encode(NOISE, "JPEG"),
    "PNG": encode(NOISE, "PNG"),
    "GIF": encode(NOISE, "GIF"),
    "WEBP": encode(NOISE, "WEBP"),
    "TIFF": encode(NOISE, "TIFF"),
    "TIFF-LZW": encode(NOISE, "TIFF", compression="tiff_lzw"),
    "BMP": encode(NOISE, "BMP"),
    "PPM": encode(NOISE, "PPM"),
    "JPEG2000": encode(NOISE, "JPEG2000"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_first_bytes_and_decodes(kind):
    data = FORMATS[kind]
    assert sniff(data[:HEAD_BYTES]) == kind.partition("-")[0]
    image = decode(data)
    assert image.mode == "RGB"
    assert image.size == (24, 24)
    assert image.info == {}
    assert type(image) is Image.Image  # holds no file
    if kind in {"PNG", "TIFF", "TIFF-LZW", "BMP", "PPM"}:
        assert np.array_equal(np.asarray(image), np.asarray(NOISE))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello",
        b"%PDF-1.7",
        b"BM, said the bishop, is a text",
        b"P7\nWIDTH 3",
        b"RIFFxxxxWAVE",
    ],
)
def test_what_is_no_image_is_not_taken_for_one(head):
    assert sniff(head) is None


@pytest.mark.parametrize(("kind", "lossless"), [("JPEG", False), ("PNG", True), ("TIFF", True)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, lossless, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(gradient(), kind, exif=exif, **({} if lossless else {"quality": 95}))
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    found = pixels(data)
    assert found.shape == expected.shape
    assert found.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))
    assert np.array_equal(found, expected)


def test_broken_exif_says_nothing_about_the_picture():
    data = encode(gradient(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert pixels(data).shape == (16, 24, 3)


def test_16_bit_grey_is_scaled_not_clipped():
    grey = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        found = pixels(encode(Image.fromarray(grey), kind))
        assert np.array_equal(found[..., 0], expected)
        assert np.array_equal(found[..., 0], found[..., 2])
    big_endian = Image.frombytes("I;16B", (16, 16), grey.astype(">u2").tobytes())
    assert np.array_equal(pixels(encode(big_endian, "TIFF"))[..., 0], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0, 1 << 20, 1 << 21]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 17.0, 200.0]], np.float32), [0, 17, 200]),
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[np.nan, np.inf, -np.inf]], np.float32), [0, 0, 0]),
        (np.array([[-3, -3, -3]], np.int32), [0, 0, 0]),
    ],
)
def test_integer_and_float_grey(values, expected):
    assert pixels(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(mode):
    white = Image.new("RGB", (8, 8), "white")
    image = Image.new("LAB", (8, 8), (255, 0, 0)) if mode == "LAB" else white.convert(mode)
    kind = "TIFF" if mode in {"CMYK", "YCbCr", "LAB"} else "PNG"
    if mode == "LAB":  # a and b are stored signed: whatever they are, the image is read
        assert pixels(encode(image, kind)).shape == (8, 8, 3)
    else:
        assert pixels(encode(image, kind)).min() == 255


def test_a_transparent_16_bit_grey_shows_white():
    grey = Image.fromarray(np.array([[0, 3000, 65535]], np.uint16))
    assert pixels(encode(grey, "PNG", transparency=0))[0, :, 0].tolist() == [255, 12, 255]


def test_transparency_shows_white_in_every_way_a_file_can_say_it():
    rgba = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 255))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    expected = [255, 0, 127, 255]
    assert pixels(encode(rgba, "PNG"))[0, :, 0].tolist() == expected
    assert pixels(encode(rgba.convert("LA"), "PNG"))[0, :, 0].tolist() == expected

    keyed = Image.new("RGB", (2, 1), (10, 20, 30))
    keyed.putpixel((1, 0), (9, 9, 9))
    by_colour = encode(keyed, "PNG", transparency=(10, 20, 30))
    assert pixels(by_colour)[0].tolist() == [[255] * 3, [9] * 3]

    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        data = encode(palette, "PNG", transparency=transparency)
        assert pixels(data)[0].tolist() == [[255] * 3, [4, 5, 6]]
    assert pixels(encode(palette, "GIF", transparency=0))[0].tolist() == [[255] * 3, [4, 5, 6]]


def test_first_frame_only():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("blue", "red", "lime")]
    for kind in ("GIF", "PNG", "TIFF"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert pixels(data)[4, 4].tolist() == [0, 0, 255]


def test_bounds_are_judged_before_pixels_and_name_their_option(awkward):
    with pytest.raises(InputError, match=r"30000 x 30000 pixels.*--max-pixels 900000000"):
        decode(awkward.png_header(30_000, 30_000))
    data = FORMATS["PNG"]
    assert decode(data, Limits(max_pixels=576)).size == (24, 24)
    with pytest.raises(InputError, match=r"--max-pixels 576"):
        decode(data, Limits(max_pixels=575))
    assert decode(data, Limits(max_bytes=len(data))).size == (24, 24)
    with pytest.raises(InputError, match=r"--max-megabytes 1$"):
        decode(data, Limits(max_bytes=len(data) - 1))


SLOW = {
    "QOI": encode(NOISE, "QOI"),
    "PPM": b"P3 24 24 255\n" + b"1 " * (24 * 24 * 3),
    "BMP": (
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
        + struct.pack("<IiiHHIIiiII", 40, 24, 24, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(1024)
        + (bytes([24, 0]) + b"\0\0") * 24
        + b"\0\1"
    ),
}


@pytest.mark.parametrize("kind", SLOW)
def test_what_is_decoded_in_python_has_a_lower_bound(kind):
    """A file of 32 MB would take minutes, and no other thread would run meanwhile."""
    assert sniff(SLOW[kind][:HEAD_BYTES]) == kind
    assert decode(SLOW[kind], Limits(max_pixels=16 * 576)).size == (24, 24)
    with pytest.raises(InputError, match=r"counted 16 times.*--max-pixels 9216"):
        decode(SLOW[kind], Limits(max_pixels=16 * 576 - 1))


def test_a_jpeg_of_many_scans_has_a_lower_bound():
    """Each scan is a pass over all pixels: a small file could take hours."""
    out = io.BytesIO()
    Image.new("L", (64, 64), 77).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    scan, end = data[last:-2], data[-2:]
    assert decode(data, Limits(max_pixels=64 * 64)).size == (64, 64)
    many = data[:-2] + scan * 320 + end
    assert decode(many).size == (64, 64)
    with pytest.raises(InputError, match=r"counted 20 times.*--max-pixels 81920"):
        decode(many, Limits(max_pixels=64 * 64 * 19))


@pytest.mark.parametrize(
    ("mode", "name", "bytes_a_pixel"),
    [
        ("RGB", "JPEG", 8),
        ("L", "PNG", 8),
        ("RGBA", "PNG", 16),
        ("I;16", "PNG", 16),
        ("F", "TIFF", 32),
    ],
)
def test_what_is_reserved_by_mode(mode, name, bytes_a_pixel):
    out, held = io.BytesIO(), []
    Image.new(mode, (20, 10)).save(out, name)
    decode(out.getvalue(), reserve=held.append)
    assert held == [len(out.getvalue()) + bytes_a_pixel * 200]


def test_a_tile_larger_than_its_picture_is_what_is_judged():
    """Pillow unpacks whole tiles: 64 x 64 pixels can take gigabytes."""
    held = []
    tile = zlib.compress(bytes(256 * 512 * 3))
    data = tiff(24, 16, tile_width=256, tile_length=512, tile=tile)
    assert decode(data, reserve=held.append).size == (24, 16)
    assert held == [len(data) + 8 * 256 * 512]
    with pytest.raises(InputError, match="256 x 512 pixels, above the bound"):
        decode(data, Limits(max_pixels=256 * 512 - 1))


def tiff(width: int, height: int, *, tile_width: int, tile_length: int, tile: bytes) -> bytes:
    """An RGB TIFF of one tile, packed by deflate."""
    bits = 8 + 2 + 12 * 11 + 4
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, bits),  # BitsPerSample: three values, elsewhere
        (259, 3, 1, 8),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 1),
        (322, 3, 1, tile_width),
        (323, 3, 1, tile_length),
        (324, 4, 1, bits + 6),
        (325, 4, 1, len(tile)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    head = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)
    return head + struct.pack("<3H", 8, 8, 8) + tile


def test_reserve_is_told_the_size_once_and_before_decoding(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "upright_rgb", lambda image: calls.append("decoded") or image)
    decode(FORMATS["PNG"], reserve=calls.append)
    assert calls == [len(FORMATS["PNG"]) + 8 * 24 * 24, "decoded"]


def test_pillows_own_alarms_do_not_decide(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    before = list(warnings.filters)
    assert decode(FORMATS["PNG"]).size == (24, 24)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert list(warnings.filters) == before


def test_warnings_of_pillow_are_no_errors():
    with module.PillowGuard("PNG"):
        warnings.warn_explicit("odd metadata", UserWarning, "x.py", 1, module="PIL.PngImagePlugin")
        warnings.warn_explicit("too large", Image.DecompressionBombWarning, "x.py", 1, "PIL.Image")
    with pytest.raises(UserWarning, match="afterwards"):
        warnings.warn_explicit("afterwards", UserWarning, "x.py", 1, module="PIL.PngImagePlugin")


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_anywhere_is_a_picture_or_a_reason(kind):
    data = FORMATS[kind]
    lengths = {*range(0, 80, 3), *range(80, len(data), max(1, len(data) // 40))}
    reasons = [_picture_or_reason(data[:length]) for length in sorted(lengths)]
    assert reasons[0] is not None  # of nothing, no decoder makes a picture
    assert all(reason is None or _is_plain(reason) for reason in reasons)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
)
def test_damaged_anywhere_is_a_picture_or_a_reason(kind, edits):
    data = bytearray(FORMATS[kind])
    for place, value in edits:
        data[place % len(data)] = value
    reason = _picture_or_reason(bytes(data), Limits(max_pixels=1_000_000))
    assert reason is None or _is_plain(reason)


def _picture_or_reason(data: bytes, limits: Limits | None = None) -> str | None:
    """Why the data is refused; None for a picture. Any other exception fails the test."""
    try:
        image = decode(data, limits)
    except InputError as error:
        return str(error)
    assert image.mode == "RGB"
    return None


def _is_plain(reason: str) -> bool:
    return 0 < len(reason) < 160 and "object at" not in reason and "\n" not in reason


def test_reasons_are_plain():
    with pytest.raises(InputError, match=r"^empty file \(0 bytes\)$"):
        decode(b"")
    with pytest.raises(InputError, match=r"^not an image"):
        decode(b"a letter to a friend")
    with pytest.raises(InputError, match=r"^truncated JPEG image"):
        decode(FORMATS["JPEG"][:400])
    with pytest.raises(InputError, match=r"^damaged PNG image|^truncated PNG image"):
        decode(FORMATS["PNG"][:30])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "PNG image: not enough memory to decode it"),
        (EOFError("more"), "truncated PNG image: the file ends too early"),
        (OSError("cannot identify <_io.BytesIO object at 0x7f>"), "damaged PNG image"),
        (ValueError("bad\n  block"), "damaged PNG image (bad block)"),
    ],
)
def test_reason_of_each_kind_of_failure(error, reason, monkeypatch):
    def fail(_image):
        raise error

    monkeypatch.setattr(module, "upright_rgb", fail)
    with pytest.raises(InputError) as caught:
        decode(FORMATS["PNG"])
    assert str(caught.value) == reason


def test_a_format_that_is_not_installed_names_the_cure(monkeypatch):
    monkeypatch.setattr(module, "_readable", lambda: frozenset({"PNG"}))
    heic = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"
    with pytest.raises(InputError, match=r"pip install 'spherequant\[heif\]'"):
        decode(heic)
    with pytest.raises(InputError, match="AVIF image: this installation"):
        decode(b"\0\0\0\x18ftypavif\0\0\0\0avifmif1")


def test_threads_get_what_one_thread_gets():
    expected = {kind: pixels(data) for kind, data in FORMATS.items()}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            for kind, data in FORMATS.items():
                if not np.array_equal(pixels(data), expected[kind]):
                    wrong.append(kind)
            try:
                decode(FORMATS["JPEG"][:300])
                wrong.append("truncated")
            except InputError:
                pass

    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


def test_thumbnail_fits_and_is_never_enlarged():
    with Image.open(io.BytesIO(thumbnail(gradient(400, 100)))) as small:
        assert (small.format, small.size) == ("JPEG", (160, 40))
    with Image.open(io.BytesIO(thumbnail(gradient(20, 10), side=64))) as same:
        assert same.size == (20, 10)
    with Image.open(io.BytesIO(thumbnail(gradient(900, 1)))) as thin:
        assert thin.size == (160, 1)
    image = gradient()
    thumbnail(image, side=4)
    assert image.size == (24, 16)


_BOMBS = r"""
import resource, struct, zlib
from spherequant.errors import InputError
from spherequant.images import decode

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

def png(pixels, *before):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, *before, data, chunk(b"IEND", b"")])

rows, packed = bytes(4 * 13), zlib.compress(bytes(400 << 20), 9)
bombs = [
    png(rows + bytes(400 << 20)),
    *(png(rows, chunk(kind, head + packed))
      for kind, head in ((b"zTXt", b"x\0\0"), (b"iCCP", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0"))),
]
decode(png(rows))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)
for bomb in bombs:
    try:
        print(decode(bomb).size)
    except InputError as error:
        print(error)
try:
    bytes(400 << 20)
except MemoryError:
    print("no room")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory in use is read from /proc")
def test_what_unpacks_to_much_is_not_unpacked():
    """PNGs of 400 KB that unpack to 400 MB, where there are 150 MB."""
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS], capture_output=True, text=True, check=True
    )
    pixels, *others, room = done.stdout.splitlines()
    assert (pixels, room) == ("(4, 4)", "no room")
    assert len(others) == 3
    assert all("too large" in line for line in others)


@pytest.mark.parametrize("white", [0, 1])
def test_a_float_tiff_says_what_white_is(white):
    out = io.BytesIO()
    Image.fromarray(np.array([[0.0, 1.0]], np.float32)).save(out, "TIFF", tiffinfo={262: white})
    found = np.asarray(decode(out.getvalue()))[0, :, 0].tolist()
    assert found == ([0, 255] if white else [255, 0])


def test_a_12_bit_tiff_reaches_white():
    packed = bytes([0xFF, 0xF0, 0x00])  # 0xFFF, then 0x000
    found = np.asarray(decode(grey_tiff(2, 1, bits=12, data=packed)))[0, :, 0]
    assert found.tolist() == [255, 0]


def test_a_tiff_of_unsigned_32_bits_has_no_negative_values():
    values = np.array([[0, 2**31, 2**32 - 1]], "<u4")
    found = np.asarray(decode(grey_tiff(3, 1, bits=32, data=values.tobytes())))[0, :, 0]
    assert found.tolist() == [0, 128, 255]


def grey_tiff(width: int, height: int, *, bits: int, data: bytes) -> bytes:
    """A TIFF of one strip whose 0 is black."""
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8 + 2 + 12 * 10 + 4),
        (277, 3, 1, 1),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
        (339, 3, 1, 1),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + data


@pytest.mark.parametrize("white", [0, 1])
def test_a_16_bit_tiff_says_what_white_is(white):
    grey = np.array([[0, 65_535], [257, 32_896]], np.uint16)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "TIFF", tiffinfo={262: white})
    found = np.asarray(decode(out.getvalue()))[:, :, 0]
    expected = grey // 257
    np.testing.assert_array_equal(found, expected if white else 255 - expected)
