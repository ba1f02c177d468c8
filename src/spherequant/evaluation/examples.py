"""Example queries with their first results: some the codes do well, some they do badly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from spherequant.errors import InputError
from spherequant.images import thumbnail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spherequant.evaluation.rankings import Ranker, Relevance
    from spherequant.images import Item, Limits, Source

RESULTS = 10  # shown for each query
THUMBNAIL_SIDE = 128  # pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One image on the page.

    Attributes:
        key: inside its source.
        labels: its labels.
        jpeg: thumbnail; None when the image could not be read again.
    """

    key: str
    labels: tuple[str, ...]
    jpeg: bytes | None


@dataclass(frozen=True, slots=True)
class Result:
    """One ranked image: its score, and whether it shares a label with the query."""

    picture: Picture
    score: float
    right: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its first results; ties are shown in the order of the source.

    Attributes:
        kind: ``good``, drawn from the best quarter of queries, or ``bad``, from the worst.
        query: the query image.
        average_precision: of its ranking by codes, tie-averaged.
        results: the first results, best first.
    """

    kind: Literal["good", "bad"]
    query: Picture
    average_precision: float
    results: tuple[Result, ...]


def choose_examples(
    ap_Q: NDArray[np.float64], chosen: NDArray[np.bool_], count: int, seed: int
) -> list[tuple[Literal["good", "bad"], int]]:
    """Draw queries from the best and from the worst quarter, by seed.

    Args:
        ap_Q: float64 [Q], average precision of each query.
        chosen: bool [Q], queries to draw from.
        count: queries to draw, half good and half bad; fewer where there are fewer.
        seed: of the draw.

    Returns:
        Kind and position of each, good ones first, each kind by falling average precision.
    """
    positions = np.flatnonzero(chosen)
    positions = positions[np.argsort(-ap_Q[positions], kind="stable")]
    # A quarter of each end, or the two halves where quarters are too small to draw from.
    reach = min(max(len(positions) // 4, count), (len(positions) + 1) // 2)
    generator = np.random.default_rng(seed)

    def draw(end: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
        size = min(wanted, len(end))
        return end[np.sort(generator.choice(len(end), size, replace=False))] if size else end[:0]

    good = draw(positions[:reach], count - count // 2)
    bad = draw(positions[reach:][-reach:], count // 2)
    return [("good", int(query)) for query in good] + [("bad", int(query)) for query in bad]


def collect_examples(
    chosen: Sequence[tuple[Literal["good", "bad"], int]],
    ranker: Ranker,
    relevance: Relevance,
    ap_Q: NDArray[np.float64],
    *,
    query_items: Sequence[Item],
    database_items: Sequence[Item],
    source: Source,
    limits: Limits | None,
) -> tuple[Example, ...]:
    """Rank the chosen queries once more and read their pictures again.

    Args:
        chosen: from `choose_examples`.
        ranker: whose first ranking is shown.
        relevance: of the same queries and database.
        ap_Q: float64 [Q].
        query_items: Q items.
        database_items: N items.
        source: of the images.
        limits: bounds on one image; None takes the source's own.
    """

    def picture(item: Item) -> Picture:
        try:
            jpeg = thumbnail(source.image(item, limits), THUMBNAIL_SIDE)
        except InputError:  # it was read a moment ago: the page does without it
            jpeg = None
        return Picture(item.key, tuple(item.labels), jpeg)

    examples = []
    for kind, query in chosen:
        scores_N = next(iter(ranker.scores(slice(query, query + 1))))[0]
        right = set(relevance.positions(query).tolist())
        results = tuple(
            Result(picture(database_items[item]), float(scores_N[item]), item in right)
            for item in np.argsort(-scores_N, kind="stable")[:RESULTS].tolist()
        )
        shown = picture(query_items[query])
        examples.append(Example(kind, shown, float(ap_Q[query]), results))
    return tuple(examples)
