"""Requests of every kind to a service whose number of items stays, good ones and bad ones."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from service_clients import LABELS, one_of
from serving import form, json_body, request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Chances of the turns of one connection.
_TURNS = {
    "search by key": 0.20,
    "search by vector": 0.16,
    "search by image": 0.08,
    "broken image": 0.04,
    "later page": 0.06,
    "search with a filter": 0.12,
    "item": 0.06,
    "thumbnail": 0.06,
    "labels and latest": 0.02,
    "add and delete": 0.14,
    "add an image and delete": 0.06,
}
_PICTURES_KNOWN = 1_000
# Most that a query may pass over.
_MOST_OFFSET = 10_000


class Traffic:
    """Makes turns: requests that follow each other on one connection.

    Args:
        random: decides.
        dim: of the vectors.
        items: ``item/0`` and so many more are there; each that is added has the next number, and
            the oldest goes.
        images: to search with and to add; the broken ones are made of them.
    """

    def __init__(
        self, random: np.random.Generator, dim: int, items: int, images: Sequence[bytes]
    ) -> None:
        self._random, self._dim, self._items, self._images = random, dim, items, images
        self._next = items
        self._pictured: deque[str] = deque(maxlen=min(_PICTURES_KNOWN, items // 2))
        self._broken = broken_images(images[0])
        self._makers: dict[str, Callable[[], list[bytes]]] = {
            "search by key": lambda: [self._search(json_body({"key": self._key()}))],
            "search by vector": lambda: [self._search(self._vector())],
            "search by image": lambda: [self._search(form(self._image()))],
            "broken image": self._break,
            "later page": self._later_page,
            "search with a filter": lambda: [self._search(self._vector(), where=self._where())],
            "item": lambda: [request("GET", "/v1/items", {"key": self._key()})],
            "thumbnail": self._thumbnail,
            "labels and latest": self._overview,
            "add and delete": self._exchange,
            "add an image and delete": self._exchange_image,
        }

    def turn(self) -> tuple[str, list[bytes]]:
        """What it is, and its requests."""
        kind = str(self._random.choice(list(_TURNS), p=list(_TURNS.values())))
        return kind, self._makers[kind]()

    def _key(self) -> str:
        return f"item/{self._random.integers(self._next - self._items, self._next)}"

    def _vector(self) -> tuple[str, bytes]:
        return json_body({"vector": self._numbers()})

    def _numbers(self) -> list[float]:
        return [round(float(x), 3) for x in self._random.normal(size=self._dim)]

    def _image(self) -> bytes:
        return one_of(self._random, self._images)

    def _where(self) -> str:
        """One of so many filters that no cache holds them."""
        number = int(self._random.integers(1_000_000))
        label = LABELS[number % len(LABELS)]
        return (
            f"array_has(labels, '{label}') AND (serial % {2 + number % 97} = 1 OR size > {number})"
        )

    def _search(self, body: tuple[str, bytes], **more: object) -> bytes:
        return request("POST", "/v1/search", {"k": 10, **more}, body)

    def _break(self) -> list[bytes]:
        """A file that is no image, to search with or to put; now and then a form that is cut."""
        body = form(one_of(self._random, self._broken))
        if self._random.random() < 0.2:
            body = body[0], body[1][:-20]
        if self._random.random() < 0.5:
            return [self._search(body)]
        return [request("PUT", "/v1/items", {"key": "broken"}, body)]

    def _later_page(self) -> list[bytes]:
        offset = int(self._random.integers(min(self._items, _MOST_OFFSET)))
        return [self._search(self._vector(), offset=offset)]

    def _thumbnail(self) -> list[bytes]:
        known = self._pictured
        key = one_of(self._random, known) if known else self._key()
        return [request("GET", "/v1/thumbnail", {"key": key})]

    def _overview(self) -> list[bytes]:
        return [request("GET", "/v1/labels"), request("GET", "/v1/latest")]

    def _exchange(self) -> list[bytes]:
        labels = [LABELS[self._next % len(LABELS)]]
        given = {"vector": self._numbers(), "labels": labels, "metadata": {"serial": self._next}}
        return self._put_and_delete(json_body(given))

    def _exchange_image(self) -> list[bytes]:
        self._pictured.append(f"item/{self._next}")
        label = LABELS[self._next % len(LABELS)]
        return self._put_and_delete(form(self._image(), [("labels", label)]))

    def _put_and_delete(self, body: tuple[str, bytes]) -> list[bytes]:
        new, old = f"item/{self._next}", f"item/{self._next - self._items}"
        self._next += 1
        return [
            request("PUT", "/v1/items", {"key": new}, body),
            request("DELETE", "/v1/items", {"key": old}),
        ]


def broken_images(image: bytes) -> list[bytes]:
    """What people upload that is no image: nothing, text, half a file, noise, a bomb."""
    noise = bytearray(image)
    noise[200:400] = np.random.default_rng(0).bytes(200)
    return [b"", b"<html>no image</html>", image[: len(image) // 2], bytes(noise), _bomb()]


def _bomb() -> bytes:
    """The first bytes of a PNG of 60,000 by 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
