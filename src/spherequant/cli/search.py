"""``spherequant search``: the images of an index or a service that are most like given ones."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from spherequant.cli.answers import QueryFiles, ask_index, ask_service
from spherequant.cli.options import (
    JsonOption,
    MaxMegabytesOption,
    MaxPixelsOption,
    is_url,
    limits_from,
)
from spherequant.cli.output import note, note_skips, say_json, skips_as_json
from spherequant.errors import InputError


def search(  # noqa: PLR0913 - one parameter for each option of the shell
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX",
            help="Folder that `index` wrote, or the URL of a service.",
            show_default=False,
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Image files to ask with.", show_default=False),
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
    search by key leaves the item itself out. A service that needs an API key is sent that of
    SPHEREQUANT_API_KEY.
    """
    if not images and not keys:
        raise typer.BadParameter("give at least one IMAGE, or --key KEY", param_hint="IMAGE...")
    limits = limits_from(max_pixels, max_megabytes)
    files = QueryFiles(images or [], limits, pictures=bool(html))
    options = {"k": k, "where": where, "min_score": min_score, "rerank": rerank}
    ask = ask_service if is_url(index) else ask_index
    answers = ask(index, files, keys or [], options)
    if html and answers:
        from spherequant.evaluation import render_results

        title = f"Search results from {_name(index)}"
        html.parent.mkdir(parents=True, exist_ok=True)
        page = render_results([answer.as_entry() for answer in answers], title=title)
        html.write_text(page, encoding="utf-8")
    note_skips(files.skips, "Could not be read")
    if not answers:
        raise InputError("none of the query images could be read")
    if json:
        say_json(
            {
                "queries": [answer.as_json() for answer in answers],
                "skipped": skips_as_json(files.skips),
            }
        )
    else:
        for answer in answers:
            answer.say()
    if html:
        note(f"page: {html}")


def _name(index: str) -> str:
    """What to call an index: its folder, or host and port of its service."""
    return urlsplit(index).netloc if is_url(index) else Path(index).name
