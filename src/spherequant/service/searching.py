"""``POST /v1/search``: by image, by key, by vector."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from spherequant.service import engine
from spherequant.service.bodies import JSON, MULTIPART, reading
from spherequant.service.problems import Problem
from spherequant.service.context import Reader, described
from spherequant.service.schemas import LARGEST_SCORE, SearchRequest, SearchResponse

router = APIRouter(tags=["search"])

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF or BMP.",
                    }
                },
            }
        },
        JSON: {
            "schema": {"$ref": "#/components/schemas/SearchRequest"},
            "examples": SearchRequest.examples,
        },
    },
}


@router.post(
    "/v1/search",
    response_model=SearchResponse,
    summary="Search by image, by key or by vector",
    responses=described(400, 401, 404, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": _BODY},
)
async def search(
    request: Request,
    service: Reader,
    k: Annotated[int, Query(ge=1, description="Results in the answer.")] = 10,
    offset: Annotated[int, Query(ge=0, description="Results to pass over, for paging.")] = 0,
    where: Annotated[
        str | None,
        Query(
            description="Search only items for which this SQL expression holds.",
            examples=["array_has(labels, 'cat') AND size > 1000"],
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        Query(
            ge=-LARGEST_SCORE,
            le=LARGEST_SCORE,
            allow_inf_nan=False,
            description="Leave out results that score less.",
        ),
    ] = None,
    rerank: Annotated[
        int | None,
        Query(ge=1, description="Order so many best codes by their kept vectors."),
    ] = None,
) -> JSONResponse:
    """Find the items that are most like an image, an item or a vector; the best first.

    An image comes as the field `image` of a form, a key or a vector as JSON. The results are exact;
    equal scores come in the order in which items were added.
    """
    bounds = service.settings
    for name, value, largest in (
        ("k", k, bounds.max_k),
        ("offset", offset, bounds.max_offset),
        ("rerank", rerank or 1, bounds.max_rerank),
    ):
        if value > largest:
            raise Problem(
                422,
                f"{name} is at most {largest}.",
                errors=[{"where": f"query.{name}", "what": f"is at most {largest}"}],
            )
    vector, key = None, None
    async with reading(request, bounds, service.budget) as body:
        if body.kind == MULTIPART:
            image = await body.image()
            vector = await service.within(service.engine.vector_of(image))
        elif body.kind == JSON:
            asked = await body.json(SearchRequest)
            key = asked.key
            if asked.vector is not None:
                vector = service.engine.unit(asked.vector)
        else:
            raise Problem(415, f"Send an image as {MULTIPART}, or a key or a vector as {JSON}.")
    page = await service.within(
        service.engine.search(
            engine.Query(vector, key, k, offset, where or None, min_score, rerank)
        )
    )
    return JSONResponse({"results": [hit.model_dump() for hit in page.hits], "total": page.total})
