"""Known image sets by name: scikit-learn's bundled digits, torchvision's, and the benchmarks."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spherequant.errors import InputError, SourceError
from spherequant.images.benchmarks import BENCHMARKS, BenchmarkSource
from spherequant.images.cifar_binary import CifarBinarySource, find_binary
from spherequant.images.decoding import to_png, upright_rgb
from spherequant.images.items import Item
from spherequant.images.labels import own_labels_note, refuse_file_labels, tidy_labels
from spherequant.images.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spherequant.images.decoding import Reserve
    from spherequant.images.items import Limits

_TRAIN_FLAG: dict[str | None, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}


def _named(**splits: str) -> dict[str | None, dict[str, Any]]:
    """Constructor arguments of sets that take ``split=``, by our name of the split."""
    return {ours: {"split": theirs} for ours, theirs in splits.items()}


_WHOLE: dict[str | None, dict[str, Any]] = {None: {}}
_TORCHVISION: dict[str, tuple[str, dict[str | None, dict[str, Any]]]] = {
    "caltech101": ("Caltech101", _WHOLE),
    "caltech256": ("Caltech256", _WHOLE),
    "cifar10": ("CIFAR10", _TRAIN_FLAG),
    "cifar100": ("CIFAR100", _TRAIN_FLAG),
    "country211": ("Country211", _named(train="train", val="valid", test="test")),
    "dtd": ("DTD", _named(train="train", val="val", test="test")),
    "eurosat": ("EuroSAT", _WHOLE),
    "fashionmnist": ("FashionMNIST", _TRAIN_FLAG),
    "fgvcaircraft": ("FGVCAircraft", _named(train="train", val="val", test="test")),
    "flowers102": ("Flowers102", _named(train="train", val="val", test="test")),
    "food101": ("Food101", _named(train="train", test="test")),
    "gtsrb": ("GTSRB", _named(train="train", test="test")),
    "imagenette": ("Imagenette", _named(train="train", val="val")),
    "kmnist": ("KMNIST", _TRAIN_FLAG),
    "mnist": ("MNIST", _TRAIN_FLAG),
    "oxfordiiitpet": ("OxfordIIITPet", _named(train="trainval", test="test")),
    "renderedsst2": ("RenderedSST2", _named(train="train", val="val", test="test")),
    "stl10": ("STL10", _named(train="train", test="test")),
    "sun397": ("SUN397", _WHOLE),
    "svhn": ("SVHN", _named(train="train", test="test")),
    "usps": ("USPS", _TRAIN_FLAG),
}

KNOWN_SETS = ("digits", *_TORCHVISION, *BENCHMARKS)


def open_known(
    name: str, labels: str, limits: Limits, cache_dir: Path | None, place: Path | None = None
) -> Source:
    """Open a set of `KNOWN_SETS`.

    Args:
        name: One of `KNOWN_SETS`.
        labels: ``auto`` (the set's own) or ``none``.
        limits: Bounds on one image.
        cache_dir: The folder of folders of sets; when None, ``~/.cache/spherequant``, and for
            benchmarks ``$SPHEREQUANT_DATA`` where it is set.
        place: The folder of this set, or CIFAR-10's binary archive; else ``cache_dir / name``.

    Raises:
        SourceError: It is not there, or could not be downloaded; says what belongs where.
        LabelError: Labels from folders or a table, which a known set does not have.
    """
    refuse_file_labels(labels, f"the known set {name!r}")
    if name == "digits":
        if place is not None:
            raise SourceError(f"digits comes with scikit-learn: write digits:, not digits:{place}")
        return DigitsSource(labels, limits)
    if name in BENCHMARKS:
        root = place or (cache_dir or _data_folder()) / name
        return BenchmarkSource(name, labels, limits, root)
    root = place or (cache_dir or default_cache()) / name
    if name == "cifar10" and (binary := find_binary(root)) is not None:
        return CifarBinarySource(labels, limits, binary)
    return TorchvisionSource(name, labels, limits, root)


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/spherequant``, else ``~/.cache/spherequant``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spherequant"


def _data_folder() -> Path:
    """Where benchmarks are looked for; nothing is ever written there."""
    folder = os.environ.get("SPHEREQUANT_DATA")
    return Path(folder).expanduser() if folder else default_cache()


class DigitsSource(Source):
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey, as PNG; keys ``digits/3/0042.png``.

    The number in a key is the position in scikit-learn's array.
    """

    def __init__(self, labels: str, limits: Limits) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey_NHW = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
        self._png: dict[str, bytes] = {}
        items = []
        for position, (grey_HW, digit) in enumerate(zip(grey_NHW, bunch.target, strict=True)):
            key = f"digits/{digit}/{position:04d}.png"
            self._png[key] = to_png(Image.fromarray(grey_HW))
            own = () if labels == "none" else (str(digit),)
            items.append(Item(key, own, size=len(self._png[key])))
        items.sort(key=lambda item: item.key)
        note = own_labels_note(items, "digits", labels)
        super().__init__("digits", "digits:", items, (), note, limits)

    def _read(self, item: Item, limits: Limits) -> bytes:
        limits.check_bytes(item.size)
        return self._png[item.key]


@dataclass(frozen=True, slots=True)
class _Place:
    dataset: Any  # a torchvision data set
    index: int


class TorchvisionSource(Source):
    """A torchvision classification set; keys ``cifar10/train/00042.png``, in torchvision's order.

    Read bytes are lossless PNG of what torchvision yields. Sizes and times are unknown (0), since a
    known set does not change.
    """

    def __init__(self, name: str, labels: str, limits: Limits, root: Path) -> None:
        kind, splits = _TORCHVISION[name]
        self._places: dict[str, _Place] = {}
        items = []
        for split, arguments in splits.items():
            dataset = _load(kind, name, root, arguments)
            names, targets = _class_names(dataset), _targets(dataset)
            folder = f"{name}/{split}" if split else name
            for number, index in enumerate(_order(kind, dataset)):
                key, target = f"{folder}/{number:06d}.png", targets[index]
                self._places[key] = _Place(dataset, index)
                own = () if labels == "none" else tidy_labels([names.get(target, str(target))])
                items.append(Item(key, own, split))
        if not items:
            raise SourceError(f"{root} holds no image of {name}: delete it to download it again")
        items.sort(key=lambda item: item.key)
        note = own_labels_note(items, name, labels)
        super().__init__(name, f"{name}:", items, (), note, limits)

    def image(
        self, item: Item, limits: Limits | None = None, reserve: Reserve | None = None
    ) -> Image.Image:
        """The decoded image, without a detour over `read`."""
        place = self._places[item.key]
        try:
            image, _ = place.dataset[place.index]
        except Exception as error:
            raise InputError(f"torchvision cannot read it ({type(error).__name__})") from error
        (limits or self.limits).check_pixels(*image.size)
        if reserve is not None:
            reserve(4 * image.width * image.height)
        return upright_rgb(image)

    def _read(self, item: Item, limits: Limits) -> bytes:
        return to_png(self.image(item, limits))


def _load(kind: str, name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    """One split of a set: from the cache, else downloaded. Progress goes to stderr."""
    from torchvision import datasets

    make = getattr(datasets, kind)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            with contextlib.suppress(
                RuntimeError, FileNotFoundError
            ):  # not in the cache, or broken
                return make(str(root), download=False, **arguments)
            return make(str(root), download=True, **arguments)
    except (OSError, RuntimeError, ImportError) as error:  # URLError is an OSError
        raise SourceError(
            f"{name} is not in {root} and could not be downloaded ({_first_line(error)}). "
            f"Run this where there is a network, or put torchvision's files of {kind} into that "
            "folder, or give a folder of images"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _class_names(dataset: Any) -> dict[int, str]:
    """Class names by target, where the set has them."""
    for attribute in ("classes", "categories"):
        names = getattr(dataset, attribute, None)
        if isinstance(names, (list, tuple)):
            return {i: "/".join(n) if isinstance(n, tuple) else str(n) for i, n in enumerate(names)}
    return {}


def _order(kind: str, dataset: Any) -> Sequence[int]:
    """The positions in a data set by which its images are numbered: the same on every machine."""
    if kind == "SUN397":  # torchvision lists its folders in the file system's order
        paths = [path.as_posix() for path in dataset._image_files]
        return sorted(range(len(paths)), key=paths.__getitem__)
    return range(len(dataset))


def _targets(dataset: Any) -> list[int]:
    """Targets in order. Sets keep them under several names; reading every image always works."""
    for attribute in ("targets", "labels", "_labels", "y"):
        targets = getattr(dataset, attribute, None)
        if targets is not None and len(targets) == len(dataset):
            return [int(target) for target in targets]
    samples = getattr(dataset, "_samples", None)
    if samples is not None and len(samples) == len(dataset):
        return [int(target) for _, target in samples]
    return [int(dataset[index][1]) for index in range(len(dataset))]
