"""docs/results.md, made of the records in docs/results: headline figures, contents, sections.

Nothing here is a figure: headlines name the cell of a record that they show, and a test looks every
one of them up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Records = dict[str, dict[str, Any]]

LONG_TABLE = 12  # rows; a longer one starts closed

_HEAD = """# Results

What was measured: how well 4 bytes an image find images of the same class, beside the float
embeddings, three controls that know the classifier's answer, and other quantizers; what sparse
codebooks, unseen classes and several labels do to that; how long training, encoding, opening and
searching take beside FAISS and ScaNN; and what must not break.

CIFAR-10 here is a lossy JPEG re-encoding of the 60,000 images, so figures are not comparable to the
digit with those of the original set. Average precision is the expectation over all orders of tied
items, divided by the relevant items found: see [protocols](protocols.md). No figure of the paper is
claimed.

Four things changed between these trainings, and most tables are to be made again:

- The margin of the softmax term is now .4 ([why](#margin-cifar10-54k)); before, there was none, and
  labels were smoothed by .1. Tables of one network name its margin; the network of `cifar10-full`
  had none, and its figures, sparse codes, errors and norms are of that network.
- Codebooks are learned in another way
  ([how](quantizer.md#codebooks-and-how-they-are-learned)), after a training from mixtures of
  embeddings, too. The [grid](#grid-reduced), the [attribution](#attribution-reduced) and the
  [levelled codes of CIFAR-10](#levelling-cifar10) were made with both, the
  [errors of codebooks](#codebook-error), which have no mixtures, with the first.
- Validation images choose the [sharpness](protocols.md#controls) of predictions; before, it was 2.
  Where the best value was not surely better than 1, 1 was kept, though another may have been surely
  better: the grid and the attribution alone were made without that fault.
- Last, the recipe of `small` ([what it chooses](commands.md#train)): smaller images first, another
  scale and rate. Beside [its own table](#recipe-cifar10-54k) no table has it. The grid and
  the attribution have constants of their own; at 64 bits the latter's are a scale of 8 and half of
  the grid's rate.

FAISS's codes are ranked by inner product, as ours are; where a table names another score, they were
ranked by cosine and Euclidean distance, too.

Every figure was recorded by the script of `benchmarks/` that its section names
([what each measures and needs](../benchmarks/README.md)), by the command that stands above it. A
cell that was not run is `-`. Where a network was trained, the epochs, the side of its input and the
seeds stand beside the table. Times are those of the machine that the section names: compare ratios,
which were measured side by side. Of several quantizers the first table names the best.
"""

_REDUCED = "Reduced settings"
_REDUCED_NOTES = (
    "Made by `make results` without `FULL=1`: fewer epochs, items and queries, so that each "
    "takes minutes. These figures show that the scripts run; those above are the results."
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        names: beginnings of the names of its records, in their order on the page. Records of one
            beginning are ordered by name.
    """

    title: str
    names: tuple[str, ...]


# A record stands in the first section that has a beginning of its name; others come last.
SECTIONS = (
    Section(
        "Figures",
        (
            *("figures-curves", "figures-bits", "figures-items", "figures-norms", "figures-map"),
            *("figures-examples", "figures-mosaics", "figures"),
        ),
    ),
    Section("CIFAR-10", ("cifar10-full", "cifar10-54k", "cifar10-59k", "cifar10")),
    Section("Code lengths", ("lengths", "prefix")),
    Section(
        "Baselines and ablations",
        ("grid", "alternatives", "attribution", "recipe", "margin", "class-target"),
    ),
    Section("Sparse codebooks", ("sparse-codes", "sparse-tables", "sparse")),
    Section("Unseen classes", ("unseen", "levelling")),
    Section("Several labels an image", ("multi-label-coco", "multi-label")),
    Section("Error of codebooks", ("codebook-error", "error", "norms")),
    Section("Speed: search", ("search-uniform", "search")),
    Section("Speed: filters and deletes", ("filters",)),
    Section("Speed: large indexes", ("large",)),
    Section("Speed: embedding", ("embedding",)),
    Section("Speed: encoding", ("encoding-64", "encoding")),
    Section("Speed: opening, keys and adds", ("reopening", "keys", "commits")),
    Section(
        "The service: speed and endurance",
        (
            *("service-load", "service-puts", "service-memory", "service-mixed", "service-kills"),
            "service",
        ),
    ),
    Section("Speed: training", ("training-time",)),
    Section("Robustness", ("robustness",)),
    Section("Further measurements", ("",)),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a record.

    Attributes:
        words: what is said before the figure.
        table: beginning of the table's caption.
        row: what the first cells of the row hold.
        column: name of the column.
    """

    words: str
    table: str
    row: tuple[object, ...]
    column: str


@dataclass(frozen=True, slots=True)
class Headline:
    """A line of the first table: cells of one record."""

    title: str
    record: str
    cells: tuple[Cell, ...]


_CONTROLS = "32 bits and its controls"
_SPEED = "CPU milliseconds a query"
_OVER = "Time over ours"
_SEVERAL = "mAP@all, and what the codes have more"
HEADLINES = (
    Headline(
        "CIFAR-10, 50,000 training images, 4 bytes an image: mAP",
        "cifar10-full-0",
        (
            Cell("**DSQ**", _CONTROLS, ("DSQ, mAP",), "value"),
            Cell("float embeddings", _CONTROLS, ("float embeddings",), "value"),
            Cell("class-id", _CONTROLS, ("class-id",), "value"),
            Cell("class centre", _CONTROLS, ("class centre",), "value"),
            Cell(
                "softmax alone + FAISS PQ",
                "mAP@all by code length",
                (32,),
                "softmax alone + FAISS PQ",
            ),
        ),
    ),
    Headline(
        "CIFAR-10, 5,000 training images, from scratch, reduced epochs, 4 bytes: mAP by method",
        "grid-reduced",
        tuple(
            Cell(words, "mAP, mean over seeds", (row,), "cifar10-54k, 32 bits")
            for words, row in (
                ("**DSQ**", "DSQ"),
                ("with sparse codebooks (S1)", "SDSQ, budget S1, trained together"),
                ("OrthoHash", "OrthoHash, float query"),
                ("softmax alone + FAISS LSQ", "softmax, then FAISS LSQ"),
                ("CSQ", "CSQ, float query"),
                ("the paper's terms, our weights", "the paper's objective as printed"),
                ("class centre", "class centre of DSQ"),
            )
        ),
    ),
    Headline(
        "The same, codes made alike of two networks: mAP",
        "attribution-reduced",
        tuple(
            Cell(words, "mAP by network and code", (row,), network)
            for network, words, row in (
                ("DSQ", "**DSQ**, toward the class", "our quantizer, toward the class"),
                ("DSQ", "of the embedding", "our quantizer, of the embedding"),
                ("DSQ", "expected centre", "expected centre"),
                ("softmax", "softmax, toward the class", "our quantizer, toward the class"),
                ("softmax", "of the embedding", "our quantizer, of the embedding"),
                ("softmax", "expected centre", "expected centre"),
            )
        ),
    ),
    Headline(
        "One training for all lengths: mAP of its first codebooks less that of their own training",
        "lengths-trained-reduced",
        tuple(
            Cell(f"{bits} bits", "mAP by length", (bits,), "difference")
            for bits in (16, 24, 32, 48)
        ),
    ),
    Headline(
        "CIFAR-10, 5,000 training images, MobileNetV2 pretrained on ImageNet, 4 bytes: mAP",
        "cifar10-54k-160px-12-epochs-seed-0",
        (
            Cell("**DSQ**", "32 bits", ("DSQ, mAP",), "value"),
            Cell("float embeddings", "32 bits", ("float embeddings",), "value"),
            Cell("class centre", "32 bits", ("class centre",), "value"),
            Cell("FAISS PQ", "32 bits", ("FAISS PQ",), "value"),
        ),
    ),
    *(
        Headline(
            f"{images} not trained on, 4 bytes: mAP over {kind}",
            record,
            (
                Cell("**DSQ**", "mAP by levelling", ("DSQ, levelling 0",), column),
                Cell("**DSQ, levelled**", "mAP by levelling", ("DSQ, levelling 1",), column),
                Cell("class centre", "mAP by levelling", ("class centre",), column),
                Cell(best, "mAP by levelling", (best,), column),
                Cell("float embeddings", "mAP by levelling", ("float embeddings",), column),
            ),
        )
        for images, record, best_unseen in (
            ("Tiny-ImageNet, a quarter of the classes", "levelling-tiny-imagenet", "FAISS RQ"),
            (
                "CIFAR-10, three of the classes",
                "levelling-cifar10",
                "FAISS OPQ, by Euclidean distance",
            ),
        )
        for kind, column, best in (
            ("classes that were", "seen", "FAISS PQ"),
            ("classes that were not", "unseen", best_unseen),
        )
    ),
    Headline(
        "Mosaics of CIFAR-10, several labels an image, 4 bytes: mAP",
        "multi-label-12000-64px-8-epochs-seed-0",
        (
            Cell("**DSQ**", _SEVERAL, ("DSQ, 32 bits",), "mAP"),
            Cell("float embeddings", _SEVERAL, ("float embeddings",), "mAP"),
            Cell(
                "class centre",
                _SEVERAL,
                ("class centre: mean of the predicted labels' centres",),
                "mAP",
            ),
            Cell("FAISS RQ", _SEVERAL, ("FAISS RQ, 32 bits, same embeddings",), "mAP"),
        ),
    ),
    Headline(
        "Sparse codebooks, a quarter of the values: mAP less that of dense ones",
        "sparse-codes-cifar10-full-0-dsq-32",
        (
            Cell("**S1**", "Differences of mAP", ("SDSQ S1", "dense DSQ"), "difference"),
            Cell(
                "and less unsupervised sparse codes",
                "Differences of mAP",
                ("SDSQ S1", "unsupervised S1"),
                "difference",
            ),
        ),
    ),
    Headline(
        "Search, 10,000,000 items of 4 bytes, exact top 100, one thread, one query at a time: "
        "milliseconds",
        "search-uniform-10000000",
        (
            Cell("**ours**", _SPEED, (32, "spherequant, automatic"), "one query"),
            Cell("FAISS IndexPQ, same items", _SPEED, (32, "FAISS IndexPQ"), "one query"),
            Cell("FAISS fast scan", _SPEED, (32, "FAISS IndexPQFastScan"), "one query"),
            Cell("ScaNN", _SPEED, (32, "ScaNN"), "one query"),
        ),
    ),
    Headline(
        "The same for codes around 100 centres: times as long as ours",
        "search-100-10000000",
        (
            Cell("FAISS IndexPQ", _OVER, (32, "FAISS IndexPQ"), "over automatic, one query"),
            Cell(
                "FAISS fast scan",
                _OVER,
                (32, "FAISS IndexPQFastScan"),
                "over automatic, one query",
            ),
        ),
    ),
    Headline(
        "100,000,000 items of 8 bytes in one process, two threads: milliseconds",
        "large-uniform-100000000",
        (
            Cell("**median**", "Latency of", ("buckets", 2), "p50"),
            Cell("99 %", "Latency of", ("buckets", 2), "p99"),
        ),
    ),
    Headline(
        "The service, 1,000,000 items, client and server on two processors: answers a second",
        "service-load-small-1000000",
        (
            Cell("by key", "Searches", ("by key",), "answers a second"),
            Cell("by image", "Searches", ("by image",), "answers a second"),
        ),
    ),
    Headline(
        "Encoding in 64 dimensions, 4 bytes: microseconds a vector",
        "encoding-64",
        (
            Cell(
                "**ours**",
                "32 bits, codebooks learned by `learn_codebooks`",
                ("beam 16, 3 rounds from 16 (default)",),
                "µs a vector",
            ),
            Cell(
                "FAISS RQ with look-up tables",
                "32 bits, codebooks learned by `learn_codebooks`",
                ("FAISS RQ, beam 5, look-up tables",),
                "µs a vector",
            ),
        ),
    ),
)


def render_page(folder: Path) -> str:
    """Return the page that shows all records of a folder.

    Args:
        folder: of the records; those of its ``reduced`` stand at the end.
    """
    records = read_records(folder)
    reduced = read_records(folder / "reduced")
    groups = [(section.title, names) for section, names in in_sections(records) if names]
    parts = [_HEAD, _headlines(records), _contents(groups, records, reduced=bool(reduced))]
    for title, names in groups:
        parts.append(f"## {title}\n")
        parts += [_record(name, records[name]) for name in names]
    if reduced:
        parts += [f"## {_REDUCED}\n", f"{_REDUCED_NOTES}\n"]
        parts += [
            _record(f"reduced-{name}", reduced[name])
            for _, names in in_sections(reduced)
            for name in names
        ]
    return "\n".join(parts).rstrip() + "\n"


def read_records(folder: Path) -> Records:
    """Return the records of a folder by name; none where there is no folder."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def in_sections(names: Iterable[str]) -> list[tuple[Section, list[str]]]:
    """Return each section with its records in their order on the page."""
    placed: list[list[tuple[int, str]]] = [[] for _ in SECTIONS]
    for name in names:
        number, place = next(
            (number, place)
            for number, section in enumerate(SECTIONS)
            for place, beginning in enumerate(section.names)
            if name.startswith(beginning)
        )
        placed[number].append((place, name))
    return [
        (section, [name for _, name in sorted(of)])
        for section, of in zip(SECTIONS, placed, strict=True)
    ]


def look_up(record: Mapping[str, Any], cell: Cell) -> object:
    """Return what a record holds in a cell; None where it has no such cell."""
    for table in record["tables"]:
        if not table["caption"].startswith(cell.table) or cell.column not in table["columns"]:
            continue
        for row in table["rows"]:
            if tuple(row[: len(cell.row)]) == cell.row:
                value: object = row[table["columns"].index(cell.column)]
                return value
    return None


def _headlines(records: Records) -> str:
    rows = []
    for headline in HEADLINES:
        if headline.record not in records:
            continue
        record = records[headline.record]
        shown = "; ".join(
            f"{cell.words} {_short(look_up(record, cell))}" for cell in headline.cells
        )
        setting = _setting(record.get("setting"))
        rows.append([headline.title + (f" ({setting})" if setting else ""), shown])
        rows[-1].append(f"[section](#{headline.record})")
    return _markdown(["measured", "figures", "how"], rows)


def _contents(groups: Sequence[tuple[str, list[str]]], records: Records, *, reduced: bool) -> str:
    lines = ["**Contents**", ""]
    for title, names in groups:
        lines.append(f"- {title}")
        lines += [f"  - [{records[name]['title']}](#{name})" for name in names]
    if reduced:
        lines.append(f"- {_REDUCED}")
    return "\n".join([*lines, ""])


def _record(name: str, values: Mapping[str, Any]) -> str:
    environment = [f"{key}={value}" for key, value in values.get("environment", {}).items()]
    command = " ".join(
        [*environment, "python", f"benchmarks/{values['script']}", *values["arguments"]]
    )
    parts = [
        f'<a id="{name}"></a>\n',
        f"### {values['title']}\n",
        f"`{command}`; {values['machine']}; {values['date']}.\n",
    ]
    if values["notes"]:
        parts.append(f"{values['notes']}\n")
    parts += [_drawing(drawing) for drawing in values.get("drawings", [])]
    parts += [
        _table(table, _setting(table.get("setting", values.get("setting"))))
        for table in values["tables"]
    ]
    return "\n".join(parts)


def _drawing(drawing: Mapping[str, str]) -> str:
    return f"![{drawing['alt']}]({drawing['file']})\n\n{drawing['caption']}\n"


def _table(table: Mapping[str, Any], setting: str) -> str:
    caption = f"**{table['caption']}**" + (f" ({setting})" if setting else "")
    lines = _markdown(table["columns"], table["rows"])
    if len(table["rows"]) <= LONG_TABLE:
        return f"{caption}\n\n{lines}"
    summary = f"{caption}: {len(table['rows'])} rows".replace("**", "")
    return f"<details><summary>{summary}</summary>\n\n{lines}\n</details>\n"


def _setting(setting: Mapping[str, Any] | None) -> str:
    """Say what made the cells, in a few words."""
    if not setting:
        return ""
    words = []
    if (epochs := setting.get("epochs")) is not None:
        words.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    if side := setting.get("image_size"):
        words.append(f"{side} px")
    if (margin := setting.get("margin")) is not None:
        words.append(f"margin {margin:g}" if margin else "no margin")
    if sharpness := setting.get("sharpness"):
        words.append(f"sharpness {', '.join(f'{value:g}' for value in sharpness)}")
    seeds = [str(seed) for seed in setting.get("seeds", [])]
    if seeds:
        words.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}")
    return ", ".join(words)


def _markdown(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [
        "| " + " | ".join(_cell(cell) for cell in row) + " |"
        for row in (columns, ["---"] * len(columns), *rows)
    ]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _short(value: object) -> str:
    """A headline's figure; of a cell that says what made it, the figure alone."""
    return f"{value:.3f}" if isinstance(value, float) else _cell(value).partition(";")[0]
