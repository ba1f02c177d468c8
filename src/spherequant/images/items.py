"""The values of this room: an image that was listed, one that was passed over, and the bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spherequant.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One listed image, not yet read.

    Attributes:
        key: Path inside the source, ``/``-separated, Unicode NFC; unique in its source.
        labels: Sorted, without repeats; ``()`` when unlabelled.
        split: ``"train"``, ``"val"``, ``"test"``, or None where the source has no splits.
        size: Bytes of the encoded image.
        mtime: Time of the last change, seconds since the epoch; 0.0 when unknown.
        metadata: Further columns of ``labels.csv``.
        wrapper: Start of the key, ``name/``, where an archive holds everything in one folder.
    """

    key: str
    labels: tuple[str, ...] = ()
    split: str | None = None
    size: int = 0
    mtime: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    wrapper: str = ""

    @property
    def identity(self) -> str:
        """What splits and trainings know the image by: its key, the same in a folder's archive."""
        return self.key.removeprefix(self.wrapper)


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that was passed over, and why, in one short plain sentence."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one image, judged before its pixels are decoded.

    Attributes:
        max_pixels: Width times height (option ``--max-pixels``).
        max_bytes: Size of the encoded image in bytes (option ``--max-megabytes``, of 2^20 bytes).

    Raises:
        ConfigError: A bound below one.
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * _MEGABYTE

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ConfigError(f"--max-pixels must be at least 1, not {self.max_pixels}")
        if self.max_bytes < 1:
            raise ConfigError(f"--max-megabytes must be above 0, not {self.max_bytes / _MEGABYTE}")

    def check_bytes(self, size: int) -> None:
        """Refuse an encoded image of ``size`` bytes when it is above the bound.

        Raises:
            InputError: Names the option that lifts the bound.
        """
        if size > self.max_bytes:
            raise InputError(
                f"{size / _MEGABYTE:.1f} megabytes, above the bound of "
                f"{self.max_bytes / _MEGABYTE:g}; raise it with "
                f"--max-megabytes {-(-size // _MEGABYTE)}"
            )

    def check_pixels(self, width: int, height: int, weight: int = 1) -> None:
        """Refuse a picture of ``width`` x ``height`` when it is above the bound, or has no area.

        Args:
            width: In pixels.
            height: In pixels.
            weight: How many pixels one counts as, of what takes long to decode.

        Raises:
            InputError: Names the option that lifts the bound.
        """
        pixels = width * height * weight
        if pixels < 1:
            raise InputError(f"a picture of {width} x {height} pixels")
        if pixels > self.max_pixels:
            slow = f", each counted {weight} times in this slow format" if weight > 1 else ""
            raise InputError(
                f"{width} x {height} pixels{slow}, above the bound of {self.max_pixels:,}; "
                f"raise it with --max-pixels {pixels}"
            )
