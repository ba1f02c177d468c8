"""Bodies of requests, read within bounds of size and time.

What is too large is refused by its Content-Length, or as soon as the bound is passed; a client that
stops sending, or sends a trickle, is refused too. Everything is held in memory, under a bound for
all requests together: nothing is written to a temporary file.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from spherequant.service.batches import read_batch
from spherequant.service.forms import FormReader, Part, form_problem, too_large
from spherequant.service.problems import Problem, busy, parsed
from spherequant.service.schemas import LABELS, MAX_LABELS, METADATA, MetadataValue
from spherequant.service.settings import LEAST_BYTES_PER_SECOND, MEGABYTE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping

    from starlette.requests import Request

    from spherequant.service.metrics import Metrics
    from spherequant.service.schemas import Batch
    from spherequant.service.settings import Settings

MULTIPART = "multipart/form-data"
JSON = "application/json"
_LARGEST_TEXT = 65_536
_LARGEST_JSON = 1 << 20
LARGEST_SEARCH = 1 << 18  # a vector of `MAX_DIM` numbers of 20 digits has a third of it
# For each item of a JSON batch: a number of its vector, and all else.
_NUMBER_BYTES = 26  # "-2.2250738585072014e-308, "
_ITEM_BYTES = 8_192
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

    def take(self, count: int, of: str = "uploads") -> None:
        """Hold so many bytes more.

        Args:
            count: bytes.
            of: what they belong to, for the message.

        Raises:
            Problem: there is no room for them now.
        """
        if self._held + count > self._limit:
            raise busy(f"Too many {of} at once. Try again in a moment.")
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
    _held: int = field(default=0, init=False)
    _lent_to: set[asyncio.Task[Any]] = field(default_factory=set, init=False)
    _left: bool = field(default=False, init=False)

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
        batch = await asyncio.to_thread(read_batch, texts[0].encode(), "form.items")
        return batch, _images(parts)

    async def json_batch(self, dim: int) -> Batch:
        """A batch without images.

        Args:
            dim: numbers of a vector.

        Raises:
            Problem: it is none, or it is too large or too slow.
        """
        each = _NUMBER_BYTES * dim + _ITEM_BYTES
        megabytes = math.ceil(self.settings.max_batch * each / MEGABYTE) + 1
        data = await self._whole(min(megabytes * MEGABYTE, self.settings.max_body_bytes))
        return await asyncio.to_thread(read_batch, data, "body")

    async def json(self, schema: type[SchemaT], limit: int = _LARGEST_JSON) -> SchemaT:
        """A JSON body that fits a schema.

        Raises:
            Problem: it does not, or it is too large or too slow.
        """
        return parsed(schema.model_validate_json, await self._whole(limit), "body")

    def lent_to(self, work: Coroutine[Any, Any, ResultT]) -> asyncio.Future[ResultT]:
        """What comes of work with the bytes of this body.

        It goes on when nobody waits for it any more, and they count as held until it ends.
        """
        task = asyncio.ensure_future(work)
        self._lent_to.add(task)
        task.add_done_callback(self._take_back)
        return asyncio.shield(task)

    def leave(self) -> None:
        """Give the bytes back, as soon as nothing works with them."""
        self._left = True
        if not self._lent_to:
            self.budget.give_back(self._held)

    def _take_back(self, task: asyncio.Task[Any]) -> None:
        self._lent_to.remove(task)
        if self._left:
            self.leave()

    async def _whole(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self._pieces(limit)])

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
        clock, patience = asyncio.get_running_loop().time, self.settings.stall_seconds
        until, size = clock() + patience, 0
        # Closed here: the event loop would be woken up for each one that it has to close itself.
        async with aclosing(self.request.stream()) as stream:
            while piece := await _next_piece(stream, until):
                size += len(piece)
                if size > limit:
                    raise refusal
                self.budget.take(len(piece))
                self._held += len(piece)
                # What came fast buys no time in which nothing has to come.
                until = min(until + len(piece) / LEAST_BYTES_PER_SECOND, clock() + patience)
                yield piece


@asynccontextmanager
async def reading(request: Request, settings: Settings, budget: Budget) -> AsyncIterator[Body]:
    """The body of a request; its bytes count as held until the block is left.

    Those that are lent to work count until that has ended, too.
    """
    body = Body(request, settings, budget)
    try:
        yield body
    finally:
        body.leave()


async def _next_piece(stream: AsyncIterator[bytes], until: float) -> bytes:
    """The next bytes of a body, none at its end."""
    try:
        async with asyncio.timeout_at(until):
            return await anext(stream, b"")
    except TimeoutError:
        raise Problem(408, "The request came too slowly.") from None
    except ClientDisconnect:
        raise Problem(400, "The request was cut off.") from None


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
