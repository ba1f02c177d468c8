"""``spherequant evaluate``."""

import json
import re

import pytest

KEYS = {
    "protocol",
    "bits",
    "map",
    "map_recall_aware",
    "map_at",
    "accuracy",
    "float_map",
    "class_id_map",
    "class_centre_map",
    "precision_at",
    "distinct_codes",
    "ties",
    "seed",
    "split_seed",
    "query_count",
    "database_count",
    "baselines",
}


def test_the_json_has_the_keys_that_others_rely_on(trained, photos, spherequant_json, tmp_path):
    value = spherequant_json("evaluate", trained.path, photos, "--out", tmp_path / "report")
    assert set(value) >= KEYS
    assert "seen" not in value
    assert (value["protocol"], value["bits"], value["map_at"]) == ("holdout", 16, "all")
    assert (value["query_count"], value["database_count"]) == (3, 33)
    assert 0 <= value["map"] <= 1
    assert value["baselines"] == {}
    assert [skip["path"] for skip in value["skipped"]] == ["bee/broken.jpg"]
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == value
    assert (tmp_path / "report" / "report.html").exists()


def test_figures_are_printed_with_how_they_were_made(trained, photos, spherequant):
    result = spherequant("evaluate", trained.path, photos)
    for words in (
        "photos, protocol holdout: 3 queries against 33 images, 16 bits",
        "mAP codes ",
        "mAP codes, recall-aware ",
        "mAP codes, by Euclidean distance ",
        "objective          dsq",
        "mAP float embeddings ",
        "mAP class-id ",
        "mAP class centre ",
        "mAP at             all",
        "tied items",
        "split 0, evaluation 0",
    ):
        assert words in result.stdout
    assert "Skipped (1):" in result.stderr
    assert "WARNING" not in result.stderr


def test_queries_that_were_trained_on_are_said_loudly(trained, photos, spherequant):
    result = spherequant("evaluate", trained.path, photos, "--split-seed", "7")
    assert "WARNING: THE MODEL WAS TRAINED ON" in result.stderr


def test_unseen_classes_come_beside_the_seen_ones(trained, photos, spherequant, spherequant_json):
    ask = ("evaluate", trained.path, photos, "--protocol", "unseen-classes")
    value = spherequant_json(*ask)
    assert set(value["seen"]) >= {"map", "float_map", "class_id_map", "query_count"}
    told = spherequant(*ask)
    assert "queries of classes that were not trained (1)" in told.stdout
    assert "queries of classes that were trained (2)" in told.stdout
    assert "TRAINED ON 12 IMAGES OF THE UNSEEN CLASSES" in told.stderr.replace(" 11 ", " 12 ")


def test_without_labels_there_is_nothing_to_judge_by(trained, photos, spherequant):
    result = spherequant("evaluate", trained.path, photos, "--labels", "none", code=1)
    assert "evaluation needs labels" in result.stderr
    assert "labels.csv" in result.stderr


def test_baselines_are_chosen_by_name(trained, photos, spherequant, spherequant_json):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    ask = ("evaluate", trained.path, photos, "--baseline", "itq", "--baseline", "rabitq")
    value = spherequant_json(*ask, "--baselines", "--baseline", "rq")
    assert list(value["baselines"]) == ["pq", "rq", "itq", "rabitq"]
    told = spherequant(*ask)
    assert re.search(r"^mAP FAISS rabitq +-$", told.stdout, re.MULTILINE)
    assert "No baseline itq: ITQ makes one bit of each principal component" in told.stderr


def test_an_unknown_baseline_is_refused_with_the_names(trained, photos, spherequant):
    result = spherequant("evaluate", trained.path, photos, "--baseline", "sq", code=1)
    assert "unknown baseline 'sq'; there are pq, opq," in result.stderr


def test_a_protocol_that_does_not_fit_is_explained(trained, photos, spherequant):
    result = spherequant("evaluate", trained.path, photos, "--protocol", "cifar10-full", code=1)
    assert "needs CIFAR-10" in result.stderr
    assert "--protocol holdout" in result.stderr
