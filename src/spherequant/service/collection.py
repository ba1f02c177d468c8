"""What the index holds, for filters and for the page's second view."""

from __future__ import annotations

from fastapi import APIRouter

from spherequant.service.context import Reader, described
from spherequant.service.schemas import Columns, Labels

router = APIRouter(prefix="/v1", tags=["collection"])


@router.get("/labels", summary="Labels with counts", responses=described(401, 503))
async def labels(service: Reader) -> Labels:
    """Every label of the index, the most frequent first."""
    return await service.within(service.engine.labels())


@router.get("/columns", summary="Columns that a filter can name", responses=described(401))
async def columns(service: Reader) -> Columns:
    """Names and types of the columns that `where` can name."""
    return service.engine.columns()
