"""Batches as JSON, read one entry at a time.

What parses JSON has the interpreter for itself until it is through, and makes of a text objects of
twenty times its size. Here other threads go on between two entries, nothing is kept of an entry but
what was asked for, and the first one that cannot be used ends it. Each is read twice: to find where
it ends, and by pydantic.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from spherequant.service.problems import Problem, parsed, unusable
from spherequant.service.schemas import Batch, BatchPut, Key
from spherequant.service.settings import MOST_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_ENTRY = 1 << 20  # characters; as of an item that is put alone
_ENTRIES: dict[str, TypeAdapter[Any]] = {"put": TypeAdapter(BatchPut), "delete": TypeAdapter(Key)}
_NO_BATCH = "is no JSON object with the lists put and delete, of entries of at most 1 MiB"
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]+")


def read_batch(data: bytes, where: str) -> Batch:
    """A batch of its JSON; to be called in a thread.

    Args:
        data: the JSON.
        where: its place in the request, for messages.

    Raises:
        Problem: it is no batch.
    """
    try:
        lists = _lists(_Text(data.decode("utf-8")), where)
    except (ValueError, RecursionError):
        errors = [{"where": where, "what": _NO_BATCH}]
        raise Problem(422, f"{where} {_NO_BATCH}.", errors=errors) from None
    return Batch(**lists)


def _lists(text: _Text, where: str) -> dict[str, list[Any]]:
    lists: dict[str, list[Any]] = {}
    for _ in text.between("{", "}"):
        name = text.name()
        if name not in _ENTRIES or name in lists:
            raise ValueError(name)
        lists[name] = list(_entries(text, name, f"{where}.{name}"))
    text.expect_end()
    return lists


def _entries(text: _Text, name: str, where: str) -> Iterator[Any]:
    for number, _ in enumerate(text.between("[", "]")):
        if number == MOST_BATCH:
            longest = {"max_length": MOST_BATCH}
            raise unusable([{"type": "too_long", "loc": (where,), "ctx": longest}])
        yield parsed(_ENTRIES[name].validate_json, text.value()[1], f"{where}.{number}")


class _Text:
    """A JSON text, and how far it was read. What is not as expected is a ``ValueError``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def between(self, opening: str, closing: str) -> Iterator[None]:
        """One turn for each thing between these brackets, which is read in that turn."""
        self._expect(opening)
        if self._has(closing):
            return
        yield
        while self._has(","):
            yield
        self._expect(closing)

    def name(self) -> str:
        """The name of what comes next in an object."""
        name = str(self.value()[0])
        self._expect(":")
        return name

    def value(self) -> tuple[Any, str]:
        """The next value, and the text of it, of at most ``LONGEST_ENTRY`` characters."""
        self._pass_space()
        value, length = _DECODER.raw_decode(self._text[self._at : self._at + LONGEST_ENTRY])
        begun, self._at = self._at, self._at + length
        return value, self._text[begun : self._at]

    def expect_end(self) -> None:
        """Nothing may be left."""
        self._pass_space()
        if self._at < len(self._text):
            raise ValueError(self._at)

    def _expect(self, sign: str) -> None:
        if not self._has(sign):
            raise ValueError(sign)

    def _has(self, sign: str) -> bool:
        """Whether this comes next; it is passed over then."""
        self._pass_space()
        here = self._text.startswith(sign, self._at)
        self._at += len(sign) if here else 0
        return here

    def _pass_space(self) -> None:
        if space := _SPACE.match(self._text, self._at):
            self._at = space.end()
