"""Error of learned codebooks on vectors they were not learned from, beside FAISS's quantizers.

    SPHEREQUANT_DATA=... SPHEREQUANT_WEIGHTS=... OMP_WAIT_POLICY=PASSIVE
        python benchmarks/codebook_error.py [--rows 5000 20000 50000] [--variants 20000]

Learned from CIFAR-10's training images, judged by its test images: embeddings of the network that
benchmarks/cifar10_full.py trained (D = 64), and 256 principal components of the features of a
MobileNetV2 that was pretrained on ImageNet and sees the images at 64 pixels. FAISS's quantizers
learn and encode with their own settings: the residual quantizer with a beam of 5, as it learns
without growing dimensions (`Train_default`), with them (`Train_progressive_dim`, FAISS's default)
and with refined codebooks (`Train_refine_codebook`); local search with 25 iterations. Each figure
is kept below --kept and not measured again on the machine with the code, or the FAISS, that made
it, so that a long table can be made in parts. FAISS's threads wait idly, and seconds of the
processor are those of work, with OMP_WAIT_POLICY=PASSIVE. Figures go to docs/results.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
import torch

import held_out_vectors
import results
from embeddings import RUNS
from spherequant import Model
from spherequant.quantizer import Codebooks, Encoder, learn_codebooks, learning
from training_runs import setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from held_out_vectors import Array, Vectors

N_CODEWORDS = 256
THREADS = 2
OURS = "`learn_codebooks`"
TITLES = {"supervised": "Supervised embeddings, D = 64", "frozen": "Frozen features, D = 256"}
VARIANTS: tuple[tuple[str, str, Any], ...] = (
    ("as it is", "TEMPERATURE", learning.TEMPERATURE),
    ("no perturbation", "TEMPERATURE", 0.0),
    ("temperature 1", "TEMPERATURE", 1.0),
    ("temperature 3", "TEMPERATURE", 3.0),
    ("beam 4 in turns", "TURN_BEAM", 4),
    ("beam 16 in turns", "TURN_BEAM", 16),
    ("8 steps of k-means", "LEVEL_ITERATIONS", 8),
    ("residuals of the best code alone", "LEVEL_BEAM", 0.0),
    ("anchor 1", "ANCHORS", (1.0,)),
    ("anchor 16", "ANCHORS", (16.0,)),
    ("anchor 128", "ANCHORS", (128.0,)),
)


class Learned(NamedTuple):
    """What one method reached."""

    held_out: float
    training: float
    wall_s: float
    cpu_s: float
    norm: float
    cut: list[float]  # held-out error of the first 1..M bytes, for those that can be cut


def squared_error(decoded_ND: Array, u_ND: Array) -> float:
    """Mean over the rows of the squared distance."""
    return float(((decoded_ND.astype(np.float64) - u_ND) ** 2).sum(axis=1).mean())


def ours(training: Array, held_out: Array, bits: int) -> Learned:
    """Codebooks by `learn_codebooks`, codes by the default encoder."""
    wall, cpu = time.perf_counter(), time.process_time()
    codebooks = learn_codebooks(training, bits // 8, N_CODEWORDS)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    encoder = Encoder(codebooks)
    codes = encoder.encode(held_out)
    decoded = codebooks.decode(codes)
    cut = [
        squared_error(Codebooks(codebooks.array[:m]).decode(codes[:, :m]), held_out)
        for m in range(1, bits // 8 + 1)
    ]
    seen = squared_error(codebooks.decode(encoder.encode(training)), training)
    return Learned(squared_error(decoded, held_out), seen, *seconds, _norm(decoded), cut)


def theirs(kind: str) -> Callable[[Array, Array, int], Learned]:
    """One of FAISS's quantizers, which encodes too."""

    def learned(training: Array, held_out: Array, bits: int) -> Learned:
        quantizer = _index(kind, training.shape[1], bits // 8)
        wall, cpu = time.perf_counter(), time.process_time()
        quantizer.train(training)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        seen, unseen = (
            quantizer.sa_decode(quantizer.sa_encode(rows)) for rows in (training, held_out)
        )
        errors = squared_error(unseen, held_out), squared_error(seen, training)
        return Learned(*errors, *seconds, _norm(unseen), [])

    return learned


def growing_with_our_encoder(training: Array, held_out: Array, bits: int) -> Learned:
    """Codebooks by FAISS's residual quantizer, codes by the default encoder."""
    index = _index("rq growing", training.shape[1], bits // 8)
    wall, cpu = time.perf_counter(), time.process_time()
    index.train(training)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    shape = (bits // 8, N_CODEWORDS, training.shape[1])
    codebooks = Codebooks(faiss.vector_to_array(index.rq.codebooks).reshape(shape))
    encoder = Encoder(codebooks)
    seen, unseen = (codebooks.decode(encoder.encode(rows)) for rows in (training, held_out))
    errors = squared_error(unseen, held_out), squared_error(seen, training)
    return Learned(*errors, *seconds, _norm(unseen), [])


METHODS: dict[str, Callable[[Array, Array, int], Learned]] = {
    OURS: ours,
    "FAISS PQ": theirs("pq"),
    "FAISS OPQ": theirs("opq"),
    "FAISS RQ": theirs("rq"),
    "FAISS RQ, growing dimensions": theirs("rq growing"),
    "the same codebooks, our encoder": growing_with_our_encoder,
    "FAISS RQ, refined": theirs("rq refined"),
    "FAISS LSQ": theirs("lsq"),
}

_IN_PARTS = ("FAISS PQ", "FAISS OPQ")


def _norm(decoded_ND: Array) -> float:
    return float(np.linalg.norm(decoded_ND, axis=1).mean())


def _index(kind: str, dim: int, n_codebooks: int) -> Any:
    """An untrained index that encodes and decodes."""
    if kind == "opq":
        product = faiss.IndexPQ(dim, n_codebooks, 8)
        product.pq.cp.min_points_per_centroid = 1  # no hint on stderr
        whole = faiss.IndexPreTransform(faiss.OPQMatrix(dim, n_codebooks), product)
        product.this.disown()  # type: ignore[attr-defined]  # of SWIG
        return whole
    if kind == "lsq":
        return faiss.IndexLocalSearchQuantizer(dim, n_codebooks, 8)
    if kind == "pq":
        return faiss.IndexPQ(dim, n_codebooks, 8)
    residual = faiss.IndexResidualQuantizer(dim, n_codebooks, 8)
    residual.rq.max_beam_size = 5
    residual.rq.train_type = faiss.ResidualQuantizer.Train_default
    residual.rq.cp.min_points_per_centroid = 1  # no hint on stderr
    if kind == "rq growing":
        residual.rq.train_type = faiss.ResidualQuantizer.Train_progressive_dim
    if kind == "rq refined":
        residual.rq.train_type |= faiss.ResidualQuantizer.Train_refine_codebook
    return residual


def measure(
    kind: str, vectors: Vectors, what: tuple[int, int, str], options: argparse.Namespace
) -> Learned | None:
    """Learn and judge once, or read what an earlier run found.

    Args:
        kind: of the vectors, and what tells them from others of their kind.
        vectors: themselves.
        what: bits, rows to learn from, method.
        options: the command line.

    Returns:
        None where it was not run and only kept figures are wanted, or cannot have such codes.
    """
    bits, rows, method = what
    if method in _IN_PARTS and vectors.training.shape[1] % (bits // 8):
        return None  # bytes do not divide the dimensions
    return _once(
        f"{kind}-{bits}-{rows}-{method}",
        lambda: METHODS[method](_subset(vectors.training, rows), vectors.held_out, bits),
        options,
        "" if method.startswith("FAISS") else _code(),
    )


def _once(
    name: str, learn: Callable[[], Learned], options: argparse.Namespace, code: str
) -> Learned | None:
    path = options.kept / (re.sub(r"\W+", "-", name).strip("-") + ".json")
    made_by = {"machine": results.machine(), "faiss": faiss.__version__, "code": code}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("made_by") == made_by:
        return Learned(**kept["learned"])
    if options.only_kept:
        return None
    learned = learn()
    print(f"{name}: {learned}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"made_by": made_by, "learned": learned._asdict()}
    path.write_text(json.dumps(found), encoding="utf-8")
    return learned


def _code() -> str:
    """A digest of the modules that learn and encode: figures of others are not kept for these."""
    folder = Path(learning.__file__).parent
    sources = [*sorted(folder.glob("*.py")), *sorted((results.ROOT / "native").rglob("*.*"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _subset(training: Array, rows: int) -> Array:
    chosen = np.random.default_rng(0).permutation(len(training))[:rows]
    return np.ascontiguousarray(training[np.sort(chosen)])


def variant(
    kind: str, vectors: Vectors, what: tuple[str, str, Any], options: argparse.Namespace
) -> Learned | None:
    """`learn_codebooks` at 32 bits with another value of one of its settings."""
    name, changed, value = what

    def learn() -> Learned:
        before = getattr(learning, changed)
        setattr(learning, changed, value)
        learned = ours(_subset(vectors.training, options.variants), vectors.held_out, 32)
        setattr(learning, changed, before)
        return learned

    return _once(f"{kind}-32-{options.variants}-{name}", learn, options, _code())


def table(title: str, bits: int, rows: int, found: dict[str, Learned | None]) -> dict[str, object]:
    """Methods side by side; a cell that was not run is empty."""
    cells = []
    for name, one in found.items():
        figures: list[object] = [None] * 5
        if one is not None:
            figures = [f"{one.held_out:.5f}", f"{one.training:.5f}"]
            figures += [f"{one.cpu_s:.1f}", f"{one.wall_s:.1f}", f"{one.norm:.3f}"]
        cells.append([name, *figures])
    columns = [
        "method", "held-out error", "training error", "processor seconds", "seconds", "mean norm",
    ]  # fmt: skip
    return {
        "caption": f"{title}, {bits} bits, {rows:,} rows",
        "columns": columns,
        "rows": cells,
    }


def cut_table(cuts: dict[tuple[str, int], list[float]]) -> dict[str, object]:
    """Error of the first bytes of longer codes."""
    longest = max(map(len, cuts.values()))
    return {
        "caption": "Held-out error of the first bytes of our codes, most rows",
        "columns": ["vectors", "bits", *[f"{m + 1} B" for m in range(longest)]],
        "rows": [
            [kind, bits, *[f"{value:.5f}" for value in cut], *[None] * (longest - len(cut))]
            for (kind, bits), cut in cuts.items()
        ],
    }


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--run", default="cifar10-full-0/dsq-32", help="for supervised")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 32, 48, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--features", type=Path, default=Path("results/held-out-vectors"))
    parser.add_argument("--kept", type=Path, default=Path("results/codebook-error"))
    parser.add_argument("--only-kept", action="store_true", help="learn nothing, record what is")
    parser.add_argument("--variants", type=int, default=0, help="rows to compare settings on")
    return parser.parse_args()


def main() -> None:
    """Learn, judge, record."""
    options = parsed()
    faiss.omp_set_num_threads(THREADS)
    torch.set_num_threads(THREADS)
    tables, cuts = [], {}
    for kind in options.vectors:
        vectors = held_out_vectors.of_kind(kind, options.features, options.run)
        digest = hashlib.sha256(vectors.training.tobytes() + vectors.held_out.tobytes())
        named = f"{kind}-{digest.hexdigest()[:8]}"
        made_by = setting(Model.load(RUNS / options.run)) if kind == "supervised" else None
        for bits, rows in itertools.product(options.bits, options.rows):
            found = {
                method: measure(named, vectors, (bits, rows, method), options)
                for method in options.methods
            }
            if any(found.values()):
                tables.append({**table(TITLES[kind], bits, rows, found), "setting": made_by})
            own = found.get(OURS)
            if own is not None:
                cuts[TITLES[kind], bits] = own.cut
        if options.variants:
            others = {one[0]: variant(named, vectors, one, options) for one in VARIANTS}
            compared = table(f"{TITLES[kind]}: other settings", 32, options.variants, others)
            tables.append({**compared, "setting": made_by})
    if cuts:
        tables.append(cut_table(cuts))
    results.record(
        "codebook-error",
        "Error of learned codebooks on vectors they were not learned from",
        "Mean squared error of unit vectors, one run and one seed. Learned from CIFAR-10's "
        "training images (rows drawn once), judged by its 10,000 test images. Seconds are those "
        f"of learning on {THREADS} threads: processor time of the process (other programs ran on "
        "the machine, so wall time is long and uneven), then wall time. FAISS "
        f"{faiss.__version__} encodes with its own encoders. A method that was not run has no "
        "figures."
        + (" The same command without --only-kept makes them." if options.only_kept else ""),
        tables,
    )


if __name__ == "__main__":
    main()
