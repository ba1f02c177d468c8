"""What goes to stdout (the answer) and to stderr (everything else)."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spherequant.images import Skip

SKIPS_SHOWN = 20
_WIDEST_PATH = 60  # columns of the table of skips; a longer path pushes its reason to the right


def say(text: str = "") -> None:
    """Write a line of the answer to stdout."""
    sys.stdout.write(text + "\n")


def note(text: str = "") -> None:
    """Write a line that is not the answer to stderr."""
    with suppress(OSError):  # who reads the answer may have no use for the rest
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def say_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout; a number that JSON does not have becomes null."""
    letters = (sys.stdout.encoding or "").lower().startswith("utf")
    say(json.dumps(_finite(value), indent=2, ensure_ascii=not letters, allow_nan=False))


def say_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Write aligned lines ``name  value``; a fact of None is left out."""
    rows = [(name, one_line(str(value))) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        say(f"{name:<{width}}  {value}".rstrip())


def skips_as_json(skips: Iterable[Skip]) -> list[dict[str, str]]:
    """Return skips under their JSON keys."""
    return [asdict(skip) for skip in skips]


def note_skips(skips: Sequence[Skip], title: str = "Skipped") -> None:
    """Write the table of what was skipped and why: the first 20, and a count by reason."""
    if not skips:
        return
    shown = [(one_line(skip.path), one_line(skip.reason)) for skip in skips[:SKIPS_SHOWN]]
    width = min(_WIDEST_PATH, max(len(path) for path, _ in shown))
    note(f"{title} ({len(skips):,}):")
    for path, reason in shown:
        note(f"  {path:<{width}}  {reason}")
    if len(skips) <= SKIPS_SHOWN:
        return
    note(f"  ... and {len(skips) - SKIPS_SHOWN:,} more. All of them by reason:")
    # Numbers in a reason (sizes, line numbers) would make each file a reason of its own.
    reasons = Counter(re.sub(r"\d[\d,.]*", "N", one_line(skip.reason)) for skip in skips)
    for reason, count in reasons.most_common(SKIPS_SHOWN):
        note(f"  {count:>8,}  {reason}")


def one_line(text: str) -> str:
    """Escape what a file name could do to a terminal: line ends, colours, unprintable bytes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def figure(value: float | None) -> str:
    """Return a figure between 0 and 1 with three digits; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def bytes_text(count: int) -> str:
    """Return a size in bytes in the largest unit of 1024 that leaves at least 1."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def disk_text(total: int, thumbnails: int) -> str:
    """Return the size of an index on disk."""
    return f"{bytes_text(total)}, {bytes_text(thumbnails)} of it thumbnails"


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
