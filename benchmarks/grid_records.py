"""What one cell of the grid measured, as a file: figures, settings, and the AP of each query."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from spherequant.evaluation import Report

SCHEMA = 1
_STEPS = 65_535  # an AP is kept in 16 bits: rounded by at most 8e-6


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and its evaluation.

    Attributes:
        protocol: that it was evaluated under.
        method: the objective.
        bits: length of a code.
        seed: of the training.
        settings: what was asked for; a cell of equal settings is not run again.
        trained_under: the protocol whose training images it learned from.
        epochs: of the training.
        image_size: side of the network's input.
        images: trained on.
        train_seconds: decoding and learning codes included.
        evaluate_seconds: embedding and baselines included.
        query_count: queries.
        database_count: images searched.
        map_at: R of mAP@R, or ``all``.
        score: what ``codes`` are ranked by.
        accuracy: of the classifier on the queries.
        distinct_codes: in the database.
        maps: mAP of each ranking that was measured.
        ap: AP of each query in the rankings that are compared, in the order of sorted keys: base64
            of little-endian uint16, ``round(AP * 65535)``.
        queries: sha256 of the sorted keys, joined by line ends.
        machine: that measured.
        date: of the measurement.
    """

    protocol: str
    method: str
    bits: int
    seed: int
    settings: Mapping[str, Any]
    trained_under: str
    epochs: int
    image_size: int
    images: int
    train_seconds: float
    evaluate_seconds: float
    query_count: int
    database_count: int
    map_at: int | str
    score: str
    accuracy: float | None
    distinct_codes: int
    maps: Mapping[str, float]
    ap: Mapping[str, str]
    queries: str
    machine: str
    date: str

    @property
    def name(self) -> str:
        """Its file's name, without the ending."""
        return f"{self.protocol}-{self.method}-{self.bits}-{self.seed}"

    def made_with(self, settings: Mapping[str, Any]) -> bool:
        """Whether these settings made it; one that came to be later is one that it lacks."""
        return dict(self.settings) == dict(settings)

    def average_precision(self, ranking: str) -> np.ndarray:
        """AP of each query, in the order of sorted keys: float64 [Q]."""
        packed = np.frombuffer(base64.b64decode(self.ap[ranking]), dtype="<u2")
        return packed.astype(np.float64) / _STEPS

    def save(self, folder: Path) -> None:
        """Write the cell's file, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{self.name}.json.part"
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(folder / f"{self.name}.json")


def load(folder: Path) -> list[Cell]:
    """Every cell that was recorded, by name."""
    cells = []
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            raise SystemExit(f"{path} has another schema: remove it, and run its cell again")
        cells.append(Cell(**values))
    return cells


def measured(report: Report, compared: Container[str]) -> dict[str, Any]:
    """The fields of a cell that a report holds.

    Args:
        report: of the cell's model.
        compared: rankings whose APs are kept.
    """
    rankings = report.queries.rankings
    keys = report.queries.keys
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    sorted_keys = "\n".join(keys[position] for position in order)
    return {
        "query_count": report.figures.query_count,
        "database_count": report.database_count,
        "map_at": "all" if report.at is None else report.at,
        "score": report.score,
        "accuracy": report.figures.accuracy,
        "distinct_codes": report.distinct_codes,
        "maps": {name: float(ranked.ap.mean()) for name, ranked in rankings.items()},
        "ap": {
            name: pack(ranked.ap[order]) for name, ranked in rankings.items() if name in compared
        },
        "queries": hashlib.sha256(sorted_keys.encode()).hexdigest(),
    }


def pack(ap_Q: np.ndarray) -> str:
    """Average precisions as text."""
    return base64.b64encode(np.rint(ap_Q * _STEPS).astype("<u2").tobytes()).decode("ascii")
