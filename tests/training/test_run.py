from __future__ import annotations

import dataclasses
import io
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from spherequant.errors import (
    ConfigError,
    FormatError,
    InputError,
    LabelError,
    SourceError,
    SpherequantError,
)
from spherequant.evaluation import evaluate
from spherequant.images import Limits, make_split, open_source
from spherequant.quantizer.target import SHARPNESS
from spherequant.training import Model, TrainConfig, TrainEvent, loop, train
from spherequant.training import run as run_module
from spherequant.training.model import item_hashes

# A second of one core: what does not look at quality.
TINY = TrainConfig(
    bits=8, image_size=16, dim=8, epochs=3, batch_size=16, precision="float32", rounds=1
)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def split_of(rows: list[Any]) -> tuple[Any, Any]:
    source = open_source(rows)
    return source, make_split(source.items)


@pytest.fixture(scope="session")
def few(digits) -> list[Any]:
    """48 digits of three classes."""
    return [row for label in "017" for row in [r for r in digits if r[2] == (label,)][:16]]


@pytest.fixture(scope="module")
def few_model(few) -> Model:
    return train(few, TINY)


class TestSupervised:
    def test_digits_it_never_saw_are_nearest_to_their_own_class(self, digits_model, digits):
        held = [row for i, row in enumerate(digits) if i % 5][::4]
        z = digits_model.embed([image for _, image, _ in held])
        truth = np.array([digits_model.classes.index(own[0]) for *_, own in held])
        nearest = (z @ digits_model.class_centres.T).argmax(axis=1)
        assert (nearest == truth).mean() > 0.8
        assert (digits_model.predict(z).argmax(axis=1) == truth).mean() > 0.8
        # And so are their codes.
        decoded = digits_model.codebooks.decode(digits_model.encode_vectors(z))
        assert ((decoded @ digits_model.class_centres.T).argmax(axis=1) == truth).mean() > 0.8

    def test_every_setting_is_resolved(self, few_model):
        config = few_model.config
        assert (config.backbone, config.weights, config.image_size) == ("small", "none", 16)
        assert (config.optimizer, config.augment) == ("sgd", "shift")
        assert config.learning_rate > 0
        assert config.weight_decay > 0

    def test_the_summary_says_what_was_done(self, few, few_model):
        source, split = split_of(few)
        summary = few_model.summary
        assert summary["supervised"] is True
        assert summary["source"] == source.name == "given"
        assert summary["labels"] == source.label_note
        assert summary["classes"] == 3
        assert summary["images"] == len(split.training)
        assert summary["validation_images"] == len(split.validation)
        assert (summary["protocol"], summary["split_seed"], summary["seed"]) == ("holdout", 0, 0)
        assert summary["skipped"] == []
        assert summary["seconds"] > 0

    def test_it_knows_which_images_it_was_trained_on(self, few, few_model):
        source, split = split_of(few)
        trained = np.zeros(len(source.items), bool)
        trained[split.training] = True
        np.testing.assert_array_equal(few_model.trained_on(source.items), trained)
        assert not trained[split.queries].any()
        assert not trained[split.validation].any()

    def test_validation_images_choose_the_sharpness(self, few, monkeypatch):
        asked = []

        def choose(target, trained, held_out, *, normalised):
            asked.append(held_out)
            return 0.35

        monkeypatch.setattr(loop, "choose_sharpness", choose)
        many = [(f"{key}-{copy}", image, label) for key, image, label in few for copy in range(4)]
        source, split = split_of(many)
        model = train(many, TINY)
        assert model.encoder.target.sharpness == 0.35
        (held_out,) = asked
        items = [source.items[i] for i in split.validation]
        z_ND = model.embed([source.image(item) for item in items])
        np.testing.assert_allclose(held_out.z_ND, z_ND, atol=1e-4)
        own = [model.classes[c] for c in held_out.labels_NC.argmax(axis=1)]
        assert [(label,) for label in own] == [item.labels for item in items]
        assert (held_out.labels_NC.sum(axis=1) == 1).all()

    def test_validation_images_of_several_labels_ask_with_the_trained_ones(self, few, monkeypatch):
        asked = []

        def choose(target, trained, held_out, *, normalised):
            asked.append((target, held_out))
            return 2.0

        monkeypatch.setattr(loop, "choose_sharpness", choose)
        many = [
            (f"{key}-{copy}", image, (*own, f"copy {copy}")[: 1 + copy % 2])
            for key, image, own in few
            for copy in range(4)
        ]
        source, split = split_of(many)
        model = train(many, TINY)
        ((target, held_out),) = asked
        assert target.multi_label
        assert model.encoder.target.sharpness == 2.0
        own = [
            {model.classes[c] for c in np.flatnonzero(labels_C)} for labels_C in held_out.labels_NC
        ]
        assert own == [set(source.items[i].labels) for i in split.validation]
        assert any(len(labels) > 1 for labels in own)

    def test_validation_images_that_cannot_be_read_are_reported(self, few, tmp_path):
        for key, image, (label,) in few:
            for copy in range(2):  # 32 of a class: one of them validates
                path = tmp_path / label / f"{copy}-{Path(key).stem}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(np.asarray(image)).save(path)
        source = open_source(tmp_path)
        names = [source.items[i].key for i in make_split(source.items).validation]
        assert len(names) == 3
        for name in names:
            (tmp_path / name).write_bytes(b"no image")
        model = train(tmp_path, TINY)
        assert sorted(skip["path"] for skip in model.summary["skipped"]) == sorted(names)
        assert model.encoder.target.sharpness == SHARPNESS

    def test_a_label_that_validation_alone_has_is_no_class(self, few):
        """Validation is drawn by an image's first label: a second one may be its own."""
        many = [(f"{key}-{copy}", image, label) for key, image, label in few for copy in range(4)]
        source, split = split_of(many)
        own = {source.items[i].key for i in split.validation[:2]}
        rare = [(key, image, (*label, "9") if key in own else label) for key, image, label in many]
        assert own <= {split_of(rare)[0].items[i].key for i in split_of(rare)[1].validation}
        assert train(rare, TINY).classes == ("0", "1", "7")

    def test_the_callers_random_numbers_go_on(self, few):
        torch.manual_seed(7)
        expected = torch.rand(2)
        torch.manual_seed(7)
        first = torch.rand(1)
        train(few, dataclasses.replace(TINY, epochs=1))
        torch.testing.assert_close(torch.cat([first, torch.rand(1)]), expected)

    def test_the_same_seed_gives_the_same_model(self, few, few_model):
        again = train(few, TINY)
        assert again.fingerprint == few_model.fingerprint
        pictures = [image for _, image, _ in few]
        np.testing.assert_array_equal(again.encode(pictures), few_model.encode(pictures))

    def test_the_order_of_the_source_does_not_matter(self, few, few_model):
        assert train(few[::-1], TINY).fingerprint == few_model.fingerprint

    def test_another_seed_gives_another_model(self, few, few_model):
        other = train(few, dataclasses.replace(TINY, seed=1))
        assert other.fingerprint != few_model.fingerprint
        np.testing.assert_array_equal(other.trained_hashes, few_model.trained_hashes)

    @pytest.mark.parametrize(
        ("capabilities", "pays"),
        [
            ({}, False),
            ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, False),
            ({"amx_bf16": True}, True),
            ({"avx512_bf16": True}, True),
        ],
    )
    def test_bfloat16_is_for_processors_that_compute_in_it(self, capabilities, pays, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        assert run_module._bf16_pays() is pays
        monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch before it could tell
        assert run_module._bf16_pays() is False

    def test_bfloat16_trains_and_says_nothing_on_the_terminal(self, few, capfd, caplog):
        caplog.set_level(logging.INFO)
        config = dataclasses.replace(TINY, precision="bfloat16", epochs=1)
        model = train(few, config)
        assert model.config.precision == "bfloat16"
        assert capfd.readouterr() == ("", "")
        assert not [record for record in caplog.records if record.name.startswith("lightning")]
        np.testing.assert_allclose(np.linalg.norm(model.embed([few[0][1]]), axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize("sparsity", ["S1", 1000])
    def test_sparse_codebooks_are_trained_stored_and_found_again(self, few, tmp_path, sparsity):
        config = dataclasses.replace(TINY, bits=16, sparsity=sparsity)
        model = train(few, config, out=tmp_path / "model")
        assert 0 < model.codebooks.nnz <= (256 * 8 if sparsity == "S1" else 1000)
        loaded = Model.load(tmp_path / "model")
        assert loaded.fingerprint == model.fingerprint
        assert loaded.codebooks.array.tobytes() == model.codebooks.array.tobytes()
        assert loaded.config.sparsity == sparsity
        images = [image for _, image, _ in few[:9]]
        np.testing.assert_array_equal(loaded.encode(images), model.encode(images))

    def test_a_timm_backbone_is_trained(self, few, tmp_path):
        config = dataclasses.replace(
            TINY, backbone="test_resnet", weights="none", image_size=32, epochs=1
        )
        model = train(few, config, out=tmp_path)
        assert (model.config.optimizer, model.config.augment) == ("adamw", "crop")
        assert model.backbone.name == "test_resnet"
        assert Model.load(tmp_path).fingerprint == model.fingerprint

    def test_a_known_set_by_name(self, digits):
        seen: list[TrainEvent] = []

        class EnoughError(Exception):
            pass

        def report(event: TrainEvent) -> None:
            seen.append(event)
            if event.stage == "train":
                raise EnoughError

        with pytest.raises(EnoughError):
            train("digits", dataclasses.replace(TINY, batch_size=32), report=report)
        assert seen[-2].step == seen[-2].steps > 1400

    def test_an_open_source_stays_open(self, few, tmp_path):
        folder = tmp_path / "photos"
        for key, image, (label,) in few:
            path = folder / label / f"{key.replace('/', '_')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        closed = []
        source = open_source(folder)
        source.close = lambda: closed.append(True)  # type: ignore[method-assign]  # watched
        train(source, dataclasses.replace(TINY, epochs=1))
        assert not closed


class TestLabels:
    def test_an_open_source_has_bounds_of_its_own(self, few, tmp_path):
        for number, (_, image, labels) in enumerate(few):
            (tmp_path / labels[0]).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / labels[0] / f"{number}.png")
        with open_source(tmp_path, limits=Limits(max_pixels=2)) as source:
            with pytest.raises(InputError, match=r"0 of the .* could be read.*pixels"):
                train(source, TINY)
            assert train(source, TINY, limits=Limits()).summary["skipped"] == []

    def test_images_of_two_labels(self, few):
        rows = [
            (key, image, (*own, "odd" if own[0] in "17" else "even")) for key, image, own in few
        ]
        model = train(rows, dataclasses.replace(TINY, epochs=6))
        assert model.multi_label
        assert model.classes == ("0", "1", "7", "even", "odd")
        assert model.summary["classes"] == 5
        predicted = model.predict(model.embed([image for _, image, _ in rows]))
        assert (predicted.sum(axis=1) > 1).any()
        truth = np.array([[c in own for c in model.classes] for *_, own in rows])
        assert (predicted == truth).mean() > 0.8

    def test_images_without_a_label_are_left_out(self, few):
        rows = [
            (key, image, None if i % 4 == 0 else own) for i, (key, image, own) in enumerate(few)
        ]
        model = train(rows, dataclasses.replace(TINY, epochs=1))
        unlabelled = [item for item in open_source(rows).items if not item.labels]
        assert len(unlabelled) == 12
        assert not model.trained_on(unlabelled).any()
        assert model.classes == ("0", "1", "7")

    def test_images_that_cannot_be_read_shift_no_label(self, few, few_model):
        source, split = split_of(few)
        kept_out = [source.items[i].key for i in split.training[::5]]
        broken = [
            (key, b"\x89PNG\r\n\x1a\n broken" if key in kept_out else image, own)
            for key, image, own in few
        ]
        model = train(broken, TINY)
        assert [skip["path"] for skip in model.summary["skipped"]] == kept_out
        assert all(skip["reason"] for skip in model.summary["skipped"])
        assert model.summary["images"] == few_model.summary["images"] - len(kept_out)
        items = open_source(broken).items
        assert not model.trained_on([item for item in items if item.key in kept_out]).any()
        z = model.embed([image for key, image, _ in few if key not in kept_out])
        truth = [model.classes.index(own[0]) for key, _, own in few if key not in kept_out]
        assert (model.predict(z).argmax(axis=1) == truth).mean() > 0.8

    def test_no_image_can_be_read(self, few):
        rows = [(key, b"nothing", own) for key, _, own in few]
        with pytest.raises(InputError, match=r"0 of the \d+ training images could be read.*: "):
            train(rows, TINY)

    def test_one_image_can_be_read(self, few):
        rows = [
            (key, image if i == 3 else b"nothing", own) for i, (key, image, own) in enumerate(few)
        ]
        with pytest.raises(InputError, match=r"[01] of the \d+ training images could be read"):
            train(rows, TINY)

    @pytest.mark.parametrize("labels", [None, "same"])
    def test_small_learns_nothing_without_two_classes(self, few, labels):
        rows = [(key, image, labels) for key, image, _ in few]
        with pytest.raises(LabelError, match="without at least two labels"):
            train(rows, dataclasses.replace(TINY, backbone="small"))

    def test_a_protocol_that_leaves_nothing_to_train_on(self, tmp_path, few):
        for key, image, (label,) in few:
            path = tmp_path / "test" / label / f"{key.replace('/', '_')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        with pytest.raises(LabelError, match=r"leaves no image of .* to train on"):
            train(tmp_path, TINY)

    def test_a_source_that_is_not_there(self, tmp_path):
        with pytest.raises(SourceError):
            train(tmp_path / "nothing", TINY)


UNLABELLED = TrainConfig(bits=16, backbone="test_resnet", image_size=32, dim=24)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def unlabelled(digits) -> list[Any]:
    return [(key, image, None) for key, image, _ in digits[::15]]


@pytest.fixture(scope="module")
def unsupervised(unlabelled, weights) -> Model:
    return train(unlabelled, dataclasses.replace(UNLABELLED, weights=str(weights)))


class TestUnsupervised:
    def test_random_weights_are_refused(self, unlabelled):
        with pytest.raises(LabelError, match="a backbone without weights knows nothing"):
            train(unlabelled, dataclasses.replace(UNLABELLED, weights="none"))

    def test_the_summary_says_that_nothing_was_learned_from_labels(self, unsupervised):
        assert unsupervised.summary["supervised"] is False
        assert unsupervised.summary["images"] == 120
        assert unsupervised.classes == ()
        assert unsupervised.class_centres.shape == (0, 24)
        assert unsupervised.config.epochs == 0
        assert unsupervised.encoder.target is None

    def test_it_encodes(self, unsupervised, unlabelled, tmp_path):
        pictures = [image for _, image, _ in unlabelled]
        z = unsupervised.embed(pictures)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
        decoded = unsupervised.codebooks.decode(unsupervised.encode(pictures))
        assert ((z - decoded) ** 2).sum(axis=1).mean() < 0.3
        unsupervised.save(tmp_path)
        assert Model.load(tmp_path).fingerprint == unsupervised.fingerprint

    def test_the_backbone_is_the_files(self, unsupervised, weights):
        from safetensors.torch import load_file

        stored = load_file(weights)
        for name, value in unsupervised.network.backbone.state_dict().items():
            assert torch.equal(value.cpu(), stored[name])

    def test_one_class_is_no_label(self, unlabelled, weights):
        one = [(key, image, "digit") for key, image, _ in unlabelled]
        model = train(one, dataclasses.replace(UNLABELLED, weights=str(weights)))
        assert model.summary["supervised"] is False
        assert model.classes == ()

    def test_a_sample_is_enough_to_learn_from(self, unlabelled, weights, monkeypatch):
        monkeypatch.setattr(run_module, "LEARNING_SAMPLE", 50)
        config = dataclasses.replace(UNLABELLED, weights=str(weights))
        model = train(unlabelled, config)
        assert model.summary["images"] == 50
        assert model.trained_on(open_source(unlabelled).items).sum() == 50
        assert train(unlabelled[::-1], config).fingerprint == model.fingerprint

    def test_images_that_all_look_the_same(self, unlabelled, weights):
        same = [(key, unlabelled[0][1], None) for key, _, _ in unlabelled[:10]]
        with pytest.raises(InputError, match="look the same"):
            train(same, dataclasses.replace(UNLABELLED, weights=str(weights)))


class TestUnreadable:
    """Classes are those of images that could be read."""

    @pytest.fixture
    def folder(self, few, tmp_path):
        for key, image, (label,) in few:
            path = tmp_path / label / f"{Path(key).stem}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.asarray(image)).save(path)
        return tmp_path

    def spoil(self, folder: Path, label: str) -> None:
        source = open_source(folder)
        for position in make_split(source.items).training:
            if source.items[position].labels == (label,):
                (folder / source.items[position].key).write_bytes(b"no image")

    def test_a_class_of_which_no_training_image_can_be_read(self, folder):
        self.spoil(folder, "1")
        model = train(folder, TINY)
        assert model.classes == ("0", "7")
        assert model.summary["classes"] == 2
        assert model.class_centres.any(axis=1).all()
        report = evaluate(model, folder)
        assert {"1"} <= {label for labels in report.queries.labels for label in labels}

    def test_at_least_two_classes_are_needed(self, folder):
        self.spoil(folder, "1")
        self.spoil(folder, "7")
        with pytest.raises(LabelError, match=r"only those of '0' could be read.*two labels"):
            train(folder, TINY)


class TestOut:
    def test_the_model_is_saved_and_nothing_else_stays(self, few, few_model, tmp_path):
        model = train(few, TINY, out=tmp_path / "deep" / "model")
        assert model.fingerprint == few_model.fingerprint
        assert Model.load(tmp_path / "deep" / "model").fingerprint == model.fingerprint
        assert "checkpoint.safetensors" not in files_of(tmp_path / "deep" / "model")

    def test_a_model_is_not_overwritten_unasked(self, few, few_model, tmp_path):
        few_model.save(tmp_path)
        with pytest.raises(ConfigError, match=r"already holds a model.*--overwrite"):
            train(few, TINY, out=tmp_path)
        other = train(few, dataclasses.replace(TINY, epochs=1), out=tmp_path, overwrite=True)
        assert Model.load(tmp_path).fingerprint == other.fingerprint != few_model.fingerprint

    def test_a_file_is_no_directory(self, few, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="cannot be made"):
            train(few, TINY, out=tmp_path / "file")

    def test_a_tensorboard_log_is_written(self, few, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        seen: list[TrainEvent] = []
        train(few, TINY, log_dir=tmp_path / "log", report=seen.append)
        log = EventAccumulator(str(tmp_path / "log"))
        log.Reload()
        expected = {"softmax", "centre", "quantization", "discriminative", "total"}
        assert {f"loss/{name}" for name in expected} <= set(log.Tags()["scalars"])
        steps = [event.step for event in seen if event.losses]
        assert [event.step for event in log.Scalars("loss/total")] == steps
        assert steps[-1] == seen[-1].steps


class CutError(Exception):
    """What interrupts a training in these tests."""


def cut_in_third_epoch(event: TrainEvent) -> None:
    if event.stage == "train" and event.epoch == 3:
        raise CutError


class TestResume:
    def test_interrupted_and_resumed_equals_uninterrupted(self, few, few_model, tmp_path):
        with pytest.raises(CutError):
            train(few, TINY, out=tmp_path, report=cut_in_third_epoch)
        assert set(files_of(tmp_path)) == {"checkpoint.safetensors"}
        with pytest.raises(FormatError, match="no trained model"):
            Model.load(tmp_path)
        seen: list[TrainEvent] = []
        model = train(few, TINY, out=tmp_path, report=seen.append)
        assert [event.epoch for event in seen if event.stage == "train"][-1] == 3
        assert min(event.epoch for event in seen if event.stage == "train") >= 2
        assert model.fingerprint == few_model.fingerprint
        few_model.save(tmp_path / "whole")
        ours, theirs = files_of(tmp_path / "whole"), {}
        theirs = {name: (tmp_path / name).read_bytes() for name in ours}
        for name in (
            "weights.safetensors",
            "codebooks.safetensors",
            "trained.safetensors",
            "config.toml",
        ):
            assert ours[name] == theirs[name], name

    def test_one_that_replaces_a_model_goes_on_without_overwrite(self, few, few_model, tmp_path):
        config = dataclasses.replace(TINY, centre_weight=0.5)
        few_model.save(tmp_path)
        with pytest.raises(CutError):
            train(few, config, out=tmp_path, report=cut_in_third_epoch, overwrite=True)
        assert Model.load(tmp_path).fingerprint == few_model.fingerprint
        seen: list[TrainEvent] = []
        model = train(few, config, out=tmp_path, report=seen.append)
        assert min(event.epoch for event in seen if event.stage == "train") >= 2
        assert Model.load(tmp_path).fingerprint == model.fingerprint != few_model.fingerprint
        with pytest.raises(ConfigError, match="already holds a model"):
            train(few, config, out=tmp_path)

    def test_other_settings_are_refused_until_overwritten(self, few, tmp_path):
        with pytest.raises(CutError):
            train(few, TINY, out=tmp_path, report=cut_in_third_epoch)
        other = dataclasses.replace(TINY, centre_weight=0.5)
        stages = []
        with pytest.raises(SpherequantError, match=r"other settings \(centre_weight\)"):
            train(few, other, out=tmp_path, report=lambda event: stages.append(event.stage))
        assert not stages  # before any image is decoded
        assert train(few, other, out=tmp_path, overwrite=True).config.centre_weight == 0.5

    def test_a_damaged_state_is_a_clear_error(self, few, tmp_path):
        with pytest.raises(CutError):
            train(few, TINY, out=tmp_path, report=cut_in_third_epoch)
        path = tmp_path / "checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(FormatError, match="--overwrite"):
            train(few, TINY, out=tmp_path)

    def test_a_model_that_cannot_be_saved_costs_no_training(self, few, tmp_path, monkeypatch):
        def full(*_: Any) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(Model, "save", full)
        with pytest.raises(OSError, match="no space"):
            train(few, TINY, out=tmp_path)
        monkeypatch.undo()
        seen: list[TrainEvent] = []
        train(few, TINY, out=tmp_path, report=seen.append)
        assert not [event for event in seen if event.stage == "train"]

    def test_killed_while_its_state_is_written_it_goes_on(self, few, few_model, tmp_path):
        """SIGKILL in the middle of the second write: the first one's state is what is left."""
        np.savez(
            tmp_path / "few.npz",
            keys=[key for key, _, _ in few],
            images=np.stack([image for _, image, _ in few]),
            labels=[own[0] for *_, own in few],
        )
        program = f"""
import os, signal, sys
import numpy as np, torch
torch.set_num_threads(1)
from spherequant.training import TrainConfig, train
stored = np.load({str(tmp_path / "few.npz")!r})
rows = list(zip(stored["keys"].tolist(), stored["images"], stored["labels"].tolist()))
write, written = os.fsync, []
def fsync(file):
    if written:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(file)
    write(file)
os.fsync = fsync
train(rows, TrainConfig(**{TINY.to_dict()!r}), out={str(tmp_path / "model")!r})
"""
        done = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = set(files_of(tmp_path / "model"))
        assert "checkpoint.safetensors" in left
        assert "model.json" not in left
        model = train(few, TINY, out=tmp_path / "model")
        assert model.fingerprint == few_model.fingerprint
        assert not [name for name in files_of(tmp_path / "model") if "checkpoint" in name]


def test_images_of_any_size_and_format(tmp_path):
    rng = np.random.default_rng(0)
    for label, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / label).mkdir()
        for i in range(8):
            shape = (int(rng.integers(9, 60)), int(rng.integers(9, 60)), 3)
            noise = rng.integers(-25, 26, shape)
            image = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
            file = io.BytesIO()
            image.save(file, ("JPEG", "PNG", "BMP")[i % 3])
            (tmp_path / label / f"{i}").with_suffix((".jpg", ".png", ".bmp")[i % 3]).write_bytes(
                file.getvalue()
            )
    model = train(tmp_path, dataclasses.replace(TINY, batch_size=8, epochs=8))
    assert model.classes == ("blue", "red")
    with open_source(tmp_path) as source:
        np.testing.assert_array_equal(
            np.sort(item_hashes([item for item in source.items if model.trained_on([item])[0]])),
            model.trained_hashes,
        )
        z = model.embed(source.image(item) for item in source.items)
        # A picture that Pillow opens is the picture that the source decoded.
        opened = [Image.open(tmp_path / item.key) for item in source.items]
        np.testing.assert_array_equal(model.embed(opened), z)
        truth = [model.classes.index(item.labels[0]) for item in source.items]
    assert (model.predict(z).argmax(axis=1) == truth).mean() > 0.8


class TestAlternatives:
    @pytest.mark.parametrize("objective", ["no-norm", "csq"])
    def test_they_are_trained_stored_and_found_again(self, few, tmp_path, objective):
        config = dataclasses.replace(TINY, objective=objective)
        model = train(few, config, out=tmp_path / "model")
        again = Model.load(tmp_path / "model")
        assert (again.summary["objective"], again.config.objective) == (objective, objective)
        assert again.normalised == (objective != "no-norm")
        assert again.fingerprint == model.fingerprint
        z = again.embed([image for _, image, _ in few[:9]])
        np.testing.assert_array_equal(z, model.embed([image for _, image, _ in few[:9]]))
        assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5) == again.normalised

    def test_a_network_that_does_not_normalise_is_another_model(self, few, tmp_path):
        train(few, dataclasses.replace(TINY, objective="no-norm"), out=tmp_path / "model")
        config = tmp_path / "model" / "config.toml"
        config.write_text(config.read_text().replace("no-norm", "dsq"))
        with pytest.raises(FormatError, match="fingerprint"):
            Model.load(tmp_path / "model")

    def test_without_labels_there_is_nothing_to_learn_them_from(self, few):
        unlabelled = [(key, image, None) for key, image, _ in few]
        with pytest.raises(LabelError, match="objective csq is learned from labels"):
            train(unlabelled, TrainConfig(objective="csq", backbone="test_resnet"))

    def test_without_normalisation_each_image_has_one_label(self, few):
        both = [(key, image, ("x", "y")) for key, image, _ in few[:20]]
        rows = [*both, *few[20:]]
        stages = []
        config = dataclasses.replace(TINY, objective="no-norm")
        with pytest.raises(ConfigError, match="images of one label each"):
            train(rows, config, report=lambda event: stages.append(event.stage))
        assert not stages  # before any image is decoded

    def test_a_backbone_of_one_size_sees_no_smaller_images(self, few):
        stages = []
        config = dataclasses.replace(
            TINY, backbone="test_vit", weights="none", image_size=32, progressive=0.5
        )
        with pytest.raises(ConfigError, match="test_vit sees images of one size only"):
            train(few, config, report=lambda event: stages.append(event.stage))
        assert not stages
        convolutional = dataclasses.replace(config, backbone="test_resnet", epochs=2)
        assert train(few, convolutional).config.progressive == 0.5

    def test_more_classes_than_bits_can_tell_apart(self, few):
        many = [(f"{n}/{key}", image, f"{n % 8} {key}") for n in range(16) for key, image, _ in few]
        stages = []
        config = dataclasses.replace(TINY, objective="orthohash", dim=0)
        with pytest.raises(ConfigError, match="classes"):
            train(many, config, report=lambda event: stages.append(event.stage))
        assert not stages
