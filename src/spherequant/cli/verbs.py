"""The verbs together, and the one way out of every failure.

Exit codes: 0 done; 1 an error that the message explains; 2 wrong usage; 130 stopped by Ctrl-C;
141 the reader of stdout went away.
"""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spherequant import __version__
from spherequant.cli.bench import bench
from spherequant.cli.doctor import doctor
from spherequant.cli.evaluate import evaluate
from spherequant.cli.export import export
from spherequant.cli.index import index
from spherequant.cli.info import info
from spherequant.cli.output import note, one_line
from spherequant.cli.search import search
from spherequant.cli.serve import serve
from spherequant.cli.train import train
from spherequant.errors import SpherequantError
from spherequant.system import is_of_the_gpu

DEBUG = "SPHEREQUANT_DEBUG"
_RESUMED = {
    "train": "The same command goes on where it stopped (leave out --overwrite).",
    "index": "The same command goes on where it stopped.",
}
_GPU = (
    "Where the GPU's memory is too small, give a smaller --batch-size or --image-size; with "
    "CUDA_VISIBLE_DEVICES= (empty) everything runs on the processor."
)


def _told(message: str) -> typer.Exit:
    """Print why a verb failed; what ends it."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    note("\n".join(map(one_line, f"error: {message}".split("\n"))))
    return typer.Exit(1)


class Verbs(TyperGroup):
    """The group of verbs: what goes wrong in one of them becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            typer.Exit: it failed in a way that a user can meet, and the message was printed.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is left in the buffer must not fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except (SpherequantError, OSError) as error:
            raise _told(str(error)) from None
        except RuntimeError as error:
            if not is_of_the_gpu(error):
                raise
            raise _told(f"{str(error).splitlines()[0]}\n{_GPU}") from None
        except KeyboardInterrupt:
            note(" ".join(["Stopped.", _RESUMED.get(ctx.invoked_subcommand or "", "")]).strip())
            raise typer.Exit(130) from None
        return result


app = typer.Typer(
    name="spherequant",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (train, index, search, serve, evaluate, export, info, doctor, bench):
    app.command()(verb)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"spherequant {__version__}")  # noqa: T201 - the answer that was asked for
        raise typer.Exit


@app.callback()
def spherequant(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Image search in a few bytes an image: train, index, search, evaluate.

    SOURCE is a folder, .zip or .tar of images, `digits` (bundled, for a first run), or the name of
    a known set such as `cifar10`. Begin with: spherequant train SOURCE --out MODEL
    """


def main() -> None:
    """Run the command with the arguments of the process."""
    # Those that the caller closed are missing.
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the process ends
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding lacks must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
