"""``POST /v1/search``: by image, by key, by vector."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from spherequant.service import scanning
from spherequant.service.bodies import JSON, LARGEST_SEARCH, MULTIPART, Body, reading
from spherequant.service.context import IMAGE_FIELD, Reader, Service, WhereQuery, described
from spherequant.service.engine import plain_key
from spherequant.service.problems import Problem
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
                "properties": {"image": IMAGE_FIELD},
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
    where: WhereQuery = None,
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
    with_vector: Annotated[
        bool,
        Query(description="Answer with an image's vector too, to ask for its next page with it."),
    ] = False,
) -> JSONResponse:
    """Find the items that are most like an image, an item or a vector; the best first.

    An image comes as the field `image` of a form, a key or a vector as JSON. The results are exact;
    equal scores come in the order in which items were added.
    """
    bounds = service.settings
    service.check_bounds(
        k=(k, bounds.max_k), offset=(offset, bounds.max_offset), rerank=(rerank, bounds.max_rerank)
    )
    where = service.checked(where)
    async with reading(request, bounds, service.budget) as body:
        vector, key = await _asked_with(service, body)
    page = await service.within(
        service.engine.search(scanning.Query(vector, key, k, offset, where, min_score, rerank))
    )
    told = {} if vector is None or not with_vector else {"vector": vector.tolist()}
    return JSONResponse({"results": page.results, "total": page.total, **told})


async def _asked_with(service: Service, body: Body) -> tuple[Any, str | None]:
    """The vector to search with, or the key."""
    if body.kind == MULTIPART:
        image = await body.image()
        return await service.within(service.engine.vector_of(image)), None
    if body.kind == JSON:
        asked = await body.json(SearchRequest, LARGEST_SEARCH)
        if asked.key is not None:
            return None, plain_key(asked.key)
        return service.engine.unit(asked.vector or ()), None
    raise Problem(415, f"Send an image as {MULTIPART}, or a key or a vector as {JSON}.")
