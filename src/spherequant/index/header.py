"""index.json: what an index is made of. Written once, last, when the rest is in its place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from spherequant.errors import FormatError
from spherequant.index.faults import reported

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
# Lance's own file format. Pinned: what a newer Lance writes still opens with an older one.
LANCE_STORAGE = "2.1"

METADATA_TYPES = ("int64", "float64", "string")
ENCODERS = ("model", "codebooks")

HEADER_FILE = "index.json"
ITEMS_FOLDER = "items.lance"
MODEL_FOLDER = "model"
LEASES_FOLDER = "leases"
CACHE_FILE = "cache.bin"
CODEBOOKS_FILE = "codebooks.safetensors"


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of index.json.

    Attributes:
        fingerprint: sha256 hex of everything that changes a code (the model's own fingerprint; for
            an index made from codebooks alone, of their file).
        codebooks_sha256: sha256 hex of ``model/codebooks.safetensors``.
        encoder: ``"model"`` (images can be added) or ``"codebooks"`` (vectors and codes only).
        n_codebooks: M, bytes of a code.
        n_codewords: K, codewords in each codebook.
        dim: D of the vectors.
        keep_vectors: whether items keep their float16 vector.
        thumbnails: whether images leave a thumbnail.
        metadata: name -> type (``int64``, ``float64`` or ``string``) of the user's own columns.
        undecided: whether the first metadata brings those columns with it; index.json then has null
            for them, and items.lance tells which there are.
        created_by: version of spherequant that made the index.
        schema: version of this layout.
        lance_storage: Lance's data storage version, fixed at creation.
    """

    fingerprint: str
    codebooks_sha256: str
    encoder: str
    n_codebooks: int
    n_codewords: int
    dim: int
    keep_vectors: bool
    thumbnails: bool
    metadata: dict[str, str] = field(default_factory=dict)
    undecided: bool = False
    created_by: str = ""
    schema: int = SCHEMA
    lance_storage: str = LANCE_STORAGE

    def write(self, folder: Path) -> None:
        """Write index.json into ``folder``."""
        values = asdict(self)
        if values.pop("undecided"):
            values["metadata"] = None
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / HEADER_FILE).write_text(text, encoding="utf-8")


def read_header(folder: Path) -> Header:
    """Read and check ``folder``/index.json.

    Raises:
        FormatError: no index is there, its header is damaged, or a newer version wrote it.
    """
    path = folder / HEADER_FILE
    if not path.is_file():
        raise FormatError(
            f"{folder} is not an index (no {HEADER_FILE}). Make one with: spherequant index MODEL "
            "SOURCE --out INDEX"
        )
    with reported(f"cannot read {path}"):
        data = path.read_bytes()
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged ({error}); restore it from a copy.") from error
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise FormatError(f"{path} is damaged (no schema version); restore it from a copy.")
    if values["schema"] > SCHEMA:
        raise FormatError(
            f"{folder} has schema {values['schema']}, written by "
            f"{values.get('created_by', 'a newer version')}; this version reads up to {SCHEMA}. "
            "Upgrade with: pip install -U spherequant"
        )
    return _checked(values, path)


def _checked(values: dict[str, Any], path: Path) -> Header:
    """A ``Header`` from parsed JSON, every field present and of its type."""
    undecided = values.get("metadata", "missing") is None
    values = values | {"metadata": {}} if undecided else values
    kinds = {
        "fingerprint": str,
        "codebooks_sha256": str,
        "encoder": str,
        "n_codebooks": int,
        "n_codewords": int,
        "dim": int,
        "keep_vectors": bool,
        "thumbnails": bool,
        "metadata": dict,
        "created_by": str,
        "schema": int,
        "lance_storage": str,
    }
    for name, kind in kinds.items():
        if not isinstance(values.get(name), kind):
            raise FormatError(
                f"{path} is damaged ({name} is missing or no {kind.__name__}); restore it from a "
                "copy."
            )
    for name, kind_of_column in values["metadata"].items():
        if kind_of_column not in METADATA_TYPES:
            raise FormatError(
                f"{path} is damaged (the column {name!r} is {kind_of_column!r}); restore it from a "
                "copy."
            )
    if values["encoder"] not in ENCODERS:
        raise FormatError(
            f"{path} is damaged (encoder {values['encoder']!r}); restore it from a copy."
        )
    return Header(**{name: values[name] for name in kinds}, undecided=undecided)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    return sha256(path.read_bytes()).hexdigest()
