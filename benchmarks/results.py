"""Where every figure of docs/results.md comes from: each script records its own, then renders all.

A script writes docs/results/NAME.json and the page is made of these files (results_page.py). With
SPHEREQUANT_REDUCED set, which `make results` does unless FULL=1, records go to docs/results/reduced
and drawings to docs/figures/reduced: they stand at the end of the page and replace no other. Run by
itself, this module only renders.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from results_page import render_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REDUCED = "SPHEREQUANT_REDUCED"
# Variables that change what a script measures: part of its command.
_VARIABLES = ("SPHEREQUANT_SIMD",)
_TEMPORARY = "$TMPDIR"


def data_file(variable: str, name: str) -> Path:
    """Return a file or folder below SPHEREQUANT_DATA or SPHEREQUANT_WEIGHTS; exit without it."""
    root = os.environ.get(variable)
    if not root or not (Path(root) / name).exists():
        sys.exit(f"set {variable} to the folder that holds {name}")
    return Path(root) / name


def machine() -> str:
    """Return what figures were measured on, in a few words."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    kind = (
        "AMX bfloat16" if capabilities.get("amx_bf16") else torch.backends.cpu.get_cpu_capability()
    )
    if torch.cuda.is_available():
        kind = torch.cuda.get_device_name()
    count = torch.get_num_threads()
    return (
        f"{count} thread{'' if count == 1 else 's'}, {platform.machine()} with {kind}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def figures_folder() -> Path:
    """Return where drawings go, made if need be."""
    folder = DOCS / "figures"
    if os.environ.get(REDUCED):
        folder /= "reduced"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def record(
    name: str,
    title: str,
    notes: str,
    tables: list[dict[str, Any]],
    *,
    setting: Mapping[str, Any] | None = None,
    drawings: Sequence[Mapping[str, str]] = (),
) -> None:
    """Keep a script's figures and render the page.

    Paths of this machine are not kept: folders that variables name stand as these variables, and of
    other absolute paths among the arguments only the last part is left.

    Args:
        name: of the file below docs/results; results_page.py gives a name its place on the page.
        title: heading of the section.
        notes: how it was measured; Markdown.
        tables: each with ``caption``, ``columns`` and ``rows``; a ``setting`` of its own replaces
            the record's.
        setting: what made the cells, where a training did: ``epochs``, ``image_size``,
            ``margin`` of the softmax, ``sharpness`` of predictions, ``seeds``.
        drawings: each with ``file`` (below docs), ``caption`` and ``alt``.
    """
    folder = DOCS / "results"
    reduced = bool(os.environ.get(REDUCED))
    if reduced:
        folder /= "reduced"
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "title": title,
        "script": Path(sys.argv[0]).name,
        "arguments": [portable_argument(argument) for argument in sys.argv[1:]],
        "environment": {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "setting": dict(setting or {}),
        "notes": notes,
        "tables": tables,
        "drawings": [dict(drawing) for drawing in drawings],
    }
    text = json.dumps(without_paths(values), indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    render()


def portable_argument(argument: str) -> str:
    """Return an argument of a command as it can be shown: without a path of this machine."""
    option, equals, value = argument.partition("=")
    if not option.startswith("-"):
        option, equals, value = "", "", argument
    value = without_paths(value)
    if Path(value).is_absolute() or value.startswith(_TEMPORARY):
        value = Path(value).name
    return f"{option}{equals}{value}"


def without_paths(value: Any) -> Any:
    """Return a value with the folders of this machine left out of all its texts."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for folder, name in _folders():
        value = value.replace(f"{folder}/", f"{name}/" if name else "").replace(folder, name or ".")
    return value


def _folders() -> Iterable[tuple[str, str]]:
    """Folders of this machine, the deepest first, and what stands for them."""
    named = {
        os.environ.get("SPHEREQUANT_DATA"): "$SPHEREQUANT_DATA",
        os.environ.get("SPHEREQUANT_WEIGHTS"): "$SPHEREQUANT_WEIGHTS",
        str(ROOT): "",
        tempfile.gettempdir(): _TEMPORARY,
        str(Path.home()): "~",
    }
    whole = {
        folder.rstrip("/"): name
        for folder, name in named.items()
        if folder and Path(folder).is_absolute() and folder.strip("/")
    }
    return sorted(whole.items(), key=lambda pair: -len(pair[0]))


def render() -> None:
    """Write docs/results.md from docs/results/*.json."""
    (DOCS / "results.md").write_text(render_page(DOCS / "results"), encoding="utf-8")


if __name__ == "__main__":
    render()
