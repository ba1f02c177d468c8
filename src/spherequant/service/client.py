"""A service asked from Python, over the schemas that it answers by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from spherequant.errors import InputError
from spherequant.service.schemas import (
    LABELS,
    METADATA,
    Batch,
    BatchPut,
    BatchResponse,
    Collection,
    Columns,
    Duplicates,
    Health,
    Item,
    ItemChange,
    ItemVector,
    Labels,
    Latest,
    NearDuplicates,
    Ready,
    Refreshed,
    SearchRequest,
    SearchResponse,
    Stored,
)
from spherequant.service.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import httpx2
    from PIL import Image

    ImageLike = str | os.PathLike[str] | bytes | Image.Image
    """An image: the path of a file, the bytes of one, or a picture of Pillow's."""

ResultT = TypeVar("ResultT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)

_JSON = {"Content-Type": "application/json"}


class Client:
    """A service that ``spherequant serve`` runs.

    A context manager; it may be shared by threads. While the service is too busy (503), a request
    that may be sent twice is sent again after the time that the service names, four times in all;
    a batch is not.

    Every method raises ``ServiceError`` where no answer comes, or one that says what was wrong
    (its ``status``, ``title`` and ``detail``), and ``InputError`` for what cannot be sent.

    Args:
        url: of the service, such as ``http://127.0.0.1:8000``.
        api_key: where the service needs one; ``SPHEREQUANT_API_KEY`` of the environment when None.
        timeout: seconds to wait for the service to take or give the next piece.

    Raises:
        ConfigError: the address is none, or the key or the time cannot be used.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        self._transport = Transport(url, api_key, timeout)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(  # noqa: PLR0913 - the request's own parameters
        self,
        image: ImageLike | None = None,
        *,
        key: str | None = None,
        vector: Iterable[float] | None = None,
        k: int = 10,
        offset: int = 0,
        where: str | None = None,
        min_score: float | None = None,
        rerank: int | None = None,
        with_vector: bool = False,
    ) -> SearchResponse:
        """Find the items that are most like an image, an item or a vector; the best first.

        Args:
            image: to ask with, or
            key: of an item, which is left out of its own results, or
            vector: D numbers of any length but zero.
            k: results in the answer.
            offset: results to pass over, for paging.
            where: an SQL expression over the columns that must hold for an item.
            min_score: leave out results that score less.
            rerank: order so many best codes by their kept vectors.
            with_vector: have the answer hold the image's vector, to ask for further pages with it.
        """
        if sum(given is not None for given in (image, key, vector)) != 1:
            raise InputError("search needs exactly one of image, key and vector.")
        wanted: dict[str, Any] = {"k": k, "offset": offset, "where": where}
        wanted |= {"min_score": min_score, "rerank": rerank, "with_vector": with_vector or None}
        if image is not None:
            body: dict[str, Any] = {"files": {"image": ("image", _bytes_of(image))}}
        elif vector is not None:
            body = _body(_made(SearchRequest, vector=_numbers(vector)))
        else:
            body = _body(_made(SearchRequest, key=key))
        response = self._transport.ask("POST", "/v1/search", params=_given(wanted), **body)
        return self._as(SearchResponse, response)

    def get(self, key: str) -> Item:
        """What is stored of an item."""
        return self._as(Item, self._transport.ask("GET", "/v1/items", params={"key": key}))

    def put(
        self,
        key: str,
        image: ImageLike | None = None,
        *,
        vector: Iterable[float] | None = None,
        labels: str | Sequence[str] = (),
        metadata: Mapping[str, int | float | str | None] | None = None,
    ) -> Stored:
        """Add an item, or replace the one with this key; durable when this returns.

        Args:
            key: of the item, in Unicode NFC once it is stored.
            image: of the item, or
            vector: for an index without a network.
            labels: all of them, or the one.
            metadata: values of the index's own columns.
        """
        labels = [labels] if isinstance(labels, str) else labels
        if image is not None and vector is None:
            form: dict[str, Any] = {"labels": _valid(LABELS.validate_python, labels)}
            if metadata:
                values = _valid(METADATA.validate_python, dict(metadata))
                form["metadata"] = METADATA.dump_json(values).decode()
            body: dict[str, Any] = {"data": form, "files": {"image": ("image", _bytes_of(image))}}
        elif vector is not None and image is None:
            given = {"vector": _numbers(vector), "labels": labels, "metadata": metadata or {}}
            body = _body(_made(ItemVector, **given))
        else:
            raise InputError("put needs exactly one of image and vector.")
        response = self._transport.ask("PUT", "/v1/items", params={"key": key}, **body)
        return self._as(Stored, response)

    def change(
        self,
        key: str,
        *,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, int | float | str | None] | None = None,
    ) -> Stored:
        """Change what is known of an item; what is None stays, and so does its image.

        Args:
            key: of the item.
            labels: all labels from now on.
            metadata: these columns; others stay.
        """
        change = _made(ItemChange, **_given({"labels": labels, "metadata": metadata}))
        response = self._transport.ask("PATCH", "/v1/items", params={"key": key}, **_body(change))
        return self._as(Stored, response)

    def delete(self, key: str) -> None:
        """Delete an item; durable when this returns."""
        response, sent = self._transport.send("DELETE", "/v1/items", params={"key": key})
        # Of a request that was answered with 503 it is not known whether it was carried out.
        if sent == 1 or response.status_code != 404:
            self._transport.check(response)

    def batch(
        self,
        put: Sequence[BatchPut] = (),
        images: Sequence[ImageLike] = (),
        *,
        delete: Sequence[str] = (),
    ) -> BatchResponse:
        """Put many items, then delete many; each has an outcome of its own.

        Args:
            put: items to add or replace.
            images: one for each of ``put`` that has no vector, in the same order.
            delete: keys.
        """
        batch = _made(Batch, put=list(put), delete=list(delete))
        body = _body(batch)
        if images:
            files = [("items", (None, body["content"]))]
            body = {"files": files + [("image", ("image", _bytes_of(image))) for image in images]}
        response = self._transport.ask("POST", "/v1/items:batch", again=False, **body)
        return self._as(BatchResponse, response)

    def thumbnail(self, key: str) -> bytes:
        """The JPEG thumbnail of an item."""
        return self._transport.ask("GET", "/v1/thumbnail", params={"key": key}).content

    def original(self, key: str) -> bytes:
        """The image file of an item."""
        return self._transport.ask("GET", "/v1/original", params={"key": key}).content

    def near_duplicates(self, key: str, *, max_distance: int = 4) -> NearDuplicates:
        """Items that look like one item: perceptual hashes that differ in few bits."""
        wanted = {"key": key, "max_distance": max_distance}
        return self._as(
            NearDuplicates, self._transport.ask("GET", "/v1/items/duplicates", params=wanted)
        )

    def duplicates(
        self, *, max_distance: int = 4, where: str | None = None, exact: bool = False
    ) -> Duplicates:
        """Groups of items that look alike, the largest first.

        Args:
            max_distance: bits of 64 in which two perceptual hashes may differ.
            where: only items for which this holds.
            exact: groups of files that are the same to the byte instead.
        """
        wanted = _given({"max_distance": max_distance, "where": where, "exact": exact or None})
        return self._as(Duplicates, self._transport.ask("GET", "/v1/duplicates", params=wanted))

    def labels(self, *, where: str | None = None) -> Labels:
        """Labels with counts: of all items, or of those that a filter lets through."""
        wanted = _given({"where": where})
        return self._as(Labels, self._transport.ask("GET", "/v1/labels", params=wanted))

    def columns(self) -> Columns:
        """Columns that a filter can name."""
        return self._as(Columns, self._transport.ask("GET", "/v1/columns"))

    def collection(self, *, recent: int = 0) -> Collection:
        """What the index holds, and so many items that were changed last."""
        wanted = {"recent": recent}
        return self._as(Collection, self._transport.ask("GET", "/v1/collection", params=wanted))

    def latest(self, n: int = 20, *, where: str | None = None) -> Latest:
        """The items changed last, or those of them that a filter lets through."""
        wanted = _given({"n": n, "where": where})
        return self._as(Latest, self._transport.ask("GET", "/v1/latest", params=wanted))

    def refresh(self) -> Refreshed:
        """Have the service take up what other processes wrote, now."""
        return self._as(Refreshed, self._transport.ask("POST", "/v1/refresh"))

    def health(self) -> Health:
        """That the process answers."""
        return self._as(Health, self._transport.ask("GET", "/health"))

    def ready(self) -> Ready:
        """That searches are answered; needs no API key."""
        return self._as(Ready, self._transport.ask("GET", "/ready"))

    def _as(self, schema: type[SchemaT], response: httpx2.Response) -> SchemaT:
        """An answer under its schema; what a later version adds to it is passed over."""
        try:
            return schema.model_validate_json(response.content, extra="ignore")
        except ValidationError:
            raise self._transport.foreign(response) from None


def _bytes_of(image: ImageLike) -> bytes:
    """The bytes to send for an image; a picture of Pillow's travels as PNG, without loss."""
    from PIL import Image

    from spherequant.images import Limits
    from spherequant.images.decoding import PillowGuard, to_png, upright_rgb

    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        with PillowGuard(image.format or "given"):
            return to_png(upright_rgb(image))
    if not isinstance(image, str | os.PathLike):
        raise InputError(
            f"an image is a path, bytes or a picture of Pillow's, not {type(image).__name__}."
        )
    path = Path(image)
    try:
        Limits().check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _body(value: BaseModel) -> dict[str, Any]:
    """A JSON body; what was not given is left out of it."""
    return {"content": value.model_dump_json(exclude_unset=True).encode(), "headers": _JSON}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _numbers(vector: Iterable[float]) -> list[float]:
    try:
        return [float(number) for number in vector]
    except (TypeError, ValueError):
        raise InputError("a vector is a list of numbers.") from None


def _made(schema: type[SchemaT], **values: Any) -> SchemaT:
    return _valid(schema.model_validate, values)


def _valid(validate: Callable[[Any], ResultT], value: object) -> ResultT:
    """A value that pydantic accepts.

    Raises:
        InputError: it does not.
    """
    try:
        return validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"]))
        raise InputError(f"this cannot be sent: {place or 'value'}: {found['msg']}.") from None
