"""Queries of the shell, asked of an index in a folder or of a service, and their answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spherequant.cli.output import one_line, say
from spherequant.errors import InputError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from spherequant.evaluation.page import QueryEntry
    from spherequant.images import Limits, Skip
    from spherequant.index import Hit, SearchResult
    from spherequant.service import schemas
    from spherequant.service.client import Client


@dataclass
class QueryFiles:
    """The query images, decoded one at a time as the search takes them.

    Attributes:
        paths: files to read.
        limits: bounds on one image.
        pictures: whether to keep a thumbnail of each.
        names: the files that could be read so far.
        jpegs: their thumbnails, or None.
        skips: the files that could not, and why.
    """

    paths: Sequence[str]
    limits: Limits
    pictures: bool
    names: list[str] = field(default_factory=list)
    jpegs: list[bytes | None] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def __iter__(self) -> Iterator[Image.Image]:
        return (image for _, image in self.read())

    def read(self) -> Iterator[tuple[bytes, Image.Image]]:
        """Each file that can be read: its bytes, and its image."""
        from spherequant.images import decode, thumbnail

        for path in self.paths:
            # A name that is no UTF-8 could be neither printed nor written as JSON.
            name = os.fsencode(path).decode("utf-8", "replace")
            try:
                data = _read(Path(path), self.limits)
                image = decode(data, self.limits)
            except InputError as error:
                self.skip(name, str(error))
                continue
            self.names.append(name)
            self.jpegs.append(thumbnail(image) if self.pictures else None)
            yield data, image

    def skip(self, name: str, reason: str) -> None:
        """Report a file as one that was not asked with."""
        from spherequant.images import Skip

        self.skips.append(Skip(name, reason))


@dataclass(frozen=True)
class Answer:
    """One query with its hits, best first; thumbnails beside them."""

    query: str
    query_jpeg: bytes | None
    hits: Sequence[Hit | schemas.Hit]
    jpegs: list[bytes | None]

    def as_json(self) -> dict[str, Any]:
        """The answer under its JSON keys."""
        return {
            "query": self.query,
            "results": [
                {
                    "rank": hit.rank,
                    "key": hit.key,
                    "score": hit.score,
                    "labels": list(hit.labels),
                    "metadata": hit.metadata,
                }
                for hit in self.hits
            ],
        }

    def as_entry(self) -> QueryEntry:
        """The answer as the page takes it."""
        return {
            "query": one_line(self.query),
            "image_jpeg": self.query_jpeg,
            "results": [
                {
                    "rank": hit.rank,
                    "key": one_line(hit.key),
                    "score": hit.score,
                    "labels": hit.labels,
                    "jpeg": jpeg,
                }
                for hit, jpeg in zip(self.hits, self.jpegs, strict=True)
            ],
        }

    def say(self) -> None:
        """Write the answer to stdout, a line for each hit."""
        say(one_line(self.query))
        keys = [one_line(hit.key) for hit in self.hits]
        width = max(map(len, keys), default=0)
        for hit, key in zip(self.hits, keys, strict=True):
            told = [f"{name}={value}" for name, value in hit.metadata.items() if value is not None]
            words = one_line("  ".join([", ".join(hit.labels), *told]))
            say(f"{hit.rank:>5}  {hit.score:.4f}  {key:<{width}}  {words}".rstrip())
        if not self.hits:
            say("       nothing found")


def ask_index(
    folder: str, files: QueryFiles, keys: Sequence[str], options: dict[str, Any]
) -> list[Answer]:
    """Ask an index in a folder with images, then with keys.

    Args:
        folder: that `index` wrote.
        files: query images.
        keys: query items.
        options: of the search.
    """
    from spherequant.index import Index

    answers: list[Answer] = []
    with Index.open(folder) as index:
        if files.paths:
            result = index.search(images=files, **options)
            answers += _answers(files.names, files.jpegs, result, pictures=files.pictures)
        if keys:
            result = index.search(keys=keys, **options)
            jpegs: list[bytes | None] = [None] * len(keys)
            if files.pictures:
                ids = [item.id for item in index.get(keys) if item is not None]
                found = index.thumbnails(ids)
                jpegs = [found[i] for i in ids]
            answers += _answers(keys, jpegs, result, pictures=files.pictures)
    return answers


def ask_service(
    url: str, files: QueryFiles, keys: Sequence[str], options: dict[str, Any]
) -> list[Answer]:
    """Ask a service as `ask_index` asks an index.

    An image that is larger than the service takes is skipped.
    """
    from spherequant.service.client import Client

    answers: list[Answer] = []
    with Client(url) as client:
        pictures = _Thumbnails(client, wanted=files.pictures)
        for data, _ in files.read():
            name, jpeg = files.names[-1], files.jpegs[-1]
            try:
                hits = client.search(data, **options).results
            except ServiceError as error:
                if error.status != 413:
                    raise
                files.skip(name, error.detail)
                continue
            answers.append(Answer(name, jpeg, hits, [pictures.of(hit.key) for hit in hits]))
        for key in keys:
            hits = client.search(key=key, **options).results
            jpegs = [pictures.of(hit.key) for hit in hits]
            answers.append(Answer(key, pictures.of(key), hits, jpegs))
    return answers


class _Thumbnails:
    """Thumbnails of a service's items, each fetched once; none where they are not wanted."""

    def __init__(self, client: Client, *, wanted: bool) -> None:
        self._client = client
        self._wanted = wanted
        self._known: dict[str, bytes | None] = {}

    def of(self, key: str) -> bytes | None:
        if not self._wanted:
            return None
        if key not in self._known:
            try:
                self._known[key] = self._client.thumbnail(key)
            except ServiceError as error:
                if error.status != 404:  # an item without one, or deleted meanwhile
                    raise
                self._known[key] = None
        return self._known[key]


def _answers(
    names: Sequence[str], jpegs: list[bytes | None], result: SearchResult, *, pictures: bool
) -> list[Answer]:
    shown: list[list[bytes | None]]
    shown = result.thumbnails if pictures else [[None] * len(hits) for hits in result.items]
    rows = zip(names, jpegs, result.items, shown, strict=True)
    return [Answer(*row) for row in rows]


def _read(path: Path, limits: Limits) -> bytes:
    """Return the bytes of a query image, bounded before they are read.

    Raises:
        InputError: missing, unreadable, or above the bound.
    """
    try:
        if path.is_dir():
            raise InputError("a folder: a query is one image file")
        limits.check_bytes(path.stat().st_size)
        with path.open("rb") as file:  # a pipe or a device has no size
            return file.read(limits.max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None
