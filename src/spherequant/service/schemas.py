"""What travels between a service and its clients: requests and answers.

Needs pydantic and nothing of the server, so that a client checks against the very same schemas.
Examples here are those of the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

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

MAX_KEY = 2_048
MAX_LABELS = 100
MAX_LABEL = 200
MAX_DIM = 4_096
LARGEST_SCORE = 1_000_000.0

MetadataValue = StrictInt | StrictFloat | StrictStr | None
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
Vector = Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIM)]

LABELS: TypeAdapter[list[str]] = TypeAdapter(LabelList)
METADATA: TypeAdapter[dict[str, MetadataValue]] = TypeAdapter(
    Metadata, config=ConfigDict(allow_inf_nan=False)
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
            raise ValueError("exactly one of key and vector is given")
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


class ItemVector(_Schema):
    """An item that is put as a vector, in an index without a network."""

    examples: ClassVar[dict[str, Any]] = {
        "a vector": {
            "value": {"vector": [0.6, 0.0, -0.8], "labels": ["cat"], "metadata": {"year": 2019}}
        }
    }

    vector: Vector
    labels: LabelList = []
    metadata: Metadata = {}


class Stored(_Schema):
    """What was stored, durably."""

    id: int = Field(description="Given once, and never used again.", examples=[17])
    key: str = Field(description="As stored: in Unicode NFC.", examples=["cat/0017.jpg"])


class LabelCount(_Schema):
    """A label, and how many items carry it."""

    label: str = Field(examples=["cat"])
    count: int = Field(examples=[6_000])


class Labels(_Schema):
    """Labels of the index, the most frequent first."""

    labels: list[LabelCount]
    unlabelled: int = Field(description="Items without any label.", examples=[0])


class Column(_Schema):
    """A column that a filter can name."""

    name: str = Field(examples=["year"])
    type: str = Field(description="As `int64`, `string` or `list<string>`.", examples=["int64"])
    metadata: bool = Field(description="Whether it is one of the user's own columns.")


class Columns(_Schema):
    """Columns that a filter can name."""

    columns: list[Column]


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
