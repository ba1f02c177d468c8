"""FAISS's unsupervised quantizers on the same embeddings, at the same number of bytes an item.

Quantizers that reconstruct an item as a sum of M codewords: product quantization (PQ; Jégou et al.,
TPAMI 2011), the same after a learned rotation (OPQ; Ge et al., TPAMI 2014), residual quantization
(RQ; Chen et al., Sensors 2010, with FAISS's beam search) and local search quantization (LSQ;
Martinez et al., ECCV 2018), with FAISS's own settings. A product quantizer's codewords are zero
outside their part of the vector, and a rotation is undone in the codewords, so each becomes a
`Codebooks` and its codes are ranked as ours are: asymmetrically, by inner product, with cosine and
Euclidean distance, PQ's own, beside it.

Binary codes, iterative quantization (ITQ) and RaBitQ, are in `binary_baselines`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import ConfigError, InputError
from spherequant.evaluation.binary_baselines import (
    FACTOR_BITS,
    rabitq_ranker,
    sign_ranker,
)
from spherequant.evaluation.rankings import CHUNK_ITEMS, CodeRanker, rank_queries
from spherequant.quantizer import Codebooks
from spherequant.system import require_faiss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spherequant.evaluation.rankings import Ranked, Ranker, Relevance

CODEBOOK_BASELINES = ("pq", "opq", "rq", "lsq")
BASELINES = (*CODEBOOK_BASELINES, "itq", "itq_asymmetric", "rabitq")
DEFAULT_BASELINES = ("pq", "rq")  # OPQ and LSQ take longest to learn
N_CODEWORDS = 256
MOST_TRAINING = 1 << 18  # vectors that FAISS learns from; its residual quantizers hold all at once
PURPOSE = "Comparing with baselines"  # what FAISS is needed for


def rankings_of(name: str) -> dict[str, str]:
    """The rankings that `rank_baselines` makes of a baseline's codes, by score.

    Args:
        name: one of `BASELINES`.
    """
    if name not in CODEBOOK_BASELINES:
        return {"own": name}
    others = {score: f"{name}_{score}" for score in ("cosine", "euclidean")}
    return {"inner_product": name, **others}


def check_baseline(name: str, bits: int, dim: int, training_count: int) -> None:
    """Refuse a baseline that cannot be learned at this length from these embeddings.

    Args:
        name: one of `BASELINES`.
        bits: code length.
        dim: D of the embeddings.
        training_count: embeddings to learn from.

    Raises:
        ConfigError: another name, bits that are no multiple of 8, more bits than dimensions for
            ITQ, too few bits for RaBitQ, or a FAISS without it.
        InputError: too few training vectors.
        MissingDependencyError: faiss is not installed.
    """
    faiss = require_faiss(PURPOSE)
    if name not in BASELINES or bits % 8 or bits < 8:
        raise ConfigError(
            f"baseline {name!r} of {bits} bits: names are {', '.join(BASELINES)}, bits a multiple "
            "of 8"
        )
    if name in CODEBOOK_BASELINES:
        least, what = N_CODEWORDS, f"{N_CODEWORDS} codewords a codebook"
    elif name == "rabitq":
        if bits <= FACTOR_BITS:
            raise ConfigError(
                f"RaBitQ stores two floats, {FACTOR_BITS} bits, beside the signs of an item: codes "
                f"of {bits} bits have no room for signs, those of {FACTOR_BITS + 8} or more have"
            )
        if not hasattr(faiss, "IndexRaBitQ"):
            raise ConfigError(
                f"FAISS {faiss.__version__} has no RaBitQ: upgrade with pip install -U faiss-cpu"
            )
        least = min(dim, bits - FACTOR_BITS)
        what = f"{least} principal components"
    else:
        if bits > dim:
            raise ConfigError(
                f"ITQ makes one bit of each principal component: embeddings of {dim} dimensions "
                f"give at most {dim} bits, not {bits}"
            )
        least, what = bits, f"{bits} principal components"
    if training_count < least:
        raise InputError(
            f"{training_count} training vectors: FAISS needs at least {least} of them to learn "
            f"{what}"
        )


def learn_baseline(
    name: str,
    training_ND: NDArray[np.float32],
    database_ND: NDArray[np.float32],
    bits: int,
    *,
    seed: int = 0,
) -> tuple[Codebooks, NDArray[np.uint8]]:
    """Learn one of FAISS's quantizers and encode a database with it.

    Args:
        name: one of `CODEBOOK_BASELINES`.
        training_ND: float32 [T, D], at least 256 rows; of more than 2^18, so many are drawn.
        database_ND: float32 [N, D].
        bits: a multiple of 8: M codebooks of 256 codewords.
        seed: of the clustering. Equal seeds give equal codes on one machine with one thread count.

    Returns:
        The codebooks, and codes uint8 [N, M]. Where M does not divide D, ``pq`` and ``opq`` work on
        vectors padded with zeros to the next multiple.

    Raises:
        ConfigError: another name, or bits that are no multiple of 8.
        InputError: fewer than 256 training rows.
        MissingDependencyError: faiss is not installed.
    """
    faiss = require_faiss(PURPOSE)
    dim = training_ND.shape[1]
    check_baseline(name, bits, dim, len(training_ND))
    if name not in CODEBOOK_BASELINES:
        raise ConfigError(f"{name!r} has no codebooks; {', '.join(CODEBOOK_BASELINES)} have")
    n_codebooks = bits // 8
    in_parts = name in {"pq", "opq"}
    padding = -dim % n_codebooks if in_parts else 0
    training_ND = _padded(_drawn(training_ND, seed), padding)
    rotation = _learn_rotation(faiss, training_ND, n_codebooks, seed) if name == "opq" else None
    quantizer = _new_quantizer(faiss, name, training_ND.shape[1], n_codebooks, seed)
    quantizer.train(training_ND if rotation is None else rotation.apply(training_ND))
    codes_NM = np.empty((len(database_ND), n_codebooks), dtype=np.uint8)
    for start in range(0, len(database_ND), CHUNK_ITEMS):
        rows = slice(start, start + CHUNK_ITEMS)
        chunk_ND = _padded(np.asarray(database_ND[rows]), padding)
        # 8-bit codes pack as the M bytes in order
        codes_NM[rows] = quantizer.compute_codes(
            chunk_ND if rotation is None else rotation.apply(chunk_ND)
        )
    array_MKD = _codewords(faiss, name, quantizer, n_codebooks)
    if rotation is not None:
        # an item is coded as y = R x, so a codeword c of y is R^T c in the space of x
        matrix_DD = faiss.vector_to_array(rotation.A).reshape(quantizer.d, quantizer.d)
        array_MKD = array_MKD @ matrix_DD
    return Codebooks(np.ascontiguousarray(array_MKD[:, :, :dim])), codes_NM


def rank_baselines(  # noqa: PLR0913 - options after the data are by name only
    training_ND: NDArray[np.float32],
    database_ND: NDArray[np.float32],
    queries_QD: NDArray[np.float32],
    relevance: Relevance,
    bits: int,
    *,
    names: Sequence[str] = DEFAULT_BASELINES,
    at: int | None = None,
    ranks: NDArray[np.int64] | None = None,
    seed: int = 0,
    threads: int | None = None,
    tick: Callable[[str, int, int], None] | None = None,
) -> dict[str, Ranked]:
    """Measure FAISS's quantizers on any model's embeddings.

    The embeddings need not come from the model under evaluation: pass those of a network trained
    with softmax alone to compare whole methods. `Ranked.ap` holds each query's average precision,
    for `paired_bootstrap`.

    Args:
        training_ND: float32 [T, D], what the quantizers learn from.
        database_ND: float32 [N, D], unit rows.
        queries_QD: float32 [Q, D], unit rows.
        relevance: of these queries and this database.
        bits: code length.
        names: which of `BASELINES`.
        at: R of the average precision; None means all.
        ranks: int64 [P], where expected hits are kept; None keeps none.
        seed: of the clustering.
        threads: for ranking; None takes the processors this process may use.
        tick: called with the baseline's name, queries done and queries in all.

    Returns:
        The measured ranking of each name. Of those with codebooks it is by inner product, and
        ``NAME_cosine`` and ``NAME_euclidean`` stand beside it (`rankings_of`).

    Raises:
        ConfigError: an unknown name, or a length that the baseline cannot have (`check_baseline`).
        InputError: too few training rows.
        MissingDependencyError: faiss is not installed.
    """
    kept_ranks = np.zeros(0, dtype=np.int64) if ranks is None else ranks
    measured = {}
    for name in names:
        check_baseline(name, bits, training_ND.shape[1], len(training_ND))
        ranker = _learn_ranker(name, training_ND, database_ND, queries_QD, bits, seed)

        def tick_named(done: int, total: int, name: str = name) -> None:
            if tick is not None:
                tick(name, done, total)

        found = rank_queries(
            ranker, relevance, at=at, ranks=kept_ranks, threads=threads, tick=tick_named
        )
        names_by_score = rankings_of(name)
        for score, ranked in found.items():  # "codes" is the score of the method's own name
            measured[names_by_score.get(score, name)] = ranked
    return measured


def _drawn(training_ND: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    if len(training_ND) <= MOST_TRAINING:
        return training_ND
    rows = np.random.default_rng(seed).choice(len(training_ND), MOST_TRAINING, replace=False)
    return training_ND[np.sort(rows)]


def _padded(rows_ND: NDArray[np.float32], extra: int) -> NDArray[np.float32]:
    """Rows with so many zeros behind; the same array where there is none to add."""
    return np.pad(rows_ND, ((0, 0), (0, extra))) if extra else rows_ND


def _learn_ranker(
    name: str,
    training_ND: NDArray[np.float32],
    database_ND: NDArray[np.float32],
    queries_QD: NDArray[np.float32],
    bits: int,
    seed: int,
) -> Ranker:
    """Learn a baseline, encode the database, and rank it as the method does."""
    if name in CODEBOOK_BASELINES:
        codebooks, codes_NM = learn_baseline(name, training_ND, database_ND, bits, seed=seed)
        return CodeRanker(codebooks, codes_NM, queries_QD)
    faiss = require_faiss(PURPOSE)
    if name == "rabitq":
        return rabitq_ranker(faiss, training_ND, database_ND, queries_QD, bits, seed)
    asymmetric = name == "itq_asymmetric"
    return sign_ranker(
        faiss, training_ND, database_ND, queries_QD, bits, seed, asymmetric=asymmetric
    )


def _learn_rotation(
    faiss: Any, training_ND: NDArray[np.float32], n_codebooks: int, seed: int
) -> Any:
    """The rotation of OPQ, a ``faiss.OPQMatrix``: orthogonal, D of training_ND to D dimensions."""
    dim = training_ND.shape[1]
    rotation = faiss.OPQMatrix(dim, n_codebooks)
    start = faiss.RandomRotationMatrix(dim, dim)
    start.init(seed)
    rotation.A = start.A  # where it starts from; FAISS's own start has a fixed seed
    quantizer = _new_quantizer(faiss, "pq", dim, n_codebooks, seed)
    rotation.pq = quantizer
    rotation.train(training_ND)
    rotation.pq = None  # FAISS does not own it
    return rotation


def _new_quantizer(faiss: Any, name: str, dim: int, n_codebooks: int, seed: int) -> Any:
    if name == "lsq":
        local_search = faiss.LocalSearchQuantizer(dim, n_codebooks, 8)
        local_search.random_seed = seed
        return local_search
    kind = faiss.ResidualQuantizer if name == "rq" else faiss.ProductQuantizer
    quantizer = kind(dim, n_codebooks, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1  # FAISS prints its hint about few points to stderr
    return quantizer


def _codewords(faiss: Any, name: str, quantizer: Any, n_codebooks: int) -> NDArray[np.float32]:
    """Codewords as whole vectors; float32 [M, 256, D]."""
    dim = quantizer.d
    if name in {"rq", "lsq"}:
        codewords = faiss.vector_to_array(quantizer.codebooks)
        return np.asarray(codewords, dtype=np.float32).reshape(n_codebooks, N_CODEWORDS, dim)
    part = dim // n_codebooks
    centroids_MKP = faiss.vector_to_array(quantizer.centroids).reshape(n_codebooks, -1, part)
    array_MKD = np.zeros((n_codebooks, N_CODEWORDS, dim), dtype=np.float32)
    for m in range(n_codebooks):
        array_MKD[m, :, m * part : (m + 1) * part] = centroids_MKP[m]
    return array_MKD
