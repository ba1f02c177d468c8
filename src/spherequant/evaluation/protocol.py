"""One evaluation from end to end: split, embed, encode, rank, compare, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spherequant.errors import ConfigError, InputError, LabelError
from spherequant.evaluation.baselines import (
    BASELINES,
    DEFAULT_BASELINES,
    PURPOSE,
    check_baseline,
    rank_baselines,
)
from spherequant.evaluation.embeddings import allocate, embed_split
from spherequant.evaluation.examples import choose_examples, collect_examples
from spherequant.evaluation.figures import PRECISION_RANKS, QueryFigures, mean_figures
from spherequant.evaluation.metrics import curve_ranks
from spherequant.evaluation.rankings import (
    ClassRanker,
    CodeRanker,
    FloatRanker,
    HammingRanker,
    PredictedSets,
    distinct_rows,
    rank_queries,
)
from spherequant.evaluation.report import Report
from spherequant.images import make_split, open_source
from spherequant.quantizer.signs import sign_codebooks
from spherequant.system import require_faiss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray

    from spherequant.evaluation.embeddings import Collection, RetrievalModel
    from spherequant.evaluation.rankings import Ranked, Ranker
    from spherequant.images import Limits, Source, Split
    from spherequant.quantizer import ClassTarget

Progress: TypeAlias = Callable[[str, int, int], None]  # stage, done, total

# R of mAP@R where a protocol does not rank everything (docs/protocols.md).
CUTOFFS: dict[str, int] = {"nuswide-21": 5_000, "nuswide-81": 5_000, "imagenet-100": 1_000}
# Rows classified at a time: two float32 [rows, C] are held meanwhile, of so many bytes at most.
PREDICTION_ROWS, PREDICTION_BYTES = 1 << 14, 64 << 20


def evaluate(  # noqa: PLR0913 - options after the first four are by name only
    model: RetrievalModel,
    source: str | PathLike[str] | Source | Iterable[Any],
    protocol: str = "holdout",
    baselines: bool | Sequence[str] = False,
    *,
    out: str | PathLike[str] | None = None,
    labels: str = "auto",
    split_seed: int | None = None,
    seed: int = 0,
    examples: int = 8,
    limits: Limits | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model's codes as a search engine, beside the controls (docs/protocols.md).

    Args:
        model: a trained model.
        source: a folder, archive, known set, `Source`, or re-iterable of (key, image, labels).
        protocol: which images are queries and which the database.
        baselines: True compares with FAISS's PQ and RQ on the same embeddings, learned from the
            protocol's training images; names (``pq``, ``opq``, ``rq``, ``lsq``, ``itq``,
            ``itq_asymmetric``, ``rabitq``) choose, ``all`` among them takes every one. One that
            cannot be learned at the model's length is None, with a warning that says why.
        out: directory for report.json, report.html and queries.csv; None writes nothing.
        labels: where labels come from: ``auto``, ``folders`` or ``csv``.
        split_seed: of the split; None takes the model's own, so that training images stay apart.
        seed: of the baselines' clustering and of the choice of example queries.
        examples: example queries on the page, half of them good and half bad.
        limits: bounds on one image; None takes those of the source, or the defaults.
        threads: that rank; None takes the processors this process may use. No figure depends on it.
        progress: called with the stage, and what is done of how much.

    Returns:
        The report; `Report.to_dict` has the JSON keys.

    Raises:
        InputError: ``model`` is no model.
        LabelError: no labels, one label only, or no query left.
        ConfigError: an unknown protocol or baseline, less than no examples, or ``out`` cannot be
            made.
        SourceError: the source cannot be read, or does not fit the protocol.
        MissingDependencyError: baselines are asked for and faiss is not installed.
    """
    started = time.perf_counter()
    if not hasattr(model, "encoder"):
        raise InputError(
            f"evaluate takes a model (Model.load), not {type(model).__name__}; "
            "Model.shortened(bits) has shorter codes"
        )
    if examples < 0:
        raise ConfigError(f"there can be no {examples} examples: 0 or more")
    names = _baseline_names(baselines)
    if out is not None:
        _make_folder(Path(out))
    told = progress or _silent
    opened = open_source(source, labels=labels, limits=limits)
    try:
        _require_labels(opened)
        if split_seed is None:
            split_seed = int(model.summary.get("split_seed", 0))
        split = make_split(opened.items, protocol, split_seed)
        collection = embed_split(
            model,
            opened,
            split,
            limits,
            with_training=bool(names),
            tick=partial(told, "embedding images"),
        )
        _require_two_labels(collection)
        headline = _headline(split, collection)
        warnings = _warnings(model, opened, split, collection)
        rankers = _Rankers.of(model, collection)
        settings = _Settings(
            at=CUTOFFS.get(split.protocol),
            ranks=_ranks(len(collection.database_items)),
            seed=seed,
            threads=threads,
            told=told,
        )
        rankings = _rank(rankers, collection, settings)
        if model.normalised:
            rankings |= _rank_baselines(collection, model.bits, names, settings, warnings)
        elif names:
            warnings.append(
                f"No baseline {', '.join(names)}: they rank by the inner product of unit vectors, "
                "and this model's embeddings are not normalised."
            )
        shown = collect_examples(
            choose_examples(rankings["codes"].ap, headline, examples, seed),
            rankers.codes,
            collection.relevance,
            rankings["codes"].ap,
            query_items=collection.query_items,
            database_items=collection.database_items,
            source=opened,
            limits=limits,
        )
    finally:
        if opened is not source:
            opened.close()

    right = _right(model, collection)
    unseen = bool(split.unseen_classes)
    target = model.encoder.target
    report = Report(
        source=opened.name,
        protocol=split.protocol,
        objective=model.summary.get("objective"),
        score="inner product" if model.normalised else "Euclidean distance",
        bits=model.bits,
        fingerprint=model.fingerprint,
        at=settings.at,
        seed=model.summary.get("seed"),
        split_seed=split_seed,
        evaluation_seed=seed,
        database_count=len(collection.database_items),
        distinct_codes=len(distinct_rows(_of_equal_codewords(model, rankers.codes.codes_NM))[0]),
        predicted_classes_used=target is not None and target.pull > 0,
        figures=mean_figures(
            rankings, settings.ranks, headline, right=None if unseen else right, baselines=names
        ),
        seen=(
            mean_figures(rankings, settings.ranks, ~headline, right=right, baselines=names)
            if unseen and not headline.all()
            else None
        ),
        warnings=tuple(warnings),
        skipped=(*opened.skips, *collection.skips),
        seconds=time.perf_counter() - started,
        queries=QueryFigures(
            keys=tuple(item.key for item in collection.query_items),
            labels=tuple(item.labels for item in collection.query_items),
            headline=headline,
            relevant_counts=collection.relevance.counts(),
            ranks=settings.ranks,
            rankings=rankings,
        ),
        norms=rankers.codes.norms_N,
        examples=shown,
    )
    if out is not None:
        report.save(out)
    return report


@dataclass(frozen=True, slots=True)
class _Settings:
    at: int | None
    ranks: NDArray[np.int64]
    seed: int
    threads: int | None
    told: Progress


@dataclass(frozen=True, slots=True)
class _Rankers:
    codes: CodeRanker
    float: FloatRanker
    hamming: HammingRanker | None
    classes: ClassRanker | None
    expected: FloatRanker | None

    @classmethod
    def of(cls, model: RetrievalModel, collection: Collection) -> _Rankers:
        encoder, normalised = model.encoder, model.normalised
        codes_NM = encoder.encode(collection.database)
        hamming = classes = expected = None
        if encoder.codebooks == sign_codebooks(model.bits, unit=True):
            hamming = HammingRanker(codes_NM, encoder.encode(collection.queries))
        if encoder.target is not None:
            classes = ClassRanker(
                _predict(encoder.target, collection.queries),
                _predict(encoder.target, collection.database),
                encoder.target.centres_CD,
                collection.queries,
                normalised=normalised,
            )
            expected = FloatRanker(
                _expected_centres(encoder.target, collection.database),
                collection.queries,
                normalised=normalised,
                name="expected_centre",
            )
        return cls(
            CodeRanker(encoder.codebooks, codes_NM, collection.queries, normalised=normalised),
            FloatRanker(collection.database, collection.queries, normalised=normalised),
            hamming,
            classes,
            expected,
        )


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that no one asked for."""


def _baseline_names(baselines: bool | Sequence[str]) -> tuple[str, ...]:
    if not baselines:
        return ()
    asked = (baselines,) if isinstance(baselines, str) else baselines
    names = DEFAULT_BASELINES if asked is True else tuple(dict.fromkeys(asked))
    unknown = [name for name in names if name not in (*BASELINES, "all")]
    if unknown:
        raise ConfigError(
            f"unknown baseline {unknown[0]!r}; there are {', '.join(BASELINES)}, and all"
        )
    if "all" in names:
        names = BASELINES
    require_faiss(PURPOSE)  # now, not after the images have been embedded
    return names


def _make_folder(folder: Path) -> None:
    """Make the report's folder before anything is measured that could then not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} for the report cannot be made: {error.strerror}"
        ) from error


def _require_two_labels(collection: Collection) -> None:
    """Refuse images that could be read where all of them are right results of all queries."""
    items = [*collection.query_items, *collection.database_items]
    labels = {label for item in items for label in item.labels}
    if len(labels) == 1:
        first = collection.skips[0] if collection.skips else None
        raise LabelError(
            f"of the images only those of {labels.pop()!r} could be read: every result would be "
            "right" + (f"; {first.path}: {first.reason}" if first else "")
        )


def _require_labels(source: Source) -> None:
    labels = {label for item in source.items for label in item.labels}
    if len(labels) > 1:
        return
    found = f"all images have the label {labels.pop()!r}" if labels else "no image has a label"
    raise LabelError(
        f"evaluation needs labels to tell right results from wrong ones, and in {source.name} "
        f"{found}. Put the images into one folder for each class, or name their labels in a "
        f"labels.csv beside them (path,labels). What was read: {source.label_note}"
    )


def _ranks(database_count: int) -> NDArray[np.int64]:
    shown = [n for n in PRECISION_RANKS if n <= database_count]
    return np.union1d(curve_ranks(database_count), np.array(shown, dtype=np.int64))


def _rank(rankers: _Rankers, collection: Collection, settings: _Settings) -> dict[str, Ranked]:
    stages: list[tuple[str, Ranker]] = [
        ("ranking codes", rankers.codes),
        ("ranking float embeddings", rankers.float),
    ]
    if rankers.hamming is not None:
        stages.append(("ranking codes by Hamming distance", rankers.hamming))
    if rankers.classes is not None:
        stages.append(("ranking predicted classes", rankers.classes))
    if rankers.expected is not None:
        stages.append(("ranking expected centres", rankers.expected))
    rankings: dict[str, Ranked] = {}
    for stage, ranker in stages:
        rankings |= rank_queries(
            ranker,
            collection.relevance,
            at=settings.at,
            ranks=settings.ranks,
            threads=settings.threads,
            tick=partial(settings.told, stage),
        )
    return rankings


def _rank_baselines(
    collection: Collection,
    bits: int,
    names: Sequence[str],
    settings: _Settings,
    warnings: list[str],
) -> dict[str, Ranked]:
    if not names:
        return {}
    left_out: dict[str, list[str]] = {}  # names by the reason
    for name in names:
        try:
            check_baseline(name, bits, collection.database.shape[1], len(collection.training))
        except (ConfigError, InputError) as error:
            left_out.setdefault(str(error), []).append(name)
    warnings += [f"No baseline {', '.join(them)}: {why}." for why, them in left_out.items()]
    without = {name for them in left_out.values() for name in them}
    return rank_baselines(
        collection.training,
        collection.database,
        collection.queries,
        collection.relevance,
        bits,
        names=[name for name in names if name not in without],
        at=settings.at,
        ranks=settings.ranks,
        seed=settings.seed,
        threads=settings.threads,
        tick=lambda name, done, total: settings.told(f"ranking baseline {name}", done, total),
    )


def _predict(target: ClassTarget, z_ND: NDArray[np.float32]) -> PredictedSets:
    blocks = (target.predict(z_ND[rows]) for rows in _blocks(target, len(z_ND)))
    return PredictedSets.gather(blocks, target.n_classes)


def _blocks(target: ClassTarget, count: int) -> Iterator[slice]:
    """Rows to classify together."""
    step = max(1, min(PREDICTION_ROWS, PREDICTION_BYTES // (8 * target.n_classes)))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _expected_centres(target: ClassTarget, z_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the classifier alone says of each item: float32 [N, D], perhaps a memory map."""
    centres_ND = allocate(*z_ND.shape)
    for rows in _blocks(target, len(z_ND)):
        centres_ND[rows] = target.centre(z_ND[rows])
    return centres_ND


def _of_equal_codewords(model: RetrievalModel, codes_NM: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes in which codewords that are equal, as unused ones of few images are, have one name."""
    named_NM = np.empty_like(codes_NM)
    for m, book_KD in enumerate(model.encoder.codebooks.array):
        _, first, place_K = np.unique(book_KD, axis=0, return_index=True, return_inverse=True)
        named_NM[:, m] = first[place_K.reshape(-1)].astype(np.uint8)[codes_NM[:, m]]
    return named_NM


def _right(model: RetrievalModel, collection: Collection) -> NDArray[np.bool_] | None:
    """Whether each query's best predicted label is among its own; bool [Q].

    None without a classifier, and where it knows no label of any query.
    """
    target = model.encoder.target
    known = set(model.classes)
    if target is None or not any(known & set(item.labels) for item in collection.query_items):
        return None
    queries_QD = collection.queries
    best_Q = np.concatenate(
        [
            target.logits(queries_QD[rows]).argmax(axis=1)
            for rows in _blocks(target, len(queries_QD))
        ]
    )
    return np.array(
        [
            model.classes[best] in item.labels
            for best, item in zip(best_Q, collection.query_items, strict=True)
        ],
        dtype=bool,
    )


def _headline(split: Split, collection: Collection) -> NDArray[np.bool_]:
    """Queries that the headline speaks of: all; under unseen-classes those without a seen label."""
    unseen = set(split.unseen_classes)
    headline = np.array(
        [not unseen or unseen.issuperset(item.labels) for item in collection.query_items],
        dtype=bool,
    )
    if not headline.any():
        raise LabelError(
            f"none of the {len(headline)} queries is of one of the unseen classes "
            f"({', '.join(sorted(unseen))}): a class needs at least two images to give a query"
        )
    return headline


def _warnings(
    model: RetrievalModel, source: Source, split: Split, collection: Collection
) -> list[str]:
    """What makes the figures other than they seem."""
    warnings = list(source.warnings)
    query_count = len(collection.query_items)
    trained = int(model.trained_on(collection.query_items).sum())
    if trained:
        warnings.append(
            f"THE MODEL WAS TRAINED ON {trained:,} OF THE {query_count:,} QUERIES: these figures "
            "say nothing about new images. Evaluate under the protocol and split seed that it was "
            f"trained with ({model.summary.get('protocol', 'unknown')}, split seed "
            f"{model.summary.get('split_seed', 'unknown')}), or on images it has not seen."
        )
    others = np.setdiff1d(split.database, split.training)
    outside = int(model.trained_on([source.items[position] for position in others]).sum())
    if outside:
        warnings.append(
            f"THE MODEL WAS TRAINED ON {outside:,} DATABASE IMAGES THAT THIS PROTOCOL DOES NOT "
            f"TRAIN ON: it was trained under {model.summary.get('protocol', 'unknown')}, so these "
            f"are not figures of {split.protocol}."
        )
    unseen = set(split.unseen_classes)
    of_unseen = [item for item in source.items if unseen.intersection(item.labels)]
    leaked = int(model.trained_on(of_unseen).sum()) if of_unseen else 0
    if leaked:
        warnings.append(
            f"THE MODEL WAS TRAINED ON {leaked:,} IMAGES OF THE UNSEEN CLASSES "
            f"({', '.join(sorted(unseen))}): to this model they are not unseen. Train with the "
            f"protocol {split.protocol} and split seed {split.split_seed}."
        )
    lonely = int((collection.relevance.counts() == 0).sum())
    if lonely:
        warnings.append(
            f"{lonely:,} of the {query_count:,} queries have no relevant image in the database; "
            "each counts as an average precision of 0."
        )
    unlabelled = sum(not item.labels for item in collection.database_items)
    if unlabelled:
        warnings.append(
            f"{unlabelled:,} of the {len(collection.database_items):,} database images have no "
            "label: they count as wrong results of every query."
        )
    return warnings
