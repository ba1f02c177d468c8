from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from grid_tables import Row, compare, compared, tables, verdict_of
from spherequant.evaluation import paired_bootstrap

if TYPE_CHECKING:
    from grid_records import Cell

PLACE = ("cifar10-54k", 32)


@pytest.fixture
def cell_of(make_cell):
    def make(method: str, seed: int, **ap: np.ndarray) -> Cell:
        return make_cell(ap, method=method, seed=seed, epochs=5)

    return make


@pytest.fixture
def cells(cell_of) -> list[Cell]:
    generator = np.random.default_rng(0)
    ours = [generator.uniform(0.4, 0.8, 200) for _ in range(2)]
    return [
        cell_of("dsq", 0, codes=ours[0], float=ours[0] - 0.01),
        cell_of("dsq", 1, codes=ours[1]),
        cell_of("softmax", 0, codes=ours[0] - 0.1, rq=ours[0] + 0.2),
        cell_of("softmax", 2, codes=ours[0]),
    ]


def test_seeds_stand_with_their_spread_and_what_was_not_run_is_none(cells):
    table, *_ = tables(cells, [PLACE, ("cifar10-full", 32)])
    rows = {row[0]: row[1:] for row in table["rows"]}
    first, second = (cells[i].maps["codes"] for i in (0, 1))
    low, high = sorted((first, second))
    expected = f"{(first + second) / 2:.4f} ({low:.4f} to {high:.4f}); seed 0, 1; 5 epochs, 32 px"
    assert rows["DSQ"] == [expected, None]
    assert rows["softmax, then FAISS RQ"][0].endswith("; seed 0; 5 epochs, 32 px")
    assert "CSQ, float query" not in rows


def test_a_difference_is_over_the_seeds_that_both_have(cells):
    _, seeds, result = compare(cells, Row("", "softmax"), PLACE)
    assert seeds == [0]
    assert result.difference == pytest.approx(0.1, abs=1e-4)
    assert result.above
    _, seeds, result = compare(cells, Row("", "softmax", "rq"), PLACE)
    assert result.difference == pytest.approx(-0.2, abs=1e-4)
    assert not result.at_or_above
    assert compare(cells, Row("", "csq"), PLACE) is None


def test_faiss_stands_by_its_best_score(cell_of):
    ap = np.linspace(0.2, 0.8, 50)
    ours = cell_of("dsq", 0, codes=ap)
    by_score = {"opq": ap - 0.1, "opq_cosine": ap - 0.2, "opq_euclidean": ap - 0.05}
    table, differences, _ = tables([ours, cell_of("softmax", 0, **by_score)], [PLACE])
    named = {row[0]: row[1] for row in table["rows"]}
    assert named["softmax, then FAISS OPQ"].startswith("0.4500, by Euclidean distance; seed 0")
    named = {row[0]: row[1] for row in differences["rows"]}
    assert named == {"softmax, then FAISS OPQ, by Euclidean distance": "+0.0500"}


def test_verdicts_are_printed_for_every_row_with_a_cell(cells):
    _, differences, facts = tables(cells, [PLACE, ("cifar10-full", 32)])
    verdicts = {row[0]: (row[3], row[4]) for row in differences["rows"]}
    assert verdicts == {
        "softmax, then our quantizer": ("DSQ is above, one seed", "0"),
        "softmax, then FAISS RQ": ("DSQ is below, one seed", "0"),
        "float embeddings of DSQ": ("DSQ is above, one seed", "0"),
    }
    assert [row[0] for row in facts["rows"]] == [cell.name for cell in cells]


def test_an_interval_that_holds_zero_shows_no_difference():
    same = np.linspace(0, 1, 50)
    assert verdict_of(paired_bootstrap(same, same)) == "at or above, not shown to differ"
    noise = np.resize([0.1, -0.1], 50)
    assert verdict_of(paired_bootstrap(same, same + noise)).endswith("not shown to differ")
    assert verdict_of(paired_bootstrap(same + 0.1, same)) == "above"
    assert verdict_of(paired_bootstrap(same, same + 0.1)) == "below"


def test_other_queries_cannot_be_compared(cells, cell_of):
    other = cell_of("csq", 0, codes=np.full(200, 0.5))
    object.__setattr__(other, "queries", "1" * 64)
    with pytest.raises(SystemExit, match="different queries"):
        compare([*cells, other], Row("", "csq"), PLACE)


def test_what_tables_compare_is_kept():
    assert compared("csq") == {"codes", "hamming"}
    assert {"codes", "float", "class_centre", "pq", "pq_cosine", "itq"} <= compared("dsq")
