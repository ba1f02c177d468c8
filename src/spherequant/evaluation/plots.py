"""Plots as SVG that takes its colours and its typeface from the page around it."""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

WIDTH, HEIGHT = 4.8, 3.4  # inches; the page scales the picture
# Drawn in colours that nothing else uses, then replaced by the variables of the page's style sheet:
# so a plot follows the reader's light or dark scheme.
INK, FAINT = "#010203", "#040506"
SERIES = ("#0a0b0c", "#0d0e0f", "#101112", "#131415", "#161718", "#191a1b")
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
# Told apart by dashes and marks too, not by colour alone.
DASHES = ("solid", (0, (6, 2)), (0, (2, 2)), (0, (7, 2, 2, 2)), (0, (1, 1)), (0, (9, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
# Text stays text, so that the page's typeface is used and a reader can search it.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "spherequant"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: a name, and x and y of equal length."""

    name: str
    x: NDArray[np.generic]
    y: NDArray[np.generic]


def precision_recall_plot(lines: Sequence[Line]) -> str:
    """Precision over recall; one point for each rank of the grid."""
    return _line_plot("pr", lines, "recall", "precision", "Precision over recall")


def precision_at_plot(lines: Sequence[Line]) -> str:
    """Precision among the first N results over N, on a logarithmic axis."""
    return _line_plot("pn", lines, "N, results looked at", "precision at N", "Precision at N")


def norms_plot(norms_N: NDArray[np.float32]) -> str:
    """Histogram of the norms of reconstructions; the sphere has norm 1."""
    figure, (axes,) = new_figure()
    dress(axes, "norm of the reconstruction", "share of the database")
    low, high = float(norms_N.min()), float(norms_N.max())
    margin = max(0.02, 0.05 * (high - low))
    counts, edges = np.histogram(norms_N, bins=60, range=(low - margin, high + margin))
    axes.stairs(counts / len(norms_N), edges, fill=True, color=SERIES[0], label="reconstructions")
    if edges[0] <= 1 <= edges[-1]:
        axes.axvline(1.0, color=INK, linewidth=1.2, linestyle=DASHES[1], label="the unit sphere")
    legend(axes)
    label = (
        f"Histogram of the norms of {len(norms_N):,} reconstructions: mean "
        f"{norms_N.mean(dtype=np.float64):.3f}, standard deviation "
        f"{norms_N.std(dtype=np.float64):.3f}"
    )
    return svg_element(figure, "norms", label)


def _line_plot(name: str, lines: Sequence[Line], x: str, y: str, title: str) -> str:
    figure, (axes,) = new_figure()
    dress(axes, x, y)
    draw_lines(axes, lines)
    axes.set_ylim(0, 1.02)
    if name == "pn":
        logarithmic(axes)
    else:
        axes.set_xlim(0, 1.02)
    legend(axes)
    names = ", ".join(line.name for line in lines)
    return svg_element(figure, name, f"{title}, for {names}")


def draw_lines(axes: Any, lines: Sequence[Line], *, marked: bool = False) -> None:
    """Draw lines, each of its own colour and dashes; ``marked`` shows their points too."""
    for number, line in enumerate(lines):
        axes.plot(
            line.x,
            line.y,
            color=SERIES[number % len(SERIES)],
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.9,
            marker=MARKERS[number % len(MARKERS)] if marked else None,
            markersize=5,
            label=line.name,
        )


def logarithmic(axes: Any) -> None:
    """Make the x axis logarithmic, with its numbers written out."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def new_figure(panels: int = 1) -> tuple[Any, list[Any]]:
    """A figure of its own canvas, with panels side by side.

    No state is shared with a program that plots by pyplot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * panels, HEIGHT), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def dress(axes: Any, x: str, y: str) -> None:
    """Give a panel the names of its axes, a faint grid and no frame."""
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=INK, fontsize=11)
    axes.set_ylabel(y, color=INK, fontsize=11)
    axes.tick_params(colors=INK, length=3, labelsize=10.5)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(INK)


def legend(axes: Any) -> None:
    """Name what a panel shows."""
    axes.legend(frameon=False, labelcolor=INK, handlelength=3, fontsize=10.5)


def svg_element(figure: Any, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element with a text alternative and identifiers of its own."""
    import matplotlib

    drawn = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(drawn, format="svg", metadata=nothing)
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (id|xlink:href)="(#?)([^"]+)"', rf' \1="\2{name}-\3"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
