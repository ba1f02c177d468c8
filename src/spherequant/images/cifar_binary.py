"""CIFAR-10's binary version, in its folder or its archive; unlike the Python version, no pickle."""

from __future__ import annotations

import tarfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from spherequant.errors import SourceError
from spherequant.images.decoding import to_png
from spherequant.images.items import Item
from spherequant.images.labels import own_labels_note, tidy_labels
from spherequant.images.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from spherequant.images.decoding import Reserve
    from spherequant.images.items import Limits

IMAGES_A_FILE = 10_000

_FOLDER, _ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
_SIDE, _CLASSES = 32, 10
_RECORD = 1 + 3 * _SIDE * _SIDE  # label, then the red, green and blue planes
_NAMES = "batches.meta.txt"
_FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}


def find_binary(root: Path) -> Path | None:
    """The binary version at or in ``root``: its archive or folder. The Python version goes first.

    Raises:
        SourceError: ``root`` is a file, and not that archive.
    """
    if root.is_file():
        if root.name != _ARCHIVE:
            raise SourceError(
                f"{root} is not {_ARCHIVE}. Give that archive, or the folder that holds it, "
                f"{_FOLDER}, cifar-10-batches-py or cifar-10-python.tar.gz"
            )
        return root
    if root.name == _FOLDER and root.is_dir():
        return root
    if (root / "cifar-10-batches-py").is_dir():
        return None
    return next((place for name in (_FOLDER, _ARCHIVE) if (place := root / name).exists()), None)


class CifarBinarySource(Source):
    """CIFAR-10 with the keys, labels and splits that it has from torchvision.

    Raises:
        SourceError: A file is missing, of another size, or damaged.
    """

    def __init__(self, labels: str, limits: Limits, place: Path) -> None:
        files = _read_folder(place) if place.is_dir() else _read_archive(place)
        names = files[_NAMES].decode("ascii", "replace").split()
        if len(names) != _CLASSES:
            raise SourceError(f"{place}: {_NAMES} names {len(names)} classes, not {_CLASSES}")
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        items = []
        for split, members in _FILES.items():
            records = np.concatenate([_records(files[name], name, place) for name in members])
            for index, record in enumerate(records):
                key = f"cifar10/{split}/{index:06d}.png"
                self._pixels[key] = record[1:]
                own = () if labels == "none" else tidy_labels([names[record[0]]])
                items.append(Item(key, own, split))
        items.sort(key=lambda item: item.key)
        note = own_labels_note(items, "cifar10", labels)
        super().__init__("cifar10", "cifar10:", items, (), note, limits)

    def image(
        self, item: Item, limits: Limits | None = None, reserve: Reserve | None = None
    ) -> Image.Image:
        """The picture, without a detour over `read`."""
        (limits or self.limits).check_pixels(_SIDE, _SIDE)
        if reserve is not None:
            reserve(4 * _SIDE * _SIDE)
        planes = self._pixels[item.key].reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def _read(self, item: Item, limits: Limits) -> bytes:
        return to_png(self.image(item, limits))


def _wanted() -> dict[str, int]:
    """The files' names, and the most bytes that each may have."""
    batches = [name for members in _FILES.values() for name in members]
    return {**dict.fromkeys(batches, IMAGES_A_FILE * _RECORD), _NAMES: 4096}


def _read_folder(folder: Path) -> Mapping[str, bytes]:
    found = {}
    for name, most in _wanted().items():
        try:
            with (folder / name).open("rb") as file:
                found[name] = file.read(most + 1)
        except OSError as error:
            raise SourceError(f"{folder / name} cannot be read: {error.strerror}") from None
    return found


def _read_archive(path: Path) -> Mapping[str, bytes]:
    wanted, found = _wanted(), {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.isreg() and name in wanted:
                    file = archive.extractfile(member)
                    found[name] = file.read(wanted[name] + 1) if file else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is damaged ({error}): copy or download it again") from None
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SourceError(f"{path} lacks {', '.join(missing)}: copy or download it again")
    return found


def _records(data: bytes, name: str, place: Path) -> NDArray[np.uint8]:
    """Label and pixels of each image, uint8 [N, 1 + 3 * 32 * 32]."""
    if len(data) != IMAGES_A_FILE * _RECORD:
        size = "more" if len(data) > IMAGES_A_FILE * _RECORD else f"only {len(data):,}"
        raise SourceError(
            f"{name} of {place} has {size} bytes, not {IMAGES_A_FILE * _RECORD:,}: copy or "
            "download it again"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(IMAGES_A_FILE, _RECORD)
    if records[:, 0].max(initial=0) >= _CLASSES:
        raise SourceError(f"{name} of {place} has a label above 9: copy or download it again")
    return records
