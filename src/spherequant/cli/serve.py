"""``spherequant serve``: an HTTP API and a web page over an index."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from spherequant.cli.output import note


def serve(  # noqa: PLR0913 - one parameter for each option of the shell
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="Folder that `index` wrote.", show_default=False)
    ],
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Port to listen on; 0 for any free one.")
    ] = 8000,
    read_keys: Annotated[
        Path | None,
        typer.Option(
            "--read-keys",
            metavar="FILE",
            help="API keys that may read, one a line (else $SPHEREQUANT_READ_KEY).",
        ),
    ] = None,
    write_keys: Annotated[
        Path | None,
        typer.Option(
            "--write-keys",
            metavar="FILE",
            help="API keys that may also write, one a line (else $SPHEREQUANT_WRITE_KEY).",
        ),
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="A name under which it may be asked, as behind a proxy; may be repeated.",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="N",
            min=1,
            help="Refuse images of more pixels.",
            show_default="64 million",
        ),
    ] = None,
    max_megabytes: Annotated[
        int | None,
        typer.Option(
            "--max-megabytes",
            metavar="N",
            min=1,
            help="Refuse images of more megabytes (2^20 bytes).",
            show_default="32",
        ),
    ] = None,
    no_originals: Annotated[
        bool,
        typer.Option("--no-originals", help="Keep no files of the images that are put."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log no requests.")] = False,
) -> None:
    """Serve an index: search by image over HTTP, and a page to do it with.

    Other machines reach it only with --host, which needs API keys. Ctrl-C ends it, once requests
    under way are answered.
    """
    from spherequant.service.access import READ_VARIABLE, WRITE_VARIABLE, load_keys
    from spherequant.service.server import serve as run
    from spherequant.service.settings import MEGABYTE, Settings

    given: dict[str, Any] = {}
    if max_pixels is not None:
        given["max_pixels"] = max_pixels
    if max_megabytes is not None:
        given["max_image_bytes"] = max_megabytes * MEGABYTE
        given["max_body_bytes"] = max(Settings.max_body_bytes, 2 * given["max_image_bytes"])
        given["max_upload_bytes"] = max(Settings.max_upload_bytes, 2 * given["max_body_bytes"])
    settings = Settings(
        host=host,
        port=port,
        read_keys=load_keys(READ_VARIABLE, read_keys),
        write_keys=load_keys(WRITE_VARIABLE, write_keys),
        allowed_hosts=tuple(allowed_hosts or ()),
        keep_originals=not no_originals,
        **given,
    )
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    run(index, settings, lambda address: note(f"serving {index} at {address}"))
