"""Thumbnails and originals, sent as what their bytes are and never as what they are called."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from spherequant.images.decoding import HEAD_BYTES, sniff
from spherequant.service.context import KeyQuery, Reader, described
from spherequant.service.engine import plain_key
from spherequant.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from spherequant.service.context import Service

router = APIRouter(tags=["pictures"])

_PIECE_BYTES = 65_536

# Formats of pixels alone. Nothing that could hold a script is ever sent as what it is.
_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "JPEG2000": "image/jp2",
}
_SHOWN = {"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"}


@router.get(
    "/v1/thumbnail",
    response_class=Response,
    summary="The thumbnail of an item",
    responses={
        **described(401, 404, 422, 503),
        200: {"description": "A JPEG.", "content": {"image/jpeg": {}}},
        304: {"description": "Not changed since the ETag that was sent."},
    },
)
async def thumbnail(request: Request, service: Reader, key: KeyQuery) -> Response:
    """A JPEG of at most 160 x 160 pixels."""
    data = await service.within(service.engine.thumbnail(plain_key(key)))
    if data is None:
        raise Problem(404, f"The item {key!r} has no thumbnail.")
    return _sent(request, data, sha256(data).hexdigest(), service)


@router.get(
    "/v1/original",
    response_class=Response,
    summary="The image file of an item",
    responses={
        **described(401, 404, 422, 503),
        200: {
            "description": "The file's bytes; formats that browsers do not show, as attachment.",
            "content": {kind: {} for kind in _TYPES.values()},
        },
        304: {"description": "Not changed since the ETag that was sent."},
    },
)
async def original(request: Request, service: Reader, key: KeyQuery) -> Response:
    """The bytes that were put, or the file in the item's own source while it is unchanged."""
    key = plain_key(key)
    if "if-none-match" in request.headers:  # then the file need perhaps not be read
        item = await service.within(service.engine.item(key))
        if item.digest is not None and (unchanged := _unchanged(request, item.digest)):
            return unchanged
    file = await service.within(service.engine.original(key))
    return _sent(request, file.data, file.digest, service)


class _Held(Response):
    """A large answer, sent in pieces; its bytes count as held until the client has taken them."""

    def __init__(self, content: bytes, service: Service, **options: Any) -> None:
        super().__init__(content, **options)
        self._budget = service.budget
        self._budget.take(len(content), "downloads")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send it, each piece when the client has taken the one before."""
        try:
            head = {"type": "http.response.start", "status": self.status_code}
            await send({**head, "headers": self.raw_headers})
            for start in range(0, len(self.body), _PIECE_BYTES):
                piece = self.body[start : start + _PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._budget.give_back(len(self.body))


def _headers(digest: str) -> dict[str, str]:
    return {"ETag": f'"{digest[:32]}"', "Cache-Control": "private, no-cache"}


def _unchanged(request: Request, digest: str) -> Response | None:
    """The answer to who has these bytes already, else None."""
    headers = _headers(digest)
    if request.headers.get("if-none-match") != headers["ETag"]:
        return None
    return Response(status_code=304, headers=headers)


def _sent(request: Request, data: bytes, digest: str, service: Service) -> Response:
    """Bytes as the image that they are, or not at all if the client has them.

    Raises:
        Problem: they are no image; or too many are being sent already.
    """
    kind = _TYPES.get(sniff(data[:HEAD_BYTES]) or "")
    if kind is None:
        raise Problem(404, "What is kept of this item is no image that can be shown.")
    if unchanged := _unchanged(request, digest):
        return unchanged
    headers = _headers(digest)
    if kind not in _SHOWN:
        headers["Content-Disposition"] = "attachment"
    return _Held(data, service, media_type=kind, headers=headers)
