"""Arguments that several verbs share."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spherequant.images import Limits

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder, .zip or .tar of images; `digits`; or a known set, NAME or NAME:FOLDER.",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels", metavar="MODE", help="Where labels come from: auto, folders, csv or none."
    ),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        help="Skip images of more pixels.",
        show_default="100 million",
    ),
]
MaxMegabytesOption = Annotated[
    int | None,
    typer.Option(
        "--max-megabytes",
        metavar="N",
        help="Skip files of more megabytes (2^20 bytes).",
        show_default="256",
    ),
]
ShorterOption = Annotated[
    int | None,
    typer.Option(
        "--bits",
        metavar="N",
        help="Make shorter codes, of the model's first N bits: a multiple of 8.",
        show_default="the model's length",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
]


def limits_from(max_pixels: int | None, max_megabytes: int | None) -> "Limits":
    """Return the bounds on one image; None leaves a bound as it is.

    Raises:
        ConfigError: a bound below one.
    """
    from spherequant.images import Limits

    given = {}
    if max_pixels is not None:
        given["max_pixels"] = max_pixels
    if max_megabytes is not None:
        given["max_bytes"] = max_megabytes << 20
    return Limits(**given)


def is_url(index: str) -> bool:
    """Whether an index is asked over HTTP, and is no folder."""
    return index.lower().startswith(("http://", "https://"))
