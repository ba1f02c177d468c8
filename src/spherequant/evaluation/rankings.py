"""Ranking a database for many queries, and measuring every ranking in one pass.

Queries are taken in blocks: a block's scores [B, N] are made, reduced to figures query by query,
and dropped, so memory is bounded however many queries there are. What is kept for a query is its
average precision and its expected hits at a few ranks.

The rankings: codes by inner product (the score of the index), by cosine and by Euclidean distance;
codes of signs by Hamming distance; and the controls of docs/protocols.md: float embeddings,
class-id, class centre and expected centre. Where embeddings are not of length one, an inner product
prefers long ones, and Euclidean distance takes its place.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import sparse

from spherequant import _native
from spherequant.errors import LabelError
from spherequant.evaluation.metrics import expected_hits, find_ties, tie_averaged_precision
from spherequant.quantizer import inner_products, normalise_rows
from spherequant.quantizer.signs import sign_codebooks
from spherequant.quantizer.vectors import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from spherequant.quantizer import Codebooks

BLOCK_BYTES = 32 << 20  # scores of one block of queries, a thread and a ranking
CHUNK_ITEMS = 1 << 16  # database items scored at a time: their codes stay in cache


class Ranker(Protocol):
    """Scores a block of queries against the whole database, in one or several ways."""

    @property
    def names(self) -> tuple[str, ...]:
        """The rankings it makes, in the order in which `scores` yields them."""

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N] for each name, higher is better; the caller may not keep them."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One way of ranking, measured for every query.

    Attributes:
        ap: float64 [Q], AP@R with the denominator ``found``.
        ap_recall_aware: float64 [Q], AP@R with the denominator ``recall-aware``.
        hits: float64 [Q, P], expected relevant items among the first n, for each rank asked.
        tied: bool [Q], whether any two items share a score.
    """

    ap: NDArray[np.float64]
    ap_recall_aware: NDArray[np.float64]
    hits: NDArray[np.float64]
    tied: NDArray[np.bool_]


class Relevance:
    """Which database items are relevant to a query: those that share at least one label.

    Args:
        query_labels: labels of each query; an item without labels is relevant to nothing.
        database_labels: labels of each database item.
    """

    def __init__(
        self, query_labels: Sequence[Sequence[str]], database_labels: Sequence[Sequence[str]]
    ) -> None:
        positions: dict[str, list[int]] = {}
        for position, labels in enumerate(database_labels):
            for label in set(labels):
                positions.setdefault(label, []).append(position)
        self._positions = {label: np.array(at, dtype=np.int64) for label, at in positions.items()}
        self._query_labels = [tuple(sorted(set(labels))) for labels in query_labels]
        self.database_count = len(database_labels)

    def __len__(self) -> int:
        return len(self._query_labels)

    def positions(self, query: int) -> NDArray[np.int64]:
        """Positions of the relevant database items, increasing; int64."""
        lists = [
            self._positions[label]
            for label in self._query_labels[query]
            if label in self._positions
        ]
        if not lists:
            return np.zeros(0, dtype=np.int64)
        return lists[0] if len(lists) == 1 else np.unique(np.concatenate(lists))

    def counts(self) -> NDArray[np.int64]:
        """Relevant items of each query; int64 [Q]."""
        by_labels = dict.fromkeys(self._query_labels, 0)
        for query, labels in enumerate(self._query_labels):
            by_labels[labels] = by_labels[labels] or len(self.positions(query))
        return np.array([by_labels[labels] for labels in self._query_labels], dtype=np.int64)


class CodeRanker:
    """Codes against float queries: the score of the index, and two others of the same codes.

    ``codes``: the inner product, as float32 sum over m = 0..M-1 of table entries (the definition
    that search uses). ``cosine``: that divided by the norm of the reconstruction. ``euclidean``:
    minus the squared distance, less the query's constant. With ``normalised=False`` the first is by
    Euclidean distance, and what was first comes last, as ``inner_product``.

    Attributes:
        codes_NM: as given.
        norms_N: float32 [N], norm of each item's reconstruction.

    Args:
        codebooks: M codebooks.
        codes_NM: uint8 [N, M] of the database.
        queries_QD: float32 [Q, D], unit rows where they are normalised.
        every_measure: make all three rankings, or ``codes`` only.
        normalised: embeddings have length one.
    """

    def __init__(
        self,
        codebooks: Codebooks,
        codes_NM: NDArray[np.uint8],
        queries_QD: NDArray[np.float32],
        *,
        every_measure: bool = True,
        normalised: bool = True,
    ) -> None:
        self._normalised = normalised
        self._codebooks = codebooks
        self.codes_NM = np.ascontiguousarray(codes_NM)
        self._queries_QD = queries_QD
        last = "euclidean" if normalised else "inner_product"
        self.names: tuple[str, ...] = ("codes", "cosine", last)
        if not every_measure:
            self.names = self.names[:1]
        self.norms_N = reconstruction_norms(codebooks, codes_NM)

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N] for each of ``names``."""
        tables_QMK = self._codebooks.lookup_table(self._queries_QD[queries], threads=1)
        products_QN = _native.sum_tables(tables_QMK, self.codes_NM)
        norms_N = self.norms_N
        yield products_QN if self._normalised else 2 * products_QN - norms_N * norms_N
        if len(self.names) == 1:
            return
        # A reconstruction at the origin has no direction: it scores 0, as one at a right angle.
        lengths_N: NDArray[np.float32] = np.where(norms_N > 0, norms_N, np.float32(1))
        yield products_QN / lengths_N
        yield 2 * products_QN - norms_N * norms_N if self._normalised else products_QN


class HammingRanker:
    """Codes of signs against codes of signs: the query, too, is no more than its code.

    ``hamming``: the number of bits less twice those that differ.

    Args:
        codes_NM: uint8 [N, M] of the database, as `sign_codebooks` reads them.
        query_codes_QM: uint8 [Q, M].
    """

    names: tuple[str, ...] = ("hamming",)

    def __init__(self, codes_NM: NDArray[np.uint8], query_codes_QM: NDArray[np.uint8]) -> None:
        codebooks = sign_codebooks(8 * codes_NM.shape[1])
        signs_QD = codebooks.decode(query_codes_QM)
        self._ranker = CodeRanker(codebooks, codes_NM, signs_QD, every_measure=False)

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N]."""
        return self._ranker.scores(queries)


class FloatRanker:
    """Float embeddings of the database against float queries, by inner product.

    Args:
        database_ND: float32 [N, D], unit rows where they are normalised; may be a memory map.
        queries_QD: float32 [Q, D], likewise.
        normalised: embeddings have length one; otherwise by Euclidean distance.
        name: of the ranking.
    """

    def __init__(
        self,
        database_ND: NDArray[np.float32],
        queries_QD: NDArray[np.float32],
        *,
        normalised: bool = True,
        name: str = "float",
    ) -> None:
        self.names: tuple[str, ...] = (name,)
        self._database_ND = database_ND
        self._queries_QD = queries_QD
        self._normalised = normalised

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N]."""
        block_BD = self._queries_QD[queries]
        scores_BN = np.empty((len(block_BD), len(self._database_ND)), dtype=np.float32)
        for start in range(0, len(self._database_ND), CHUNK_ITEMS):
            chunk_ND = np.asarray(self._database_ND[start : start + CHUNK_ITEMS])
            products = inner_products(block_BD, chunk_ND, threads=1)
            if not self._normalised:
                products = 2 * products - np.square(chunk_ND).sum(axis=1)
            scores_BN[:, start : start + len(chunk_ND)] = products
        yield scores_BN


@dataclass(frozen=True, slots=True)
class PredictedSets:
    """Predicted labels of many items, each distinct set of labels kept once.

    Attributes:
        sets: float32 [G, C], sparse: ones where a label is in one of the G distinct sets.
        of_item: int64 [N], the set of each item.
    """

    sets: sparse.csr_array
    of_item: NDArray[np.int64]

    @classmethod
    def gather(cls, blocks: Iterable[NDArray[np.bool_]], class_count: int) -> PredictedSets:
        """Collect predictions that come in blocks bool [B, C], of all items in order."""
        number_of: dict[bytes, int] = {}
        sets: list[NDArray[np.int64]] = []  # the labels of each
        of_item = [np.zeros(0, dtype=np.int64)]
        for block_BC in blocks:
            _, firsts, inverse = np.unique(
                np.packbits(block_BC, axis=1), axis=0, return_index=True, return_inverse=True
            )
            numbers = np.empty(len(firsts), dtype=np.int64)
            for local, row in enumerate(block_BC[firsts]):
                labels = np.flatnonzero(row)
                numbers[local] = number_of.setdefault(labels.tobytes(), len(number_of))
                if numbers[local] == len(sets):
                    sets.append(labels)
            of_item.append(numbers[inverse.reshape(-1)])
        columns = np.concatenate([np.zeros(0, dtype=np.int64), *sets])
        ends = np.cumsum([0, *map(len, sets)])
        ones = np.ones(len(columns), dtype=np.float32)
        sets_GC = sparse.csr_array((ones, columns, ends), shape=(len(sets), class_count))
        return cls(sets_GC, np.concatenate(of_item))


class ClassRanker:
    """The classifier's answer as the whole code of an item: the class-id and class-centre controls.

    ``class_id``: predicted labels of the query against predicted labels of the item, scored by the
    number they share (for one label each: 1 when equal, else 0). ``class_centre``: inner product of
    the float query and the normalised mean of the centres of the item's predicted labels; where
    embeddings have lengths of their own, Euclidean distance from the mean itself.

    Args:
        predicted_queries: predicted labels of the queries.
        predicted_database: predicted labels of the database.
        class_centres_CD: float32 [C, D], unit rows where embeddings are.
        queries_QD: float32 [Q, D], likewise.
        normalised: embeddings have length one.
    """

    names: tuple[str, ...] = ("class_id", "class_centre")

    def __init__(
        self,
        predicted_queries: PredictedSets,
        predicted_database: PredictedSets,
        class_centres_CD: NDArray[np.float32],
        queries_QD: NDArray[np.float32],
        *,
        normalised: bool = True,
    ) -> None:
        # Items with the same predicted labels score alike: G distinct sets are scored, then spread.
        self._sets_GC = predicted_database.sets
        self._set_of_item_N = predicted_database.of_item
        centres_GD = self._sets_GC @ class_centres_CD.astype(np.float64)
        # Centres that cancel have no mean direction: the first label's then stands alone.
        cancelled_G = np.flatnonzero(~centres_GD.any(axis=1))
        firsts_G = self._sets_GC.indices[self._sets_GC.indptr[cancelled_G]]
        centres_GD[cancelled_G] = class_centres_CD[firsts_G]
        if normalised:
            self._centres_GD = normalise_rows(centres_GD)
        else:
            centres_GD /= self._sets_GC.sum(axis=1)[:, None]
            self._centres_GD = np.ascontiguousarray(centres_GD, dtype=np.float32)
        self._normalised = normalised
        self._predicted_queries = predicted_queries
        self._queries_QD = queries_QD

    def scores(self, queries: slice) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [B, N], class-id then class centre."""
        sets_BC = self._predicted_queries.sets[self._predicted_queries.of_item[queries]]
        yield (sets_BC @ self._sets_GC.T).toarray()[:, self._set_of_item_N]
        near_BG = inner_products(self._queries_QD[queries], self._centres_GD, threads=1)
        if not self._normalised:
            near_BG = 2 * near_BG - np.square(self._centres_GD).sum(axis=1)
        yield near_BG[:, self._set_of_item_N]


def distinct_rows(
    codes_NM: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The distinct codes, uint8 [U, M], and the one that each item has, int64 [N]."""
    packed_N8 = np.zeros((len(codes_NM), -(-codes_NM.shape[1] // 8) * 8), dtype=np.uint8)
    packed_N8[:, : codes_NM.shape[1]] = codes_NM
    words = packed_N8.view(np.uint64)
    # Codes of up to 64 bits compare as one integer, an order of magnitude faster than as rows.
    keys = words[:, 0] if words.shape[1] == 1 else words
    _, firsts, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return codes_NM[firsts], inverse.reshape(-1)


def reconstruction_norms(codebooks: Codebooks, codes_NM: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Norm of each item's reconstruction; float32 [N]. Equal codes have equal norms."""
    distinct_UM, code_of_item_N = distinct_rows(codes_NM)
    norms_U = np.empty(len(distinct_UM), dtype=np.float32)
    for start in range(0, len(distinct_UM), CHUNK_ITEMS):
        decoded = codebooks.decode(distinct_UM[start : start + CHUNK_ITEMS]).astype(np.float64)
        norms_U[start : start + len(decoded)] = np.linalg.norm(decoded, axis=1)
    return norms_U[code_of_item_N]


def rank_queries(
    ranker: Ranker,
    relevance: Relevance,
    *,
    at: int | None,
    ranks: NDArray[np.int64],
    threads: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Mapping[str, Ranked]:
    """Measure each ranking of ``ranker`` for every query, in blocks of queries.

    Args:
        ranker: makes the scores.
        relevance: of the same queries and database.
        at: R of the average precision; None means all.
        ranks: int64 [P], where expected hits are kept.
        threads: that work on blocks; None takes the processors this process may use. Figures do
            not depend on it.
        tick: called with queries done and queries in all.

    Raises:
        LabelError: there is no query, or no database item.
    """
    query_count = len(relevance)
    if query_count == 0 or relevance.database_count == 0:
        raise LabelError(
            f"{query_count} queries against {relevance.database_count} database images: "
            "there is nothing to rank. More labelled images, or another protocol, are needed"
        )
    results = {name: _empty_ranked(query_count, len(ranks)) for name in ranker.names}
    workers = thread_count(threads)
    rows = max(1, min(64, BLOCK_BYTES // (4 * relevance.database_count)))

    def measure(block: slice) -> int:
        relevant = [relevance.positions(query) for query in range(block.start, block.stop)]
        for name, scores_BN in zip(ranker.names, ranker.scores(block), strict=True):
            for row, query in enumerate(range(block.start, block.stop)):
                _measure_query(results[name], query, scores_BN[row], relevant[row], at, ranks)
        return int(block.stop)

    blocks = [slice(start, min(start + rows, query_count)) for start in range(0, query_count, rows)]
    with ThreadPoolExecutor(workers) as pool:
        for done in pool.map(measure, blocks):
            if tick is not None:
                tick(done, query_count)
    return results


def _empty_ranked(query_count: int, rank_count: int) -> Ranked:
    return Ranked(
        ap=np.zeros(query_count),
        ap_recall_aware=np.zeros(query_count),
        hits=np.zeros((query_count, rank_count)),
        tied=np.zeros(query_count, dtype=bool),
    )


def _measure_query(
    ranked: Ranked,
    query: int,
    scores_N: NDArray[np.float32],
    relevant: NDArray[np.int64],
    at: int | None,
    ranks: NDArray[np.int64],
) -> None:
    ties = find_ties(scores_N, relevant)
    ranked.ap[query], ranked.ap_recall_aware[query] = tie_averaged_precision(ties, at)
    ranked.hits[query] = expected_hits(ties, ranks)
    ranked.tied[query] = ties.any_tied
