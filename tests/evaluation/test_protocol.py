from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from spherequant.errors import (
    ConfigError,
    InputError,
    LabelError,
    MissingDependencyError,
    SpherequantError,
)
from spherequant.evaluation import average_precision, embeddings, evaluate, protocol
from spherequant.evaluation.baselines import BASELINES, rank_baselines
from spherequant.images import Limits, make_split, open_source, scratch
from spherequant.quantizer import ClassTarget, Codebooks, Encoder
from spherequant.quantizer.signs import sign_codebooks

KEYS = {
    "source",
    "fingerprint",
    "protocol",
    "bits",
    "map",
    "map_recall_aware",
    "map_at",
    "accuracy",
    "float_map",
    "class_id_map",
    "class_centre_map",
    "expected_centre_map",
    "precision_at",
    "distinct_codes",
    "ties",
    "seed",
    "split_seed",
    "query_count",
    "database_count",
    "baselines",
    "baselines_by_score",
    "warnings",
    "predicted_classes_used",
    "cosine_map",
    "skipped",
    "euclidean_map",
    "map_standard_error",
    "tie_rule",
    "denominators",
    "evaluation_seed",
    "seconds",
    "objective",
    "score",
    "hamming_map",
    "inner_product_map",
}


def vectors_of(model, source, positions):
    images = [source.image(source.items[position]) for position in positions]
    return model.embed_prepared(np.stack([model.prepare(image) for image in images]))


def shares_label(source, queries, database):
    return np.array(
        [
            [bool({*source.items[q].labels} & {*source.items[d].labels}) for d in database]
            for q in queries
        ]
    )


def test_holdout_equals_a_direct_computation(make_model, make_pictures):
    pictures = make_pictures()
    model = make_model(pull=0.7)
    report = evaluate(model, pictures).to_dict()
    source = open_source(pictures)
    split = make_split(source.items, "holdout", 3)  # the model's own split seed
    queries = vectors_of(model, source, split.queries)
    database = vectors_of(model, source, split.database)
    relevant = shares_label(source, split.queries, split.database)
    reconstructed = model.encoder.codebooks.decode(model.encoder.encode(database))
    # float64 products tie as float32 table sums do: equal codes have equal reconstructions
    by_codes = average_precision(np.round(queries @ reconstructed.T, 5), relevant)
    assert report["map"] == pytest.approx(np.mean(by_codes), abs=1e-3)
    by_float = average_precision(queries @ database.T, relevant)
    assert report["float_map"] == pytest.approx(np.mean(by_float), abs=1e-6)
    target = model.encoder.target
    predicted = target.predict(queries).argmax(1)[:, None] == target.predict(database).argmax(1)
    assert report["class_id_map"] == pytest.approx(
        np.mean(average_precision(predicted.astype(float), relevant))
    )
    centres = target.centres_CD[target.predict(database).argmax(1)]
    assert report["class_centre_map"] == pytest.approx(
        np.mean(average_precision(np.round(queries @ centres.T, 5), relevant)), abs=1e-6
    )
    expected = softmax(target.sharpness * target.logits(database), axis=1) @ target.centres_CD
    assert report["expected_centre_map"] == pytest.approx(
        np.mean(average_precision(queries @ expected.T, relevant)), abs=1e-3
    )
    classes = np.array(model.classes)[target.predict(queries).argmax(1)]
    right = [name in source.items[q].labels for name, q in zip(classes, split.queries, strict=True)]
    assert report["accuracy"] == pytest.approx(np.mean(right))
    assert (report["query_count"], report["database_count"]) == (10, 90)
    assert report["ties"] == 1.0


@pytest.mark.usefixtures("one_faiss_thread")
def test_only_the_first_r_results_count_where_a_protocol_says_so(
    make_model, make_pictures, monkeypatch
):
    monkeypatch.setitem(protocol.CUTOFFS, "holdout", 5)
    model, pictures = make_model(), make_pictures(per_class=70)
    report = evaluate(model, pictures, baselines=["pq"], examples=0)
    figures = report.to_dict()
    source = open_source(pictures)
    split = make_split(source.items, "holdout", 3)
    queries, database = (vectors_of(model, source, at) for at in (split.queries, split.database))
    relevant = shares_label(source, split.queries, split.database)
    for name, denominator in (("map", "found"), ("map_recall_aware", "recall-aware")):
        codes = model.encoder.codebooks.decode(model.encoder.encode(database))
        scores = np.round(queries @ codes.T, 5)
        expected = average_precision(scores, relevant, at=5, denominator=denominator)
        assert figures[name] == pytest.approx(np.mean(expected), abs=1e-3)
    floats = average_precision(queries @ database.T, relevant, at=5)
    assert figures["float_map"] == pytest.approx(np.mean(floats), abs=1e-6)
    assert figures["map_at"] == 5
    collection = embeddings.embed_split(model, source, split, None, with_training=True)
    parts = (collection.training, collection.database, collection.queries, collection.relevance)
    pq = report.queries.rankings["pq"].ap
    for at, same in ((5, True), (None, False)):
        expected = rank_baselines(*parts, model.bits, names=["pq"], at=at)["pq"].ap
        assert np.array_equal(pq, expected) is same


def test_the_report_has_the_keys_that_others_rely_on(make_model, make_pictures):
    report = evaluate(make_model(), make_pictures(), seed=4).to_dict()
    assert set(report) == KEYS
    assert report["map_at"] == "all"
    assert (report["bits"], report["protocol"]) == (8, "holdout")
    assert (report["seed"], report["split_seed"], report["evaluation_seed"]) == (5, 3, 4)
    assert report["precision_at"].keys() == {"1", "5", "10", "50"}
    assert report["predicted_classes_used"] is False
    assert report["warnings"] == []
    assert report["baselines"] == {}


def test_a_seed_that_the_model_does_not_tell_is_null(make_model, make_pictures):
    report = evaluate(make_model(summary={}), make_pictures(), examples=0).to_dict()
    assert report["seed"] is None
    assert report["split_seed"] == 0


def test_another_split_seed_asks_other_queries(make_model, make_pictures):
    model, pictures = make_model(), make_pictures()
    own = evaluate(model, pictures, examples=0)
    assert evaluate(model, pictures, split_seed=3, examples=0).queries.keys == own.queries.keys
    assert evaluate(model, pictures, split_seed=4, examples=0).queries.keys != own.queries.keys


def test_unseen_classes_puts_them_in_the_headline(make_model, make_pictures):
    pictures = make_pictures()
    report = evaluate(make_model(), pictures, "unseen-classes")
    split = make_split(open_source(pictures).items, "unseen-classes", 3)
    assert len(split.unseen_classes) == 2
    for labels, headline in zip(report.queries.labels, report.queries.headline, strict=True):
        assert headline == (labels[0] in split.unseen_classes)
    figures = report.to_dict()
    assert set(figures) == KEYS | {"seen"}
    assert figures["accuracy"] is None
    assert figures["seen"]["accuracy"] is not None
    assert figures["query_count"] + figures["seen"]["query_count"] == len(report.queries.keys)
    ap = report.queries.rankings["codes"].ap
    assert figures["seen"]["map"] == pytest.approx(ap[~report.queries.headline].mean())
    assert figures["map"] == pytest.approx(ap[report.queries.headline].mean())


def test_a_query_with_a_seen_and_an_unseen_label_is_not_in_the_headline(make_model, make_pictures):
    plain = make_split(open_source(make_pictures()).items, "unseen-classes", 3)
    unseen, seen = plain.unseen_classes[0], plain.seen_classes[0]
    pictures = make_pictures(
        labels_of=lambda name, n: (name, seen) if name == unseen and n % 2 else (name,)
    )
    split = make_split(open_source(pictures).items, "unseen-classes", 3)
    assert split.unseen_classes == plain.unseen_classes
    queries = evaluate(make_model(), pictures, "unseen-classes", examples=0).queries
    both = tuple(sorted((seen, unseen)))
    headlines = dict(zip(queries.labels, queries.headline, strict=True))
    assert headlines[both] == 0
    assert headlines[(unseen,)] == 1


def test_unseen_classes_without_a_query_are_an_error(make_model, make_pictures):
    unseen = make_split(open_source(make_pictures()).items, "unseen-classes", 3).unseen_classes
    bad = [f"{name}/{n:03}.png" for name in unseen for n in range(20)]
    with pytest.raises(LabelError, match="is of one of the unseen classes"):
        evaluate(make_model(), make_pictures(bad=bad), "unseen-classes")


def test_without_a_classifier_its_controls_are_null(make_model, make_pictures):
    figures = evaluate(make_model(classes=()), make_pictures()).to_dict()
    assert figures["class_id_map"] is None
    assert figures["class_centre_map"] is None
    assert figures["expected_centre_map"] is None
    assert figures["accuracy"] is None
    assert figures["predicted_classes_used"] is False


def test_labels_that_the_model_does_not_know_are_ranked_all_the_same(make_model, make_pictures):
    pictures = make_pictures(labels_of=lambda name, _: (f"other {name}",))
    figures = evaluate(make_model(), pictures).to_dict()
    assert figures["accuracy"] is None
    assert figures["class_id_map"] > 0.3


def test_images_of_several_labels_are_relevant_by_any(make_model, make_pictures):
    pictures = make_pictures(labels_of=lambda name, n: (name, "even") if n % 2 == 0 else (name,))
    model = make_model(multi_label=True, pull=0.5)
    report = evaluate(model, pictures)
    source = open_source(pictures)
    split = make_split(source.items, "holdout", 3)
    counts = shares_label(source, split.queries, split.database).sum(axis=1)
    assert list(report.queries.relevant_counts) == list(counts)
    assert report.to_dict()["predicted_classes_used"] is True
    assert report.to_dict()["accuracy"] > 0.3


def test_trained_queries_are_said_loudly(make_model, make_pictures):
    pictures = make_pictures()
    everything = frozenset(key for key, _, _ in pictures)
    model = make_model(trained_keys=everything)
    warning = evaluate(model, pictures).to_dict()["warnings"][0]
    assert "TRAINED ON 10 OF THE 10 QUERIES" in warning
    leaks = evaluate(model, pictures, "unseen-classes").to_dict()["warnings"]
    assert "DATABASE IMAGES THAT THIS PROTOCOL DOES NOT TRAIN ON" in leaks[1]
    assert "40 IMAGES OF THE UNSEEN CLASSES" in leaks[2]


def test_lonely_queries_and_unlabelled_images_are_said(make_model, make_pictures):
    def labels_of(name, number):
        if name == "pink":
            return (f"pink {number % 10}",) if number < 11 else ()
        return (name,)

    report = evaluate(make_model(), make_pictures(labels_of=labels_of), examples=0)
    assert any("have no label" in warning for warning in report.warnings)
    assert report.queries.relevant_counts.min() >= 1
    assert not any("no relevant image" in warning for warning in report.warnings)


def test_queries_that_nothing_answers_are_said_and_count_0(make_model, make_pictures, tmp_path):
    for key, image, (name,) in make_pictures(per_class=6):
        split = "test" if name == "pink" or key.endswith("0.png") else "train"
        path = tmp_path / split / key
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    report = evaluate(make_model(), tmp_path, examples=0)
    lonely = np.array([labels == ("pink",) for labels in report.queries.labels])
    assert lonely.sum() == 6
    np.testing.assert_array_equal(report.queries.relevant_counts == 0, lonely)
    expected = f"6 of the {len(lonely)} queries have no relevant image"
    assert any(expected in warning for warning in report.warnings)
    assert (report.queries.rankings["codes"].ap[lonely] == 0).all()
    assert report.to_dict()["map"] == pytest.approx(report.queries.rankings["codes"].ap.mean())


def test_unreadable_images_shift_nothing(make_model, make_pictures):
    clean = evaluate(make_model(), make_pictures(), examples=0)
    bad = [clean.queries.keys[0], "blue/000.png", "green/019.png"]
    report = evaluate(make_model(), make_pictures(bad=bad), examples=0)
    assert {skip.path for skip in report.skipped} == set(bad)
    assert all(skip.reason for skip in report.skipped)
    assert report.queries.keys == tuple(key for key in clean.queries.keys if key not in bad)
    kept = [
        label[0] == key.split("/")[0]
        for key, label in zip(report.queries.keys, report.queries.labels, strict=True)
    ]
    assert all(kept)


def test_a_disk_without_room_for_large_embeddings_is_an_error(
    make_model, make_pictures, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embeddings, "MEMORY_BYTES", 100)
    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    with pytest.raises(SpherequantError, match=r"embeddings need .* point TMPDIR at a larger disk"):
        evaluate(make_model(), make_pictures(), examples=0)


def test_large_embeddings_go_to_a_file_and_change_nothing(make_model, make_pictures, monkeypatch):
    in_memory = evaluate(make_model(), make_pictures(), examples=0)
    monkeypatch.setattr(embeddings, "MEMORY_BYTES", 100)
    monkeypatch.setattr(embeddings, "BATCH", 7)
    monkeypatch.setattr(embeddings, "_COPY_ROWS", 11)
    model = make_model()
    on_disk = evaluate(model, make_pictures(), examples=0)
    assert max(model.batch_sizes) == 7
    assert np.array_equal(on_disk.norms, in_memory.norms)
    for name, ranked in in_memory.queries.rankings.items():
        assert np.array_equal(ranked.ap, on_disk.queries.rankings[name].ap)


def test_progress_tells_each_stage(make_model, make_pictures):
    told = []
    evaluate(make_model(), make_pictures(), progress=lambda *values: told.append(values))
    ends = [(stage, done) for stage, done, total in told if done == total]
    assert ends == [
        ("embedding images", 100),
        ("ranking codes", 10),
        ("ranking float embeddings", 10),
        ("ranking predicted classes", 10),
        ("ranking expected centres", 10),
    ]


@pytest.mark.usefixtures("one_faiss_thread")
def test_baselines_are_measured_on_the_same_embeddings(make_model, make_pictures):
    report = evaluate(make_model(), make_pictures(per_class=70), baselines=["pq"], examples=0)
    figures = report.to_dict()
    assert 0 < figures["baselines"]["pq"] <= 1
    by_score = figures["baselines_by_score"]["pq"]
    assert by_score["inner_product"] == figures["baselines"]["pq"]
    for score in ("cosine", "euclidean"):
        ranked = report.queries.rankings[f"pq_{score}"]
        assert by_score[score] == ranked.ap.mean()
        assert ranked.ap.shape == report.queries.rankings["codes"].ap.shape


def test_too_few_training_images_for_baselines_are_a_warning(make_model, make_pictures):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    figures = evaluate(make_model(), make_pictures(), baselines=True, examples=0).to_dict()
    assert figures["baselines"] == {"pq": None, "rq": None}
    (warning,) = figures["warnings"]
    assert warning.startswith("No baseline pq, rq: 90 training vectors: FAISS needs at least 256")


@pytest.mark.usefixtures("one_faiss_thread")
def test_a_baseline_that_does_not_fit_the_length_is_left_out_with_its_reason(
    make_model, make_pictures
):
    report = evaluate(make_model(), make_pictures(), baselines=["itq", "rabitq"], examples=0)
    figures = report.to_dict()
    assert figures["bits"] <= 64
    assert figures["baselines"].keys() == {"itq", "rabitq"}
    assert figures["baselines"]["rabitq"] is None
    assert any("No baseline rabitq: RaBitQ stores two floats" in w for w in figures["warnings"])


@pytest.mark.usefixtures("one_faiss_thread")
def test_all_stands_for_every_baseline_and_files_hold_them(make_model, make_pictures, tmp_path):
    pictures = make_pictures(per_class=70)
    figures = evaluate(make_model(), pictures, baselines="all", examples=0, out=tmp_path).to_dict()
    assert tuple(figures["baselines"]) == BASELINES
    assert [name for name, value in figures["baselines"].items() if value is None] == ["rabitq"]
    stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert stored["baselines"] == figures["baselines"]
    columns = (tmp_path / "queries.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in BASELINES[:-1]:
        assert f"{name}_ap" in columns
        assert f"{figures['baselines'][name]:.3f}" in page
    for words in ("rotated, by cosine", "local search", "iterative quantizer, asymmetric"):
        assert words in page


@pytest.mark.usefixtures("one_faiss_thread")
def test_rabitq_is_in_the_report_of_a_longer_code(make_model, make_pictures, tmp_path):
    model = make_model()
    codewords = np.random.default_rng(0).normal(0, 0.2, (9, 256, model.encoder.codebooks.dim))
    longer = replace(model, encoder=Encoder(Codebooks(codewords), model.encoder.target))
    report = evaluate(longer, make_pictures(), baselines=["rabitq"], examples=0, out=tmp_path)
    figures = report.to_dict()
    assert figures["bits"] == 72
    assert 0 < figures["baselines"]["rabitq"] <= 1
    assert "FAISS RaBitQ" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_baselines_without_faiss_fail_before_any_work(make_model, make_pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    model = make_model()
    with pytest.raises(MissingDependencyError, match="faiss"):
        evaluate(model, make_pictures(), baselines=True)
    assert model.batch_sizes == []


def test_unknown_names_are_refused(make_model, make_pictures):
    with pytest.raises(ConfigError, match="unknown baseline 'sq'"):
        evaluate(make_model(), make_pictures(), baselines=["pq", "sq"])
    with pytest.raises(ConfigError, match="holdout"):
        evaluate(make_model(), make_pictures(), "holdou")
    with pytest.raises(ConfigError, match="no -1 examples"):
        evaluate(make_model(), make_pictures(), examples=-1)


def test_classes_are_predicted_for_some_rows_at_a_time(make_model, make_pictures, monkeypatch):
    model = make_model(pull=0.4)
    whole = evaluate(model, make_pictures()).to_dict()
    made = []
    logits = ClassTarget.logits
    monkeypatch.setattr(
        ClassTarget, "logits", lambda self, z, *n: (made.append(len(z)), logits(self, z, *n))[1]
    )
    monkeypatch.setattr(protocol, "PREDICTION_BYTES", 5 * 8 * len(model.classes))
    assert evaluate(model, make_pictures()).to_dict() | {"seconds": 0} == whole | {"seconds": 0}
    assert max(made[-10:]) <= 5


@pytest.mark.parametrize(
    ("labels_of", "message"),
    [
        (lambda *_: (), "no image has a label"),
        (lambda *_: ("only",), "all images have the label 'only'"),
        (lambda name, n: (f"{name} {n}",), "0 queries"),
    ],
)
def test_labels_that_cannot_tell_right_from_wrong(make_model, make_pictures, labels_of, message):
    with pytest.raises(LabelError, match=message):
        evaluate(make_model(), make_pictures(labels_of=labels_of))


def test_an_open_source_stays_open(make_model, make_pictures):
    with open_source(make_pictures()) as source:
        evaluate(make_model(), source)
        assert source.image(source.items[0]).mode == "RGB"


def test_a_picture_that_is_gone_leaves_a_gap_on_the_page(make_model, make_pictures, monkeypatch):
    with open_source(make_pictures()) as source:

        def gone(*_):
            raise InputError("gone")

        from spherequant.evaluation import examples

        monkeypatch.setattr(examples, "thumbnail", gone)
        report = evaluate(make_model(), source)
    assert all(example.query.jpeg is None for example in report.examples)


def test_importing_evaluation_loads_no_heavy_library():
    code = (
        "import sys, spherequant.evaluation\n"
        "print([name for name in ('torch', 'faiss', 'matplotlib', 'jinja2', 'lance') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_report_says_which_objective_made_the_model(make_model, make_pictures, tmp_path):
    summary = {"split_seed": 3, "objective": "no-discriminative"}
    report = evaluate(make_model(summary=summary), make_pictures(), out=tmp_path)
    assert (report.objective, report.score) == ("no-discriminative", "inner product")
    page = (tmp_path / "report.html").read_text()
    assert "<td>no-discriminative</td>" in page
    assert evaluate(make_model(), make_pictures()).to_dict()["objective"] is None


def test_codes_of_signs_are_ranked_by_hamming_distance_too(make_model, make_pictures, tmp_path):
    model, pictures = make_model(), make_pictures()
    model.embed_prepared = lambda pixels: np.pad(  # type: ignore[method-assign]
        project_half(pixels), ((0, 0), (0, 4))
    )
    model.encoder = Encoder(sign_codebooks(16, unit=True))
    model.classes = ()
    report = evaluate(model, pictures, out=tmp_path)
    source = open_source(pictures)
    split = make_split(source.items, "holdout", 3)
    signs = [
        np.where(vectors_of(model, source, at) >= 0, 1, -1)
        for at in (split.queries, split.database)
    ]
    relevant = shares_label(source, split.queries, split.database)
    expected = average_precision((signs[0] @ signs[1].T).astype(float), relevant)
    assert report.figures.hamming_map == pytest.approx(np.mean(expected))
    assert report.figures.hamming_map != report.figures.map
    assert "Codes, by Hamming distance" in (tmp_path / "report.html").read_text()


def project_half(pixels):
    flat = pixels.reshape(len(pixels), -1).astype(np.float32) - 117.3
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_off_the_sphere_the_headline_is_by_distance(make_model, make_pictures):
    model, pictures = make_model(), make_pictures()
    model.normalised = False
    lengths = np.linspace(0.3, 2, 5)
    unit = model.embed_prepared

    def of_all_lengths(pixels):
        return unit(pixels) * lengths[pixels[:, 0, 0, 0].astype(int) % 5, None].astype(np.float32)

    model.embed_prepared = of_all_lengths
    report = evaluate(model, pictures, baselines=True)
    source = open_source(pictures)
    split = make_split(source.items, "holdout", 3)
    queries, database = (vectors_of(model, source, at) for at in (split.queries, split.database))
    relevant = shares_label(source, split.queries, split.database)
    apart = ((queries[:, None] - database[None]) ** 2).sum(axis=2)
    expected = average_precision(-np.round(apart, 5), relevant)
    assert report.score == "Euclidean distance"
    assert report.figures.float_map == pytest.approx(np.mean(expected), abs=1e-3)
    assert report.figures.euclidean_map == report.figures.map
    assert report.figures.inner_product_map != report.figures.map
    assert report.to_dict()["baselines"] == {"pq": None, "rq": None}
    assert "embeddings are not normalised" in report.warnings[-1]


def test_equal_codewords_are_one(make_model, make_pictures):
    """Of few images most codewords stay unused, and equal: codes that differ in them do not."""
    model = make_model()
    twice = np.concatenate([model.encoder.codebooks.array] * 2, axis=1)
    named = protocol._of_equal_codewords(
        SimpleNamespace(encoder=SimpleNamespace(codebooks=SimpleNamespace(array=twice))),
        np.array([[0] * len(twice), [twice.shape[1] // 2] * len(twice)], np.uint8),
    )
    np.testing.assert_array_equal(named[0], named[1])


def test_only_a_model_is_evaluated(make_pictures):
    with pytest.raises(InputError, match=r"takes a model \(Model\.load\), not str"):
        evaluate("photos.model", make_pictures())


def test_a_report_is_one_line(make_model, make_pictures):
    report = evaluate(make_model(), make_pictures(), examples=0)
    assert repr(report).startswith(f"<Report: {report.source}, holdout, {report.bits} bits, mAP ")
    assert len(repr(report)) < 200


def test_one_label_that_can_be_read_is_refused(make_model, make_pictures):
    keys = evaluate(make_model(), make_pictures(), examples=0).queries.keys
    names = sorted({key.split("/")[0] for key in keys})
    with open_source(make_pictures()) as source:
        bad = [item.key for item in source.items if not item.key.startswith(names[0])]
    with pytest.raises(LabelError, match=f"only those of '{names[0]}' could be read.*{bad[0][:3]}"):
        evaluate(make_model(), make_pictures(bad=bad), examples=0)


def test_nothing_that_can_be_read_says_why(make_model, make_pictures):
    with pytest.raises(LabelError, match=r"leaves 0 queries against 0 database images.*pixels"):
        evaluate(make_model(), list(make_pictures()), limits=Limits(max_pixels=3))


def test_a_report_that_cannot_be_kept_fails_before_any_work(make_model, make_pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="report cannot be made"):
        evaluate(make_model(), make_pictures(), out=tmp_path / "file", progress=never)


def never(*_):
    raise AssertionError("something was measured")
