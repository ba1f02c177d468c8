"""``/health``, ``/ready`` and ``/metrics``: for those who run the service."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from spherequant import __version__
from spherequant.service.context import Reader, described, service_of
from spherequant.service.schemas import Health, Ready

router = APIRouter(tags=["operations"])


@router.get("/health", summary="Whether the process answers")
async def health() -> Health:
    """Answers as long as the process does; no key is needed."""
    return Health(status="ok", version=__version__)


@router.get("/ready", summary="Whether searches are answered")
async def ready(request: Request) -> Ready:
    """Answers once the index is open and the model warm, until connections are no longer taken.

    No key is needed.
    """
    engine = service_of(request).engine
    return Ready(
        status="ready",
        items=len(engine.searcher),
        index_version=engine.searcher.version,
        fingerprint=engine.header.fingerprint,
        takes_images=engine.model is not None,
    )


@router.get(
    "/metrics",
    response_class=Response,
    summary="Metrics for Prometheus",
    responses={
        **described(401),
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}},
    },
)
async def metrics(service: Reader) -> Response:
    """Counts, queue depths, and a histogram of each stage."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
