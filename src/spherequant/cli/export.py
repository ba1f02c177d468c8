"""``spherequant export``: an index for another library."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spherequant.cli.options import JsonOption
from spherequant.cli.output import bytes_text, say, say_json


class Library(StrEnum):
    """Whose format to write."""

    FAISS = "faiss"


class FaissKind(StrEnum):
    """Which of FAISS's indexes to write."""

    RESIDUAL = "residual"
    LIFTED = "lifted"


def export(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index.", show_default=False)],
    to: Annotated[Library, typer.Option(help="The library to write for.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    kind: Annotated[
        FaissKind,
        typer.Option(
            help="residual: IndexResidualQuantizer. lifted: IndexPQ behind a transform, faster."
        ),
    ] = FaissKind.RESIDUAL,
    json: JsonOption = False,
) -> None:
    """Write the codes for another library, to be searched there.

    FAISS finds the same items, by their ids; it can add none, and knows no keys or filters.
    """
    from spherequant.index import Index

    with Index.open(index) as opened:
        opened.export_faiss(out, kind=kind.value)
        facts = {
            "index": str(index),
            "out": str(out),
            "to": to.value,
            "kind": kind.value,
            "total": len(opened),
            "bytes": out.stat().st_size,
        }
    if json:
        say_json(facts)
    else:
        say(f"{facts['total']:,} items written to {out} ({bytes_text(out.stat().st_size)}).")
