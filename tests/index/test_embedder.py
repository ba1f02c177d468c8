from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from spherequant.errors import FormatError, InputError
from spherequant.index import BatchEmbedder, Embedder, Index
from spherequant.index.embedder import in_batches


class Plain:
    """The least that an embedder is: of a mean colour, not even of length one."""

    fingerprint = "ab" * 32

    def __init__(self, codebooks, *, saves=False):
        self.codebooks, self.saves = codebooks, saves
        self.asked, self._turn = 0, threading.Lock()

    def embed(self, images):
        assert self._turn.acquire(blocking=False)  # one thread at a time
        images = list(images)
        self.asked += len(images)
        assert all(image.mode == "RGB" for image in images)
        means = [np.asarray(image, float).mean(axis=(0, 1)) + 1 for image in images]
        self._turn.release()
        return np.pad(np.array(means), ((0, 0), (0, 13)))

    def save(self, directory):
        if self.saves:
            directory.mkdir()
            (directory / "network.bin").write_bytes(b"weights")


COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


@pytest.fixture
def model(codebooks):
    return Plain(codebooks)


@pytest.fixture
def images():
    return [Image.new("RGB", (20, 10), colour) for colour in COLOURS.values()]


def test_four_members_are_enough(model, images, tmp_path):
    assert isinstance(model, Embedder)
    assert not isinstance(model, BatchEmbedder)
    with Index.create(tmp_path / "index", model, keep_vectors=True) as index:
        index.add(list(COLOURS), images=[images[0].convert("CMYK"), *images[1:]])
        assert model.asked == 3
        found = index.search(images=[np.asarray(image) for image in images], k=1, rerank=3)
        assert [row[0] for row in found.keys] == list(COLOURS)
        np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-2)  # they are made unit vectors
        assert index.search(images=[], k=1).keys == []


def test_a_folder_of_many_images(model, images, tmp_path):
    for number in range(40):
        images[number % 3].save(tmp_path / f"{number}.png")
    with Index.create(tmp_path / "index", model) as index:
        assert index.sync(tmp_path, labels="none").added == 40
        item = index.get(["7.png"])[0]
        np.testing.assert_array_equal(item.code, index.get(["1.png"])[0].code)
    assert model.asked == 40


@pytest.mark.parametrize("saves", [False, True])
def test_it_is_needed_again_for_images_only(codebooks, images, saves, tmp_path):
    model = Plain(codebooks, saves=saves)
    with Index.create(tmp_path / "index", model) as index:
        index.add(list(COLOURS), images=images)
    assert (tmp_path / "index" / "model" / "network.bin").exists() == saves
    with Index.open(tmp_path / "index") as index:
        assert index.search(vectors=np.eye(16)[:1], k=1).keys == [["red"]]
        with pytest.raises(FormatError, match=r"embedder of your own.*Index.open\(folder, model\)"):
            index.search(images=images[:1])
    with Index.open(tmp_path / "index", model) as index:
        assert index.search(images=images[2:], k=1).keys == [["blue"]]
    with pytest.raises(InputError, match=r"a model \(Model.load\), Codebooks .* not str"):
        Index.open(tmp_path / "index", "models/mine")


def test_a_model_that_saves_other_codebooks_is_refused(model, make_codebooks, tmp_path):
    model.save = lambda directory: (
        directory.mkdir(),
        make_codebooks(9).save(directory / "codebooks.safetensors"),
    )
    with pytest.raises(InputError, match="saves other codebooks than those that it says"):
        Index.create(tmp_path / "index", model)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_vector_of_an_image_is_refused(model, images, tmp_path):
    with Index.create(tmp_path / "index", model) as index:
        model.embed = lambda images: np.ones((1, 7))
        with pytest.raises(InputError, match=r"gave an array of \[1, 7\] for one image.*\[1, 16\]"):
            index.add(["a"], images=images[:1])
        model.embed = lambda images: np.zeros((1, 16))
        with pytest.raises(InputError, match="zero"):
            index.add(["a"], images=images[:1])
        (tmp_path / "photos").mkdir()
        images[0].save(tmp_path / "photos" / "a.png")
        report = index.sync(tmp_path / "photos")
        assert [skip.path for skip in report.skipped] == ["a.png"]
        assert len(index) == 0


def test_a_model_that_takes_batches_is_asked_as_it_is(embedder):
    assert in_batches(embedder) is embedder
