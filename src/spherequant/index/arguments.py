"""What callers hand to ``Index``: keys, labels and images, checked before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spherequant.errors import InputError
from spherequant.images.listing import is_unicode, nfc

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_keys(keys: object) -> list[str]:
    """Keys as a list, in Unicode NFC as the keys of sources are; one text stands for one key.

    Raises:
        InputError: not texts, or one that cannot be stored.
    """
    if isinstance(keys, str):
        keys = [keys]
    if not isinstance(keys, Iterable):
        raise InputError(f"keys are a list of texts; got {type(keys).__name__}.")
    checked: list[str] = []
    for key in keys:
        if not isinstance(key, str) or not key:
            raise InputError(f"a key is a text of at least one character; got {key!r}.")
        if "\0" in key or not is_unicode(key):
            raise InputError(f"the key {key!r} holds a character that cannot be stored.")
        checked.append(nfc(key))
    return checked


def first_repeat(keys: Sequence[str]) -> str | None:
    """The first key that comes a second time, None when there is none."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def check_length(what: str, given: object, expected: int) -> None:
    """Refuse what has not one entry for each key.

    Args:
        what: its name, for the message.
        given: a list, or an array.
        expected: how many keys there are.

    Raises:
        InputError: the lengths differ, or it has none.
    """
    if not isinstance(given, Sized):
        raise InputError(f"{what} are a list with one entry for each key, not {given!r:.80}.")
    if len(given) != expected:
        raise InputError(f"{what}: {len(given)} given for {expected} keys; give one for each.")


def check_labels(
    labels: Sequence[str | Sequence[str]] | None, keys: Sequence[str]
) -> list[tuple[str, ...]]:
    """Labels of each key as a tuple; a text is one label, None is no labels at all.

    Raises:
        InputError: another length, or labels that are no texts.
    """
    if labels is None:
        return [()] * len(keys)
    if isinstance(labels, str):
        raise InputError("labels are a list with one entry for each key; got one text.")
    check_length("labels", labels, len(keys))
    checked = []
    for key, given in zip(keys, labels, strict=True):
        some = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else given
        checked.append(tuple(some))
        if not all(isinstance(label, str) and is_unicode(label) for label in checked[-1]):
            raise InputError(f"labels of {key!r} are texts of valid Unicode; got {given!r}.")
    return checked


def as_array(values: object, what: str) -> NDArray[Any]:
    """Values as an array; torch's tensors wherever they are, those of floats as float32.

    Raises:
        InputError: rows of different lengths, or a generator.
    """
    if isinstance(values, Iterator):
        raise InputError(f"{what} are an array or a list, not a {type(values).__name__}.")
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from None


def check_images(images: object) -> Iterable[Any]:
    """Refuse a single image, a path or anything that is no list of images.

    Raises:
        InputError: says what is expected.
    """
    if isinstance(images, (str, bytes, Image.Image)) or not isinstance(images, Iterable):
        raise InputError(
            f"images are a list of PIL images or uint8 arrays; got {type(images).__name__}."
        )
    return images


def check_originals(
    originals: Sequence[object] | None, keys: Sequence[str], with_images: bool
) -> list[bytes | None]:
    """The bytes of each image's file, None where they are not to be kept.

    Raises:
        InputError: without images, another length, or no bytes.
    """
    if originals is None:
        return [None] * len(keys)
    if not with_images:
        raise InputError("originals are the files of images: give the images too.")
    check_length("originals", originals, len(keys))
    checked: list[bytes | None] = []
    for key, data in zip(keys, originals, strict=True):
        if data is not None and not (isinstance(data, bytes) and data):
            raise InputError(f"the original of {key!r} is no bytes of a file, and not None.")
        checked.append(data)
    return checked
