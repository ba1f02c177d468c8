"""``/v1/items``: items read, put, changed or deleted, one or many at a time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from spherequant.service.bodies import JSON, MULTIPART, Body, reading
from spherequant.service.context import (
    IMAGE_FIELD,
    KeyQuery,
    Reader,
    Service,
    Writer,
    described,
)
from spherequant.service.engine import plain_key
from spherequant.service.problems import Problem, busy, not_found, problem_of
from spherequant.service.scanning import as_json
from spherequant.service.schemas import (
    MAX_LABEL,
    MAX_LABELS,
    Batch,
    BatchPut,
    BatchResponse,
    Item,
    ItemChange,
    ItemVector,
    Stored,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spherequant.index import StoredItem

router = APIRouter(tags=["items"])

# Items of one batch that are worked on at once.
_TOGETHER = 32
_STATUSES = {500: "failed", 503: "busy"}

_PUT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": IMAGE_FIELD,
                    "labels": {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
                        "maxItems": MAX_LABELS,
                        "description": "One field for each label.",
                        "examples": [["cat", "indoors"]],
                    },
                    "metadata": {
                        "type": "string",
                        "contentMediaType": JSON,
                        "description": "A JSON object: values of the index's own columns.",
                        "examples": ['{"year": 2019}'],
                    },
                },
            }
        },
        JSON: {
            "schema": {"$ref": "#/components/schemas/ItemVector"},
            "examples": ItemVector.examples,
        },
    },
}
_CHANGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"$ref": "#/components/schemas/ItemChange"},
            "examples": ItemChange.examples,
        }
    },
}
_BATCH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["items"],
                "additionalProperties": False,
                "properties": {
                    "items": {
                        "type": "string",
                        "contentMediaType": JSON,
                        "description": "A `Batch` as JSON.",
                        "examples": ['{"put": [{"key": "a"}, {"key": "b", "labels": ["cat"]}]}'],
                    },
                    "image": {
                        "type": "array",
                        "items": IMAGE_FIELD,
                        "description": "One file for each of `put`, in the same order.",
                    },
                },
            }
        },
        JSON: {"schema": {"$ref": "#/components/schemas/Batch"}, "examples": Batch.examples},
    },
}


@router.get(
    "/v1/items",
    response_model=Item,
    summary="Read an item",
    responses=described(401, 404, 422, 503),
)
async def read(service: Reader, key: KeyQuery) -> JSONResponse:
    """Everything that is stored of an item, but its image."""
    item = await service.within(service.engine.item(plain_key(key)))
    return JSONResponse(item_as_json(item))


@router.put(
    "/v1/items",
    response_model=Stored,
    summary="Add or replace an item",
    responses=described(400, 401, 403, 408, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": _PUT_BODY},
)
async def put(request: Request, service: Writer, key: KeyQuery) -> JSONResponse:
    """Add an item, or replace the one with this key, which keeps its id.

    The answer comes when the item is durable; every search that begins then finds it. What is not
    given again (labels, metadata) is gone. To send the same again is safe.
    """
    key = plain_key(key)
    engine = service.engine
    async with reading(request, service.settings, service.budget) as body:
        if body.kind == MULTIPART:
            sent = await body.item()
            write = body.lent_to(engine.put_image(key, sent.image, sent.labels, sent.metadata))
        elif body.kind == JSON:
            item = await body.json(ItemVector)
            vector = engine.unit(item.vector)
            write = body.lent_to(engine.put_vector(key, vector, item.labels, item.metadata))
        else:
            raise Problem(415, f"Send an image as {MULTIPART}, or a vector as {JSON}.")
        number = await service.within(write)
    return JSONResponse({"id": number, "key": key})


@router.patch(
    "/v1/items",
    response_model=Stored,
    summary="Change labels or metadata of an item",
    responses=described(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": _CHANGE_BODY},
)
async def change(request: Request, service: Writer, key: KeyQuery) -> JSONResponse:
    """Change what is known of an item; its image and code stay."""
    key = plain_key(key)
    async with reading(request, service.settings, service.budget) as body:
        if body.kind != JSON:
            raise Problem(415, f"Send what is to change as {JSON}.")
        wanted = await body.json(ItemChange)
    write = service.engine.update(key, wanted.labels, wanted.metadata)
    return JSONResponse({"id": await service.within(write), "key": key})


@router.delete(
    "/v1/items",
    status_code=204,
    response_class=Response,
    summary="Delete an item",
    responses=described(401, 403, 404, 422, 503),
)
async def delete(service: Writer, key: KeyQuery) -> Response:
    """Delete an item. The answer comes when that is durable.

    An item whose file is still in a source comes back at that source's next `spherequant index`.
    """
    if not await service.within(service.engine.remove([plain_key(key)])):
        raise not_found(key)
    return Response(status_code=204)


@router.post(
    "/v1/items:batch",
    response_model=BatchResponse,
    response_model_exclude_none=True,
    summary="Add, replace and delete many items",
    responses=described(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": _BATCH_BODY},
)
async def batch(request: Request, service: Writer) -> JSONResponse:
    """Put items, then delete items; each has an outcome of its own.

    An item that cannot be stored is refused and says why; the others are stored. The answer comes
    when everything is durable, or was not done in time.
    """
    async with reading(request, service.settings, service.budget) as body:
        wanted, images = await _batch_of(service, body)
        work = _Batch(service, body)
        puts = zip(wanted.put, images, strict=True)
        outcomes = await asyncio.gather(*(work.put(item, image) for item, image in puts))
    deletes = map(plain_key, wanted.delete)
    outcomes += await asyncio.gather(*map(work.delete, deletes))
    request.scope["spherequant.error"] = work.error
    return JSONResponse({"results": outcomes})


async def _batch_of(service: Service, body: Body) -> tuple[Batch, list[bytes | None]]:
    """What a batch asks for, and the image of each item to put."""
    if body.kind == MULTIPART:
        wanted, files = await body.batch()
    elif body.kind == JSON:
        wanted, files = await body.json_batch(service.engine.header.dim), []
    else:
        raise Problem(415, f"Send images as {MULTIPART}, or vectors and deletions as {JSON}.")
    keys = [item.key for item in wanted.put] + wanted.delete
    if len(keys) > service.settings.max_batch:
        raise Problem(422, f"A batch has at most {service.settings.max_batch} items.")
    if len({plain_key(key) for key in keys}) < len(keys):
        raise Problem(422, "A key comes twice in the batch.")
    with_image = [item for item in wanted.put if item.vector is None]
    if len(files) != len(with_image):
        raise Problem(
            422,
            f"The batch puts {len(with_image)} items without a vector and has {len(files)} files "
            "named 'image': send one for each, in the same order.",
        )
    left = iter(files)
    return wanted, [next(left) if item.vector is None else None for item in wanted.put]


class _Batch:
    """The items of one batch, some of them worked on at once: their commits are shared.

    Attributes:
        error: the last with which the service failed.
    """

    def __init__(self, service: Service, body: Body) -> None:
        self.error: Exception | None = None
        self._service = service
        self._body = body
        self._together = asyncio.Semaphore(_TOGETHER)
        self._end = asyncio.get_running_loop().time() + service.settings.answer_seconds

    async def put(self, item: BatchPut, image: bytes | None) -> dict[str, Any]:
        """The outcome of an item to put."""
        engine, key = self._service.engine, plain_key(item.key)

        async def write() -> dict[str, Any]:
            if image is not None:
                work = engine.put_image(key, image, item.labels, item.metadata)
                number = await self._body.lent_to(work)
            else:
                vector = engine.unit(item.vector or ())
                number = await engine.put_vector(key, vector, item.labels, item.metadata)
            return {"key": key, "status": "stored", "id": number}

        return await self._outcome(key, write)

    async def delete(self, key: str) -> dict[str, Any]:
        """The outcome of an item to delete."""

        async def write() -> dict[str, Any]:
            removed = await self._service.engine.remove([key])
            return {"key": key, "status": "deleted" if removed else "missing"}

        return await self._outcome(key, write)

    async def _outcome(
        self, key: str, write: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        begun = False
        try:
            async with asyncio.timeout_at(self._end), self._together:
                begun = True
                return await write()
        except TimeoutError:
            if begun:
                detail = "The answer took too long; it may be done yet."
                return {"key": key, "status": "unknown", "detail": detail}
            problem = busy()
        except Problem as error:
            problem = error
        except Exception as error:  # whatever it is, the others have outcomes of their own
            problem = problem_of(error)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                self.error = error
        status = _STATUSES.get(problem.status, "refused")
        return {"key": key, "status": status, "detail": problem.detail}


def item_as_json(item: StoredItem) -> dict[str, Any]:
    """An item under the keys of ``schemas.Item``."""
    return {
        "id": item.id,
        "key": item.key,
        "labels": list(item.labels),
        "metadata": {name: as_json(value) for name, value in item.metadata.items()},
        "source": item.source,
        "size": item.size,
        "mtime": as_json(item.mtime),
        "digest": item.digest,
        "phash": None if item.phash is None else f"{item.phash:016x}",
        "changed": item.changed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "original": item.has_original,
    }
