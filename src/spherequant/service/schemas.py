"""What travels between a service and its clients: requests and answers.

Needs pydantic and nothing of the server, so that a client checks against the very same schemas.
Examples here are those of the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    model_validator,
)

from spherequant.service.settings import MOST_BATCH

MAX_KEY = 2_048
MAX_LABELS = 100
MAX_LABEL = 200
MAX_COLUMNS = 100
MAX_TEXT = 16_384  # characters of a value: what is put comes back in every hit
MAX_DIM = 4_096
LARGEST_SCORE = 1_000_000.0

_Int64 = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
MetadataValue = _Int64 | StrictFloat | StrictStr | None
Key = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_KEY,
        description="Key of an item, as `folder/name.jpg`.",
        examples=["cat/0017.jpg"],
    ),
]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
LabelList = Annotated[list[Label], Field(max_length=MAX_LABELS)]
Metadata = dict[str, MetadataValue]
_Text = Annotated[StrictStr, Field(max_length=MAX_TEXT)]
GivenMetadata = Annotated[
    dict[str, _Int64 | StrictFloat | _Text | None], Field(max_length=MAX_COLUMNS)
]
Vector = Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIM)]

LABELS: TypeAdapter[list[str]] = TypeAdapter(LabelList)
METADATA: TypeAdapter[dict[str, MetadataValue]] = TypeAdapter(
    GivenMetadata, config=ConfigDict(allow_inf_nan=False)
)


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SearchRequest(_Schema):
    """What to search with, where it is no image: exactly one of the two."""

    examples: ClassVar[dict[str, Any]] = {
        "by key": {"value": {"key": "cat/0017.jpg"}},
        "by vector": {"value": {"vector": [0.6, 0.0, -0.8]}},
    }

    key: Key | None = Field(None, description="An item, which is left out of its own results.")
    vector: Vector | None = Field(
        None, description="As many numbers as the model's vectors have, of any length but zero."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.key is None) == (self.vector is None):
            raise ValueError("holds exactly one of key and vector")
        return self


class Hit(_Schema):
    """One result."""

    rank: int = Field(description="Counts from 1, over all pages.", examples=[1])
    key: str = Field(examples=["cat/0021.jpg"])
    score: float = Field(
        description="Inner product of the query's vector and the item's code; higher is better.",
        examples=[0.934],
    )
    labels: list[str] = Field(examples=[["cat"]])
    metadata: Metadata = Field(examples=[{"year": 2019}])


class SearchResponse(_Schema):
    """Results, best first."""

    results: list[Hit]
    total: int = Field(description="Items in the index when it was searched.", examples=[60_000])
    vector: list[float] | None = Field(
        None, description="The image's unit vector, where it was asked for with `with_vector`."
    )


class Item(_Schema):
    """One item, as it is stored."""

    id: int = Field(description="Given once, and never used again.", examples=[17])
    key: str = Field(examples=["cat/0017.jpg"])
    labels: list[str] = Field(examples=[["cat"]])
    metadata: Metadata = Field(examples=[{"year": 2019}])
    source: str | None = Field(
        description="Source that it was indexed from; null when it was put.", examples=["photos"]
    )
    size: int | None = Field(description="Bytes of the image's file.", examples=[48_213])
    mtime: float | None = Field(
        description="Time of the image's file, seconds since 1970.", examples=[1_700_000_000.0]
    )
    digest: str | None = Field(description="sha256 of the image's file, in hex.")
    phash: str | None = Field(
        description="64 bits of how the image looks, in hex.", examples=["c3d13c1e2f6ab494"]
    )
    changed: str = Field(
        description="When the item was last written, UTC.", examples=["2026-01-31T12:00:00Z"]
    )
    original: bool = Field(description="Whether the bytes of the image's file are kept here.")


class ItemChange(_Schema):
    """What is changed of an item; what is left out stays."""

    examples: ClassVar[dict[str, Any]] = {
        "labels": {"value": {"labels": ["cat", "indoors"]}},
        "one column": {"value": {"metadata": {"year": 2020}}},
    }

    labels: LabelList | None = Field(None, description="All labels from now on.")
    metadata: GivenMetadata | None = Field(None, description="These columns; others stay.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.labels is None and self.metadata is None:
            raise ValueError("names nothing to change: give labels or metadata")
        return self


class ItemVector(_Schema):
    """An item that is put as a vector, in an index without a network."""

    examples: ClassVar[dict[str, Any]] = {
        "a vector": {
            "value": {"vector": [0.6, 0.0, -0.8], "labels": ["cat"], "metadata": {"year": 2019}}
        }
    }

    vector: Vector
    labels: LabelList = []
    metadata: GivenMetadata = {}


class Stored(_Schema):
    """What was stored, durably."""

    id: int = Field(description="Given once, and never used again.", examples=[17])
    key: str = Field(description="As stored: in Unicode NFC.", examples=["cat/0017.jpg"])


class BatchPut(_Schema):
    """One item to add or replace: with the next image of the form, or with a vector."""

    key: Key
    vector: Vector | None = Field(None, description="For an index without a network.")
    labels: LabelList = []
    metadata: GivenMetadata = {}


class Batch(_Schema):
    """Items to add or replace, then items to delete."""

    examples: ClassVar[dict[str, Any]] = {
        "delete two": {"value": {"delete": ["cat/0017.jpg", "cat/0018.jpg"]}},
        "put a vector": {"value": {"put": [{"key": "a", "vector": [0.6, 0.0, -0.8]}]}},
    }

    # Bounded here too: reading stops there, and so do its objections.
    put: list[BatchPut] = Field([], max_length=MOST_BATCH)
    delete: list[Key] = Field([], max_length=MOST_BATCH)


class BatchOutcome(_Schema):
    """What became of one item of a batch."""

    key: str = Field(examples=["cat/0017.jpg"])
    status: Literal["stored", "deleted", "missing", "refused", "busy", "unknown", "failed"] = Field(
        description="`refused` as it is, `busy`: not done, send it again; `unknown`: the answer "
        "took too long, it may be done yet; `failed`: the service failed, and its log says where."
    )
    id: int | None = Field(None, description="Of a stored item.", examples=[17])
    detail: str | None = Field(None, description="Why it was not done.")


class BatchResponse(_Schema):
    """Outcomes in the order of the request: those put, then those deleted."""

    results: list[BatchOutcome]


class LabelCount(_Schema):
    """A label, and how many items carry it."""

    label: str = Field(examples=["cat"])
    count: int = Field(examples=[6_000])


class Labels(_Schema):
    """Labels of the index, the most frequent first."""

    labels: list[LabelCount]
    distinct: int | None = Field(
        description="How many there are; null when too many to count.", examples=[10]
    )
    unlabelled: int = Field(description="Items without any label.", examples=[0])


class ValueCount(_Schema):
    """A value of a column, and how many items have it."""

    value: int | float | str = Field(examples=[2019])
    count: int = Field(examples=[1_200])


class Column(_Schema):
    """A column that a filter can name."""

    name: str = Field(examples=["year"])
    type: str = Field(description="As `int64`, `string` or `list of string`.", examples=["int64"])
    metadata: bool = Field(description="Whether it is one of the user's own columns.")
    values: list[ValueCount] = Field(
        description="The most frequent values of a column of one's own.",
    )
    distinct: int | None = Field(description="How many values; null when not counted.")


class Columns(_Schema):
    """Columns that a filter can name."""

    columns: list[Column]


class Bounds(_Schema):
    """The most that one request may ask for."""

    image_bytes: int = Field(description="Bytes of an image.", examples=[33_554_432])
    pixels: int = Field(description="Width times height of an image.", examples=[64_000_000])
    k: int = Field(description="Results in one answer.", examples=[1_000])
    offset: int = Field(description="Results that may be passed over.", examples=[10_000])


class Latest(_Schema):
    """Items, the one changed last first."""

    items: list[Item]


class Collection(_Schema):
    """What the index holds."""

    items: int = Field(examples=[60_000])
    index_version: int = Field(description="Grows with each commit.", examples=[12])
    labels: int | None = Field(description="Distinct labels.", examples=[10])
    unlabelled: int | None = Field(description="Items without any label.", examples=[0])
    bits: int = Field(description="Bits of a code.", examples=[32])
    dim: int = Field(description="Numbers of a vector.", examples=[64])
    bytes_per_item: int = Field(description="Bytes of a code.", examples=[4])
    bytes_memory: int = Field(description="Bytes that searching holds in memory.")
    bytes_disk: int = Field(description="Bytes of all files of the index.")
    bytes_thumbnails: int
    bytes_originals: int
    takes_images: bool = Field(description="False for an index of vectors without a network.")
    keeps_vectors: bool = Field(description="Whether searches can re-rank.")
    fingerprint: str = Field(description="Of the model: everything that changes a code.")
    version: str = Field(description="Of spherequant.", examples=["0.1.0"])
    recent: list[Item] = Field(description="Items changed last, the latest first.")
    limits: Bounds


class NearDuplicate(_Schema):
    """An item that looks like another."""

    key: str = Field(examples=["cat/0018.jpg"])
    distance: int = Field(description="Differing bits of 64.", examples=[2])
    exact: bool = Field(description="Whether the files are the same to the byte.")


class NearDuplicates(_Schema):
    """Items that look like one item, the nearest first."""

    results: list[NearDuplicate]


class DuplicateMember(_Schema):
    """An item of a group of items that look alike."""

    key: str = Field(examples=["cat/0018.jpg"])
    digest: str | None = Field(description="The same for files that are the same to the byte.")


class DuplicateGroup(_Schema):
    """Items that look alike."""

    size: int = Field(description="How many they are.", examples=[2])
    members: list[DuplicateMember] = Field(description="The first of them.")


class Duplicates(_Schema):
    """Groups of items that look alike, the largest first."""

    groups: list[DuplicateGroup]
    total: int = Field(description="Groups in the index.", examples=[3])
    items: int = Field(description="Items in all groups.", examples=[7])


class Refreshed(_Schema):
    """What is searched from now on."""

    items: int = Field(examples=[60_000])
    index_version: int = Field(examples=[13])


class Health(_Schema):
    """That the process answers."""

    status: str = Field(examples=["ok"])
    version: str = Field(description="Of spherequant.", examples=["0.1.0"])


class Ready(_Schema):
    """That searches are answered."""

    status: str = Field(examples=["ready"])
    items: int = Field(examples=[60_000])
    index_version: int = Field(examples=[12])
    fingerprint: str = Field(description="Of the model: everything that changes a code.")
    takes_images: bool = Field(description="False for an index of vectors without a network.")


class FieldProblem(_Schema):
    """What is wrong at one place of a request."""

    where: str = Field(examples=["query.k"])
    what: str = Field(examples=["is at most 1000"])


class ProblemDocument(_Schema):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["query.k is at most 1000."])
    code: str = Field(description="The kind of problem, in one word.", examples=["not-usable"])
    errors: list[FieldProblem] | None = None
