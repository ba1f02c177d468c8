"""Many searches of one snapshot at once: one look-up of keys, few scans, one fetch."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import InputError, UnknownKeyError
from spherequant.service.problems import not_found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spherequant.index import Searcher
    from spherequant.service.metrics import Metrics

    Vectors = dict[int, NDArray[np.float32]]
    Found = dict[int, tuple[list[int], list[float]]]

# Searches of like depth share a scan: a deep one must not make its neighbours deep.
_DEPTHS = (32, 256, 2_048)


@dataclass(frozen=True, slots=True)
class Query:
    """One search.

    Attributes:
        vector: unit vector float32 [D] to ask with, or None with a key.
        key: key of the item to ask with, which is left out of its own results.
        k: results wanted.
        offset: better results that are passed over.
        where: filter expression.
        min_score: results that score less are left out.
        rerank: order so many best codes by their kept vectors.
    """

    vector: NDArray[np.float32] | None
    key: str | None
    k: int
    offset: int = 0
    where: str | None = None
    min_score: float | None = None
    rerank: int | None = None

    @property
    def depth(self) -> int:
        """Results to be found, those passed over included."""
        return self.offset + self.k

    @property
    def shared(self) -> tuple[Any, ...]:
        """Searches that agree in this share one scan."""
        return self.where, self.rerank, sum(self.depth > depth for depth in _DEPTHS)


@dataclass(frozen=True, slots=True)
class Page:
    """Results of one search under the keys of ``schemas.Hit``, and how many items were searched."""

    results: list[dict[str, Any]]
    total: int


def search_together(
    searcher: Searcher, queries: Sequence[Query], metrics: Metrics
) -> list[Page | BaseException]:
    """Search one snapshot for all of these.

    Returns:
        For each query its page, or what its caller gets instead: one that fails fails alone, or
        with those that share its filter.
    """
    failures: dict[int, BaseException] = {}
    found: Found = {}
    with metrics.timed("look up keys"):
        vectors, own = _ask_with(searcher, queries, failures)
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number in vectors:
        query = queries[number]
        if query.rerank is not None and query.rerank < query.depth:
            # Those that share its scan may want fewer results.
            failures[number] = InputError(
                f"rerank={query.rerank} must be at least offset + k={query.depth}."
            )
        else:
            groups[query.shared].append(number)
    with metrics.timed("scan"):
        for numbers in groups.values():
            try:
                found.update(_scan(searcher, queries, numbers, vectors, own))
            except Exception as error:  # of this group alone: a filter that cannot be used
                failures.update(dict.fromkeys(numbers, error))
    with metrics.timed("fetch"):
        pages = _fetch(searcher, queries, found)
    return [failures[n] if n in failures else pages[n] for n in range(len(queries))]


def _ask_with(
    searcher: Searcher, queries: Sequence[Query], failures: dict[int, BaseException]
) -> tuple[Vectors, dict[int, int]]:
    """For each query its vector, and for those by key the id to leave out.

    A key that no item has is a failure of its query.
    """
    vectors = {n: query.vector for n, query in enumerate(queries) if query.vector is not None}
    asked = {n: query.key for n, query in enumerate(queries) if query.key is not None}
    own: dict[int, int] = {}
    if not asked:
        return vectors, own
    rows, ids, known = _stored_vectors(searcher, list(dict.fromkeys(asked.values())))
    for number, key in asked.items():
        place = known.get(key)
        if place is None:
            failures[number] = not_found(key)
        else:
            vectors[number] = rows[place]
            own[number] = int(ids[place])
    return vectors, own


def _stored_vectors(
    searcher: Searcher, keys: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, int]]:
    """Vectors and ids to ask with, and for each key that is stored its row in them."""
    try:
        rows, ids = searcher.query_vectors(keys)
    except UnknownKeyError as error:
        keys = [key for key in keys if key not in set(error.keys)]
        if not keys:
            return np.empty((0, 0), np.float32), np.empty(0, np.int64), {}
        rows, ids = searcher.query_vectors(keys)
    return rows, ids, {key: place for place, key in enumerate(keys)}


def _scan(
    searcher: Searcher,
    queries: Sequence[Query],
    numbers: Sequence[int],
    vectors: Mapping[int, NDArray[np.float32]],
    own: Mapping[int, int],
) -> Found:
    """One scan for searches that share it: for each, ids and scores of its page."""
    some = [queries[number] for number in numbers]
    floors = [query.min_score for query in some if query.min_score is not None]
    result = searcher.search(
        np.stack([vectors[number] for number in numbers]),
        max(query.depth for query in some),
        where=some[0].where,
        rerank=some[0].rerank,
        # The lowest of all; what scores less than a search's own is cut from its page below.
        min_score=min(floors) if len(floors) == len(some) else None,
        exclude=np.array([own.get(number, -1) for number in numbers], np.int64),
    )
    found: Found = {}
    for row, (number, query) in enumerate(zip(numbers, some, strict=True)):
        page = slice(query.offset, query.depth)
        ids, scores = result.ids[row, page], result.scores[row, page]
        kept = ids >= 0
        if query.min_score is not None:
            kept &= scores >= np.float32(query.min_score)
        found[number] = ids[kept].tolist(), scores[kept].tolist()
    return found


def _fetch(searcher: Searcher, queries: Sequence[Query], found: Found) -> dict[int, Page]:
    """Keys, labels and metadata of all that was found, read at once."""
    names = list(searcher.header.metadata)
    wanted = list({i for ids, _ in found.values() for i in ids})
    rows = searcher.rows(wanted, ["key", "labels", *names]) if wanted else {}
    total = len(searcher)
    return {
        number: Page(
            [
                {
                    "rank": rank,
                    "key": rows[i]["key"],
                    "score": score,
                    "labels": rows[i]["labels"] or [],
                    "metadata": {name: as_json(rows[i][name]) for name in names},
                }
                for rank, (i, score) in enumerate(
                    zip(ids, scores, strict=True), start=queries[number].offset + 1
                )
            ],
            total,
        )
        for number, (ids, scores) in found.items()
    }


def as_json(value: Any) -> Any:
    """A stored value as JSON can say it: NaN and infinities are null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
