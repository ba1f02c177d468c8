"""Bodies of requests, read within bounds of size and time.

What is too large is refused by its Content-Length, or as soon as the bound is passed; a client that
stops sending, or sends a trickle, is refused too. Everything is held in memory, under a bound for
all requests together: nothing is written to a temporary file.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from spherequant.service.forms import FormReader, Part, form_problem, too_large
from spherequant.service.problems import Problem, busy, unusable
from spherequant.service.schemas import LABELS, MAX_LABELS, METADATA, Batch, MetadataValue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from starlette.requests import Request

    from spherequant.service.metrics import Metrics
    from spherequant.service.settings import Settings

MULTIPART = "multipart/form-data"
JSON = "application/json"
# Slower than this over the whole body, after the time to stall, is no honest client.
_LEAST_BYTES_PER_SECOND = 4_096
_LARGEST_TEXT = 65_536
_LARGEST_JSON = 1 << 20
LARGEST_SEARCH = 1 << 18  # a vector of `MAX_DIM` numbers of 20 digits has a third of it
# Boundaries and headers of the parts.
_FORM_OVERHEAD = 65_536

SchemaT = TypeVar("SchemaT", bound=BaseModel)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class SentItem:
    """An encoded image that was sent, with what is known of it."""

    image: bytes
    labels: list[str]
    metadata: dict[str, MetadataValue]


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
        parts = await self._form({"image": 1}, _LARGEST_TEXT)
        return _only_image(parts)

    async def item(self) -> SentItem:
        """A form that holds an image with its labels and metadata.

        Raises:
            Problem: the form holds something else, or is malformed, too large or too slow.
        """
        fields = {"image": 1, "labels": MAX_LABELS, "metadata": 1}
        parts = await self._form(fields, _LARGEST_TEXT)
        texts = [part.text() for part in parts if part.name == "metadata"]
        labels = [part.text() for part in parts if part.name == "labels"]
        return SentItem(
            _only_image(parts),
            parsed(LABELS.validate_python, labels, "form.labels"),
            parsed(METADATA.validate_json, texts[0], "form.metadata") if texts else {},
        )

    async def batch(self) -> tuple[Batch, list[bytes]]:
        """A batch, and the images that came with it.

        Raises:
            Problem: the form holds something else, or is malformed, too large or too slow.
        """
        parts = await self._form({"items": 1, "image": self.settings.max_batch}, _LARGEST_JSON)
        texts = [part.text() for part in parts if part.name == "items"]
        if not texts:
            raise form_problem("items", "is missing")
        return parsed(Batch.model_validate_json, texts[0], "form.items"), _images(parts)

    async def json(self, schema: type[SchemaT], limit: int = _LARGEST_JSON) -> SchemaT:
        """A JSON body that fits a schema.

        Raises:
            Problem: it does not, or it is too large or too slow.
        """
        data = b"".join([piece async for piece in self._pieces(limit)])
        return parsed(schema.model_validate_json, data, "body")

    async def _form(self, fields: Mapping[str, int], longest_text: int) -> list[Part]:
        bounds = self.settings
        reader = FormReader(
            self.request.headers.get("content-type", ""),
            fields,
            max_file_bytes=bounds.max_image_bytes,
            max_text_bytes=longest_text,
        )
        most = bounds.max_image_bytes * fields["image"] + longest_text + _FORM_OVERHEAD
        told = bounds.max_image_bytes if fields["image"] == 1 else bounds.max_body_bytes
        async with aclosing(self._pieces(min(most, bounds.max_body_bytes), told)) as pieces:
            async for piece in pieces:
                reader.feed(piece)
        return reader.end()

    async def _pieces(self, limit: int, told: int | None = None) -> AsyncGenerator[bytes]:
        """The body piece by piece; the bound is judged before a piece is kept.

        Args:
            limit: most bytes.
            told: the bound that is told of; that of an image is below that of its form.
        """
        refusal = too_large(told or limit)
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise refusal
        started, size = time.monotonic(), 0
        # Closed here: the event loop would be woken up for each one that it has to close itself.
        async with aclosing(self.request.stream()) as stream:
            while piece := await self._next_piece(stream):
                size += len(piece)
                if size > limit:
                    raise refusal
                late = time.monotonic() - started - self.settings.stall_seconds
                if late > 0 and size < late * _LEAST_BYTES_PER_SECOND:
                    raise _too_slow()
                self.budget.take(len(piece))
                self.held += len(piece)
                yield piece

    async def _next_piece(self, stream: AsyncIterator[bytes]) -> bytes:
        """The next bytes of the body, none at its end."""
        try:
            async with asyncio.timeout(self.settings.stall_seconds):
                return await anext(stream, b"")
        except TimeoutError:
            raise _too_slow() from None
        except ClientDisconnect:
            raise Problem(400, "The request was cut off.") from None


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


def _images(parts: list[Part]) -> list[bytes]:
    """The files of the field ``image``, in their order."""
    images = [part for part in parts if part.name == "image"]
    if not all(part.is_file for part in images):
        raise form_problem("image", "is a file, with a filename")
    return [bytes(part.data) for part in images]


def _only_image(parts: list[Part]) -> bytes:
    images = _images(parts)
    if not images:
        raise form_problem("image", "is missing")
    return images[0]


def _too_slow() -> Problem:
    return Problem(408, "The request came too slowly.")
