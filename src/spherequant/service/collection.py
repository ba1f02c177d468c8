"""What the index holds: for filters, and for the page's second view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from spherequant import __version__
from spherequant.service.context import KeyQuery, Reader, WhereQuery, Writer, described
from spherequant.service.engine import plain_key
from spherequant.service.filters import HIDDEN
from spherequant.service.items import item_as_json
from spherequant.service.schemas import (
    Bounds,
    Collection,
    Column,
    Columns,
    DuplicateGroup,
    DuplicateMember,
    Duplicates,
    Item,
    LabelCount,
    Labels,
    Latest,
    NearDuplicate,
    NearDuplicates,
    Refreshed,
    ValueCount,
)

if TYPE_CHECKING:
    from spherequant.index import Searcher

router = APIRouter(tags=["collection"])

_MOST_LABELS = 1_000
_MOST_VALUES = 50

_MOST_GROUPS = 200

Distance = Annotated[
    int, Query(ge=0, le=16, description="Bits of 64 in which two images may differ.")
]
# Beyond, grouping a million items takes longer than an answer may.
GroupDistance = Annotated[
    int, Query(ge=0, le=6, description="Bits of 64 in which neighbours in a group may differ.")
]
Limit = Annotated[int, Query(ge=1, le=_MOST_GROUPS, description="Entries in the answer.")]


@router.get("/v1/labels", summary="Labels with counts", responses=described(401, 422, 503))
async def labels(service: Reader, where: WhereQuery = None) -> Labels:
    """The labels of all items, or of those that a filter lets through; the most frequent first."""
    where = service.checked(where)

    def count(searcher: Searcher) -> Labels:
        counts = searcher.counts(["labels"], where=where, limit=_MOST_LABELS)["labels"]
        return Labels(
            labels=[LabelCount(label=str(label), count=count) for label, count in counts.values],
            distinct=counts.distinct,
            unlabelled=counts.empty,
        )

    return await service.within(service.engine.count(("labels", where), count))


@router.get("/v1/columns", summary="Columns that a filter can name", responses=described(401, 503))
async def columns(service: Reader) -> Columns:
    """Names and types of the columns that `where` can name, and the values of one's own."""

    def count(searcher: Searcher) -> Columns:
        own = searcher.header.metadata
        countable = [name for name, kind in own.items() if kind != "float64"]
        counts = searcher.counts(countable, limit=_MOST_VALUES) if countable else {}
        return Columns(
            columns=[
                Column(
                    name=name,
                    type=kind,
                    metadata=name in own,
                    values=[
                        ValueCount(value=value, count=number)
                        for value, number in (counts[name].values if name in counts else ())
                    ],
                    distinct=counts[name].distinct if name in counts else None,
                )
                for name, kind in searcher.columns.items()
                if name not in HIDDEN
            ]
        )

    return await service.within(service.engine.count(("columns",), count))


@router.get(
    "/v1/collection",
    summary="Size, classes, bytes and recent changes",
    responses=described(401, 422, 503),
)
async def collection(
    service: Reader,
    recent: Annotated[int, Query(ge=0, le=100, description="Recent changes to name.")] = 20,
) -> Collection:
    """What the index holds and what it takes."""
    engine, settings = service.engine, service.settings

    def describe(searcher: Searcher) -> Collection:
        header, bytes_of = searcher.header, engine.index.footprint()
        counts = searcher.counts(["labels"], limit=1)["labels"]
        latest = searcher.latest(recent) if recent else []
        return Collection(
            items=len(searcher),
            index_version=searcher.version,
            labels=counts.distinct,
            unlabelled=counts.empty,
            bits=8 * header.n_codebooks,
            dim=header.dim,
            bytes_per_item=bytes_of.bytes_per_item,
            bytes_memory=bytes_of.bytes_memory,
            bytes_disk=bytes_of.bytes_disk,
            bytes_thumbnails=bytes_of.bytes_thumbnails,
            bytes_originals=bytes_of.bytes_originals,
            takes_images=engine.model is not None,
            keeps_vectors=header.keep_vectors,
            fingerprint=header.fingerprint,
            version=__version__,
            recent=[Item.model_validate(item_as_json(item)) for item in latest],
            limits=Bounds(
                image_bytes=settings.max_image_bytes,
                pixels=settings.max_pixels,
                k=settings.max_k,
                offset=settings.max_offset,
            ),
        )

    return await service.within(engine.count(("collection", recent), describe))


@router.get("/v1/latest", summary="Items changed last", responses=described(401, 422, 503))
async def latest(service: Reader, n: Limit = 20, where: WhereQuery = None) -> Latest:
    """The items changed last, or those of them that a filter lets through; the latest first."""
    where = service.checked(where)

    def find(searcher: Searcher) -> Latest:
        items = searcher.latest(n, where=where)
        return Latest(items=[Item.model_validate(item_as_json(item)) for item in items])

    return await service.within(service.engine.count(("latest", n, where), find))


@router.get(
    "/v1/duplicates", summary="Groups of items that look alike", responses=described(401, 422, 503)
)
async def duplicates(
    service: Reader,
    max_distance: GroupDistance = 4,
    limit: Limit = 50,
    where: WhereQuery = None,
    exact: Annotated[bool, Query(description="Only files that are the same to the byte.")] = False,
) -> Duplicates:
    """Groups by a perceptual hash, the largest first. Takes seconds for a million items."""
    distance = None if exact else max_distance
    where = service.checked(where)

    def find(searcher: Searcher) -> Duplicates:
        found = searcher.duplicate_groups(max_distance=distance, limit=_MOST_GROUPS, where=where)
        return Duplicates(
            groups=[
                DuplicateGroup(
                    size=group.size,
                    members=[
                        DuplicateMember(key=member.key, digest=member.digest)
                        for member in group.members
                    ],
                )
                for group in found.groups
            ],
            total=found.total,
            items=found.items,
        )

    question = ("duplicates", distance, where)
    found = await service.within(service.engine.count(question, find, slow=True))
    return Duplicates(groups=found.groups[:limit], total=found.total, items=found.items)


@router.get(
    "/v1/items/duplicates",
    summary="Items that look like one item",
    responses=described(401, 404, 422, 503),
)
async def near_duplicates(
    service: Reader, key: KeyQuery, max_distance: Distance = 4, limit: Limit = 50
) -> NearDuplicates:
    """Near-duplicates of an item by a perceptual hash, the nearest first."""
    key = plain_key(key)

    def find(searcher: Searcher) -> NearDuplicates:
        found = searcher.near_duplicates([key], max_distance=max_distance, limit=limit)[0]
        return NearDuplicates(
            results=[
                NearDuplicate(key=near.key, distance=near.distance, exact=near.exact)
                for near in found
            ]
        )

    question = ("near duplicates", key, max_distance, limit)
    return await service.within(service.engine.count(question, find))


@router.post(
    "/v1/refresh", summary="Take up what other processes wrote", responses=described(401, 403, 503)
)
async def refresh(service: Writer) -> Refreshed:
    """Search what other processes have committed until now, without waiting for the next look."""
    searcher = await service.within(service.engine.refresh())
    return Refreshed(items=len(searcher), index_version=searcher.version)
