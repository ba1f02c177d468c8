"""A new, empty index: built beside its place and renamed, so that a killed one leaves no half."""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import spherequant
from spherequant.errors import InputError
from spherequant.index import columns
from spherequant.index.catalogue import create_catalogue
from spherequant.index.embedder import Embedder, check_embedder
from spherequant.index.faults import reported
from spherequant.index.header import (
    CODEBOOKS_FILE,
    HEADER_FILE,
    ITEMS_FOLDER,
    LEASES_FOLDER,
    MODEL_FOLDER,
    Header,
    file_sha256,
)
from spherequant.quantizer import Codebooks
from spherequant.system import sweep_abandoned

if TYPE_CHECKING:
    from pathlib import Path


def create_folder(
    folder: Path,
    model: Embedder | Codebooks,
    metadata_columns: Mapping[str, str] | None,
    *,
    keep_vectors: bool,
    thumbnails: bool,
) -> None:
    """Make an index; see ``Index.create``.

    Raises:
        InputError: something is already there, or the model's embeddings are not normalised.
        ConfigError: a metadata column cannot be used.
    """
    if not isinstance(model, Codebooks):
        check_embedder(model)
    if metadata_columns is not None and not isinstance(metadata_columns, Mapping):
        raise InputError('metadata_columns are a mapping such as {"year": "int64"}.')
    undecided = metadata_columns is None
    names = columns.check_metadata_columns(metadata_columns or {})
    if not getattr(model, "normalised", True):  # only the package's own models have a choice
        raise InputError(
            "this model was trained without normalising its embeddings (objective no-norm): "
            "an index ranks by the inner product of unit vectors, which would be wrong for "
            "it. Such a model is for `evaluate` only; train with another objective."
        )
    if (folder / HEADER_FILE).exists():
        raise InputError(f"{folder} is already an index: open it, or choose another folder.")
    with reported(f"cannot create {folder}"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not empty: choose another folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep_abandoned(folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"))
        partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:12]}")
        try:
            partial.mkdir()
            header = replace(
                _store_model(partial / MODEL_FOLDER, model, keep_vectors, thumbnails),
                metadata=names,
                undecided=undecided,
            )
            create_catalogue(partial / ITEMS_FOLDER, columns.schema(header))
            (partial / LEASES_FOLDER).mkdir()
            header.write(partial)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _store_model(
    folder: Path,
    model: Embedder | Codebooks,
    keep_vectors: bool,
    thumbnails: bool,
) -> Header:
    """Write the index's own copy of the model, and the header that describes it."""
    if isinstance(model, Codebooks):
        folder.mkdir()
        model.save(folder / CODEBOOKS_FILE)
        codebooks = model
    else:
        model.save(folder)
        codebooks = model.codebooks
        folder.mkdir(exist_ok=True)
        if not (folder / CODEBOOKS_FILE).exists():
            codebooks.save(folder / CODEBOOKS_FILE)
        elif Codebooks.load(folder / CODEBOOKS_FILE) != codebooks:
            raise InputError("the model saves other codebooks than those that it says it has")
    digest = file_sha256(folder / CODEBOOKS_FILE)
    return Header(
        fingerprint=digest if isinstance(model, Codebooks) else model.fingerprint,
        codebooks_sha256=digest,
        encoder="codebooks" if isinstance(model, Codebooks) else "model",
        n_codebooks=codebooks.n_codebooks,
        n_codewords=codebooks.n_codewords,
        dim=codebooks.dim,
        keep_vectors=bool(keep_vectors),
        thumbnails=bool(thumbnails),
        created_by=f"spherequant {spherequant.__version__}",
    )
