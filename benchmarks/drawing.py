"""Drawings of docs/figures: SVG files that follow the reader's light or dark scheme by themselves.

The plots are those of `spherequant.evaluation.plots`, which take their colours from a page; here
each gets the page's palette and a background of its own, so that it is legible on any page.
"""

from __future__ import annotations

import base64
import html
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.evaluation.plots import (
    DASHES,
    INK,
    SERIES,
    Line,
    draw_lines,
    dress,
    legend,
    logarithmic,
    new_figure,
    svg_element,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spherequant.evaluation.examples import Example, Picture

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'
# Ten colours that stand out from a light and from a dark page; classes are named where they lie.
CLASS_COLOURS = (
    "#4477aa", "#cc6600", "#228833", "#aa3377", "#0099aa",
    "#997700", "#ee6677", "#7755cc", "#559900", "#808080",
)  # fmt: skip
_GAP, _LINE = 8, 14  # pixels between pictures, and for a line of text


def save(element: str, path: Path) -> None:
    """Write an ``<svg>`` element as a file with palette and background."""
    opening, rest = element.split(">", 1)
    background = '<rect width="100%" height="100%" rx="8" style="fill: var(--page)"/>'
    path.write_text(f"{opening}><style>{_style()}</style>{background}{rest}\n", encoding="utf-8")


def _style() -> str:
    """The palette of the reports' pages, light and dark, and a typeface."""
    frame = resources.files("spherequant.evaluation") / "templates" / "frame.html"
    light, dark = re.findall(r":root \{([^}]*)\}", frame.read_text(encoding="utf-8"))
    return " ".join(
        f":root {{{light}}} @media (prefers-color-scheme: dark) {{ :root {{{dark}}} }} "
        f"text {{ font-family: {_FONT} !important; }}".split()
    )


def curves(name: str, precision_recall: Sequence[Line], precision_at: Sequence[Line]) -> str:
    """Precision over recall, and precision among the first N results, side by side."""
    figure, (left, right) = new_figure(2)
    dress(left, "recall (share of the relevant items found)", "precision (share of results)")
    draw_lines(left, precision_recall)
    left.set_xlim(0, 1.02)
    dress(right, "N (results looked at)", "precision at N (share of results)")
    draw_lines(right, precision_at)
    logarithmic(right)
    for axes, lines in ((left, precision_recall), (right, precision_at)):
        low = min(float(np.min(line.y)) for line in lines)
        axes.set_ylim(max(0.0, low - 0.05), None)
    legend(left)
    return svg_element(figure, name, "Precision over recall, and precision at N")


def norms(name: str, histograms: Mapping[str, NDArray[Any]], errors: Sequence[Line]) -> str:
    """Histograms of norms divided by their mean, and errors of direction over the code length."""
    figure, (left, right) = new_figure(2)
    dress(left, "norm / mean norm", "share of the images")
    top = max(float((norms_N / norms_N.mean()).max()) for norms_N in histograms.values())
    edges = np.linspace(0, np.ceil(2 * top) / 2, 101)
    for number, (words, norms_N) in enumerate(histograms.items()):
        counts, _ = np.histogram(norms_N / norms_N.mean(), bins=edges)
        left.stairs(
            counts / len(norms_N),
            edges,
            fill=number == 0,
            alpha=0.55 if number == 0 else 1,
            color=SERIES[number],
            linestyle=DASHES[number],
            linewidth=1.7,
            label=words,
        )
    left.set_yscale("log")
    left.set_xlim(0, edges[-1])
    left.set_ylim(None, 10)  # room for the names
    left.set_yticks([0.001, 0.01, 0.1, 1])
    legend(left)
    dress(right, "bits of the code", "1 - cosine of the angle, mean")
    draw_lines(right, errors, marked=True)
    right.set_yscale("log")
    right.set_xticks([int(bits) for bits in errors[0].x])
    legend(right)
    return svg_element(figure, name, "Norms before and after normalisation, and errors of codes")


def class_map(
    name: str,
    points: Mapping[str, NDArray[np.float64]],
    labels_N: Sequence[str],
    centres: Mapping[str, NDArray[np.float64]],
) -> str:
    """A map of two dimensions: a panel for each kind of points, classes named at their centres.

    Args:
        name: of the drawing.
        points: float64 [N, 2] of each panel, by its title.
        labels_N: class of each point, the same in every panel.
        centres: float64 [2], place of each class's centre.
    """
    figure, panels = new_figure(len(points))
    labels = np.asarray(labels_N)
    for axes, (title, places_N2) in zip(panels, points.items(), strict=True):
        dress(axes, title, "")
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        for colour, (label, centre) in zip(CLASS_COLOURS, centres.items(), strict=False):
            _dots(axes, places_N2[labels == label], colour)
            axes.plot(*centre, marker="X", markersize=8, color=INK)
            axes.annotate(
                label, centre, xytext=(0, 7), textcoords="offset points", ha="center",
                color=INK, fontsize=10, fontweight="bold",
            )  # fmt: skip
        axes.autoscale_view()
    return svg_element(figure, name, f"Map of {' and of '.join(points)}, with class centres")


def _dots(axes: Any, places_N2: NDArray[np.float64], colour: str) -> None:
    """Dots as one path of lines of no length with round ends: small files."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    corners = np.repeat(places_N2, 2, axis=0)
    steps = np.tile([Outline.MOVETO, Outline.LINETO], len(places_N2))
    outline = Outline(corners, steps)
    outline.should_simplify = False
    axes.add_patch(PathPatch(outline, fill=False, edgecolor=colour, linewidth=3, capstyle="round"))
    axes.update_datalim(places_N2)


def lines(name: str, of: Sequence[Line], x: str, y: str, *, log_x: bool, label: str) -> str:
    """Marked lines in one panel."""
    figure, (axes,) = new_figure()
    dress(axes, x, y)
    draw_lines(axes, of, marked=True)
    if log_x:
        logarithmic(axes)
        axes.set_xticks([int(x) for x in of[0].x])
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    legend(axes)
    return svg_element(figure, name, label)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(plain)


def spread(
    name: str, panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], y: str
) -> str:
    """A figure over the code length for each method: mean of the seeds, with their least and most.

    Args:
        name: of the drawing.
        panels: by its title, values of each seed by method and bits.
        y: name of the vertical axis.
    """
    figure, all_axes = new_figure(len(panels))
    for axes, (title, methods) in zip(all_axes, panels.items(), strict=True):
        dress(axes, f"bits of the code ({title})", y)
        means = [
            Line(words, np.array(sorted(of)), np.array([np.mean(of[bits]) for bits in sorted(of)]))
            for words, of in methods.items()
        ]
        draw_lines(axes, means, marked=True)
        for colour, of in zip(SERIES, methods.values(), strict=False):
            for bits, values in of.items():
                axes.vlines(bits, min(values), max(values), color=colour, linewidth=4, alpha=0.5)
        axes.set_xticks(sorted({bits for of in methods.values() for bits in of}))
        legend(axes)
    names = dict.fromkeys(words for methods in panels.values() for words in methods)
    return svg_element(figure, name, f"{y} over bits, for {', '.join(names)}")


def retrievals(examples: Sequence[Example], results: int, side: int) -> str:
    """Queries with their first results as pictures; wrong ones are crossed out.

    Args:
        examples: each a row.
        results: shown of each.
        side: of a picture, in pixels.
    """
    most = max(len(_label_lines(picture)) for picture in _pictures(examples, results))
    height = side + (most + 1) * _LINE + _GAP
    width = (results + 1) * (side + _GAP) + 3 * _GAP
    parts = []
    for row, example in enumerate(examples):
        top = row * height + _GAP
        parts.append(_picture(example.query, _GAP, top, side))
        below = top + side + (len(_label_lines(example.query)) + 1) * _LINE
        parts.append(_words(f"AP {example.average_precision:.2f}", _GAP, below - 3, side))
        for column, result in enumerate(example.results[:results], start=1):
            left = column * (side + _GAP) + 3 * _GAP
            parts.append(_picture(result.picture, left, top, side, wrong=not result.right))
    total = len(examples) * height + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" width="{width}" '
        f'height="{total}" role="img" aria-label="Queries, at the left, and their first results">'
        f"{''.join(parts)}</svg>"
    )


def _pictures(examples: Sequence[Example], results: int) -> list[Picture]:
    found = [result.picture for example in examples for result in example.results[:results]]
    return [*(example.query for example in examples), *found]


def _label_lines(picture: Picture) -> list[str]:
    """Labels, two to a line where there are several."""
    labels = picture.labels
    return [", ".join(labels[start : start + 2]) for start in range(0, len(labels), 2)]


def _picture(picture: Picture, x: int, y: int, side: int, *, wrong: bool = False) -> str:
    colour, dashes = ("var(--wrong)", "5 3") if wrong else ("var(--line)", "none")
    jpeg = base64.b64encode(picture.jpeg or b"").decode("ascii")
    place = f'x="{x}" y="{y}" width="{side}" height="{side}"'
    border = f'fill="none" stroke-width="2" stroke-dasharray="{dashes}" style="stroke: {colour}"'
    parts = [
        f'<image {place} href="data:image/jpeg;base64,{jpeg}"/>',
        f"<rect {place} {border}/>",
    ]
    if wrong:
        parts.append(
            f'<path d="M{x} {y}l{side} {side}" stroke-width="2.5" style="stroke: {colour}"/>'
        )
    for number, words in enumerate(_label_lines(picture)):
        shown = f"✗ {words}" if wrong and not number else words
        parts.append(_words(shown, x, y + side + 11 + number * _LINE, side))
    return "".join(parts)


def _words(words: str, x: int, y: int, side: int) -> str:
    """Words under a picture, squeezed to its width where they are longer."""
    long = len(words) * 5.4 > side  # 10 pixels high, about 5.4 wide
    squeezed = f' textLength="{side}" lengthAdjust="spacingAndGlyphs"' if long else ""
    return (
        f'<text x="{x}" y="{y}" font-size="10"{squeezed} style="fill: var(--ink)">'
        f"{html.escape(words)}</text>"
    )
