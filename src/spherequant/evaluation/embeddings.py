"""The images of a split as unit vectors, each read once, with what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from spherequant.errors import LabelError
from spherequant.evaluation.rankings import Relevance
from spherequant.images import Skip, stream
from spherequant.images.scratch import scratch_array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from spherequant.images import Item, Limits, Source, Split
    from spherequant.quantizer import Encoder

BATCH = 128  # prepared images handed to the network at once; the model pads to its own size
MEMORY_BYTES = 2 << 30  # embeddings above this go to a memory map of a temporary file
_COPY_ROWS = 1 << 16


class RetrievalModel(Protocol):
    """What evaluation needs of a model; `spherequant.Model` has it."""

    @property
    def bits(self) -> int:
        """Length of a code."""

    @property
    def classes(self) -> Sequence[str]:
        """Labels that the classifier knows, in its order; empty without one."""

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that changes a code."""

    @property
    def normalised(self) -> bool:
        """Whether embeddings have length one."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """Training summary: ``objective``, ``seed``, ``split_seed`` and more."""

    @property
    def encoder(self) -> Encoder:
        """What makes codes of vectors: codebooks, and the classifier where there is one."""

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """uint8 [S, S, 3], in decoding workers."""

    def embed_prepared(self, pixels_BSS3: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """float32 [B, D], unit rows where they are normalised."""

    def trained_on(self, items: Sequence[Item]) -> NDArray[np.bool_]:
        """Bool [N], which items were trained on."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit vectors of the images that could be read.

    Attributes:
        positions: int64 [N], positions in ``source.items``, increasing.
        vectors: float32 [N, D], unit rows; a memory map when large.
        skips: images that could not be read.
    """

    positions: NDArray[np.int64]
    vectors: NDArray[np.float32]
    skips: tuple[Skip, ...]

    def rows_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of those items of ``positions`` that could be read, in their order; int64."""
        wanted = positions[np.isin(positions, self.positions)]
        return np.searchsorted(self.positions, wanted)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of some rows; float32 [len(rows), D], a memory map when large."""
        taken = allocate(len(rows), self.vectors.shape[1])
        for start in range(0, len(rows), _COPY_ROWS):
            block = slice(start, start + _COPY_ROWS)
            taken[block] = self.vectors[rows[block]]
        return taken


@dataclass(frozen=True, slots=True)
class Collection:
    """The images of a split that could be read, as vectors in the order of their items.

    Attributes:
        query_items: Q labelled queries.
        database_items: N items.
        queries: float32 [Q, D], unit rows.
        database: float32 [N, D], unit rows; a memory map when large.
        training: float32 [T, D], unit rows; T = 0 where they were not asked for.
        relevance: of these queries and this database.
        skips: images of the split that could not be read.
    """

    query_items: list[Item]
    database_items: list[Item]
    queries: NDArray[np.float32]
    database: NDArray[np.float32]
    training: NDArray[np.float32]
    relevance: Relevance
    skips: tuple[Skip, ...]


def embed_split(
    model: RetrievalModel,
    source: Source,
    split: Split,
    limits: Limits | None,
    *,
    with_training: bool,
    tick: Callable[[int, int], None] | None = None,
) -> Collection:
    """Embed queries and database of a split, and its training images where they are wanted.

    Args:
        model: whose network embeds.
        source: of the images.
        split: of ``source.items``; queries without labels are left out.
        limits: bounds on one image; None takes the source's own.
        with_training: whether training images are embedded too.
        tick: called with images done and images in all.

    Raises:
        LabelError: no query or no database image is left.
    """
    items = source.items
    labelled = [position for position in split.queries.tolist() if items[position].labels]
    queries = np.array(labelled, dtype=np.int64)
    training = split.training if with_training else queries[:0]
    wanted = np.unique(np.concatenate([queries, split.database, training]))
    embedded = embed_source(model, source, wanted, limits, tick)
    query_rows, database_rows = embedded.rows_of(queries), embedded.rows_of(split.database)
    query_items = [items[position] for position in embedded.positions[query_rows]]
    database_items = [items[position] for position in embedded.positions[database_rows]]
    if not query_items or not database_items:
        if embedded.skips:
            why = f"{embedded.skips[0].path}: {embedded.skips[0].reason}"
        elif query_items:
            why = "its queries are all there is"
        else:
            why = "a class needs at least two images to give a query"
        raise LabelError(
            f"the protocol {split.protocol} leaves {len(query_items)} queries against "
            f"{len(database_items)} database images of {source.name}; {why}"
        )
    return Collection(
        query_items=query_items,
        database_items=database_items,
        queries=embedded.take(query_rows),
        database=embedded.take(database_rows),
        training=embedded.take(embedded.rows_of(training)),
        relevance=Relevance(
            [item.labels for item in query_items], [item.labels for item in database_items]
        ),
        skips=embedded.skips,
    )


def embed_source(
    model: RetrievalModel,
    source: Source,
    positions: NDArray[np.int64],
    limits: Limits | None,
    tick: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed items of a source; an image that cannot be read shifts no other.

    Args:
        model: whose network embeds.
        source: of the images.
        positions: int64 [N], increasing positions in ``source.items``.
        limits: bounds on one image; None takes the source's own.
        tick: called with images done and images in all.
    """
    items = [source.items[position] for position in positions]
    position_of = {item.key: position for item, position in zip(items, positions, strict=True)}
    vectors_ND = allocate(len(items), model.encoder.codebooks.dim)
    kept: list[np.int64] = []
    skips: list[Skip] = []
    waiting: list[NDArray[np.uint8]] = []

    def flush() -> None:
        if waiting:
            end = len(kept)
            vectors_ND[end - len(waiting) : end] = model.embed_prepared(np.stack(waiting))
            waiting.clear()
        if tick is not None:
            tick(len(kept) + len(skips), len(items))

    for read in stream(source, items, lambda _, image: model.prepare(image), limits=limits):
        if isinstance(read, Skip):
            skips.append(read)
            continue
        item, prepared = read
        kept.append(position_of[item.key])
        waiting.append(prepared)
        if len(waiting) == BATCH:
            flush()
    flush()
    return Embeddings(np.array(kept, dtype=np.int64), vectors_ND[: len(kept)], tuple(skips))


def allocate(count: int, dim: int) -> NDArray[np.float32]:
    """Return an array of rows not set yet: in memory, or on the disk where it is large."""
    if count * dim * 4 <= MEMORY_BYTES:
        return np.empty((count, dim), dtype=np.float32)
    vectors_ND, file = scratch_array((count, dim), np.float32, "the images' embeddings")
    file.close()  # the map keeps the deleted file's space until it goes
    return vectors_ND
