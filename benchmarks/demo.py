"""What ``make demo`` runs: four verbs, one after the other, as anybody would type them.

    python benchmarks/demo.py digits           the digits that scikit-learn brings, no network
    python benchmarks/demo.py FOLDER           any folder, .zip or .tar of images
    python benchmarks/demo.py FOLDER -- ...    further options for `spherequant train`

Everything is written under ./demo, which is replaced; a folder of that name that this script did
not make is refused.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from spherequant.errors import SpherequantError
from spherequant.images import Item, Source, make_split, open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

DEMO = Path("demo")
MARK = DEMO / "made-by-make-demo"
QUERIES = 6
ADDRESS = "http://127.0.0.1:8000/"  # where `serve` is unless it is told otherwise


def main() -> int:
    """Run the demonstration; return an exit code."""
    parser = argparse.ArgumentParser(description="Train, index, evaluate and search, once.")
    parser.add_argument("source", nargs="?", default="digits")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has spherequant")
    # argparse would not leave what follows -- alone.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, train_options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    started = time.perf_counter()
    try:
        with open_source(arguments.source) as source:
            _clear()
            queries, evaluated = _write_queries(source)
    except SpherequantError as error:
        return _fail(str(error))
    model, index, report, page = (
        str(DEMO / name) for name in ("model", "index", "report", "results.html")
    )
    command = _command(arguments.python)
    try:
        _run(command, "train", arguments.source, "--out", model, *train_options)
        _run(command, "index", model, arguments.source, "--out", index)
        if evaluated:
            _run(command, "evaluate", model, arguments.source, "--out", report)
        _run(command, "search", index, *queries, "-k", "5", "--html", page)
    except subprocess.CalledProcessError as error:
        return _fail(f"the command above ended with exit code {error.returncode}")
    except KeyboardInterrupt:
        return 130
    print(f"\nDone in {time.perf_counter() - started:.0f} s.")
    if evaluated:
        _print_figures(Path(report))
    else:
        print("Without labels there is nothing to tell right results from wrong: not evaluated.")
    print(f"\nThe results as a page:  {Path(page).resolve()}")
    _print_next(command, index)
    return 0


def _clear() -> None:
    """Empty ./demo, if it is ours."""
    if DEMO.exists():
        if not MARK.exists() and any(DEMO.iterdir()):
            raise SpherequantError(
                f"{DEMO.resolve()} was not made by this script: move it away, or run in another "
                "folder"
            )
        shutil.rmtree(DEMO)
    (DEMO / "queries").mkdir(parents=True)
    MARK.touch()


def _write_queries(source: Source) -> tuple[list[str], bool]:
    """Write some images that training will not see, of different classes where there are any.

    Returns:
        Their files, and whether the source has the labels that an evaluation needs.
    """
    queries = [source.items[position] for position in make_split(source.items).queries]
    chosen: dict[tuple[str, ...] | str, Item] = {}
    for item in queries or source.items[:QUERIES]:
        chosen.setdefault(item.labels or item.key, item)
    files = []
    for item in list(chosen.values())[:QUERIES]:
        file = DEMO / "queries" / item.key.replace("/", "-")[-60:]
        try:
            file.write_bytes(source.read(item))
        except SpherequantError:
            continue  # it will stand in the table of what was skipped
        files.append(str(file))
    labels = {label for item in source.items for label in item.labels}
    return files, len(labels) > 1 and bool(queries)


def _command(python: str) -> list[str]:
    """The installed command beside the interpreter, or the module where there is no script."""
    script = Path(python).parent / "spherequant"
    return [str(script)] if script.exists() else [python, "-m", "spherequant"]


def _run(command: Sequence[str], *arguments: str) -> None:
    line = [*command, *arguments]
    print(f"\n$ {shlex.join(line)}", flush=True)
    subprocess.run(line, check=True)


def _print_figures(report: Path) -> None:
    figures = json.loads((report / "report.json").read_text(encoding="utf-8"))
    print(
        f"Protocol {figures['protocol']}: {figures['query_count']} images that were not trained on "
        f"ask {figures['database_count']} others, {figures['bits']} bits an image.\n"
        f"  mAP of the codes            {figures['map']:.3f}\n"
        f"  of the float embeddings     {figures['float_map']:.3f}\n"
        f"  of the predicted class      {figures['class_id_map']:.3f}\n"
        f"  of that class's centre      {figures['class_centre_map']:.3f}\n"
        f"Report with plots:      {(report / 'report.html').resolve()}"
    )


def _print_next(command: Sequence[str], index: str) -> None:
    name = shlex.join(command)
    print(
        f"""
To search it by any image, in a browser (Ctrl-C ends it):

  {name} serve {index}
  and open {ADDRESS}

With your own images (a folder, .zip or .tar):

  {name} train photos/ --out photos.model
  {name} index photos.model photos/ --out photos.index
  {name} search photos.index some-image.jpg --html results.html
  {name} evaluate photos.model photos/ --out report       (folders named after what they show)"""
    )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
