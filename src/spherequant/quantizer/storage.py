"""The file ``codebooks.safetensors``: named tensors and one JSON object about them.

The safetensors metadata holds a single entry, ``spherequant``: a JSON object with sorted keys.
One entry, because safetensors writes several in no fixed order, and the same values must make the
same bytes: an index of codebooks alone is known by the digest of this file.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spherequant.errors import FormatError
from spherequant.system import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

# What is written has the lowest version that can hold it: 2 where codebooks are stored sparsely.
SCHEMA_VERSION = 2
_ENTRY = "spherequant"
_KIND = "codebooks"
# Far above anything useful; what is larger is damage, and is refused before it is allocated.
MAX_VALUES = 1 << 30
# Types of the tensors that are not float32; they make a file of version 2 (see sparse_storage).
_WHOLE_NUMBERS = {
    "codebook_shape": ("U32",),
    "codebook_starts": ("U32",),
    "codebook_dims": ("U16", "U32"),
}


def write(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], about: Any) -> None:
    """Write the file, whole or not at all.

    Args:
        path: Where to.
        tensors: arrays by name: float32, or as sparse codebooks have them.
        about: What else belongs to them, as JSON values.
    """
    version = 2 if _WHOLE_NUMBERS.keys() & tensors.keys() else 1
    header = {"kind": _KIND, "schema_version": version, **about}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = save(contiguous, metadata={_ENTRY: json.dumps(header, sort_keys=True)})
    with replacing(path) as draft:
        draft.write_bytes(data)


def read(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Read the file back.

    Returns:
        The tensors by name, and the JSON object written with them.

    Raises:
        FormatError: missing, damaged, not a codebooks file, of implausible size, with values that
            are not finite, or written by a newer version.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            about = _about(path, file.metadata())
            tensors = {}
            for name in file.keys():  # noqa: SIM118  a handle of safetensors is not a mapping
                part = file.get_slice(name)
                shape = part.get_shape()
                fits = part.get_dtype() in _WHOLE_NUMBERS.get(name, ("F32",))
                if not fits or not 0 < np.prod(shape, dtype=float) <= MAX_VALUES:
                    raise FormatError(
                        f"{path}: tensor '{name}' is {part.get_dtype()} {shape}, "
                        f"which no codebooks file holds; write the file again"
                    )
                tensors[name] = file.get_tensor(name)
    except FileNotFoundError as error:
        raise FormatError(f"{path}: there is no such file") from error
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} cannot be read as safetensors ({error})") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise FormatError(f"{path}: tensor '{name}' holds values that are not finite")
    return tensors, about


def _about(path: str | os.PathLike[str], metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        about = json.loads((metadata or {})[_ENTRY])
        kind, version = about["kind"], about["schema_version"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} was not written by spherequant") from error
    if kind != _KIND or not isinstance(version, int):
        raise FormatError(f"{path} does not hold codebooks but '{kind}'")
    if version > SCHEMA_VERSION:
        raise FormatError(
            f"{path} has the schema version {version}, this spherequant reads up to "
            f"{SCHEMA_VERSION}: install a newer spherequant"
        )
    return dict(about)
