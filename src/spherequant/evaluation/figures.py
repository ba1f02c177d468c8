"""The figures of one set of queries, reduced from what was measured query by query."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.evaluation.baselines import CODEBOOK_BASELINES, rankings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spherequant.evaluation.rankings import Ranked

PRECISION_RANKS = (1, 5, 10, 50, 100, 500, 1_000, 5_000)


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over a set of queries; mAP is tie-averaged, denominator ``found`` unless said.

    Attributes:
        query_count: queries in the set.
        map: of the codes by inner product, the score of the index; by Euclidean distance where
            embeddings are not normalised.
        map_recall_aware: the same with the denominator ``recall-aware``.
        map_standard_error: standard error of ``map`` over queries; None for one query.
        cosine_map: of the same codes by cosine.
        euclidean_map: of the same codes by Euclidean distance.
        inner_product_map: of the same codes by inner product.
        hamming_map: of the same codes by Hamming distance, the query being no more than its code;
            None unless codes are signs.
        float_map: of the float embeddings by inner product; by Euclidean distance where a model
            does not normalise them.
        class_id_map: of predicted labels against predicted labels; None without a classifier.
        class_centre_map: of float queries against the centre of an item's predicted labels; None
            without a classifier.
        expected_centre_map: of float queries against the centre expected under an item's predicted
            probabilities, not compressed; None without a classifier.
        accuracy: share of queries whose best predicted label is right; None without a classifier,
            and for queries of classes that were not trained.
        precision_at: expected share of relevant items among the first N results by codes.
        ties: share of queries whose ranking by codes has a tie.
        baselines: mAP of FAISS's quantizers on the same embeddings, by name; None where one could
            not be learned. Of those with codebooks it is by inner product, as `map` is.
        baselines_by_score: mAP of those with codebooks by ``inner_product``, ``cosine`` and
            ``euclidean``, by name.
    """

    query_count: int
    map: float
    map_recall_aware: float
    map_standard_error: float | None
    cosine_map: float
    euclidean_map: float
    inner_product_map: float
    hamming_map: float | None
    float_map: float
    class_id_map: float | None
    class_centre_map: float | None
    expected_centre_map: float | None
    accuracy: float | None
    precision_at: Mapping[int, float]
    ties: float
    baselines: Mapping[str, float | None]
    baselines_by_score: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """The figures under their JSON keys."""
        precisions = {str(n): value for n, value in self.precision_at.items()}
        return {**asdict(self), "precision_at": precisions}


def mean_figures(
    rankings: Mapping[str, Ranked],
    ranks: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    *,
    right: NDArray[np.bool_] | None,
    baselines: Sequence[str] = (),
) -> Figures:
    """Average over the chosen queries.

    Args:
        rankings: what was measured, by name: ``codes``, ``cosine``, ``euclidean`` or
            ``inner_product`` (the one that ``codes`` is not), ``float``, ``hamming`` where codes
            are signs, ``class_id``, ``class_centre`` and ``expected_centre`` where there is a
            classifier, and those of any baselines (`rankings_of`).
        ranks: int64 [P], the ranks of their hits.
        chosen: bool [Q], at least one of them true.
        right: bool [Q], whether the best predicted label is right; None leaves accuracy out.
        baselines: names of the baselines asked for.
    """
    codes = rankings["codes"]
    ap = codes.ap[chosen]

    def mean_ap(name: str) -> float | None:
        return float(rankings[name].ap[chosen].mean()) if name in rankings else None

    precision_at = {
        int(n): float(codes.hits[chosen, column].mean() / n)
        for column, n in enumerate(ranks)
        if n in PRECISION_RANKS
    }
    return Figures(
        query_count=len(ap),
        map=float(ap.mean()),
        map_recall_aware=float(codes.ap_recall_aware[chosen].mean()),
        map_standard_error=float(ap.std(ddof=1) / np.sqrt(len(ap))) if len(ap) > 1 else None,
        cosine_map=float(rankings["cosine"].ap[chosen].mean()),
        euclidean_map=float(rankings.get("euclidean", codes).ap[chosen].mean()),
        inner_product_map=float(rankings.get("inner_product", codes).ap[chosen].mean()),
        hamming_map=mean_ap("hamming"),
        float_map=float(rankings["float"].ap[chosen].mean()),
        class_id_map=mean_ap("class_id"),
        class_centre_map=mean_ap("class_centre"),
        expected_centre_map=mean_ap("expected_centre"),
        accuracy=None if right is None else float(right[chosen].mean()),
        precision_at=precision_at,
        ties=float(codes.tied[chosen].mean()),
        baselines={name: mean_ap(name) for name in baselines},
        baselines_by_score={
            name: {
                score: float(rankings[ranking].ap[chosen].mean())
                for score, ranking in rankings_of(name).items()
                if ranking in rankings
            }
            for name in baselines
            if name in rankings and name in CODEBOOK_BASELINES
        },
    )


@dataclass(frozen=True, slots=True)
class QueryFigures:
    """What was measured query by query, for comparisons between runs.

    Attributes:
        keys: of the Q queries.
        labels: of each query.
        headline: bool [Q], queries that the headline speaks of.
        relevant_counts: int64 [Q], relevant database items.
        ranks: int64 [P], the ranks of the expected hits.
        rankings: by name, as in `mean_figures`; `Ranked.ap` holds the average precisions.
    """

    keys: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    headline: NDArray[np.bool_]
    relevant_counts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    rankings: Mapping[str, Ranked]

    def by_class(self) -> list[ClassFigures]:
        """Mean average precision by codes over the queries of each label, by label."""
        queries_of: dict[str, list[int]] = {}
        for query, labels in enumerate(self.labels):
            for label in labels:
                queries_of.setdefault(label, []).append(query)
        ap = self.rankings["codes"].ap
        return [
            ClassFigures(label, len(at), float(ap[at].mean()), bool(self.headline[at].any()))
            for label, at in sorted(queries_of.items())
        ]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One label: its queries, their mAP by codes, and whether the headline speaks of any."""

    label: str
    query_count: int
    map: float
    headline: bool
