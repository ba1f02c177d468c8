"""``spherequant search``: the images of an index that are most like given ones."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spherequant.cli.options import JsonOption, MaxMegabytesOption, MaxPixelsOption, limits_from
from spherequant.cli.output import note, note_skips, one_line, say, say_json, skips_as_json
from spherequant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from spherequant.images import Limits, Skip
    from spherequant.index import Hit, SearchResult


def search(  # noqa: PLR0913 - one parameter for each option of the shell
    index: Annotated[
        Path,
        typer.Argument(help="Folder that `index` wrote.", show_default=False),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image files to ask with.", show_default=False),
    ] = None,
    *,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="Ask with an item of the index; may be repeated."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results for each query.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="SQL",
            help="Search only items for which this holds, such as: array_has(labels, 'cat')",
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Leave out results that score less.")
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option(
            "--rerank",
            metavar="R",
            min=1,
            help="Order the best R by their kept vectors (index --keep-vectors).",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page with the result images."),
    ] = None,
    max_pixels: MaxPixelsOption = None,
    max_megabytes: MaxMegabytesOption = None,
    json: JsonOption = False,
) -> None:
    """Find the images that are most like given ones.

    The score is the inner product of the query's vector and an item's code; higher is better. A
    search by key leaves the item itself out.
    """
    from spherequant.index import Index

    if not images and not keys:
        raise typer.BadParameter("give at least one IMAGE, or --key KEY", param_hint="IMAGE...")
    queries = _Queries(images or [], limits_from(max_pixels, max_megabytes), pictures=bool(html))
    answers: list[_Answer] = []
    with Index.open(index) as opened:
        ask = partial(opened.search, k=k, where=where, min_score=min_score, rerank=rerank)
        if images:
            result = ask(images=queries)
            answers += _answers(queries.names, queries.jpegs, result)
        if keys:
            result = ask(keys=keys)
            jpegs: list[bytes | None] = [None] * len(keys)
            if html:
                ids = [item.id for item in opened.get(keys) if item is not None]
                found = opened.thumbnails(ids)
                jpegs = [found[i] for i in ids]
            answers += _answers(keys, jpegs, result)
        if html:
            html.parent.mkdir(parents=True, exist_ok=True)
            html.write_text(_page(answers, index), encoding="utf-8")
    note_skips(queries.skips, "Could not be read")
    if not answers:
        raise InputError("none of the query images could be read")
    if json:
        say_json(
            {
                "queries": [answer.as_json() for answer in answers],
                "skipped": skips_as_json(queries.skips),
            }
        )
    else:
        for answer in answers:
            answer.say()
    if html:
        note(f"page: {html}")


@dataclass
class _Queries:
    """The query images, decoded one at a time as the search takes them.

    Attributes:
        paths: files to read.
        limits: bounds on one image.
        pictures: whether to keep a thumbnail of each.
        names: the files that could be read so far.
        jpegs: their thumbnails, or None.
        skips: the files that could not, and why.
    """

    paths: list[str]
    limits: "Limits"
    pictures: bool
    names: list[str] = field(default_factory=list)
    jpegs: list[bytes | None] = field(default_factory=list)
    skips: "list[Skip]" = field(default_factory=list)

    def __iter__(self) -> "Iterator[Image.Image]":
        from spherequant.images import Skip, decode, thumbnail

        for path in self.paths:
            # A name that is no UTF-8 could be neither printed nor written as JSON.
            name = os.fsencode(path).decode("utf-8", "replace")
            try:
                image = decode(_read(Path(path), self.limits), self.limits)
            except InputError as error:
                self.skips.append(Skip(name, str(error)))
                continue
            self.names.append(name)
            self.jpegs.append(thumbnail(image) if self.pictures else None)
            yield image


@dataclass(frozen=True)
class _Answer:
    """One query with its hits, best first; thumbnails beside them."""

    query: str
    query_jpeg: bytes | None
    hits: "list[Hit]"
    jpegs: list[bytes | None]

    def as_json(self) -> dict[str, Any]:
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

    def say(self) -> None:
        say(one_line(self.query))
        keys = [one_line(hit.key) for hit in self.hits]
        width = max(map(len, keys), default=0)
        for hit, key in zip(self.hits, keys, strict=True):
            told = [f"{name}={value}" for name, value in hit.metadata.items() if value is not None]
            words = one_line("  ".join([", ".join(hit.labels), *told]))
            say(f"{hit.rank:>5}  {hit.score:.4f}  {key:<{width}}  {words}".rstrip())
        if not self.hits:
            say("       nothing found")


def _read(path: Path, limits: "Limits") -> bytes:
    """Return the bytes of a query image, bounded before they are read.

    Raises:
        InputError: missing, unreadable, or above the bound.
    """
    try:
        if path.is_dir():
            raise InputError("a folder: a query is one image file")
        limits.check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None


def _answers(names: list[str], jpegs: list[bytes | None], result: "SearchResult") -> list[_Answer]:
    rows = zip(names, jpegs, result.items, result.thumbnails, strict=True)
    return [_Answer(*row) for row in rows]


def _page(answers: list[_Answer], index: Path) -> str:
    from spherequant.evaluation import render_results

    return render_results(
        [
            {
                "query": one_line(answer.query),
                "image_jpeg": answer.query_jpeg,
                "results": [
                    {
                        "rank": hit.rank,
                        "key": one_line(hit.key),
                        "score": hit.score,
                        "labels": hit.labels,
                        "jpeg": jpeg,
                    }
                    for hit, jpeg in zip(answer.hits, answer.jpegs, strict=True)
                ],
            }
            for answer in answers
        ],
        title=f"Search results from {index.name}",
    )
