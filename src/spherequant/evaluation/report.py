"""The outcome of an evaluation: figures, how they were made, and files to keep."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spherequant.evaluation.metrics import TIE_RULE
from spherequant.system import replacing

if TYPE_CHECKING:
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from spherequant.evaluation.examples import Example
    from spherequant.evaluation.figures import Figures, QueryFigures
    from spherequant.images import Skip

JSON_FILE, PAGE_FILE, QUERIES_FILE = "report.json", "report.html", "queries.csv"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """What `evaluate` measured.

    Attributes:
        source: name of the source.
        protocol: which images were queries and which the database.
        objective: what the model was trained with; None where it does not tell.
        score: what ``map`` ranks codes by.
        bits: length of a code.
        fingerprint: of the model.
        at: R of mAP@R; None means all.
        seed: of the training; None where the model does not tell.
        split_seed: of the protocol's split.
        evaluation_seed: of the baselines and of the example queries.
        database_count: images searched.
        distinct_codes: different codes among them; equal codewords are one.
        predicted_classes_used: whether encoding pulls an image towards its predicted class.
        figures: of the headline: all queries, or under ``unseen-classes`` those of unseen classes.
        seen: under ``unseen-classes``, of the other queries; else None.
        warnings: what makes the figures other than they seem.
        skipped: images that could not be used.
        seconds: that the evaluation took.
        queries: what was measured query by query.
        norms: float32 [N], norm of each database image's reconstruction.
        examples: queries with their first results.
    """

    source: str
    protocol: str
    objective: str | None
    score: str
    bits: int
    fingerprint: str
    at: int | None
    seed: int | None
    split_seed: int
    evaluation_seed: int
    database_count: int
    distinct_codes: int
    predicted_classes_used: bool
    figures: Figures
    seen: Figures | None
    warnings: tuple[str, ...]
    skipped: tuple[Skip, ...]
    seconds: float
    queries: QueryFigures
    norms: NDArray[np.float32]
    examples: tuple[Example, ...]

    def __repr__(self) -> str:
        """One line; ``to_dict`` has all figures."""
        asked = f"{self.figures.query_count:,} queries against {self.database_count:,}"
        return (
            f"<Report: {self.source}, {self.protocol}, {self.bits} bits, mAP "
            f"{self.figures.map:.4f}, {asked}>"
        )

    @property
    def denominators(self) -> dict[str, str]:
        """The denominator of each mAP, by JSON key."""
        return {"map": "found", "map_recall_aware": "recall-aware"}

    def to_dict(self) -> dict[str, Any]:
        """The report under its JSON keys; every value is a plain one."""
        figures = {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "protocol": self.protocol,
            "objective": self.objective,
            "score": self.score,
            "bits": self.bits,
            **self.figures.to_dict(),
            "map_at": "all" if self.at is None else self.at,
            "denominators": self.denominators,
            "tie_rule": TIE_RULE,
            "distinct_codes": self.distinct_codes,
            "predicted_classes_used": self.predicted_classes_used,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "evaluation_seed": self.evaluation_seed,
            "database_count": self.database_count,
            "warnings": list(self.warnings),
            "skipped": [asdict(skip) for skip in self.skipped],
            "seconds": round(self.seconds, 3),
        }
        if self.seen is not None:
            figures["seen"] = self.seen.to_dict()
        return figures

    def save(self, directory: str | PathLike[str]) -> Path:
        """Write report.json, report.html (one self-contained page) and queries.csv.

        Args:
            directory: made where it does not exist; files of these names are replaced.

        Returns:
            Path of the page.
        """
        from spherequant.evaluation.page import render_report

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        page = render_report(self)
        with replacing(folder / JSON_FILE) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
        with replacing(folder / QUERIES_FILE) as draft:
            self._save_queries(draft)
        with replacing(folder / PAGE_FILE) as draft:
            draft.write_text(page, encoding="utf-8")
        return folder / PAGE_FILE

    def _save_queries(self, path: Path) -> None:
        """One row a query with its average precisions: what a paired comparison needs."""
        queries = self.queries
        names = list(queries.rankings)
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(
                ["key", "labels", "headline", "relevant", "codes_ap_recall_aware"]
                + [f"{name}_ap" for name in names]
            )
            for query, key in enumerate(queries.keys):
                table.writerow(
                    [
                        key,
                        "|".join(queries.labels[query]),
                        int(queries.headline[query]),
                        int(queries.relevant_counts[query]),
                        float(queries.rankings["codes"].ap_recall_aware[query]),
                    ]
                    + [float(queries.rankings[name].ap[query]) for name in names]
                )
