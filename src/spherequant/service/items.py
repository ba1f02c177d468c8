"""``/v1/items``: an item read, put or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from spherequant.service.bodies import JSON, MULTIPART, reading
from spherequant.service.context import KeyQuery, Reader, Writer, described
from spherequant.service.problems import Problem, not_found
from spherequant.service.schemas import MAX_LABEL, MAX_LABELS, Item, ItemVector, Stored

if TYPE_CHECKING:
    from spherequant.index import StoredItem

router = APIRouter(prefix="/v1/items", tags=["items"])

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string", "contentMediaType": "application/octet-stream"},
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


@router.get(
    "",
    response_model=Item,
    summary="Read an item",
    responses=described(401, 404, 422, 503),
)
async def read(service: Reader, key: KeyQuery) -> JSONResponse:
    """Everything that is stored of an item, but its image."""
    item = await service.within(service.engine.item(key))
    return JSONResponse(_as_json(item))


@router.put(
    "",
    response_model=Stored,
    summary="Add or replace an item",
    responses=described(400, 401, 403, 408, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": _BODY},
)
async def put(request: Request, service: Writer, key: KeyQuery) -> JSONResponse:
    """Add an item, or replace the one with this key, which keeps its id.

    The answer comes when the item is durable; every search that begins then finds it. What is not
    given again (labels, metadata) is gone.
    """
    async with reading(request, service.settings, service.budget) as body:
        if body.kind == MULTIPART:
            given = await body.upload()
            number = await service.engine.put_image(key, given.image, given.labels, given.metadata)
        elif body.kind == JSON:
            item = await body.json(ItemVector)
            vector = service.engine.unit(item.vector)
            number = await service.engine.put_vector(key, vector, item.labels, item.metadata)
        else:
            raise Problem(415, f"Send an image as {MULTIPART}, or a vector as {JSON}.")
    return JSONResponse({"id": number, "key": key})


@router.delete(
    "",
    status_code=204,
    response_class=Response,
    summary="Delete an item",
    responses=described(401, 403, 404, 422, 503),
)
async def delete(service: Writer, key: KeyQuery) -> Response:
    """Delete an item. The answer comes when that is durable.

    An item whose file is still in a source comes back at that source's next `spherequant index`.
    """
    if not await service.engine.remove([key]):
        raise not_found(key)
    return Response(status_code=204)


def _as_json(item: StoredItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "key": item.key,
        "labels": list(item.labels),
        "metadata": item.metadata,
        "source": item.source,
        "size": item.size,
        "mtime": item.mtime,
        "digest": item.digest,
    }
