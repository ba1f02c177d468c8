"""Search speed side by side with FAISS and ScaNN: the same bits, the same run, one table.

All engines answer the same unit queries over N codes of the same length. FAISS's product quantizer
gets the very codes and codewords that we search, so its results must be ours. Its fast scan and
ScaNN quantize in their own way (twice as many codebooks of 16 codewords); they get vectors decoded
from our codes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spherequant.errors import InputError, SpherequantError
from spherequant.index import scan
from spherequant.index.faiss_files import faiss_index
from spherequant.quantizer import Codebooks
from spherequant.system import require_faiss

Float32 = NDArray[np.float32]
# Takes queries float32 [B, D] and k; returns the ids found, int64 [B, k].
Search = Callable[[Float32, int], NDArray[np.int64]]

DIM = 64
_N_CODEWORDS = 256
_CHUNK = 200_000
# Queries that are asked one at a time in each repetition, and together.
_SINGLE_QUERIES = 16
BATCH = 64
# ScaNN learns its own codebooks: of fewer vectors it makes none worth comparing.
FEWEST_FOR_SCANN = 10_000
FEWEST_FOR_FAST_SCAN = 16  # as many as a codebook of 4 bits has codewords


@dataclass(frozen=True, slots=True)
class Collection:
    """Codes and queries.

    Attributes:
        codebooks: M codebooks.
        codes_NM: uint8 [N, M].
        queries_QD: float32 [Q, D] unit vectors; batches of ``BATCH`` are timed.
    """

    codebooks: Codebooks
    codes_NM: NDArray[np.uint8]
    queries_QD: Float32

    def vectors(self) -> Iterator[Float32]:
        """The decoded items, in pieces."""
        for start in range(0, len(self.codes_NM), _CHUNK):
            yield self.codebooks.decode(self.codes_NM[start : start + _CHUNK])


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU milliseconds a query, a figure for each repetition."""

    engine: str
    batch: int
    milliseconds: tuple[float, ...]


def make_collection(n: int, bits: int, *, clusters: int = 0) -> Collection:
    """Random codes.

    Args:
        n: items.
        bits: of a code, a multiple of 8 from 8 to 128.
        clusters: items keep each codeword of one of so many centres with probability 0.8; 0 for
            uniform codes, of which no search can leave any aside.

    Raises:
        InputError: the bits cannot be had.
    """
    m = bits // 8
    if bits % 8 or not 1 <= m <= 16:
        raise InputError(f"bits is a multiple of 8 from 8 to 128; got {bits}.")
    rng = np.random.default_rng(0)
    width = 2 * -(-DIM // (2 * m))  # even: the fast scan splits each codebook in two
    codewords = rng.normal(size=(m, _N_CODEWORDS, width)).astype(np.float32)
    array = np.zeros((m, _N_CODEWORDS, m * width), np.float32)
    for j in range(m):
        array[j, :, j * width : (j + 1) * width] = codewords[j]
    codes = np.empty((n, m), np.uint8)
    centres = rng.integers(0, _N_CODEWORDS, (max(clusters, 1), m), np.uint8)
    for start in range(0, n, _CHUNK):
        part = codes[start : start + _CHUNK]
        part[:] = rng.integers(0, _N_CODEWORDS, part.shape, np.uint8)
        if clusters:
            chosen = centres[rng.integers(0, clusters, len(part))]
            np.copyto(part, chosen, where=rng.random(part.shape) < 0.8)
    codebooks = Codebooks(array)
    near = codebooks.decode(codes[rng.integers(0, n, BATCH)])
    near += 0.5 * rng.normal(size=near.shape)
    queries = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return Collection(codebooks, codes, queries)


class Ours:
    """Our search on one thread, the query's table included: a ``Search``."""

    def __init__(
        self, collection: Collection, *, bucketed: bool, route: scan.Route = "auto"
    ) -> None:
        codes = collection.codes_NM
        self._codebooks = collection.codebooks
        self._route: scan.Route = route
        self._parts = [
            scan.Part(
                scan.build_layout(lambda: [codes], len(codes), self._codebooks, bucketed=bucketed)
            )
        ]

    def __call__(self, queries_BD: Float32, k: int) -> NDArray[np.int64]:
        """The ids of the k best items for each query."""
        lut = self._codebooks.lookup_table(queries_BD)
        return scan.top_k(self._parts, lut, k, threads=1, route=self._route)[1]

    def visited(self, queries_BD: Float32, k: int) -> float:
        """The share of items whose codes are read, the mean over queries."""
        lut = self._codebooks.lookup_table(queries_BD)
        counts = scan.visited(self._parts, lut, k, self._route)
        return float(counts.mean()) / len(self._parts[0].layout)


def faiss_pq(collection: Collection) -> Search:
    """FAISS's IndexPQ, 8 bits a codebook, over M copies of the query: exact on the same codes."""
    _faiss()
    index, inner = faiss_index(collection.codebooks, "lifted")
    inner.add_sa_codes(collection.codes_NM)
    index.ntotal = inner.ntotal
    return _of_faiss(index)


def faiss_fast_scan(collection: Collection) -> Search:
    """FAISS's IndexPQFastScan, 4 bits a codebook: approximate tables."""
    faiss = _faiss()
    m, _, d = collection.codebooks.array.shape
    filled = -(-d // (2 * m)) * 2 * m - d  # zeros, where it cannot divide the dimensions
    index = faiss.IndexPQFastScan(d + filled, 2 * m, 4, faiss.METRIC_INNER_PRODUCT)
    for part in collection.vectors():
        padded = np.pad(part, ((0, 0), (0, filled)))
        if not index.is_trained:
            index.train(padded[:20_000])
        index.add(padded)
    search = _of_faiss(index)
    return lambda queries_BD, k: search(np.pad(queries_BD, ((0, 0), (0, filled))), k)


def scann(collection: Collection) -> Search:
    """ScaNN's asymmetric hashing with tables of 16 entries in registers."""
    from scann import scann_ops_pybind

    m = collection.codebooks.n_codebooks
    d = collection.codebooks.dim // (2 * m) * 2 * m
    vectors = np.concatenate([part[:, :d] for part in collection.vectors()])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    searcher = (
        scann_ops_pybind.builder(vectors, 10, "dot_product")
        .score_ah(d // (2 * m), anisotropic_quantization_threshold=0.2, training_sample_size=50_000)
        .set_n_training_threads(1)
        .build()
    )

    def search(queries_BD: Float32, k: int) -> NDArray[np.int64]:
        queries = np.ascontiguousarray(queries_BD[:, :d])
        if len(queries) == 1:
            return np.asarray(searcher.search(queries[0], k)[0], np.int64)[None]
        return np.asarray(searcher.search_batched(queries, k)[0], np.int64)

    return search


def installed(module: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(module) is not None


def check_same(one: Search, other: Search, collection: Collection, k: int) -> None:
    """Check that two exact searches find items of the same scores, within 1e-4.

    Which of the items that tie is found depends on the order of additions, and is not compared.

    Raises:
        SpherequantError: the scores differ.
    """
    queries = collection.queries_QD[:8]
    tables = collection.codebooks.lookup_table(queries)
    for lut_MK, mine, theirs in zip(tables, one(queries, k), other(queries, k), strict=True):
        pair = [_scores(collection.codes_NM[ids], lut_MK) for ids in (mine, theirs)]
        if not np.allclose(pair[0], pair[1], rtol=0, atol=1e-4):
            raise SpherequantError("two exact searches of the same codes find other scores")


def time_searches(
    engines: dict[str, Search], collection: Collection, k: int, repetitions: int
) -> list[Timing]:
    """Time all engines in turns, alone and in batches, after one warm-up each."""
    queries = collection.queries_QD
    batches = {
        1: [queries[q : q + 1] for q in range(_SINGLE_QUERIES)],
        BATCH: [queries],
    }
    taken: dict[tuple[str, int], list[float]] = {}
    for repetition in range(repetitions + 1):
        for name, search in engines.items():
            for batch, asked in batches.items():
                begun = time.process_time()
                for part in asked:
                    search(part, k)
                spent = (time.process_time() - begun) / sum(map(len, asked))
                if repetition:
                    taken.setdefault((name, batch), []).append(1000 * spent)
    return [Timing(name, batch, tuple(values)) for (name, batch), values in taken.items()]


def ratio(peer: Timing, ours_: Timing) -> tuple[float, float, float]:
    """Median, least and greatest of peer's time over ours, repetition by repetition."""
    values = np.array(peer.milliseconds) / np.array(ours_.milliseconds)
    return float(np.median(values)), float(values.min()), float(values.max())


def _scores(codes_kM: NDArray[np.uint8], lut_MK: Float32) -> Float32:
    scores = np.zeros(len(codes_kM), np.float32)
    for row_K, column in zip(lut_MK, codes_kM.T, strict=True):
        scores += row_K[column]
    return scores


def _faiss() -> Any:
    faiss = require_faiss("Comparing with FAISS")
    faiss.omp_set_num_threads(1)
    return faiss


def _of_faiss(index: Any) -> Search:
    def search(queries_BD: Float32, k: int) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = index.search(queries_BD, k)[1]
        return ids

    return search
