"""The drawings of docs/figures, each with the figures it shows: `python benchmarks/figures.py`.

    SPHEREQUANT_DATA=... python benchmarks/figures.py [--only curves map ...] [--epochs 2]

curves: precision over recall and precision at N, codes beside controls and FAISS.
norms: norms of the network's raw output, and what normalising them does to the error of codes.
map: t-SNE of embeddings, their reconstructions and the class centres.
items: error of unseen vectors over the number of vectors that codebooks were learned from.
bits: mAP over the code length, from what grid.py or cifar10_full.py recorded, with all seeds.
examples: queries with their first results, good and bad ones.
mosaics: the same for images of several labels, by multi_label.py's model.

The network is cifar10_full.py's at 32 bits, trained here where it is not there yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import drawing
import grid_records
import results
import results_page
from cifar10_full import EPOCHS, run_of
from embeddings import RUNS, embedded, with_queries
from multi_label import add_options as add_mosaic_options
from multi_label import mosaics_folder, run_name
from spherequant import Model
from spherequant.evaluation import CodeRanker, FloatRanker, Ranked, rank_baselines, rank_queries
from spherequant.evaluation.baselines import DEFAULT_BASELINES, learn_baseline
from spherequant.evaluation.embeddings import embed_source
from spherequant.evaluation.examples import choose_examples, collect_examples
from spherequant.evaluation.metrics import curve_ranks, mean_precision_recall
from spherequant.evaluation.plots import Line
from spherequant.images import make_split, open_source
from spherequant.quantizer import Encoder, learn_codebooks, normalise_rows
from training_runs import rank_class_centres, setting, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spherequant.evaluation.embeddings import Collection
    from spherequant.quantizer import Codebooks

N_CODEWORDS = 256
BITS = (16, 32, 48, 64)
ITEMS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
LEARNERS = {"FAISS RQ": "rq", "FAISS LSQ": "lsq", "FAISS PQ": "pq"}
GRID_NAMES = {
    "dsq": "DSQ",
    "orthohash": "OrthoHash-like",
    "csq": "CSQ-like",
    "softmax-centre": "softmax + centre",
}
GRID_RANKINGS = {"class_centre": "class centre of DSQ's network", "rq": "FAISS RQ, DSQ's network"}
MAP_IMAGES = 100  # of each class
EXAMPLES, RESULTS = 8, 10
MOSAIC_EXAMPLES, MOSAIC_RESULTS = 6, 8


class Run:
    """A trained model and the images of its protocol, embedded when first asked for."""

    def __init__(self, model: Model, source: str, queries: int) -> None:
        self.model = model
        self.source = source
        self._queries = queries

    @cached_property
    def whole(self) -> Collection:
        """All queries, the database and the training vectors."""
        return embedded(self.model, self.source).collection

    @cached_property
    def some(self) -> Collection:
        """The same with some of the queries, spread evenly."""
        return with_queries(self.whole, self._queries)

    @property
    def protocol(self) -> str:
        """Protocol and seeds, as a caption says them."""
        config = self.model.config
        return (
            f"`{config.protocol}`, {self.model.bits} bits, {config.epochs} epochs, seed "
            f"{config.seed}, split seed {config.split_seed}"
        )


def main() -> None:
    """Draw what is asked for, record each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=DRAWINGS, default=list(DRAWINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--queries", type=int, default=2_000, help="ranked, of all of them")
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, help="learned from")
    add_mosaic_options(parser.add_argument_group("the model of multi_label.py"))
    options = parser.parse_args()
    source = str(results.data_file("SPHEREQUANT_DATA", "cifar10.zip"))
    name, config = run_of(options.seed, options.epochs)
    run = Run(trained(f"{name}/dsq-32", source, config), source, options.queries)
    for drawn in options.only:
        print(f"drawing {drawn}", flush=True)
        DRAWINGS[drawn](run, options)


def _record(
    name: str,
    element: str,
    title: str,
    caption: str,
    *,
    alt: str,
    tables: list[dict[str, Any]],
    made_by: Mapping[str, Any],
) -> None:
    """Save a drawing and record it with its tables."""
    path = results.figures_folder() / f"{name}.svg"
    drawing.save(element, path)
    shown = {"file": path.relative_to(results.DOCS).as_posix(), "caption": caption, "alt": alt}
    results.record(f"figures-{name}", title, "", tables, drawings=[shown], setting=made_by)


# -- precision ----------------------------------------------------------------------------------


def draw_curves(run: Run, _: argparse.Namespace) -> None:
    """Precision over recall, and at N."""
    data, model = run.some, run.model
    ranks = np.union1d(curve_ranks(len(data.database)), [10, 100, 1_000])
    codes = CodeRanker(
        model.codebooks, model.encode_vectors(data.database), data.queries, every_measure=False
    )
    floats = FloatRanker(data.database, data.queries)
    ranked: dict[str, Ranked] = {
        "DSQ": rank_queries(codes, data.relevance, at=None, ranks=ranks)["codes"],
        "float embeddings": rank_queries(floats, data.relevance, at=None, ranks=ranks)["float"],
        "class centre": rank_class_centres(model, data, ranks),
    }
    faiss = rank_baselines(
        data.training, data.database, data.queries, data.relevance, model.bits, ranks=ranks
    )
    ranked |= {f"FAISS {name.upper()}": faiss[name] for name in DEFAULT_BASELINES}
    counts = data.relevance.counts()
    means = {name: mean_precision_recall(of.hits, counts, ranks) for name, of in ranked.items()}
    near = ranks <= counts.mean()  # beyond these ranks precision falls whatever the ranking
    at = {n: int(np.searchsorted(ranks, n)) for n in (10, 100, 1_000)}
    rows = [
        [name, float(ranked[name].ap.mean()), *(float(means[name][0][at[n]]) for n in at)]
        for name in ranked
    ]
    _record(
        "curves",
        drawing.curves(
            "curves",
            [Line(name, recall, precision) for name, (precision, recall) in means.items()],
            [Line(name, ranks[near], precision[near]) for name, (precision, _) in means.items()],
        ),
        "Precision over recall, and precision at N",
        f"{len(data.queries):,} queries against {len(data.database):,} images, {run.protocol}. "
        "Class centre: the centre of the item's predicted class. At the right N ends where all "
        "relevant items could be found. FAISS's quantizers have the same bits and were learned on "
        "the same embeddings.",
        alt="Two panels of curves: precision over recall, precision at N",
        tables=[
            {
                "caption": "mAP@all and precision at N",
                "columns": ["ranking", "mAP", *(f"P@{n:,}" for n in at)],
                "rows": rows,
            }
        ],
        made_by=setting(run.model),
    )


# -- normalisation ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class RawOutputs:
    """The network of a model up to the division by the norm, as evaluation embeds with a model."""

    model: Model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def embed_prepared(self, pixels_BSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [B, D], of the image itself: its mirror image is not added."""
        import torch

        from spherequant.embedding.arithmetic import exact_float32

        network = self.model.network
        device = network.projection.weight.device
        pixels = torch.from_numpy(pixels_BSS3).to(device)
        with torch.inference_mode(), exact_float32(device):
            features = network.backbone(self.model.preprocessing.standardise(pixels))
            raw: NDArray[np.float32] = network.centring(network.projection(features)).cpu().numpy()
        return raw


def draw_norms(run: Run, options: argparse.Namespace) -> None:
    """What normalising does to norms and to the error of codes."""
    with open_source(run.source) as source:
        split = make_split(source.items, run.model.config.protocol, run.model.config.split_seed)
        some = _spread(split.training, 20_000), _spread(split.queries, options.queries)
        raw, held_out = (
            embed_source(RawOutputs(run.model), source, np.sort(part), None).vectors
            for part in some
        )
    scale = np.linalg.norm(raw, axis=1).mean()
    raw, held_out = raw / scale, held_out / scale
    directions = normalise_rows(held_out)
    sides = {
        "raw output": (raw, held_out),
        "normalised": (normalise_rows(raw), directions),
    }
    norms = {"raw output": np.linalg.norm(held_out, axis=1)}
    errors: dict[str, list[float]] = defaultdict(list)
    rows = []
    for bits in BITS:
        for name, (learned_from, asked) in sides.items():
            codebooks = learn_codebooks(learned_from, bits // 8, N_CODEWORDS, seed=options.seed)
            decoded = codebooks.decode(Encoder(codebooks).encode(asked)).astype(np.float64)
            lengths = np.linalg.norm(decoded, axis=1)
            cosines = (decoded * directions).sum(axis=1) / np.maximum(lengths, 1e-12)
            errors[name].append(float(1 - cosines.mean()))
            squared = ((decoded - asked) ** 2).sum() / (asked.astype(np.float64) ** 2).sum()
            rows.append(
                [bits, name, f"{lengths.std() / lengths.mean():.4f}", f"{squared:.6f}",
                 f"{errors[name][-1]:.6f}"]
            )  # fmt: skip
            if bits == run.model.bits:
                norms[f"reconstruction, {bits} bits, {name}"] = lengths
    of_raw = norms["raw output"]
    _record(
        "norms",
        drawing.norms(
            "norms",
            norms,
            [Line(f"learned on {name}", np.array(BITS), np.array(errors[name])) for name in sides],
        ),
        "Norms and errors of codes with and without normalisation",
        f"The output of one network before and after it is divided by its norm: {len(raw):,} "
        f"training images to learn from, {len(held_out):,} queries shown; {run.protocol}. Without "
        f"labels: codebooks are learned on the vectors as they are. Before the division norms vary "
        f"by {of_raw.std() / of_raw.mean():.4f} of their mean; after it they are 1. The network "
        "was trained with the division. The error shown is that of the direction, which is what "
        "ranks; vectors as they are let images of large norm weigh more in what is learned.",
        alt="Histogram of norms; error of direction over bits, raw and normalised",
        tables=[
            {
                "caption": "Codes of the queries",
                "columns": [
                    "bits", "learned on", "deviation of the reconstructions' norms / mean",
                    "squared error / mean squared norm", "1 - cosine to the direction",
                ],
                "rows": rows,
            }
        ],
        made_by=setting(run.model),
    )  # fmt: skip


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    chosen = np.linspace(0, len(positions) - 1, min(count, len(positions))).astype(np.int64)
    return positions[chosen]


# -- map ----------------------------------------------------------------------------------------


def draw_map(run: Run, options: argparse.Namespace) -> None:
    """Embeddings, reconstructions and class centres in two dimensions."""
    from sklearn.manifold import TSNE

    model, data = run.model, run.whole
    labels = np.array([item.labels[0] for item in data.query_items])
    rows = np.concatenate(
        [_spread(np.flatnonzero(labels == label), MAP_IMAGES) for label in model.classes]
    )
    z_ND = data.queries[rows]
    decoded_ND = model.codebooks.decode(model.encode_vectors(z_ND))
    points = np.concatenate([z_ND, decoded_ND, model.class_centres])
    tsne = TSNE(init="pca", perplexity=30, random_state=options.seed)
    places = tsne.fit_transform(points).astype(np.float64)
    count = len(rows)
    right = model.predict(z_ND).argmax(axis=1) == np.searchsorted(model.classes, labels[rows])
    _record(
        "map",
        drawing.class_map(
            "map",
            {"embeddings": places[:count], "reconstructions": places[count : 2 * count]},
            labels[rows].tolist(),
            dict(zip(model.classes, places[2 * count :], strict=True)),
        ),
        "A map of embeddings, reconstructions and class centres",
        f"t-SNE (scikit-learn, perplexity 30, seed {options.seed}) of {count:,} query images, "
        f"{MAP_IMAGES} a class, their reconstructions and the class centres (crosses), all placed "
        f"together; {run.protocol}. The axes of such a map have no unit. Colour is the true class; "
        f"the network predicts it for {right.mean():.1%} of these images, and codes follow the "
        "prediction.",
        alt="Two maps of ten groups of points: embeddings, and reconstructions",
        tables=[],
        made_by=setting(model),
    )


# -- learning from few --------------------------------------------------------------------------


def draw_items(run: Run, options: argparse.Namespace) -> None:
    """Error of unseen vectors over the number of vectors learned from."""
    data, bits = run.whole, run.model.bits
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(data.training))
    held_out = data.queries
    counts = [count for count in options.items if count <= len(order)]
    errors: dict[str, list[float]] = defaultdict(list)
    for count in counts:
        training = data.training[order[:count]]
        ours = learn_codebooks(training, bits // 8, N_CODEWORDS, seed=options.seed)
        errors["ours"].append(_error(ours, Encoder(ours).encode(held_out), held_out))
        for words, name in LEARNERS.items():
            learned = learn_baseline(name, training, held_out, bits, seed=options.seed)
            errors[words].append(_error(*learned, held_out))
        print(count, {name: of[-1] for name, of in errors.items()}, flush=True)
    _record(
        "items",
        drawing.lines(
            "items",
            [Line(name, np.array(counts), np.array(of)) for name, of in errors.items()],
            "vectors learned from",
            "mean squared error, unseen",
            log_x=True,
            label=f"Error over the vectors learned from, for {', '.join(errors)}",
        ),
        "Error over the number of training items",
        f"Unsupervised codebooks of {bits} bits, learned on embeddings of training images, judged "
        f"by those of {len(held_out):,} queries ({run.protocol}; seed of learning {options.seed}). "
        "FAISS's with its own settings.",
        alt="Lines that fall as the number of training items grows",
        tables=[
            {
                "caption": "Mean squared error of unseen unit vectors",
                "columns": ["learned from", *errors],
                "rows": [
                    [f"{count:,}", *(f"{of[i]:.6f}" for of in errors.values())]
                    for i, count in enumerate(counts)
                ],
            }
        ],
        made_by=setting(run.model),
    )


def _error(
    codebooks: Codebooks, codes_NM: NDArray[np.uint8], vectors_ND: NDArray[np.float32]
) -> float:
    decoded_ND = codebooks.decode(codes_NM).astype(np.float64)
    return float(((decoded_ND - vectors_ND) ** 2).sum(axis=1).mean())


# -- lengths ------------------------------------------------------------------------------------


def draw_bits(_: Run, __: argparse.Namespace) -> None:
    """Mean average precision over the code length, from what other scripts recorded."""
    folder = results.DOCS / "results"
    found = [_frozen_lengths(folder)]
    for part in ("full", "reduced"):
        cells = grid_records.load(folder / "grid" / part)
        found += [_trained_lengths(cells, protocol) for protocol in ("cifar10-54k", "cifar10-full")]
    panels = [panel for panel in found if panel.methods][:2]
    if not panels:
        print("bits: neither cifar10_full.py nor grid.py has recorded several lengths; left out")
        return
    _record(
        "bits",
        drawing.spread("bits", {panel.title: panel.methods for panel in panels}, "mAP@all"),
        "mAP over the code length",
        "; ".join(f"{panel.title}: {panel.notes}" for panel in panels)
        + ". Bars reach from the least to the most of the seeds; a mark without one is one seed.",
        alt=f"mAP over bits for {', '.join(dict.fromkeys(n for p in panels for n in p.methods))}",
        tables=[],
        made_by={},
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """A panel: figures of each seed by method and bits, and how they were made."""

    title: str
    notes: str
    methods: dict[str, dict[int, list[float]]]


def _frozen_lengths(folder: Path) -> Lengths:
    """What cifar10_full.py recorded, a file for each seed: codes of one frozen network."""
    methods: dict[str, dict[int, list[float]]] = {}
    seeds = []
    for name, record in results_page.read_records(folder).items():
        if not re.fullmatch(r"cifar10-full-\d+", name):
            continue
        for table in record["tables"]:
            if table["caption"] != "mAP@all by code length":
                continue
            seeds.append(name.rpartition("-")[2])
            for bits, *values in table["rows"]:
                for method, value in zip(table["columns"][1:], values, strict=True):
                    methods.setdefault(method, {}).setdefault(int(bits), []).append(value)
    return Lengths(
        "codes of frozen networks",
        f"`cifar10-full`, 10,000 queries, seeds: {', '.join(seeds)}, from the tables of "
        "cifar10_full.py, which name the epochs; DSQ's codes are of the network that was trained "
        "at 32 bits, FAISS's of the one that was trained with the softmax alone",
        methods,
    )


def _trained_lengths(cells: Sequence[grid_records.Cell], protocol: str) -> Lengths:
    """What grid.py kept under a protocol: a training for each method, length and seed."""
    of = [cell for cell in cells if cell.protocol == protocol and cell.method in GRID_NAMES]
    methods: dict[str, dict[int, list[float]]] = {}
    for cell in of:
        figures = {GRID_NAMES[cell.method]: cell.maps["codes"]}
        if cell.method == "dsq":
            figures |= {
                words: cell.maps[name] for name, words in GRID_RANKINGS.items() if name in cell.maps
            }
        for words, value in figures.items():
            methods.setdefault(words, {}).setdefault(cell.bits, []).append(value)
    epochs = " or ".join(map(str, sorted({cell.epochs for cell in of})))
    seeds = ", ".join(map(str, sorted({cell.seed for cell in of})))
    return Lengths(
        "a training for each length",
        f"`{protocol}`, {epochs} epochs, seeds: {seeds}, from the cells of grid.py",
        methods,
    )


# -- examples -----------------------------------------------------------------------------------


def draw_examples(run: Run, options: argparse.Namespace) -> None:
    """Queries with their first results."""
    element = _examples(run, run.some, options.seed, (EXAMPLES, RESULTS), side=56)
    _record(
        "examples",
        element,
        "Queries with their first results",
        f"At the left the query, then its first {RESULTS} results; a result of another class is "
        "crossed out. The upper half is drawn by seed from the best quarter of queries, the lower "
        f"from the worst; AP is the query's average precision. {run.protocol}.",
        alt="Eight queries and ten results each",
        tables=[],
        made_by=setting(run.model),
    )


def draw_mosaics(_: Run, options: argparse.Namespace) -> None:
    """The same for images of several labels."""
    name = run_name(options)
    if not (RUNS / name / "dsq-32" / "model.json").exists():
        print(f"mosaics: multi_label.py has not trained {name} yet; left out")
        return
    run = Run(
        Model.load(RUNS / name / "dsq-32"), str(mosaics_folder(options)), options.mosaic_queries
    )
    counts = (MOSAIC_EXAMPLES, MOSAIC_RESULTS)
    element = _examples(run, run.some, options.seed, counts, side=84)
    _record(
        "mosaics",
        element,
        "Queries of several labels with their first results",
        f"As above, for mosaics of CIFAR-10 images: a result is right when it shares a label. "
        f"{run.protocol}.",
        alt="Six mosaics and eight results each",
        tables=[],
        made_by=setting(run.model),
    )


def _examples(run: Run, data: Collection, seed: int, counts: tuple[int, int], *, side: int) -> str:
    model = run.model
    ranker = CodeRanker(
        model.codebooks, model.encode_vectors(data.database), data.queries, every_measure=False
    )
    nothing = np.zeros(0, np.int64)
    ap_Q = rank_queries(ranker, data.relevance, at=None, ranks=nothing)["codes"].ap
    chosen = choose_examples(ap_Q, np.ones(len(ap_Q), bool), counts[0], seed)
    with open_source(run.source) as source:
        examples = collect_examples(
            chosen,
            ranker,
            data.relevance,
            ap_Q,
            query_items=data.query_items,
            database_items=data.database_items,
            source=source,
            limits=None,
        )
    return drawing.retrievals(examples, counts[1], side)


DRAWINGS: dict[str, Callable[[Run, argparse.Namespace], None]] = {
    "curves": draw_curves,
    "bits": draw_bits,
    "norms": draw_norms,
    "map": draw_map,
    "items": draw_items,
    "examples": draw_examples,
    "mosaics": draw_mosaics,
}


if __name__ == "__main__":
    main()
