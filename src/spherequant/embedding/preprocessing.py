"""What happens to an image before the network sees it; stored with the weights, as timm does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spherequant.errors import ConfigError, FormatError
from spherequant.images.decoding import PillowGuard, upright_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """One central square of an image, resized to ``size`` and standardised.

    Attributes:
        size: side of the network's input, in pixels.
        crop: share of the shorter side that the square covers, in (0, 1] (timm's ``crop_pct``).
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        mean: of each channel in [0, 1], red, green, blue.
        std: deviation of each channel.
    """

    size: int
    crop: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise ConfigError(f"image_size must lie between 8 and 4096 pixels, not {self.size}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"the crop must lie in (0, 1], not {self.crop}")
        if self.interpolation not in _RESAMPLING:
            raise ConfigError(
                f"unknown interpolation {self.interpolation!r}: one of {', '.join(_RESAMPLING)}"
            )
        if min(self.std) <= 0:
            raise ConfigError(f"the deviation of each channel must be above 0, not {self.std}")

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Cut and resize one image. Thread-safe: it runs in the workers that decode.

        Args:
            image: any size and mode; brought to upright RGB as a source's images are, so that
                a picture from ``Image.open`` and the same file in a folder are one picture.

        Returns:
            uint8 [size, size, 3].

        Raises:
            InputError: the image's file, not read until now, is damaged.
        """
        # Decoded images of a source are plain RGB already, and go through untouched.
        if image.mode != "RGB" or image.info or type(image) is not Image.Image:
            with PillowGuard(image.format or "image"):
                image = upright_rgb(image)
        if image.size != (self.size, self.size) or self.crop < 1:
            width, height = image.size
            side = self.crop * min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            image = image.resize(
                (self.size, self.size),
                _RESAMPLING[self.interpolation],
                box=(left, top, left + side, top + side),
            )
        return np.array(image, dtype=np.uint8)

    def standardise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn pixels into the network's input.

        Args:
            pixels: uint8 [B, size, size, 3], or float of the same shape in [0, 255].

        Returns:
            float32 [B, 3, size, size] in channels-last memory: the layout that convolutions
            are fastest in, and the one that the pixels already have.
        """
        import torch

        scale = torch.tensor(self.std, device=pixels.device) * 255
        shift = torch.tensor(self.mean, device=pixels.device) * 255
        return ((pixels.to(torch.float32) - shift) / scale).permute(0, 3, 1, 2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``model.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what ``to_dict`` wrote.

        Raises:
            FormatError: a value is missing or has another type.
        """
        try:
            red, green, blue = (float(v) for v in values["mean"])
            red_std, green_std, blue_std = (float(v) for v in values["std"])
            return cls(
                size=int(values["size"]),
                crop=float(values["crop"]),
                interpolation=str(values["interpolation"]),
                mean=(red, green, blue),
                std=(red_std, green_std, blue_std),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"the model's preprocessing cannot be read: {error}") from error
