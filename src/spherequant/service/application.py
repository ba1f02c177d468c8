"""The FastAPI application: an engine, the routes, the page."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from spherequant import __version__
from spherequant.errors import SpherequantError
from spherequant.service import (
    collection,
    items,
    operations,
    pictures,
    problems,
    searching,
)
from spherequant.service.access import Access
from spherequant.service.bodies import Budget
from spherequant.service.context import Service
from spherequant.service.engine import Engine
from spherequant.service.metrics import Metrics
from spherequant.service.protection import Protection
from spherequant.service.schemas import (
    Batch,
    ItemChange,
    ItemVector,
    ProblemDocument,
    SearchRequest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from os import PathLike

    from starlette.responses import Response
    from starlette.types import Scope

    from spherequant.service.settings import Settings

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")


def _warm(folder: Path, settings: Settings, metrics: Metrics) -> Engine:
    """The engine, after its model has embedded an image."""
    engine = Engine(folder, settings, metrics)
    try:
        engine.warm_up()
    except BaseException:
        engine.close()
        raise
    return engine


def create_app(directory: str | PathLike[str], settings: Settings) -> FastAPI:
    """The application that serves an index.

    Args:
        directory: the index; opened here, closed when the application's lifespan ends.
        settings: bounds and API keys.

    Raises:
        FormatError: no index is there, or it is damaged.
        SpherequantError: its model cannot be run.
    """
    metrics = Metrics()
    try:
        engine = _warm(Path(directory).absolute(), settings, metrics)
    except SpherequantError:
        raise
    except Exception as error:
        raise SpherequantError(
            f"the model of {directory} cannot be run here ({type(error).__name__}: {error}): with "
            "CUDA_VISIBLE_DEVICES= (empty) it runs on the processor; 'spherequant doctor' looks at "
            "the installation"
        ) from error
    service = Service(settings, engine, Access(settings), Budget(settings, metrics), metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        refreshing = asyncio.create_task(_refresh(service))
        try:
            yield
        finally:
            refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await refreshing
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="spherequant",
        summary="Search by image over a living index.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    problems.install(app)
    app.add_middleware(Protection, settings=settings, metrics=metrics)
    for module in (searching, items, pictures, collection, operations):
        app.include_router(module.router)
    app.add_api_route("/", _index, include_in_schema=False, response_class=FileResponse)
    app.mount("/page", _Page(directory=PAGE))
    _complete_openapi(app)
    return app


# No inline script or style, nothing from elsewhere; blob: and data: for images that the page shows
# before they are uploaded, or fetched with an API key.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


async def _index() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)


class _Page(StaticFiles):
    """The files of the page, under a policy that lets nothing else in."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        # A machine may have no media type for modules, which browsers then refuse.
        if path.endswith(".js"):
            response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        return response


async def _refresh(service: Service) -> None:
    """Take up what other processes commit, now and then."""
    while True:
        await asyncio.sleep(service.settings.refresh_seconds)
        try:
            await service.engine.refresh()
        except Exception as error:  # whatever it is, the next try may succeed
            logger.warning("the index could not be refreshed: %s", type(error).__name__)


def _complete_openapi(app: FastAPI) -> None:
    """Add the schemas that routes read or answer with by hand."""
    made = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schemas = document["components"]["schemas"]
            for schema in (SearchRequest, ItemVector, ItemChange, Batch, ProblemDocument):
                found = schema.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(found.pop("$defs", {}))
                schemas[schema.__name__] = found
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's own way to extend it
