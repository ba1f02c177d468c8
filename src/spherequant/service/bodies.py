"""Bodies of requests, read within bounds of size and time.

What is too large is refused by its Content-Length, or as soon as the bound is passed; a client that
stops sending, or sends a trickle, is refused too. Everything is held in memory, under a bound for
all requests together: nothing is written to a temporary file.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from spherequant.service.problems import Problem, busy, unusable
from spherequant.service.schemas import LABELS, MAX_LABELS, METADATA, Batch, MetadataValue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.requests import Request

    from spherequant.service.metrics import Metrics
    from spherequant.service.settings import Settings

MULTIPART = "multipart/form-data"
JSON = "application/json"
# Slower than this over the whole body, after the time to stall, is no honest client.
_LEAST_BYTES_PER_SECOND = 4_096
_LARGEST_FIELD = 65_536

_LARGEST_JSON = 1 << 20

SchemaT = TypeVar("SchemaT", bound=BaseModel)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Upload:
    """An encoded image that was sent, with what is known of it."""

    image: bytes
    labels: list[str]
    metadata: dict[str, MetadataValue]


class _InMemory(MultiPartParser):
    """Starlette's parser, whose files never move to the disk."""

    spool_max_size = sys.maxsize


class Budget:
    """Bytes of bodies that are in memory, under one bound."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limit = settings.max_upload_bytes
        self._held = 0
        metrics.upload_bytes.set_function(lambda: self._held)

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            Problem: there is no room for them now.
        """
        if self._held + count > self._limit:
            raise busy("Too many uploads at once. Try again in a moment.")
        self._held += count

    def give_back(self, count: int) -> None:
        """Hold so many bytes less."""
        self._held -= count


@dataclass
class Body:
    """The body of one request, on its way in."""

    request: Request
    settings: Settings
    budget: Budget
    held: int = 0

    @property
    def kind(self) -> str:
        """Its media type, without parameters."""
        return self.request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def image(self) -> bytes:
        """The one file of a form that holds an image alone.

        Raises:
            Problem: the form holds something else, or is malformed, too large or too slow.
        """
        upload = await self.upload(())
        return upload.image

    async def upload(self, fields: Sequence[str] = ("labels", "metadata")) -> Upload:
        """An image with what is known of it.

        Args:
            fields: which of ``labels`` and ``metadata`` the form may hold.

        Raises:
            Problem: the form holds something else, or is malformed, too large or too slow.
        """
        form = await self.form(files=1, fields=MAX_LABELS + 1)
        unknown = set(form) - {"image", *fields}
        if unknown:
            raise _form_problem(min(unknown), "is not known here")
        images = await _files(form, "image", self.settings.max_image_bytes)
        if len(images) != 1:
            raise _form_problem("image", "is missing")
        metadata = _texts(form, "metadata")
        if len(metadata) > 1:
            raise _form_problem("metadata", "comes more than once")
        return Upload(
            images[0],
            parsed(LABELS.validate_python, _texts(form, "labels"), "form.labels"),
            parsed(METADATA.validate_json, metadata[0], "form.metadata") if metadata else {},
        )

    async def batch(self) -> tuple[Batch, list[bytes]]:
        """A batch, and the images that came with it.

        Raises:
            Problem: the form holds something else, or is malformed, too large or too slow.
        """
        form = await self.form(files=self.settings.max_batch, fields=1, longest=_LARGEST_JSON)
        unknown = set(form) - {"image", "items"}
        if unknown:
            raise _form_problem(min(unknown), "is not known here")
        items = _texts(form, "items")
        if len(items) != 1:
            raise _form_problem("items", "is missing")
        images = await _files(form, "image", self.settings.max_image_bytes)
        return parsed(Batch.model_validate_json, items[0], "form.items"), images

    async def form(self, *, files: int, fields: int, longest: int = _LARGEST_FIELD) -> FormData:
        """A multipart form.

        Raises:
            Problem: it is malformed, too large or too slow.
        """
        limit = self.settings.max_image_bytes * files + 2 * longest
        limit = min(limit, self.settings.max_body_bytes)
        parser = _InMemory(
            self.request.headers,
            self._pieces(limit),
            max_files=files,
            max_fields=fields,
            max_part_size=longest,
        )
        try:
            return await parser.parse()
        except (MultiPartException, HTTPException, KeyError, ValueError, LookupError):
            raise Problem(
                400,
                "The multipart body is malformed or cut off, or has too many or too long fields.",
            ) from None

    async def json(self, schema: type[SchemaT], limit: int = _LARGEST_JSON) -> SchemaT:
        """A JSON body that fits a schema.

        Raises:
            Problem: it does not, or it is too large or too slow.
        """
        data = b"".join([piece async for piece in self._pieces(limit)])
        return parsed(schema.model_validate_json, data, "body")

    async def _pieces(self, limit: int) -> AsyncIterator[bytes]:
        """The body piece by piece; the bound is judged before a piece is kept."""
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit)
        started, size = time.monotonic(), 0
        stream = self.request.stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout(self.settings.stall_seconds):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise Problem(408, "The request came too slowly.") from None
            except ClientDisconnect:
                raise Problem(400, "The request was cut off.") from None
            if piece is None:
                return
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            late = time.monotonic() - started - self.settings.stall_seconds
            if late > 0 and size < late * _LEAST_BYTES_PER_SECOND:
                raise Problem(408, "The request came too slowly.")
            self.budget.take(len(piece))
            self.held += len(piece)
            yield piece


@asynccontextmanager
async def reading(request: Request, settings: Settings, budget: Budget) -> AsyncIterator[Body]:
    """The body of a request; its bytes count as held until the block is left."""
    body = Body(request, settings, budget)
    try:
        yield body
    finally:
        budget.give_back(body.held)


def parsed(validate: Callable[[Any], ResultT], value: object, where: str) -> ResultT:
    """A value that pydantic accepts.

    Raises:
        Problem: it does not.
    """
    try:
        return validate(value)
    except ValidationError as error:
        found: list[dict[str, Any]] = [
            {**one, "loc": (where, *one["loc"])}
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise unusable(found) from None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The upload is too large: at most {limit / (1 << 20):g} MiB are taken.")


async def _files(form: FormData, name: str, limit: int) -> list[bytes]:
    """The bytes of the files of that name, in their order.

    Raises:
        Problem: one of them is no file, or too large.
    """
    found = []
    for value in form.getlist(name):
        if not isinstance(value, UploadFile):
            raise _form_problem(name, "is a file, with a filename")
        data: bytes = await value.read()
        if len(data) > limit:
            raise _too_large(limit)
        found.append(data)
    return found


def _texts(form: FormData, name: str) -> list[str]:
    """The fields of that name.

    Raises:
        Problem: one of them is a file.
    """
    values = form.getlist(name)
    if any(isinstance(value, UploadFile) for value in values):
        raise _form_problem(name, "is a text, without a filename")
    return [str(value) for value in values]


def _form_problem(name: str, what: str) -> Problem:
    where = f"form.{name}"
    return Problem(422, f"{where} {what}.", errors=[{"where": where, "what": what}])
