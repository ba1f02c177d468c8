"""``spherequant index``."""

import shutil

import numpy as np
import pytest
from PIL import Image

from spherequant.index import Index
from spherequant.index.footprint import bytes_on_disk
from spherequant.training import Model

KEYS = {
    "total",
    "added",
    "updated",
    "removed",
    "skipped",
    "bytes_per_item",
    "bytes_memory",
    "bytes_disk",
    "bytes_thumbnails",
    "seconds",
}


@pytest.fixture
def folder(photos, tmp_path):
    """A copy of ``photos`` to change."""
    return shutil.copytree(photos, tmp_path / "photos")


def test_the_json_has_the_keys_that_others_rely_on(indexed):
    value = indexed.json
    assert set(value) == KEYS
    assert (value["total"], value["added"], value["updated"], value["removed"]) == (36, 36, 0, 0)
    assert value["bytes_per_item"] == 2
    assert value["bytes_disk"] > value["bytes_thumbnails"] > 0
    assert [skip["path"] for skip in value["skipped"]] == ["bee/broken.jpg"]


def test_labels_and_skips_are_told_on_stderr(indexed):
    told = indexed.result.stderr
    assert "3 folder names as labels: ant, bee, cat" in told
    assert "Skipped (1):\n  bee/broken.jpg  " in told


def test_a_second_run_does_what_changed(folder, trained, spherequant, spherequant_json, tmp_path):
    out = tmp_path / "index"
    dry = spherequant("index", trained.path, folder, "--out", out, "--dry-run")
    assert "nothing was written" in dry.stdout
    assert "would be" in dry.stdout
    assert not out.exists()
    first = spherequant("index", trained.path, folder, "--out", out, "--no-thumbnails")
    assert "36 added, 0 updated, 0 removed, 0 unchanged, 1 skipped" in first.stdout
    assert "2 bytes an image" in first.stdout

    (folder / "ant" / "00.png").unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "cat" / "00.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "cat" / "new.png")
    would = spherequant_json("index", trained.path, folder, "--out", out, "--dry-run")
    did = spherequant_json("index", trained.path, folder, "--out", out)
    # A dry run decodes nothing, so the broken file counts as one that would be added.
    assert (would["added"], would["updated"], would["removed"]) == (2, 1, 1)
    assert (did["added"], did["updated"], did["removed"]) == (1, 1, 1)
    assert (would["total"], did["total"]) == (36, 36)
    assert did["bytes_thumbnails"] == 0


def test_a_cache_is_written_where_it_is_asked_for(
    photos, trained, spherequant, spherequant_json, tmp_path
):
    out = tmp_path / "index"
    spherequant("index", trained.path, photos, "--out", out, "--cache", "--dry-run")
    assert not out.exists()
    spherequant("index", trained.path, photos, "--out", out)
    assert not (out / "cache.bin").exists()
    made = spherequant_json("index", trained.path, photos, "--out", out, "--cache")
    assert (out / "cache.bin").stat().st_size > 0
    assert made["bytes_disk"] == bytes_on_disk(out)
    assert spherequant_json("info", out)["total"] == 36


def test_a_source_that_lost_most_of_its_images_is_refused(folder, trained, spherequant, tmp_path):
    out = tmp_path / "index"
    spherequant("index", trained.path, folder, "--out", out)
    shutil.rmtree(folder / "ant")
    shutil.rmtree(folder / "bee")
    refused = spherequant("index", trained.path, folder, "--out", out, code=1)
    assert "--allow-removal" in refused.stderr
    with Index.open(out) as index:
        assert len(index) == 36
    allowed = spherequant("index", trained.path, folder, "--out", out, "--allow-removal")
    assert "24 removed" in allowed.stdout


def test_a_folder_that_vanished_empties_nothing(folder, trained, spherequant, tmp_path):
    out = tmp_path / "index"
    spherequant("index", trained.path, folder, "--out", out)
    shutil.rmtree(folder)
    refused = spherequant("index", trained.path, folder, "--out", out, code=1)
    assert "does not exist" in refused.stderr
    with Index.open(out) as index:
        assert len(index) == 36


def test_a_second_source_with_the_same_keys_needs_a_name(folder, trained, spherequant, tmp_path):
    out = tmp_path / "index"
    spherequant("index", trained.path, folder, "--out", out)
    other = shutil.copytree(folder, tmp_path / "other")
    refused = spherequant("index", trained.path, other, "--out", out, code=1)
    assert "--source-name" in refused.stderr
    added = spherequant("index", trained.path, other, "--out", out, "--source-name", "other")
    assert "36 added" in added.stdout
    with Index.open(out) as index:
        assert len(index) == 72
        assert index.get(["other/ant/00.png"])[0].labels == ("ant",)


def test_further_columns_of_the_table_are_metadata(folder, trained, spherequant, tmp_path):
    rows = ["path,labels,year,place"]
    rows += [f"ant/{n:02}.png,ant|small,{1990 + n},Wood" for n in range(12)]
    (folder / "labels.csv").write_text("\n".join(rows))
    out = tmp_path / "index"
    spherequant("index", trained.path, folder, "--out", out)
    with Index.open(out) as index:
        item = index.get(["ant/03.png"])[0]
    assert item.labels == ("ant", "small")
    assert item.metadata == {"year": 1993, "place": "Wood"}

    (folder / "labels.csv").write_text("\n".join(rows).replace("1993", "long ago"))
    again = spherequant("index", trained.path, folder, "--out", out)
    assert "Noted (1):\n  ant/03.png  metadata 'year' not stored" in again.stderr


def test_what_was_fixed_when_an_index_was_made_stays(folder, trained, spherequant, tmp_path):
    out = tmp_path / "index"
    spherequant("index", trained.path, folder, "--out", out)
    for option in ("--keep-vectors", "--no-thumbnails"):
        refused = spherequant("index", trained.path, folder, "--out", out, option, code=1)
        assert f"was made without {option}" in refused.stderr


@pytest.mark.parametrize(
    ("model", "expected"),
    [("nowhere", "holds no trained model"), ("empty", "holds no trained model")],
)
def test_a_missing_model_is_named(model, expected, photos, spherequant, tmp_path):
    (tmp_path / "empty").mkdir()
    result = spherequant("index", tmp_path / model, photos, "--out", tmp_path / "i", code=1)
    assert expected in result.stderr
    assert "spherequant train SOURCE --out" in result.stderr
    assert not (tmp_path / "i").exists()


def test_another_model_is_refused(photos, trained, indexed, spherequant, quick, tmp_path):
    other = tmp_path / "other"
    spherequant("train", photos, "--out", other, *quick, "--seed", "1")
    refused = spherequant("index", other, photos, "--out", indexed.path, code=1)
    assert "made with another model" in refused.stderr


def test_a_folder_that_holds_other_things_is_refused(photos, trained, spherequant, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear ...")
    refused = spherequant("index", trained.path, photos, "--out", tmp_path, code=1)
    assert "not empty" in refused.stderr


def test_codes_can_be_shorter_than_the_model(
    photos, trained, spherequant, spherequant_json, tmp_path
):
    out = tmp_path / "index"
    assert (
        spherequant_json("index", trained.path, photos, "--out", out, "--bits", 8)["bytes_per_item"]
        == 1
    )
    found = spherequant_json("search", out, photos / "ant" / "00.png")
    assert len(found["queries"][0]["results"]) == 10
    # Brought up to date, it keeps its length; the model in it is the shortened one.
    again = spherequant("index", trained.path, photos, "--out", out)
    assert "36 unchanged" in again.stdout
    facts = spherequant_json("info", out)
    assert (facts["model"]["bits"], facts["model"]["training"]["shortened_from_bits"]) == (8, 16)
    refused = spherequant("index", trained.path, photos, "--out", out, "--bits", 16, code=1)
    assert "was made with codes of 8 bits" in refused.stderr
    refused = spherequant(
        "index", trained.path, photos, "--out", tmp_path / "new", "--bits", 24, code=1
    )
    assert "a multiple of 8 bits from 8 to 16, not 24" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_the_index_of_a_longer_model_is_refused(indexed, trained, photos, spherequant, tmp_path):
    short = tmp_path / "short"
    Model.load(trained.path).shortened(8).save(short)
    refused = spherequant("index", short, photos, "--out", indexed.path, code=1)
    assert "another model" in refused.stderr
