"""Where every figure of docs/results.md comes from: each script records its own, then renders all.

A script writes docs/results/NAME.json; this module turns those files into docs/results.md. Run by
itself, it only renders.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

DOCS = Path(__file__).resolve().parent.parent / "docs"

_HEAD = """# Results

Every figure on this page was printed by a script of `benchmarks/`, named in its section, on the
machine that the section names. CIFAR-10 here is a lossy JPEG re-encoding of the 60,000 images, so
figures are not comparable to the digit with those of the original set. Average precision is the
expectation over all orders of tied items, divided by the relevant items found: see
[protocols](protocols.md). No figure of the paper is claimed.
"""


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
    return (
        f"{torch.get_num_threads()} threads, {platform.machine()} with {kind}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def record(name: str, title: str, notes: str, tables: list[dict[str, Any]]) -> None:
    """Keep a script's figures and render the page.

    Args:
        name: of the file below docs/results.
        title: heading of the section.
        notes: how it was measured; Markdown.
        tables: each with ``caption``, ``columns`` and ``rows``.
    """
    folder = DOCS / "results"
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "title": title,
        "script": Path(sys.argv[0]).name,
        "arguments": sys.argv[1:],
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "notes": notes,
        "tables": tables,
    }
    (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    render()


def render() -> None:
    """Write docs/results.md from docs/results/*.json."""
    parts = [_HEAD]
    for path in sorted((DOCS / "results").glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        command = " ".join(["python", f"benchmarks/{values['script']}", *values["arguments"]])
        parts.append(f"## {values['title']}\n")
        parts.append(f"`{command}`; {values['machine']}; {values['date']}.\n\n{values['notes']}\n")
        parts.extend(_table(table) for table in values["tables"])
    (DOCS / "results.md").write_text("\n".join(parts), encoding="utf-8")


def _table(table: dict[str, Any]) -> str:
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"**{table['caption']}**", "", *lines, ""])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    render()
