"""The grid's tables: mAP by method and protocol, paired differences, and what each cell took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.evaluation import paired_bootstrap
from spherequant.evaluation.baselines import rankings_of
from training_runs import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from grid_records import Cell
    from spherequant.evaluation import Comparison

Place = tuple[str, int]  # protocol, bits


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison: a ranking of a method's cells.

    Attributes:
        title: in the table.
        method: whose embeddings.
        ranking: which of its rankings; of FAISS's codes, which have one by each score, the first.
    """

    title: str
    method: str
    ranking: str = "codes"

    def by_score(self) -> dict[str, str]:
        """Its rankings, with what each adds to the title."""
        if self.ranking not in _FAISS:
            return {self.ranking: ""}
        return {name: SCORES.get(score, "") for score, name in rankings_of(self.ranking).items()}


_FAISS = {
    "pq": "FAISS PQ",
    "opq": "FAISS OPQ",
    "rq": "FAISS RQ",
    "lsq": "FAISS LSQ",
    "itq": "ITQ, Hamming",
    "itq_asymmetric": "ITQ, float query",
    "rabitq": "RaBitQ",
}
OURS = Row("DSQ", "dsq")
ROWS = (
    OURS,
    Row("SDSQ, budget S1, trained together", "sdsq-s1"),
    Row("SDSQ, budget S2, trained together", "sdsq-s2"),
    Row("the paper's objective as printed", "paper"),
    Row("DSQ without the discriminative term", "no-discriminative"),
    Row("DSQ without normalisation, Euclidean distance", "no-norm"),
    Row("DSQ without normalisation, cosine", "no-norm", "cosine"),
    Row("DSQ without normalisation, inner product", "no-norm", "inner_product"),
    Row("DSQ, cosine", "dsq", "cosine"),
    Row("DSQ, Euclidean distance", "dsq", "euclidean"),
    Row("softmax and centre, then our quantizer", "softmax-centre"),
    *(
        Row(f"softmax and centre, then {title}", "softmax-centre", name)
        for name, title in _FAISS.items()
    ),
    Row("softmax, then our quantizer", "softmax"),
    *(Row(f"softmax, then {title}", "softmax", name) for name, title in _FAISS.items()),
    *(Row(f"DSQ's embeddings, then {title}", "dsq", name) for name, title in _FAISS.items()),
    Row("OrthoHash, float query", "orthohash"),
    Row("OrthoHash, Hamming distance", "orthohash", "hamming"),
    Row("CSQ, float query", "csq"),
    Row("CSQ, Hamming distance", "csq", "hamming"),
    Row("float embeddings of DSQ", "dsq", "float"),
    Row("class-id of DSQ", "dsq", "class_id"),
    Row("class centre of DSQ", "dsq", "class_centre"),
    Row("expected centre of DSQ, not compressed", "dsq", "expected_centre"),
    Row("float embeddings of softmax", "softmax", "float"),
)


def compared(method: str) -> set[str]:
    """The rankings of a method that tables compare query by query."""
    return {name for row in ROWS if row.method == method for name in row.by_score()}


def tables(cells: Sequence[Cell], places: Sequence[Place]) -> list[dict[str, Any]]:
    """All tables of the recorded cells; what was not run is None.

    Args:
        cells: recorded.
        places: the columns, whether or not they have a cell.
    """
    return [
        _maps(cells, places),
        *(_differences(cells, place) for place in places if _of(cells, OURS, place)),
        _facts(cells),
    ]


def verdict_of(result: Comparison) -> str:
    """Say how the first stands to the second; an interval that holds 0 shows no difference."""
    if result.above:
        return "above"
    return "at or above, not shown to differ" if result.at_or_above else "below"


def _of(cells: Iterable[Cell], row: Row, place: Place) -> list[Cell]:
    """The cells of a row at one place, by seed."""
    found = [
        cell
        for cell in cells
        if (cell.protocol, cell.bits) == place
        and cell.method == row.method
        and row.ranking in cell.maps
    ]
    return sorted(found, key=lambda cell: cell.seed)


def _maps(cells: Sequence[Cell], places: Sequence[Place]) -> dict[str, Any]:
    return {
        "caption": "mAP, mean over seeds (least to most)",
        "columns": ["method", *(f"{protocol}, {bits} bits" for protocol, bits in places)],
        "rows": [
            [row.title, *(_spread(_of(cells, row, place), row) for place in places)]
            for row in ROWS
            if any(_of(cells, row, place) for place in places)
        ],
    }


def _best(cells: Sequence[Cell], row: Row) -> tuple[str, str]:
    """A row's ranking by the score that is best over these cells, and what it adds to the title."""
    kept = [name for name in row.by_score() if all(name in cell.ap for cell in cells)]
    best = max(
        kept or [row.ranking], key=lambda name: float(np.mean([cell.maps[name] for cell in cells]))
    )
    return best, row.by_score()[best]


def _spread(cells: Sequence[Cell], row: Row) -> str | None:
    """Mean and range over seeds, with what made them."""
    if not cells:
        return None
    ranking, scored = _best(cells, row)
    maps = [cell.maps[ranking] for cell in cells]
    seeds = ", ".join(str(cell.seed) for cell in cells)
    between = f" ({min(maps):.4f} to {max(maps):.4f})" if len(maps) > 1 else ""
    made = sorted({f"{cell.epochs} epochs, {cell.image_size} px" for cell in cells})
    return f"{np.mean(maps):.4f}{between}{scored}; seed {seeds}; {'; '.join(made)}"


def compare(
    cells: Sequence[Cell], row: Row, place: Place
) -> tuple[str, list[int], Comparison] | None:
    """DSQ less another row over the seeds that both have; None without any.

    Returns:
        The row's title, the seeds, and the paired bootstrap of the difference averaged over them.
    """
    ours = {cell.seed: cell for cell in _of(cells, OURS, place)}
    # Of rows that came to be later, older cells have the mean alone.
    theirs = {cell.seed: cell for cell in _of(cells, row, place) if row.ranking in cell.ap}
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    if len({cell.queries for cell in [*ours.values(), *theirs.values()]}) > 1:
        raise SystemExit(f"cells of {place} were asked different queries: run them again")
    ranking, scored = _best([theirs[seed] for seed in seeds], row)
    return (
        f"{row.title}{scored}",
        seeds,
        paired_bootstrap(
            np.stack([ours[seed].average_precision("codes") for seed in seeds]),
            np.stack([theirs[seed].average_precision(ranking) for seed in seeds]),
        ),
    )


def _differences(cells: Sequence[Cell], place: Place) -> dict[str, Any]:
    rows = []
    for row in ROWS[1:]:
        compared = compare(cells, row, place)
        if compared is None:
            continue
        title, seeds, result = compared
        interval = f"[{result.low:+.4f}, {result.high:+.4f}]"
        named = ", ".join(map(str, seeds))
        verdict = f"DSQ is {verdict_of(result)}" + (", one seed" if len(seeds) == 1 else "")
        rows.append([title, f"{result.difference:+.4f}", interval, verdict, named])
    return {
        "caption": f"{place[0]}, {place[1]} bits: DSQ less the other, paired over queries",
        "columns": ["other", "difference of mAP", "95 % interval", "verdict", "seeds"],
        "rows": rows,
    }


def _facts(cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "caption": "What each cell took",
        "columns": [
            "cell",
            "epochs",
            "images",
            "pixels",
            "training, s",
            "evaluation, s",
            "accuracy",
            "distinct codes",
            "machine",
        ],
        "rows": [
            [
                cell.name,
                cell.epochs,
                cell.images,
                cell.image_size,
                round(cell.train_seconds),
                round(cell.evaluate_seconds),
                cell.accuracy,
                cell.distinct_codes,
                cell.machine,
            ]
            for cell in cells
        ],
    }
