"""A folder of awkward files: every kind that a person's photo folder, or an enemy, may hold.

`make_awkward_folder` writes it and says what must come of each file. The class folders are named
after the colour in the middle of their images, so that a label that has shifted shows.
"""

from __future__ import annotations

import struct
import unicodedata
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200), "grey": (128,) * 3}
SIZE = (48, 32)


@dataclass(frozen=True)
class Expectation:
    """What must come of one file.

    Attributes:
        outcome: ``"ok"``, or a regular expression that the reason of its skip matches.
        labels: Labels of the item (files of class folders).
    """

    outcome: str
    labels: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


def colour_image(name: str, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", size, COLOURS[name]).convert(mode)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def exif_rotated(name: str, orientation: int = 6) -> bytes:
    """A JPEG stored on its side: upright it is `SIZE`, of one colour with a white left edge."""
    upright = colour_image(name)
    upright.paste((255, 255, 255), (0, 0, 12, SIZE[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
    return encode(stored, "JPEG", exif=exif, quality=95)


def animation(kind: str, first: str, second: str) -> bytes:
    return encode(
        colour_image(first), kind, save_all=True, append_images=[colour_image(second)], duration=90
    )


def make_awkward_folder(path: Path) -> dict[str, Expectation]:
    """Write the folder, and return what is expected of each file that is not silent junk.

    Keys of the result are item keys for files that are read, and the reported path for skips.
    """
    path.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Expectation] = {}

    def put(name: str, data: bytes, outcome: str = "ok") -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        top = name.partition("/")[0]
        key = unicodedata.normalize("NFC", name) if outcome == "ok" else name
        labels = (top,) if outcome == "ok" and top in COLOURS else ()
        expected[key] = Expectation(outcome, labels)

    _put_readable(put)
    _put_grey(put)
    _put_broken(put)
    for junk in (
        ".DS_Store",
        "Thumbs.db",
        "red/._plain.jpg",
        ".hidden/x.jpg",
        "__MACOSX/red/a.jpg",
    ):
        file = path / junk
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(colour_image("red"), "JPEG"))
    (path / ".#lock").symlink_to(path / "gone")
    return expected


def _put_readable(put) -> None:
    red, green, blue = (colour_image(name) for name in ("red", "green", "blue"))
    put("red/plain.jpg", encode(red, "JPEG"))
    put("red/nested/deeper/still deeper/inside.png", encode(red, "PNG"))
    put("red/exif-rotated.jpg", exif_rotated("red"))
    put("red/cmyk.jpg", encode(colour_image("red", mode="CMYK"), "JPEG", quality=95))
    put("red/cmyk.tif", encode(colour_image("red", mode="CMYK"), "TIFF"))
    put("red/misnamed-a-png.jpg", encode(red, "PNG"))
    put("red/misnamed-a-photo.txt", encode(red, "JPEG"))
    put("red/no extension", encode(red, "JPEG"))
    put("red/progressive.jpeg", encode(red, "JPEG", progressive=True))

    put("green/palette.png", encode(green.quantize(4), "PNG"))
    seen_through = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    seen_through.paste((*COLOURS["green"], 255), (8, 8, 40, 24))
    put("green/palette-transparent.png", encode(seen_through.quantize(8), "PNG"))
    put("green/animated.gif", animation("GIF", "green", "red"))
    put("green/animated.webp", animation("WEBP", "green", "red"))
    put("green/animated.png", animation("PNG", "green", "red"))
    put("green/pages.tif", animation("TIFF", "green", "red"))
    put("green/grün ☘ 绿 🍀.png", encode(green, "PNG"))
    put(unicodedata.normalize("NFD", "green/décomposé.png"), encode(green, "PNG"))
    put("green/twice-é.png", encode(green, "PNG"))
    put(
        unicodedata.normalize("NFD", "green/twice-é.png"),
        encode(colour_image("red"), "PNG"),
        "second file with the key",
    )

    put("blue/alpha.png", encode(_alpha("blue"), "PNG"))
    put("blue/alpha.webp", encode(_alpha("blue"), "WEBP", lossless=True))
    put("blue/CASE.PNG", encode(blue, "PNG"))
    put("blue/case.png", encode(blue, "PNG"))
    put("blue/space & 100% #1.bmp", encode(blue, "BMP"))
    put("blue/plain.ppm", encode(blue, "PPM"))
    if features.check("avif"):
        put("blue/still.avif", encode(blue, "AVIF", quality=95))
    try:
        import pillow_heif
    except ImportError:
        put("blue/phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0heic", r"spherequant\[heif\]")
    else:
        pillow_heif.register_heif_opener()
        put("blue/phone.heic", encode(blue, "HEIF", quality=95))


def _alpha(name: str) -> Image.Image:
    """Opaque in the middle, see-through at the edge."""
    image = Image.new("RGBA", SIZE, (255, 0, 0, 0))
    image.paste((*COLOURS[name], 255), (8, 8, 40, 24))
    return image


def _put_grey(put) -> None:
    level = COLOURS["grey"][0]
    grey_HW = np.full((SIZE[1], SIZE[0]), level)
    sixteen = Image.fromarray((grey_HW * 257).astype(np.uint16))
    put("grey/sixteen-bit.png", encode(sixteen, "PNG"))
    put("grey/sixteen-bit.tif", encode(sixteen, "TIFF"))
    put("grey/float.tif", encode(Image.fromarray((grey_HW / 255).astype(np.float32)), "TIFF"))
    put("grey/integers.tif", encode(Image.fromarray((grey_HW * 257).astype(np.int32)), "TIFF"))
    put("grey/eight-bit.jpg", encode(colour_image("grey", mode="L"), "JPEG"))
    put("grey/with-alpha.png", encode(colour_image("grey", mode="LA"), "PNG"))


def _put_broken(put) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    jpeg, png = encode(noise, "JPEG"), encode(noise, "PNG")
    put("red/truncated.jpg", jpeg[: len(jpeg) // 2], "truncated JPEG")
    put("red/only-a-header.jpg", jpeg[:20], "truncated|damaged")
    put("red/zero-bytes.jpg", b"", "empty file")
    put("green/garbage.jpg", bytes(range(256)) * 4, "not an image")
    put("green/truncated.png", png[: len(png) // 2], "truncated PNG")
    put("blue/corrupt.png", png[:60] + bytes(200) + png[260:], "damaged PNG|truncated PNG")
    put("blue/corrupt.webp", encode(noise, "WEBP")[:80], "truncated WEBP|damaged WEBP")
    put("blue/huge.png", png_header(30_000, 30_000), "--max-pixels 900000000")
    put("red/page.jpg", b"<html><body>404 Not Found</body></html>", "not an image")
    put("notes.txt", b"Not an image.", "not an image")
    put("blue/manual.pdf", b"%PDF-1.7\n", "not an image")
    put("blue/film.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "not an image")
    put("blue/raw.nef", b"MM\0*" + bytes(100), "camera's raw")
