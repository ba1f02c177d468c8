"""Encoded bytes -> an upright RGB picture, or one plain reason why not.

Pillow reads the formats. What is decided here: which formats are tried (the one that the first
bytes name, whatever the file is called), what each pixel format means in 8-bit RGB, and that every
failure is an ``InputError`` of one sentence.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spherequant.errors import InputError
from spherequant.images.items import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

    Reserve = Callable[[int], None]
    """Called with the bytes that decoding is about to take; may wait until there is room."""

HEAD_BYTES = 64
"""How much of a file `sniff` looks at."""

# Pillow keeps a colour pixel in 4 bytes, and a conversion holds the picture twice; what is laid on
# white or brought to 8 bits is there in more forms at once.
_BYTES_PER_PIXEL, _BYTES_PER_WIDE_PIXEL, _BYTES_PER_FLOAT = 8, 16, 32

_PILLOW_MODULES = r"(PIL|pillow_heif)\b"
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0102, 0x0106, 0x0153
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143
_SLOWNESS = 16  # bounds of Python's decoders are lower by this: no other thread runs meanwhile
_SCAN = b"\xff\xda"  # begins each pass of a JPEG over all its pixels
_USUAL_SCANS = 16  # progressive ones have about ten; a file may hold millions
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"qoif", "QOI"),
)
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # sizes of the header that follows the first
_PPM = re.compile(rb"P[1-6][\s#]")
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"mif1", b"msf1"}


def sniff(head: bytes) -> str | None:
    """The image format that the first `HEAD_BYTES` bytes of a file announce, or None.

    The names are Pillow's. Formats whose readers run other programs (EPS, WMF) or whose containers
    hide the size of the picture (ICO, ICNS) are not in the list.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, HEAD_BYTES, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else None
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PPM" if _PPM.match(head) else None


def decode(
    data: bytes, limits: Limits | None = None, reserve: Reserve | None = None
) -> Image.Image:
    """Decode one image: the first frame, rotated as its EXIF says, alpha laid on white.

    Thread-safe, and a function of ``data`` alone.

    Args:
        data: The encoded image.
        limits: Bounds, judged before any pixel is decoded; `Limits()` when None.
        reserve: Called once with the bytes that decoding will take, after the bounds.

    Returns:
        An image of mode RGB that holds no file open.

    Raises:
        InputError: One plain sentence: empty, too large, not an image, truncated, damaged, or of a
            format that this installation does not read.
    """
    limits = limits or Limits()
    if not data:
        raise InputError("empty file (0 bytes)")
    limits.check_bytes(len(data))
    name = sniff(data[:HEAD_BYTES])
    if name is None:
        raise InputError("not an image: it starts like no known image format")
    _require(name)
    with PillowGuard(name), Image.open(io.BytesIO(data), formats=(name,)) as image:
        width, height = _unpacked_size(image)
        scans = data.count(_SCAN) if name == "JPEG" else 1
        limits.check_pixels(width, height, weight=max(1, scans // _USUAL_SCANS, slowness(image)))
        if reserve is not None:
            reserve(len(data) + bytes_per_pixel(image) * width * height)
        return upright_rgb(image)


def _unpacked_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of what decoding holds at once: the picture, or a tile that is larger."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    tile = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    width, height = (
        max(side, most) if isinstance(most, int) else side
        for side, most in zip(image.size, tile, strict=True)
    )
    return width, height


def slowness(image: Image.Image) -> int:
    """What a pixel counts as; more than 1 where Python decodes: QOI, PPM as text, BMP by runs."""
    in_python = any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ()))
    return _SLOWNESS if in_python else 1


def bytes_per_pixel(image: Image.Image) -> int:
    """The most memory that decoding and `upright_rgb` take."""
    if image.mode == "F":
        return _BYTES_PER_FLOAT
    plain = not (image.mode.startswith("I") or _is_transparent(image))
    return _BYTES_PER_PIXEL if plain else _BYTES_PER_WIDE_PIXEL


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring an image of any mode to upright 8-bit RGB; the result shares nothing with it."""
    image.load()  # first: a PNG may keep its EXIF behind the pixels, a TIFF is turned by loading
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the picture
        orientation = 1
    turn = _UPRIGHT.get(orientation)
    if turn is not None and image.mode == "RGB" and not _is_transparent(image):
        rgb = image.transpose(turn)  # a copy, as the conversion would be
    else:
        rgb = _to_rgb(image)
        rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}
    return rgb


def thumbnail(image: Image.Image, side: int = 160) -> bytes:
    """A JPEG of ``image`` (RGB) that fits ``side`` x ``side`` pixels; never enlarged."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def to_png(image: Image.Image) -> bytes:
    """Encode an RGB or grey image without loss, quickly rather than small."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB by what the mode means; transparent pixels show white."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_from_wide(image)).convert("RGB")
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, (255, 255, 255))
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")  # of an RGB image: a copy, free of the file


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info


def _from_wide(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits; of a TIFF, by what its tags say of the values."""
    tags = getattr(image, "tag_v2", {})
    values_HW = np.asarray(image)
    if image.mode == "F":
        grey_HW = _from_floats(values_HW)
    elif image.mode == "I":
        bits, kind = (tags.get(tag, (0,)) for tag in (_BITS, _SAMPLE_FORMAT))
        if tuple(bits) == (32,) and tuple(kind) != (2,) and tags:  # unsigned; Pillow has it signed
            values_HW = values_HW.view(np.uint32)
        grey_HW = _from_integers(values_HW)
    else:
        bits = tags.get(_BITS, (16,))
        grey_HW = _from_16_bit(values_HW, white=(1 << min(bits[0], 16)) - 1)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white
        grey_HW = 255 - grey_HW
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey_HW[values_HW == transparent] = 255
    return grey_HW


def _from_16_bit(values: NDArray[Any], white: int = 65_535) -> NDArray[np.uint8]:
    """Map 0..white, at most 65535, to 0..255, rounded."""
    grey = (values.astype(np.uint32) * 255 + white // 2) // white
    return np.asarray(np.minimum(grey, 255), np.uint8)


def _from_integers(values: NDArray[Any]) -> NDArray[np.uint8]:
    """32-bit grey: 16-bit values where they fit, else the image's own range."""
    if values.min() >= 0 and values.max() <= 65535:
        return _from_16_bit(values)
    return _stretch(values.astype(np.float64))


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Float grey: of white 1, 255 or 65535 (the first that fits), else the image's own range."""
    finite = np.isfinite(values)
    values = np.where(finite, values, values[finite].min(initial=0.0)).astype(np.float64)
    if values.min() >= 0:
        for white in (1.0, 255.0, 65535.0):
            if values.max() <= white:
                return np.asarray(np.rint(values * (255.0 / white)), np.uint8)
    return _stretch(values)


def _stretch(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, np.uint8)
    return np.asarray(np.rint((values - low) / (high - low) * 255.0), np.uint8)


@cache
def _readable() -> frozenset[str]:
    """Names of the formats that this installation reads."""
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    return frozenset(Image.OPEN)


def _require(name: str) -> None:
    if name in _readable():
        return
    if name == "HEIF":
        raise InputError("HEIC image: reading it needs pip install 'spherequant[heif]'")
    raise InputError(f"{name} image: this installation of Pillow does not read the format")


class PillowGuard:
    """Run Pillow on untrusted bytes: its own alarms off, every failure one plain sentence.

    Pillow warns above 89 megapixels and about odd metadata. The bounds of `Limits` stand in for the
    first, and neither may depend on the caller's warning filters, where they would turn readable
    images into errors. Both switches are global, so they are off only while some thread is inside,
    and counted, because ``warnings.catch_warnings`` is not made for threads.
    """

    _lock = threading.Lock()
    _inside = 0
    _max_pixels: int | None = None

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        kind = type(self)
        with kind._lock:
            if kind._inside == 0:
                kind._max_pixels = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = None
                warnings.filterwarnings("ignore", module=_PILLOW_MODULES)
            kind._inside += 1

    def __exit__(
        self,
        kind_of_error: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        kind = type(self)
        with kind._lock:
            kind._inside -= 1
            if kind._inside == 0:
                Image.MAX_IMAGE_PIXELS = kind._max_pixels
                _forget_filter()
        if isinstance(error, Exception) and not isinstance(error, InputError):
            raise InputError(_reason(self._name, error)) from None


def _forget_filter() -> None:
    """Take the filter of `PillowGuard` out again, unless another thread's restore has done so."""
    for entry in warnings.filters:
        module = entry[3]
        if entry[0] == "ignore" and getattr(module, "pattern", None) == _PILLOW_MODULES:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # it is a list, typed as a sequence
            return


def _reason(name: str, error: Exception) -> str:
    """A sentence for a person, from an error of Pillow's."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"{name} image: not enough memory to decode it"
    if isinstance(error, (EOFError, struct.error)) or "truncat" in text.lower():
        return f"truncated {name} image: the file ends too early"
    if re.fullmatch(r"[\w\s.,:;()%/'-]{1,80}", text) and "object at" not in text:
        return f"damaged {name} image ({text})"
    return f"damaged {name} image"


def picture(image: object) -> Image.Image:
    """A PIL image of any mode, or a uint8 array, as upright RGB: as a source's are.

    Args:
        image: arrays are [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: it is neither, or the image's file, not read until now, is damaged.
    """
    if isinstance(image, np.ndarray):
        image = from_array(image)
    if not isinstance(image, Image.Image):
        raise InputError(
            f"an image is a PIL image or a uint8 array [H, W, 3]; got {type(image).__name__}."
        )
    with PillowGuard(image.format or "PIL"):
        return upright_rgb(image)


def from_array(array: NDArray[Any]) -> Image.Image:
    """An array as a PIL image, not yet RGB.

    Args:
        array: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: it is of another type or shape, or has no pixels.
    """
    shape = array.shape
    if array.dtype != np.uint8 or not (
        len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3, 4})
    ):
        raise InputError(
            f"an array of {array.dtype} {list(shape)}: give uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    if 0 in shape:
        raise InputError(f"an array without pixels: {list(shape)}")
    return Image.fromarray(array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array)
