"""Multipart forms, read piece by piece into memory.

python-multipart finds the parts. What is judged here: how many there may be, how long each may
become, and whether the form came to its end, so that an upload that was cut off is no upload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from spherequant.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping


_MOST_HEADER_BYTES = 4_096  # of all headers of a part: what reads them takes the square of it


@dataclass(slots=True)
class Part:
    """One part of a form.

    Attributes:
        name: of its field.
        is_file: whether it came with a filename, which is not looked at.
        data: its bytes.
    """

    name: str
    is_file: bool
    data: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """The part as text.

        Raises:
            Problem: it is a file, or no UTF-8.
        """
        if self.is_file:
            raise form_problem(self.name, "is a text, without a filename")
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            raise form_problem(self.name, "is text in UTF-8") from None


class FormReader:
    """Reads one form.

    Args:
        content_type: the header of that name, with the boundary.
        fields: the names that may come, and how often each.
        max_file_bytes: longest file.
        max_text_bytes: longest text.

    Raises:
        Problem: the header names no boundary.
    """

    def __init__(
        self,
        content_type: str,
        fields: Mapping[str, int],
        *,
        max_file_bytes: int,
        max_text_bytes: int,
    ) -> None:
        self.parts: list[Part] = []
        self._left = dict(fields)
        self._most = {True: max_file_bytes, False: max_text_bytes}
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._header_bytes = 0
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        try:
            if not boundary:
                raise _malformed()
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, a, b: self._extend_header(0, data[a:b]),
                    "on_header_value": lambda data, a, b: self._extend_header(1, data[a:b]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_data,
                    "on_part_data": self._extend,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise _malformed() from None

    def feed(self, piece: bytes) -> None:
        """Read on.

        Raises:
            Problem: the form is malformed, or holds what it may not.
        """
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _malformed() from None

    def end(self) -> list[Part]:
        """The parts, when the whole body was read.

        Raises:
            Problem: the form did not come to its end.
        """
        if not self._ended:
            raise _malformed()
        return self.parts

    def _begin(self) -> None:
        self._disposition = b""
        self._header_bytes = 0

    def _extend_header(self, which: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise _malformed()
        self._header[which].extend(data)

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _begin_data(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise _malformed()
        if name not in self._left:
            raise form_problem(name[:100], "is not known here")
        self._left[name] -= 1
        if self._left[name] < 0:
            raise form_problem(name, "comes too often")
        self.parts.append(Part(name, b"filename" in options))

    def _extend(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        if len(part.data) + end - start > self._most[part.is_file]:
            raise too_large(self._most[part.is_file])
        part.data.extend(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def form_problem(name: str, what: str) -> Problem:
    """What is wrong with a field of a form."""
    where = f"form.{name}"
    return Problem(422, f"{where} {what}.", errors=[{"where": where, "what": what}])


def too_large(limit: int) -> Problem:
    """The answer to what is longer than it may be."""
    size = f"{limit / (1 << 20):g} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"
    return Problem(413, f"The upload is too large: at most {size} are taken.")


def _malformed() -> Problem:
    return Problem(400, "The multipart form is malformed or cut off.")
