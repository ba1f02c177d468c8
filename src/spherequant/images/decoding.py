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

_BYTES_PER_PIXEL = 8  # Pillow keeps RGB in 4 bytes, and a conversion holds the picture twice

_PILLOW_MODULES = r"(PIL|pillow_heif)\b"
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143
_SLOWNESS = 16  # bounds of Python's decoders are lower by this: no other thread runs meanwhile
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
        limits.check_pixels(width, height, weight=_SLOWNESS if _is_slow(image) else 1)
        if reserve is not None:
            reserve(len(data) + _BYTES_PER_PIXEL * width * height)
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


def _is_slow(image: Image.Image) -> bool:
    """Whether Pillow decodes it in Python: QOI, PPM as text, BMP by run lengths."""
    return any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ()))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring an image of any mode to upright 8-bit RGB; the result shares nothing with it."""
    image.load()  # first: a PNG may keep its EXIF behind the pixels, a TIFF is turned by loading
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the picture
        orientation = 1
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
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
    if image.mode.startswith("I;16"):
        values_HW = np.asarray(image)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # a TIFF whose 0 is white
            values_HW = 65_535 - values_HW
        grey_HW = _from_16_bit(values_HW)
        grey_HW[values_HW == image.info.get("transparency", -1)] = 255
        return _grey(grey_HW)
    if image.mode == "I":
        return _grey(_from_integers(np.asarray(image)))
    if image.mode == "F":
        return _grey(_from_floats(np.asarray(image)))
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, (255, 255, 255))
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")  # of an RGB image: a copy, free of the file


def _grey(grey_HW: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey_HW).convert("RGB")


def _from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map 0..65535 to 0..255, rounded."""
    return np.asarray((values.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)


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
    """A PIL image of any mode, or a uint8 array [H, W, 3], as upright RGB: as a source's are.

    Raises:
        InputError: it is neither, or the image's file, not read until now, is damaged.
    """
    if isinstance(image, Image.Image):
        with PillowGuard(image.format or "PIL"):
            return upright_rgb(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image is a PIL image or a uint8 array [H, W, 3]; got {type(image).__name__}."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"an image is a PIL image or a uint8 array [H, W, 3]; got {image.dtype} "
            f"{list(image.shape)}."
        )
    return Image.fromarray(image)
