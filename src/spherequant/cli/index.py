"""``spherequant index``: make an index of a source, or bring one up to date."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import shlex
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from spherequant.cli.options import (
    JsonOption,
    LabelsOption,
    MaxMegabytesOption,
    MaxPixelsOption,
    ShorterOption,
    SourceArgument,
    limits_from,
)
from spherequant.cli.output import (
    bytes_text,
    disk_text,
    note,
    note_skips,
    one_line,
    say_facts,
    say_json,
    skips_as_json,
)
from spherequant.cli.progress import Progress
from spherequant.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spherequant.index import Index, SyncReport


def index(  # noqa: PLR0913 - one parameter for each option of the shell
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Folder that `train` wrote.", show_default=False),
    ],
    source: SourceArgument,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="INDEX", help="Folder of the index to make or update.")
    ],
    bits: ShorterOption = None,
    keep_vectors: Annotated[
        bool,
        typer.Option("--keep-vectors", help="Keep each image's vector too, for search --rerank."),
    ] = False,
    no_thumbnails: Annotated[
        bool, typer.Option("--no-thumbnails", help="Keep no thumbnails.")
    ] = False,
    source_name: Annotated[
        str | None,
        typer.Option("--source-name", metavar="NAME", help="Prefix of this source's keys."),
    ] = None,
    allow_removal: Annotated[
        bool,
        typer.Option("--allow-removal", help="Let more than half of the source's items go."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Keep a file from which a large index opens faster."),
    ] = False,
    labels: LabelsOption = "auto",
    max_pixels: MaxPixelsOption = None,
    max_megabytes: MaxMegabytesOption = None,
    json: JsonOption = False,
) -> None:
    """Make an index of SOURCE, or bring it up to date.

    Images that were added, changed or removed since the last time are found by size and time, then
    by digest. Items of other sources are never touched.
    """
    from spherequant.images import open_source
    from spherequant.index.footprint import bytes_on_disk

    limits = limits_from(max_pixels, max_megabytes)
    with open_source(source, labels=labels, limits=limits) as opened:
        note(one_line(opened.label_note))
        with (
            _opened_index(
                out,
                model,
                bits=bits,
                keep_vectors=keep_vectors,
                thumbnails=not no_thumbnails,
                dry_run=dry_run,
            ) as target,
            Progress() as progress,
        ):
            report = target.sync(
                opened,
                name=source_name,
                allow_removal=allow_removal,
                dry_run=dry_run,
                limits=limits,
                progress=lambda done, total: progress.show("indexing images", done, total),
            )
            if cache and not dry_run:
                target.write_cache()
                report = replace(report, bytes_disk=bytes_on_disk(target.folder))
    note_skips(report.notes, "Noted")
    note_skips(report.skipped)
    if json:
        say_json(_as_json(report))
    else:
        say_facts(_facts(report, out, dry_run=dry_run))


@contextmanager
def _opened_index(
    out: Path,
    model: Path,
    *,
    bits: int | None,
    keep_vectors: bool,
    thumbnails: bool,
    dry_run: bool,
) -> "Iterator[Index]":
    """Open the index in ``out``, or make one; for a dry run, in a folder that goes away.

    Args:
        out: folder of the index.
        model: folder of the model.
        bits: length of a code; None for that of an index that is there, or the model's.
        keep_vectors: keep each image's vector.
        thumbnails: keep thumbnails.
        dry_run: leave ``out`` as it is.

    Raises:
        ConfigError: an option that contradicts how the index was made, or a length that the model
            does not have.
        FormatError: no model, or an index that cannot be read.
        FingerprintError: the index was made with another model.
    """
    from spherequant.index import Index
    from spherequant.index.header import read_header
    from spherequant.training import Model

    loaded = Model.load(model)
    if (out / "index.json").exists():
        made = 8 * read_header(out).n_codebooks
        if bits not in (None, made):
            raise ConfigError(
                f"{out} was made with codes of {made} bits, which is fixed from then on: leave "
                "--bits out, or make a new index beside this one."
            )
        # Of another model it may be longer: opening then says that the model is not its own.
        with Index.open(out, loaded.shortened(min(made, loaded.bits))) as existing:
            _check_options(existing, keep_vectors=keep_vectors, thumbnails=thumbnails)
            yield existing
        return
    with (
        TemporaryDirectory(prefix="spherequant-") as scratch,
        Index.create(
            Path(scratch) / "index" if dry_run else out,
            loaded if bits is None else loaded.shortened(bits),
            keep_vectors=keep_vectors,
            thumbnails=thumbnails,
        ) as created,
    ):
        yield created


def _check_options(existing: "Index", *, keep_vectors: bool, thumbnails: bool) -> None:
    header = existing.header
    for option, asked, made in (
        ("--keep-vectors", keep_vectors, header.keep_vectors),
        ("--no-thumbnails", not thumbnails, not header.thumbnails),
    ):
        if asked and not made:
            raise ConfigError(
                f"{existing.folder} was made without {option}, which is fixed from then on: leave "
                "the option out, or make a new index beside this one."
            )


def _as_json(report: "SyncReport") -> dict[str, object]:
    return {
        "total": report.total,
        "added": report.added,
        "updated": report.updated,
        "removed": report.removed,
        "skipped": skips_as_json(report.skipped),
        "bytes_per_item": report.bytes_per_item,
        "bytes_memory": report.bytes_memory,
        "bytes_disk": report.bytes_disk,
        "bytes_thumbnails": report.bytes_thumbnails,
        "seconds": round(report.seconds, 3),
    }


def _facts(report: "SyncReport", out: Path, *, dry_run: bool) -> list[tuple[str, object]]:
    changes = (
        f"{report.added:,} added, {report.updated:,} updated, {report.removed:,} removed, "
        f"{report.unchanged:,} unchanged, {len(report.skipped):,} skipped"
    )
    if dry_run:
        return [
            ("dry run", f"nothing was written to {out}"),
            ("would be", changes),
            ("images", "not decoded: unreadable ones count as added"),
        ]
    return [
        ("index", out),
        ("items", f"{report.total:,}"),
        ("this run", f"{changes}; {report.seconds:.1f} s"),
        ("codes", f"{report.bytes_per_item} bytes an image"),
        ("in memory", bytes_text(report.bytes_memory)),
        ("on disk", disk_text(report.bytes_disk, report.bytes_thumbnails)),
        (
            "next",
            shlex.join(["spherequant", "search", str(out), "IMAGE", "--html", "results.html"]),
        ),
    ]
