from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from spherequant.embedding import BackboneSpec, EmbeddingNetwork, Preprocessing
from spherequant.errors import ConfigError, FormatError, InputError
from spherequant.images import Item
from spherequant.quantizer import ClassTarget, Codebooks, Encoder
from spherequant.training import Model, TrainConfig, read_description
from spherequant.training.model import SCHEMA, item_hashes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = [
    "model.json",
    "weights.safetensors",
    "codebooks.safetensors",
    "trained.safetensors",
    "config.toml",
]


@pytest.fixture
def pictures(digits) -> list[np.ndarray]:
    return [image for _, image, _ in digits[1:90:2]]


@pytest.fixture(scope="module")
def saved(digits_model, tmp_path_factory) -> Path:
    """A model's directory; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    digits_model.save(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture(scope="module")
def bare() -> Model:
    """A model without labels, untrained: enough for what does not look at quality."""
    torch.manual_seed(0)
    spec = BackboneSpec("test_resnet")
    backbone, features = spec.build()
    rng = np.random.default_rng(0)
    return Model(
        config=TrainConfig(bits=8, dim=5),
        classes=(),
        network=EmbeddingNetwork(backbone, features, 5),
        backbone=spec,
        preprocessing=Preprocessing(32),
        encoder=Encoder(Codebooks(rng.normal(size=(1, 256, 5)))),
        inference_batch=4,
        multi_label=False,
        trained_hashes=np.zeros(0, np.uint64),
        summary={},
    )


class TestUse:
    def test_embeddings_are_unit_rows(self, digits_model, pictures):
        z = digits_model.embed(pictures)
        assert z.shape == (45, 16)
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)

    def test_arrays_pictures_and_prepared_pixels_embed_to_the_same_bits(
        self, digits_model, pictures
    ):
        z = digits_model.embed(pictures)
        images = [Image.fromarray(picture) for picture in pictures]
        np.testing.assert_array_equal(digits_model.embed(images), z)
        np.testing.assert_array_equal(digits_model.embed(iter(images)), z)
        prepared = np.stack([digits_model.prepare(image) for image in images])
        assert prepared.shape == (45, 16, 16, 3)
        np.testing.assert_array_equal(digits_model.embed_prepared(prepared), z)

    def test_an_image_embeds_alone_as_among_others(self, bare, digits_model, digits):
        for model in (bare, digits_model):
            several = [image for _, image, _ in digits[: model.inference_batch + 3]]
            together = model.embed(several)
            for row in (0, 3, len(several) - 1):
                np.testing.assert_array_equal(model.embed([several[row]])[0], together[row])

    def test_images_are_held_a_batch_at_a_time(self, bare, digits):
        asked = []

        def generate():
            for _, image, _ in digits[:10]:
                asked.append(len(asked))
                yield image

        seen = []
        bare_embed = bare.embed_prepared

        class Watched(Model):
            def embed_prepared(self, pixels_BSS3: np.ndarray, **given: bool) -> np.ndarray:
                seen.append(len(asked))
                return bare_embed(pixels_BSS3, **given)

        values = {f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)}
        assert Watched(**values).embed(generate()).shape == (10, 5)
        assert seen == [4, 8, 10]

    def test_no_images(self, digits_model):
        assert digits_model.embed([]).shape == (0, 16)
        assert digits_model.encode([]).shape == (0, 2)

    def test_a_code_is_that_of_the_embedding(self, digits_model, pictures):
        codes = digits_model.encode(pictures)
        assert codes.shape == (45, 2)
        assert codes.dtype == np.uint8
        z = digits_model.embed(pictures)
        np.testing.assert_array_equal(codes, digits_model.encode_vectors(z))
        np.testing.assert_array_equal(codes, digits_model.encoder.encode(z))

    def test_threads_share_a_model(self, digits_model, pictures):
        z = digits_model.embed(pictures)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: digits_model.embed(pictures), range(4)):
                np.testing.assert_array_equal(found, z)

    def test_threads_ask_at_once(self, digits_model, pictures):
        z = digits_model.embed(pictures)

        def ask(turn: int) -> np.ndarray:
            stored = digits_model.embed(pictures) if turn % 4 == 0 else z
            np.testing.assert_array_equal(stored, z)
            return digits_model.embed(pictures, query=True)

        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(ask, range(16)):
                np.testing.assert_allclose(found, z, atol=1e-5)

    def test_it_names_its_parts(self, digits_model):
        assert digits_model.bits == 16
        assert digits_model.codebooks is digits_model.encoder.codebooks
        assert digits_model.classes == tuple("0123456789")
        assert digits_model.class_centres.shape == (10, 16)
        assert not digits_model.multi_label
        assert not digits_model.network.training
        assert not any(p.requires_grad for p in digits_model.network.parameters())

    def test_one_class_is_predicted_for_each_image(self, digits_model, pictures):
        predicted = digits_model.predict(digits_model.embed(pictures))
        assert predicted.shape == (45, 10)
        np.testing.assert_array_equal(predicted.sum(axis=1), 1)

    def test_without_labels_there_are_no_classes(self, bare):
        assert bare.class_centres.shape == (0, 5)
        assert bare.predict(np.zeros((3, 5), np.float32)).shape == (3, 0)

    @pytest.mark.parametrize(
        "image",
        [
            "photo.jpg",
            None,
            np.zeros((8, 8, 2), np.uint8),
            np.zeros((8, 8, 3), np.float32),
            np.zeros((0, 8, 3), np.uint8),
        ],
    )
    def test_what_is_no_image_is_refused(self, digits_model, image):
        with pytest.raises(InputError, match=r"an image is|an array of|an array without pixels"):
            digits_model.embed([image])

    def test_arrays_are_those_that_a_source_takes(self, digits_model):
        grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
        opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        z = digits_model.embed([grey, grey[:, :, None], np.dstack([grey] * 3), opaque])
        assert (z == z[0]).all()

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((2, 15, 16, 3), np.uint8),
            np.zeros((16, 16, 3), np.uint8),
            np.zeros((2, 16, 16, 3), np.float32),
        ],
    )
    def test_pixels_that_were_not_prepared_are_refused(self, digits_model, pixels):
        with pytest.raises(InputError, match=r"prepared images are uint8 \[B, 16, 16, 3\]"):
            digits_model.embed_prepared(pixels)


class TestShortened:
    def test_its_codes_are_those_of_the_first_codebooks(self, digits_model, pictures):
        short = digits_model.shortened(8)
        assert (short.bits, short.config.bits) == (8, 8)
        np.testing.assert_array_equal(short.codebooks.array, digits_model.codebooks.array[:1])
        z = short.embed(pictures)
        np.testing.assert_array_equal(z, digits_model.embed(pictures))
        first = digits_model.encoder.shortened(1)
        np.testing.assert_array_equal(short.encode_vectors(z), first.encode(z))
        assert len({tuple(code) for code in short.encode_vectors(z)}) > 1

    def test_it_is_another_model(self, digits_model, tmp_path):
        short = digits_model.shortened(8)
        assert short.fingerprint != digits_model.fingerprint
        assert short.summary == {**digits_model.summary, "shortened_from_bits": 16}
        assert digits_model.bits == digits_model.config.bits == 16
        short.save(tmp_path)
        assert Model.load(tmp_path).fingerprint == short.fingerprint

    def test_at_its_own_length_it_is_itself(self, digits_model):
        assert digits_model.shortened(16) is digits_model

    def test_a_count_of_nonzeros_still_fits(self, digits_model):
        config = dataclasses.replace(digits_model.config, sparsity=2 * 256 * 16)
        assert dataclasses.replace(digits_model, config=config).shortened(8).config.sparsity == 4096

    def test_codes_of_signs_have_one_length(self, digits_model):
        config = dataclasses.replace(
            digits_model.config, objective="csq", dim=16, discriminative_weight=0.0, rounds=0
        )
        signs = dataclasses.replace(digits_model, config=config)
        assert signs.shortened(16) is signs
        with pytest.raises(ConfigError, match="train with bits = 8"):
            signs.shortened(8)

    @pytest.mark.parametrize("bits", [-8, 0, 12, 24])
    def test_no_other_length(self, digits_model, bits):
        with pytest.raises(ConfigError, match="a multiple of 8 bits from 8 to 16"):
            digits_model.shortened(bits)


class TestTrainedOn:
    def test_it_is_by_key_and_size(self, digits_model):
        kept = Item("a.png", size=10)
        model = dataclasses.replace(digits_model, trained_hashes=item_hashes([kept]))
        others = [
            Item("b.png", size=10),
            Item("a.png", size=11),
            dataclasses.replace(kept, labels=("x",)),
        ]
        assert model.trained_on([kept, *others]).tolist() == [True, False, False, True]
        assert model.trained_on([]).shape == (0,)

    def test_hashes_depend_on_the_item_alone(self):
        items = [Item(f"{i}.png", size=i) for i in range(9)]
        assert len(set(item_hashes(items).tolist())) == 9
        np.testing.assert_array_equal(item_hashes(items[3:5]), item_hashes(items)[3:5])


class TestDisk:
    def test_what_is_read_back_makes_the_same_codes(self, digits_model, saved, pictures):
        loaded = Model.load(saved)
        assert loaded.fingerprint == digits_model.fingerprint
        np.testing.assert_array_equal(loaded.embed(pictures), digits_model.embed(pictures))
        np.testing.assert_array_equal(loaded.encode(pictures), digits_model.encode(pictures))
        z = digits_model.embed(pictures)
        np.testing.assert_array_equal(loaded.predict(z), digits_model.predict(z))
        for name in (
            "config",
            "classes",
            "backbone",
            "preprocessing",
            "inference_batch",
            "summary",
            "multi_label",
        ):
            assert getattr(loaded, name) == getattr(digits_model, name)
        np.testing.assert_array_equal(loaded.trained_hashes, digits_model.trained_hashes)
        np.testing.assert_array_equal(loaded.class_centres, digits_model.class_centres)

    def test_a_model_without_labels_too(self, bare, tmp_path, pictures):
        bare.save(tmp_path)
        loaded = Model.load(str(tmp_path))
        assert loaded.fingerprint == bare.fingerprint
        np.testing.assert_array_equal(loaded.encode(pictures), bare.encode(pictures))

    def test_levelling_makes_another_model(self, digits_model, tmp_path, pictures):
        encoder = digits_model.encoder
        target = dataclasses.replace(encoder.target, levelling=0.7)
        levelled = dataclasses.replace(digits_model, encoder=Encoder(encoder.codebooks, target))
        assert levelled.fingerprint != digits_model.fingerprint
        levelled.save(tmp_path)
        loaded = Model.load(tmp_path)
        assert loaded.fingerprint == levelled.fingerprint
        assert loaded.encoder.target == target
        assert read_description(tmp_path)["levelling"] == 0.7
        assert "levelling" not in digits_model._description()

    def test_a_model_from_before_icm_had_several_starts_keeps_its_fingerprint(
        self, digits_model, tmp_path
    ):
        encoder = digits_model.encoder
        former = dataclasses.replace(
            digits_model, encoder=Encoder(encoder.codebooks, encoder.target, icm_starts=1)
        )
        former.save(tmp_path)
        assert Model.load(tmp_path).encoder.icm_starts == 1
        assert "icm_starts" not in read_description(tmp_path)
        assert digits_model._description()["icm_starts"] > 1

    def test_saved_again_it_is_the_same_files(self, saved, tmp_path):
        Model.load(saved).save(tmp_path / "again")
        for name in FILES:
            assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()

    def test_nothing_else_is_left_behind(self, saved):
        assert {path.name for path in saved.iterdir()} == set(FILES)

    def test_its_description_is_read_without_its_weights(self, digits_model, copied):
        (copied / "weights.safetensors").unlink()
        values = read_description(copied)
        assert values["schema"] == SCHEMA
        assert values["fingerprint"] == digits_model.fingerprint
        assert values["backbone"] == {"name": "small", "arguments": {}}
        assert (values["dim"], values["n_codebooks"], values["n_codewords"]) == (16, 2, 256)
        assert values["bits"] == 16
        assert values["classes"] == list("0123456789")
        assert values["preprocessing"]["size"] == 16
        assert values["training"] == digits_model.summary
        assert {"spherequant", "torch", "timm", "numpy", "device", "threads"} == set(
            values["made_with"]
        )

    def test_a_model_replaces_another(self, bare, copied):
        bare.save(copied)
        assert Model.load(copied).fingerprint == bare.fingerprint

    @pytest.mark.parametrize("failing", ["weights", "codebooks", "config"])
    def test_one_that_cannot_be_saved_leaves_the_other(
        self, digits_model, copied, monkeypatch, failing
    ):
        before = {path.name: path.read_bytes() for path in copied.iterdir()}

        def fail(*_: object, **__: object) -> None:
            raise OSError("no space left on device")

        target = {
            "weights": ("spherequant.training.model.save_tensors", fail),
            "codebooks": ("spherequant.quantizer.Encoder.save", fail),
            "config": ("spherequant.training.TrainConfig.to_toml", fail),
        }[failing]
        monkeypatch.setattr(*target)
        with pytest.raises(OSError, match="no space"):
            digits_model.save(copied)
        monkeypatch.undo()
        assert {path.name: path.read_bytes() for path in copied.iterdir()} == before

    def test_a_full_disk_leaves_the_model_that_was_there(self, copied):
        """A limit on file size stands in for a full disk: the kernel refuses the same writes."""
        before = {path.name: path.read_bytes() for path in copied.iterdir()}
        script = (
            "import resource, signal, sys\n"
            "from spherequant import Model\n"
            "model = Model.load(sys.argv[1])\n"
            "model.summary['seconds'] = -1.0\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
            "try:\n"
            "    model.save(sys.argv[1])\n"
            "except OSError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(copied)], capture_output=True, text=True, check=True
        )
        assert "File too large" in done.stdout
        assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def edit_json(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


class TestDamage:
    def test_no_model_says_how_to_make_one(self, tmp_path):
        with pytest.raises(FormatError, match="spherequant train SOURCE --out"):
            Model.load(tmp_path)
        with pytest.raises(FormatError, match="spherequant train SOURCE --out"):
            Model.load(tmp_path / "nowhere")

    def test_a_gpu_too_small_is_no_damage(self, copied, monkeypatch):
        def to(self, *arguments, **options):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(EmbeddingNetwork, "to", to)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            Model.load(copied)

    def test_a_newer_schema_says_how_to_upgrade(self, copied):
        edit_json(copied, lambda values: values.update(schema=SCHEMA + 1))
        with pytest.raises(FormatError, match="pip install --upgrade spherequant"):
            Model.load(copied)
        with pytest.raises(FormatError, match=f"has schema {SCHEMA + 1}"):
            read_description(copied)

    @pytest.mark.parametrize("name", FILES[1:])
    def test_a_missing_file(self, copied, name):
        (copied / name).unlink()
        with pytest.raises(FormatError):
            Model.load(copied)

    @pytest.mark.parametrize("name", FILES)
    def test_a_short_file(self, copied, name):
        data = (copied / name).read_bytes()
        (copied / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(FormatError):
            Model.load(copied)

    @pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".safetensors")])
    @pytest.mark.parametrize("place", [-1, -1000])
    def test_a_changed_byte(self, copied, name, place):
        data = bytearray((copied / name).read_bytes())
        data[place] ^= 0x10
        (copied / name).write_bytes(data)
        with pytest.raises(FormatError, match=r"damaged|not finite"):
            Model.load(copied)

    @pytest.mark.parametrize(
        "change",
        [
            lambda v: v["preprocessing"].update(crop=0.9),
            lambda v: v["backbone"].update(name="test_resnet"),
            lambda v: v["backbone"].update(name="no_such_network"),
            lambda v: v.update(dim=17),
            lambda v: v.update(inference_batch=63),
            lambda v: v.update(inference_batch=0),
            lambda v: v.update(inference_batch=10**9),
            lambda v: v["backbone"]["arguments"].update(checkpoint_path="x.pth"),
            lambda v: v.update(multi_label=True),
            lambda v: v.update(fingerprint="0" * 64),
            lambda v: v.pop("fingerprint"),
            lambda v: v.pop("classes"),
            lambda v: v.pop("schema"),
            lambda v: v.update(schema="1"),
            lambda v: v.update(backbone=None),
            lambda v: v.update(preprocessing=[]),
        ],
    )  # fmt: skip
    def test_a_changed_description(self, copied, change):
        edit_json(copied, change)
        with pytest.raises(FormatError):
            Model.load(copied)

    @pytest.mark.parametrize("batch", [0, -1, 4_097, True, "64"])
    def test_a_batch_that_cannot_be_is_noticed_before_the_fingerprint(self, copied, batch):
        edit_json(copied, lambda v: v.update(inference_batch=batch))
        with pytest.raises(FormatError, match="batches of 1 to"):
            Model.load(copied)

    @pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000])
    def test_a_description_that_is_none(self, copied, text):
        (copied / "model.json").write_text(text)
        with pytest.raises(FormatError, match="damaged"):
            Model.load(copied)

    def test_settings_that_change_codes_are_noticed_in_the_configuration(self, copied):
        path = copied / "config.toml"
        path.write_text(path.read_text().replace("mirror = true", "mirror = false"))
        with pytest.raises(FormatError, match="do not match its fingerprint"):
            Model.load(copied)

    def test_codebooks_of_another_model_are_noticed(self, bare, copied):
        bare.encoder.save(copied / "codebooks.safetensors")
        with pytest.raises(FormatError, match="do not match its fingerprint"):
            Model.load(copied)


def with_weight(model: Model, name: str, index: int = 0) -> Model:
    """Return the model with one weight moved by the smallest step there is."""
    network = copy.deepcopy(model.network)
    weights = network.state_dict()[name]
    place = np.unravel_index(index, weights.shape)
    weights[place] = torch.nextafter(weights[place], torch.tensor(9.0))
    return dataclasses.replace(model, network=network)


def with_target(model: Model, **changes: object) -> Model:
    target = model.encoder.target
    values = {f.name: getattr(target, f.name) for f in dataclasses.fields(target)} | changes
    return dataclasses.replace(model, encoder=Encoder(model.codebooks, ClassTarget(**values)))


def nudged(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
    return changed


CHANGES = {
    "a filter": lambda m: with_weight(m, "backbone.blocks.0.0.weight", 5),
    "the whitening": lambda m: with_weight(m, "backbone.whiten.weight"),
    "the projection": lambda m: with_weight(m, "projection.bias"),
    "a running mean": lambda m: with_weight(m, "centring.running_mean"),
    "a codeword": lambda m: dataclasses.replace(
        m, encoder=Encoder(Codebooks(nudged(m.codebooks.array)), m.encoder.target)
    ),
    "the classifier": lambda m: with_target(m, weight_CD=nudged(m.encoder.target.weight_CD)),
    "its bias": lambda m: with_target(m, bias_C=nudged(m.encoder.target.bias_C)),
    "a centre": lambda m: with_target(m, centres_CD=nudged(m.encoder.target.centres_CD)),
    "the pull": lambda m: with_target(m, pull=2.5),
    "no target": lambda m: dataclasses.replace(m, encoder=Encoder(m.codebooks)),
    "several labels": lambda m: dataclasses.replace(m, multi_label=True),
    "the beam": lambda m: dataclasses.replace(
        m, encoder=Encoder(m.codebooks, m.encoder.target, beam=1)
    ),
    "icm": lambda m: dataclasses.replace(
        m, encoder=Encoder(m.codebooks, m.encoder.target, icm_rounds=0)
    ),
    "the starts of icm": lambda m: dataclasses.replace(
        m, encoder=Encoder(m.codebooks, m.encoder.target, icm_starts=2)
    ),
    "the crop": lambda m: dataclasses.replace(
        m, preprocessing=dataclasses.replace(m.preprocessing, crop=0.9)
    ),
    "the filter of resizing": lambda m: dataclasses.replace(
        m, preprocessing=dataclasses.replace(m.preprocessing, interpolation="bilinear")
    ),
    "the mean": lambda m: dataclasses.replace(
        m, preprocessing=dataclasses.replace(m.preprocessing, mean=(0.5, 0.5, 0.5))
    ),
    "the mirror": lambda m: dataclasses.replace(
        m, config=dataclasses.replace(m.config, mirror=False)
    ),
    "the batch": lambda m: dataclasses.replace(m, inference_batch=32),
    "the backbone's arguments": lambda m: dataclasses.replace(
        m, backbone=BackboneSpec("small", {"x": 1})
    ),
}

NO_CHANGES = {
    "nothing": dataclasses.replace,
    "a copy of the network": lambda m: dataclasses.replace(m, network=copy.deepcopy(m.network)),
    "names of classes": lambda m: dataclasses.replace(m, classes=tuple("abcdefghij")),
    "the summary": lambda m: dataclasses.replace(m, summary={"seconds": 1.0}),
    "the images trained on": lambda m: dataclasses.replace(
        m, trained_hashes=np.zeros(1, np.uint64)
    ),
    "settings of training": lambda m: dataclasses.replace(
        m, config=dataclasses.replace(m.config, seed=9, epochs=1, precision="bfloat16")
    ),
}


class TestFingerprint:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
    def test_it_changes_with_whatever_may_change_a_code(self, digits_model, change):
        assert change(digits_model).fingerprint != digits_model.fingerprint

    @pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
    def test_it_stays_with_whatever_does_not(self, digits_model, change):
        assert change(digits_model).fingerprint == digits_model.fingerprint

    def test_it_is_a_sha256_in_hex(self, digits_model):
        assert len(bytes.fromhex(digits_model.fingerprint)) == 32

    def test_the_order_of_the_memory_does_not_matter(self, digits_model):
        network = copy.deepcopy(digits_model.network).to(memory_format=torch.contiguous_format)
        before = digits_model.fingerprint
        changed = dataclasses.replace(digits_model, network=network)
        changed.network.to(memory_format=torch.contiguous_format)
        assert changed.fingerprint == before


def test_a_summary_is_written_alone(digits_model, tmp_path):
    model = dataclasses.replace(digits_model, summary=dict(digits_model.summary))
    folder = tmp_path / "kept"
    model.save(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    model.summary["validation_map"] = 0.5
    model.save_summary(folder)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"model.json"}
    again = Model.load(folder)
    assert again.summary["validation_map"] == 0.5
    assert again.fingerprint == model.fingerprint
