"""FAISS's unsupervised quantizers on the same embeddings, at the same number of bits.

Product quantization (PQ; Jégou et al., TPAMI 2011), residual quantization (RQ; Chen et al., Sensors
2010, with FAISS's beam search) and local search quantization (LSQ; Martinez et al., ECCV 2018),
with FAISS's own settings. All three reconstruct an item as a sum of M codewords (a product
quantizer's are zero outside their part of the vector), so each becomes a `Codebooks` and its codes
are ranked exactly as ours are: asymmetrically, by inner product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.errors import ConfigError, InputError
from spherequant.evaluation.rankings import CHUNK_ITEMS, CodeRanker, rank_queries
from spherequant.quantizer import Codebooks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spherequant.evaluation.rankings import Ranked, Relevance

BASELINES = ("pq", "rq", "lsq")
DEFAULT_BASELINES = ("pq", "rq")  # LSQ learns for minutes where these take seconds
N_CODEWORDS = 256
PURPOSE = "Comparing with baselines"  # what FAISS is needed for


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
        name: ``pq``, ``rq`` or ``lsq``.
        training_ND: float32 [T, D], at least 256 rows.
        database_ND: float32 [N, D].
        bits: a multiple of 8: M codebooks of 256 codewords.
        seed: of the clustering. Equal seeds give equal codes on one machine with one thread count.

    Returns:
        The codebooks, and codes uint8 [N, M]. Where M does not divide D, ``pq`` works on vectors
        padded with zeros to the next multiple.

    Raises:
        ConfigError: another name, or bits that are no multiple of 8.
        InputError: fewer than 256 training rows.
        MissingDependencyError: faiss is not installed.
    """
    from spherequant.index.faiss_files import require_faiss

    faiss = require_faiss(PURPOSE)
    n_codebooks, rest = divmod(bits, 8)
    if name not in BASELINES or rest or n_codebooks < 1:
        raise ConfigError(
            f"baseline {name!r} of {bits} bits: names are {', '.join(BASELINES)}, bits a multiple "
            "of 8"
        )
    if len(training_ND) < N_CODEWORDS:
        raise InputError(
            f"{len(training_ND)} training vectors: FAISS needs at least {N_CODEWORDS} of them to "
            "learn 256 codewords a codebook"
        )
    dim = training_ND.shape[1]
    padding = ((0, 0), (0, -dim % n_codebooks if name == "pq" else 0))
    quantizer = _new_quantizer(faiss, name, dim + padding[1][1], n_codebooks, seed)
    quantizer.train(np.pad(training_ND, padding))
    codes_NM = np.empty((len(database_ND), n_codebooks), dtype=np.uint8)
    for start in range(0, len(database_ND), CHUNK_ITEMS):
        rows = slice(start, start + CHUNK_ITEMS)
        # 8-bit codes pack as the M bytes in order
        codes_NM[rows] = quantizer.compute_codes(np.pad(database_ND[rows], padding))
    array_MKD = _codewords(faiss, name, quantizer, n_codebooks)
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
        names: which quantizers.
        at: R of the average precision; None means all.
        ranks: int64 [P], where expected hits are kept; None keeps none.
        seed: of the clustering.
        threads: for ranking; None takes the processors this process may use.
        tick: called with the baseline's name, queries done and queries in all.

    Returns:
        The measured ranking of each name.

    Raises:
        ConfigError: an unknown name, or bits that are no multiple of 8.
        InputError: fewer than 256 training rows.
        MissingDependencyError: faiss is not installed.
    """
    kept_ranks = np.zeros(0, dtype=np.int64) if ranks is None else ranks
    measured = {}
    for name in names:
        codebooks, codes_NM = learn_baseline(name, training_ND, database_ND, bits, seed=seed)
        ranker = CodeRanker(codebooks, codes_NM, queries_QD, every_measure=False)

        def tick_named(done: int, total: int, name: str = name) -> None:
            if tick is not None:
                tick(name, done, total)

        measured[name] = rank_queries(
            ranker, relevance, at=at, ranks=kept_ranks, threads=threads, tick=tick_named
        )["codes"]
    return measured


def _new_quantizer(faiss: Any, name: str, dim: int, n_codebooks: int, seed: int) -> Any:
    if name == "lsq":
        local_search = faiss.LocalSearchQuantizer(dim, n_codebooks, 8)
        local_search.random_seed = seed
        return local_search
    kind = faiss.ProductQuantizer if name == "pq" else faiss.ResidualQuantizer
    quantizer = kind(dim, n_codebooks, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1  # FAISS prints its hint about few points to stderr
    return quantizer


def _codewords(faiss: Any, name: str, quantizer: Any, n_codebooks: int) -> NDArray[np.float32]:
    """Codewords as whole vectors; float32 [M, 256, D]."""
    dim = quantizer.d
    if name != "pq":
        codewords = faiss.vector_to_array(quantizer.codebooks)
        return np.asarray(codewords, dtype=np.float32).reshape(n_codebooks, N_CODEWORDS, dim)
    part = dim // n_codebooks
    centroids_MKP = faiss.vector_to_array(quantizer.centroids).reshape(n_codebooks, -1, part)
    array_MKD = np.zeros((n_codebooks, N_CODEWORDS, dim), dtype=np.float32)
    for m in range(n_codebooks):
        array_MKD[m, :, m * part : (m + 1) * part] = centroids_MKP[m]
    return array_MKD
