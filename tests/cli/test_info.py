"""``spherequant info``."""

from pathlib import Path

import numpy as np

from spherequant.index import Index
from spherequant.quantizer import Codebooks


def test_a_model(trained, spherequant, spherequant_json):
    value = spherequant_json("info", trained.path)
    assert value["kind"] == "model"
    assert (value["bits"], value["bytes_per_item"], value["dim"]) == (16, 2, 8)
    assert value["classes"] == ["ant", "bee", "cat"]
    assert len(value["fingerprint"]) == 64
    assert value["training"]["protocol"] == "holdout"
    text = spherequant("info", trained.path).stdout
    for words in ("16 bits, 2 bytes an image", "small at 16 pixels", "3: ant, bee, cat",
                  "33 images of photos", value["fingerprint"]):  # fmt: skip
        assert words in text


def test_an_index(trained, indexed, photos, spherequant, spherequant_json):
    value = spherequant_json("info", indexed.path)
    assert value["kind"] == "index"
    assert value["total"] == 36
    assert value["sources"] == [{"name": "photos", "root": str(photos), "items": 36}]
    assert value["keep_vectors"]
    assert value["fingerprint"] == value["model"]["fingerprint"]
    text = spherequant("info", indexed.path).stdout
    for words in ("items         36", f"photos: 36 items from {photos}", "2 bytes an item",
                  "vectors kept  yes", "16 bits, 2 bytes an image"):  # fmt: skip
        assert words in text


def test_an_index_of_codebooks_alone(spherequant, spherequant_json, tmp_path):
    with Index.create(tmp_path / "i", Codebooks([[[1.0, 0.0], [0.0, 1.0]]])) as index:
        index.add(["a"], vectors=[[1.0, 0.0]])
    assert spherequant_json("info", tmp_path / "i")["model"] is None
    text = spherequant("info", tmp_path / "i").stdout
    assert "codebooks alone" in text
    assert "(added by the API): 1 items" in text


def test_an_index_of_an_embedder_of_ones_own(spherequant, spherequant_json, tmp_path):
    class Mine:
        fingerprint = "f" * 64
        codebooks = Codebooks([[[1.0, 0.0], [0.0, 1.0]]])

        def embed(self, images):
            return np.array([[1.0, 0.0] for _ in images], np.float32)

        def save(self, directory):
            directory.mkdir()

    Index.create(tmp_path / "i", Mine()).close()
    assert spherequant_json("info", tmp_path / "i")["model"] is None
    assert "an embedder of your own" in spherequant("info", tmp_path / "i").stdout


def test_a_damaged_description(spherequant, tmp_path):
    (tmp_path / "model.json").write_text('{"schema": 1}')
    done = spherequant("info", tmp_path, code=1)
    assert "model.json is damaged ('bits')" in done.stderr


def test_a_file_that_vanishes_meanwhile(spherequant_json, tmp_path, monkeypatch):
    with Index.create(tmp_path / "i", Codebooks([[[1.0, 0.0], [0.0, 1.0]]])) as index:
        index.add(["a"], vectors=[[1.0, 0.0]])
    old = tmp_path / "i" / "items.lance" / "old"
    old.touch()
    stat = Path.stat

    def late(self, **options):
        found = stat(self, **options)
        if self.name == old.name:
            self.unlink()  # upkeep comes between two looks
        return found

    monkeypatch.setattr(Path, "stat", late)
    assert spherequant_json("info", tmp_path / "i")["total"] == 1


def test_a_service(served, indexed, spherequant, spherequant_json):
    value = spherequant_json("info", served)
    of_folder = spherequant_json("info", indexed.path)
    assert (value["kind"], value["url"]) == ("service", served.rstrip("/"))
    for name in ("total", "bytes_per_item", "dim", "bytes_memory", "bytes_thumbnails",
                 "keep_vectors", "fingerprint"):  # fmt: skip
        assert value[name] == of_folder[name], name
    assert (value["bits"], value["labels"], value["takes_images"]) == (16, 3, True)
    text = spherequant("info", served).stdout
    for words in ("items         36", "16 bits, 2 bytes an item", "images and vectors",
                  value["fingerprint"]):  # fmt: skip
        assert words in text


def test_neither(spherequant, tmp_path):
    assert "does not exist" in spherequant("info", tmp_path / "nowhere", code=1).stderr
    assert "neither a model" in spherequant("info", tmp_path, code=1).stderr
    (tmp_path / "checkpoint.safetensors").touch()
    assert "it goes on" in spherequant("info", tmp_path, code=1).stderr
