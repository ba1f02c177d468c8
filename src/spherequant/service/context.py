"""What the routes share: their service, who may call them, what they take and answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from spherequant.service.filters import check_filter
from spherequant.service.problems import MEDIA_TYPE, Problem, busy
from spherequant.service.schemas import MAX_KEY, ProblemDocument

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from spherequant.service.access import Access
    from spherequant.service.bodies import Budget
    from spherequant.service.engine import Engine
    from spherequant.service.metrics import Metrics
    from spherequant.service.settings import Settings

ResultT = TypeVar("ResultT")

_TOLD = {
    400: "The request is malformed or cut off.",
    401: "An API key is needed.",
    403: "This API key may not write.",
    404: "No item has the key.",
    408: "The request came too slowly.",
    409: "The key belongs to a source that `spherequant index` keeps.",
    413: "The upload is too large.",
    415: "A media type that is not taken.",
    422: "A value that cannot be used.",
    503: "Too much waits already, or the service is shutting down: try again.",
}


@dataclass
class Service:
    """One running service.

    Attributes:
        settings: bounds.
        engine: the index, for many at once.
        access: the API keys.
        budget: bytes of bodies in memory.
        metrics: what Prometheus reads.
    """

    settings: Settings
    engine: Engine
    access: Access
    budget: Budget
    metrics: Metrics

    def checked(self, where: str | None) -> str | None:
        """A filter that may go to the index; an empty one is none.

        Raises:
            Problem: it names what it may not.
        """
        if not where or not where.strip():
            return None
        return check_filter(where, self.engine.searcher.columns, self.settings.max_where)

    def check_bounds(self, **given: tuple[int | None, int]) -> None:
        """Refuse parameters above their bounds.

        Args:
            given: name -> (value, largest).

        Raises:
            Problem: names the first.
        """
        for name, (value, largest) in given.items():
            if value is not None and value > largest:
                what = f"is at most {largest}"
                raise Problem(
                    422, f"{name} {what}.", errors=[{"where": f"query.{name}", "what": what}]
                )

    async def within(self, answer: Awaitable[ResultT]) -> ResultT:
        """Wait for an answer, for as long as a request may take.

        Raises:
            Problem: it took longer.
        """
        try:
            async with asyncio.timeout(self.settings.answer_seconds):
                return await answer
        except TimeoutError:
            raise busy("The answer took too long. Try again in a moment.") from None


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="Needed where the operator has set keys. A key that may write may also read.",
)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def _reader(request: Request, _: _Credentials) -> Service:
    service = service_of(request)
    service.access.check(request.headers.get("authorization"), write=False)
    return service


async def _writer(request: Request, _: _Credentials) -> Service:
    service = service_of(request)
    service.access.check(request.headers.get("authorization"), write=True)
    return service


Reader = Annotated[Service, Depends(_reader)]
"""The service, for who may read."""

Writer = Annotated[Service, Depends(_writer)]
"""The service, for who may write."""

KeyQuery = Annotated[
    str,
    Query(
        min_length=1,
        max_length=MAX_KEY,
        description="Key of an item; it may hold slashes.",
        examples=["cat/0017.jpg"],
    ),
]


WhereQuery = Annotated[
    str | None,
    Query(
        description="An SQL expression that must hold for an item.",
        examples=["array_has(labels, 'cat') AND size > 1000"],
    ),
]
IMAGE_FIELD: dict[str, Any] = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF or BMP; told by its bytes.",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, for the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    return {
        status: {
            "description": _TOLD[status],
            "content": {MEDIA_TYPE: {"schema": schema}},
            **({"headers": _RETRY} if status == 503 else {}),
        }
        for status in statuses
    }


_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
