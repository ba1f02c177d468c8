from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from spherequant.embedding import EmbeddingNetwork, Preprocessing, embed_batches, folded
from spherequant.embedding.small import Small
from spherequant.errors import FormatError, SpherequantError
from spherequant.quantizer import Encoder, learn_codebooks
from spherequant.quantizer.signs import pack_signs, sign_codebooks
from spherequant.quantizer.target import SHARPNESS
from spherequant.training import TrainConfig, TrainEvent, loop
from spherequant.training.augment import NUMBERS
from spherequant.training.binary_terms import class_targets
from spherequant.training.checkpoint import load_checkpoint, save_checkpoint
from spherequant.training.learner import Learner, rate_factor
from spherequant.training.loop import Trainer, TrainingImages, round_epochs
from spherequant.training.losses import softmax_loss
from spherequant.training.mixtures import FEWEST

if TYPE_CHECKING:
    from pathlib import Path

    from spherequant.training.loop import Report

PRE = Preprocessing(16)
CONFIG = TrainConfig(
    bits=16,
    backbone="small",
    weights="none",
    image_size=16,
    dim=8,
    epochs=6,
    batch_size=10,
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=1e-3,
    augment="shift",
    precision="float32",
    softmax_scale=12.0,
    quantization_weight=0.1,
    centre_weight=0.2,
    discriminative_weight=0.3,
    warmup=0.4,
    rounds=2,
)
CSQ = dataclasses.replace(CONFIG, objective="csq", bits=8, rounds=0, discriminative_weight=0.0)
ORTHOHASH = dataclasses.replace(CSQ, objective="orthohash", softmax_margin=0.2)
NO_NORM = dataclasses.replace(CONFIG, objective="no-norm")
ADAMW = dataclasses.replace(CONFIG, optimizer="adamw", learning_rate=1e-3, augment="crop")


def training_images(count: int = 34, classes: int = 3, *, several: bool = False) -> TrainingImages:
    """Noise around a colour for each class."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, classes, count)
    own[:classes] = np.arange(classes)  # none is without an image
    labels = np.zeros((count, classes), bool)
    labels[np.arange(count), own] = True
    if several:
        labels[np.arange(count), rng.integers(0, classes, count)] = True
    colours = rng.integers(40, 216, (classes, 1, 1, 3))
    noise = rng.integers(-40, 41, (count, 16, 16, 3))
    return TrainingImages(
        (colours[own] + noise).astype(np.uint8), labels, [f"{i}.png" for i in range(count)]
    )


IMAGES = training_images()


def ignore(event: TrainEvent) -> None:
    """Report to nobody."""


def make(
    config: TrainConfig,
    images: TrainingImages = IMAGES,
    report: Report = ignore,
    path: Path | None = None,
    held_out: TrainingImages | None = None,
    preprocessing: Preprocessing = PRE,
) -> Trainer:
    """Make a trainer of a narrow network with dropout: it draws from torch's own generator."""
    torch.manual_seed(config.seed)
    small = Small(widths=(8, 12))
    small.freeze_whitening()
    backbone = nn.Sequential(small, nn.Dropout(0.2))
    network = EmbeddingNetwork(
        backbone, 12, config.dim, normalised=config.normalised, shifted=config.binary
    )
    classes = images.labels.shape[1]
    learner = Learner(
        network,
        classes,
        config.dim,
        config.softmax_scale,
        targets=class_targets(config, classes) if config.binary else None,
        raw=config.objective == "csq",
    )
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    return Trainer(learner, preprocessing, images, config, fabric, report, path, held_out)


def make_growing(report: Report = ignore) -> Trainer:
    """Make a trainer of images of 32 pixels, which the first four of six epochs see smaller."""
    pixels = IMAGES.pixels.repeat(2, axis=1).repeat(2, axis=2)
    config = dataclasses.replace(CONFIG, image_size=32, progressive=0.67)
    images = dataclasses.replace(IMAGES, pixels=pixels)
    return make(config, images, report, preprocessing=Preprocessing(32))


def everything(trainer: Trainer, encoder: Encoder) -> dict[str, np.ndarray]:
    arrays = {name: value.numpy() for name, value in trainer.learner.state_dict().items()}
    target = encoder.target
    assert target is not None
    fields = (encoder.codebooks.array, target.centres_CD, target.weight_CD, target.bias_C)
    return arrays | dict(zip(("codebooks", "centres", "weight", "bias"), fields, strict=True))


def assert_same_bytes(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.tobytes() == theirs[name].tobytes(), name


def run(config: TrainConfig) -> dict[str, np.ndarray]:
    trainer = make(config)
    return everything(trainer, trainer.run())


@functools.cache
def uninterrupted(config: TrainConfig) -> dict[str, np.ndarray]:
    """What a whole training gives, to compare others with."""
    return run(config)


class CutError(Exception):
    """What interrupts a training in these tests."""


def interrupt_after(epoch: int) -> Report:
    def report(event: TrainEvent) -> None:
        # An epoch's last step is always reported, before its state is kept.
        begun = event.stage == "quantize" and event.epoch == epoch
        if begun or (event.stage == "train" and event.epoch == epoch + 1):
            raise CutError

    return report


class TestRounds:
    @pytest.mark.parametrize(
        ("epochs", "warmup", "rounds", "expected"),
        [
            (12, 0.5, 3, {6, 8, 10}),
            (6, 0.4, 2, {3, 4}),
            (12, 0.0, 4, {0, 3, 6, 9}),
            (12, 0.5, 0, set()),
            (4, 0.9, 3, {3}),
            (4, 0.5, 9, {2, 3}),
            (1, 0.5, 3, {0}),
        ],
    )
    def test_they_divide_what_follows_the_warm_up(self, epochs, warmup, rounds, expected):
        config = TrainConfig(epochs=epochs, warmup=warmup, rounds=rounds)
        assert round_epochs(config) == expected


@pytest.fixture(scope="module")
def events() -> list[TrainEvent]:
    seen: list[TrainEvent] = []
    trainer = make(CONFIG, report=seen.append)
    trainer._last_report = -1e9
    with pytest.MonkeyPatch.context() as patch:
        clock = iter(range(10**6))  # every step is reported
        patch.setattr("spherequant.training.loop.time.perf_counter", lambda: float(next(clock)))
        trainer.run()
    return seen


def test_the_margin_is_a_cosine_times_the_scale():
    config = dataclasses.replace(CONFIG, softmax_margin=0.25, label_smoothing=0.1)
    trainer = make(config)
    rows = np.arange(5)
    z = torch.nn.functional.normalize(torch.randn(5, config.dim))
    learner, labels = trainer.learner, torch.from_numpy(IMAGES.labels[rows])
    expected = softmax_loss(z, learner.weight, learner.bias, labels, 0.1, 0.25 * 12.0)
    assert trainer._terms(z, rows)["softmax"].item() == pytest.approx(expected.item())


class TestSteps:
    @pytest.fixture
    def trainer(self) -> Trainer:
        """One whose every image has a centre and a reconstruction of its own."""
        trainer = make(dataclasses.replace(CONFIG, label_smoothing=0.1, settle=0.5))
        generator = torch.Generator().manual_seed(0)
        trainer.centres = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator))
        trainer.reconstructions = torch.randn(34, 8, generator=generator)
        return trainer

    def test_each_row_is_compared_with_what_is_its_own(self, trainer):
        rows = np.array([2, 3, 11, 30])
        z = torch.nn.functional.normalize(torch.randn(4, 8))
        own = IMAGES.labels[rows].argmax(axis=1)
        pairs = {"centre": [], "quantization": [], "discriminative": []}
        for place, (row, label) in enumerate(zip(rows, own, strict=True)):
            phi, x = trainer.centres[label], trainer.reconstructions[row]
            pairs["centre"].append((z[place] - phi).square().sum())
            pairs["quantization"].append((z[place] - x).square().sum())
            pairs["discriminative"].append((phi - x).square().sum())
        terms = trainer._terms(z, rows)
        for name, values in pairs.items():
            assert terms[name].item() == pytest.approx(torch.stack(values).mean().item()), name

    def test_an_epochs_centres_are_of_its_own_embeddings(self, trainer, monkeypatch):
        z_ND = torch.nn.functional.normalize(torch.randn(34, 8))
        seen = []

        def step(rows, _numbers):
            seen.extend(rows)
            return {"total": torch.zeros(())}, z_ND[np.sort(rows)]

        monkeypatch.setattr(trainer, "_step", step)
        trainer._train_epoch(0.0, 0)
        assert sorted(seen) == list(range(34))
        for c in range(3):
            total = z_ND[IMAGES.labels[:, c]].sum(dim=0)
            torch.testing.assert_close(trainer.centres[c], total / total.norm())

    def test_the_first_epochs_see_smaller_images_and_codes_are_of_full_ones(self, monkeypatch):
        trainer = make_growing()
        network = trainer.learner.network
        project, seen = network.project, {True: {}, False: {}}

        def spy(images):
            sides = seen[network.training].setdefault(trainer.epoch, set())
            sides.add(tuple(images.shape[2:]))
            return project(images)

        monkeypatch.setattr(network, "project", spy)
        monkeypatch.setattr(loop, "folded", lambda network, _size: network)
        trainer.run()
        assert seen[True] == {
            epoch: {(side, side)} for epoch, side in enumerate((16, 16, 24, 24, 32, 32))
        }
        assert seen[False] == {epoch: {(32, 32)} for epoch in (3, 4, 6)}

    def test_the_last_epochs_settle(self):
        trainer = make(dataclasses.replace(CONFIG, epochs=4, settle=0.5))
        settled = []
        for epoch in range(4):
            trainer.epoch = epoch
            settled.append(trainer.settled)
        assert settled == [False, False, True, True]

    def test_settled_images_are_mirrored_only_and_their_labels_not_smoothed(self, trainer):
        z, rows = torch.nn.functional.normalize(torch.randn(5, 8)), np.arange(5)
        learner, labels = trainer.learner, torch.from_numpy(IMAGES.labels[rows])
        margin = CONFIG.softmax_margin * CONFIG.softmax_scale
        augmented = []
        augment = trainer._augment

        def spy(*given):
            augmented.append(trainer.epoch)
            return augment(*given)

        trainer._augment = spy
        for epoch, smoothing in ((2, 0.1), (3, 0.0)):
            trainer.epoch = epoch
            expected = softmax_loss(z, learner.weight, learner.bias, labels, smoothing, margin)
            assert trainer._terms(z, rows)["softmax"].item() == pytest.approx(expected.item())
            trainer._train_epoch(0.0, 0)
        assert augmented == [2] * 4

    def test_images_that_are_not_to_be_changed_settle_as_they_are(self):
        trainer = make(dataclasses.replace(CONFIG, augment="none", settle=1.0))
        numbers = np.zeros((5, NUMBERS))
        for epoch in (0, 1):
            pixels = trainer._settled_augment(IMAGES.pixels[:5], numbers, epoch)
            np.testing.assert_array_equal(pixels.numpy(), IMAGES.pixels[:5])

    def test_the_rates_follow_the_schedule(self, monkeypatch):
        seen = []
        trainer = make(CONFIG)
        bases = [group["lr"] for group in trainer.optimizer.param_groups]
        assert len(set(bases)) == 3
        step = trainer._step

        def spy(*given):
            seen.append([group["lr"] for group in trainer.optimizer.param_groups])
            return step(*given)

        monkeypatch.setattr(trainer, "_step", spy)
        trainer.run()
        factors = [rate_factor(step, 24) for step in range(24)]
        np.testing.assert_allclose(seen, np.outer(factors, bases))

    def test_what_is_kept_comes_from_float32(self, monkeypatch):
        types = []

        def spy(*given, autocast, mirror, **options):
            types.append((autocast, mirror))
            return embed_batches(*given, autocast=autocast, mirror=mirror, **options)

        monkeypatch.setattr(loop, "embed_batches", spy)
        config = dataclasses.replace(CONFIG, precision="bfloat16")
        make(config, held_out=training_images(50)).run()
        # Two rounds; then the images whose codes are stored, and those that judge them.
        assert types == [(torch.bfloat16, False)] * 2 + [(None, True)] * 2


class TestTelling:
    def test_steps_and_epochs_are_counted(self, events):
        steps = [event for event in events if event.stage == "train"]
        assert [event.step for event in steps] == list(range(1, 25))
        assert [event.epoch for event in steps] == [step // 4 for step in range(1, 25)]
        assert {(event.steps, event.epochs) for event in events} == {(24, 6)}

    def test_the_stages_alternate(self, events):
        stages = [events[0].stage]
        for event in events:
            if event.stage != stages[-1]:
                stages.append(event.stage)
        assert stages == ["train", "quantize", "train", "quantize", "train", "quantize", "finish"]

    def test_terms_begin_one_after_the_other(self, events):
        steps = [event for event in events if event.stage == "train"]
        begun = [set(event.losses) for event in steps]
        assert begun[:4] == [{"softmax", "total"}] * 4
        assert begun[4:12] == [{"softmax", "centre", "total"}] * 8
        everything = {"softmax", "centre", "quantization", "discriminative", "total"}
        assert begun[12:] == [everything] * 12

    def test_the_total_is_the_weighted_sum(self, events):
        for losses in (event.losses for event in events if event.stage == "train"):
            expected = (
                losses["softmax"]
                + 0.1 * losses.get("quantization", 0)
                + 0.2 * losses.get("centre", 0)
                + 0.3 * losses.get("discriminative", 0)
            )
            assert losses["total"] == pytest.approx(expected, rel=1e-5)

    def test_speed_and_time_left(self, events):
        # The clock goes on by one second a step: 34 images in each four.
        steps = [event for event in events if event.stage == "train"]
        assert [event.images_per_second for event in steps] == pytest.approx([8.5] * 24)
        assert [event.seconds_left for event in steps] == pytest.approx(list(range(23, -1, -1)))

    def test_the_loss_falls(self, events):
        steps = [event for event in events if event.stage == "train"]
        first, last = steps[:4], steps[-4:]
        assert sum(e.losses["softmax"] for e in last) < 0.7 * sum(
            e.losses["softmax"] for e in first
        )


def test_the_time_left_goes_with_the_pixels_of_an_epoch(monkeypatch):
    seen: list[TrainEvent] = []
    trainer, now = make_growing(seen.append), [0.0]
    trainer._last_report = -1e9
    step = trainer._step

    def slow(*given):
        now[0] += trainer.side**2
        return step(*given)

    monkeypatch.setattr(trainer, "_step", slow)
    monkeypatch.setattr("spherequant.training.loop.time.perf_counter", lambda: now[0])
    trainer.run()
    spent = np.cumsum(np.repeat([16, 16, 24, 24, 32, 32], 4) ** 2)
    left = [event.seconds_left for event in seen if event.stage == "train"]
    assert left == pytest.approx(list(spent[-1] - spent))


@pytest.fixture(scope="module")
def trained() -> tuple[Trainer, Encoder]:
    trainer = make(CONFIG)
    return trainer, trainer.run()


class TestResult:
    def test_shapes(self, trained):
        _, encoder = trained
        target = encoder.target
        assert encoder.codebooks.array.shape == (2, 256, 8)
        assert target.weight_CD.shape == target.centres_CD.shape == (3, 8)
        assert target.bias_C.shape == (3,)
        assert (target.pull, target.levelling) == (CONFIG.pull, CONFIG.levelling)
        np.testing.assert_allclose(np.linalg.norm(target.centres_CD, axis=1), 1, atol=1e-6)

    def test_centres_are_those_of_clean_images_under_the_averaged_network(self, trained):
        trainer, encoder = trained
        average = trainer.average.module
        assert torch.equal(trainer.learner.weight, average.weight)
        z = embed_batches(
            average.eval().network, PRE, IMAGES.pixels, batch=CONFIG.batch_size, mirror=True
        )
        for c in range(3):
            mean = z[IMAGES.labels[:, c]].astype(np.float64).sum(axis=0)
            centre = encoder.target.centres_CD[c]
            np.testing.assert_allclose(centre, mean / np.linalg.norm(mean), atol=1e-5)

    @pytest.mark.parametrize("toward_class", [True, False])
    def test_codebooks_reconstruct_what_they_were_learned_on(self, toward_class):
        trainer = make(dataclasses.replace(CONFIG, encode_toward_class=toward_class))
        encoder = trainer.run()
        z = embed_batches(
            trainer.learner.eval().network, PRE, IMAGES.pixels, batch=CONFIG.batch_size, mirror=True
        )
        own = encoder.target.centres_CD[IMAGES.labels.argmax(axis=1)]
        u = (z + CONFIG.pull * own) / (1 + CONFIG.pull)
        if toward_class:
            u = encoder.target.target(z)
        else:
            assert encoder.target.pull == 0
        decoded = encoder.codebooks.decode(Encoder(encoder.codebooks).encode(u))
        # 256 codewords for 34 images: nothing is left to reconstruct.
        assert ((u - decoded) ** 2).sum(axis=1).mean() < 1e-4

    def test_levelled_targets_are_what_codebooks_are_learned_on(self):
        trainer = make(dataclasses.replace(CONFIG, levelling=1.0, epochs=2))
        encoder = trainer.run()
        assert encoder.target.levelling == 1
        z = embed_batches(
            trainer.learner.eval().network, PRE, IMAGES.pixels, batch=CONFIG.batch_size, mirror=True
        )
        codes = encoder.encode(z)
        np.testing.assert_allclose(
            np.linalg.norm(encoder.codebooks.decode(codes), axis=1), 1, atol=1e-2
        )

    def test_several_labels_an_image(self):
        images = training_images(several=True)
        assert (images.labels.sum(axis=1) == 2).any()
        trainer = make(CONFIG, images)
        encoder = trainer.run()
        assert encoder.target.multi_label
        self.assert_codebooks_fit(trainer, encoder, images)

    def test_without_rounds_codes_are_learned_at_the_end(self):
        trainer = make(dataclasses.replace(CONFIG, rounds=0, epochs=2))
        self.assert_codebooks_fit(trainer, trainer.run(), IMAGES)

    @staticmethod
    def assert_codebooks_fit(trainer: Trainer, encoder: Encoder, images: TrainingImages) -> None:
        """512 codewords for 34 images: what is encoded is reconstructed."""
        z_ND = embed_batches(
            trainer.learner.eval().network, PRE, images.pixels, batch=CONFIG.batch_size, mirror=True
        )
        u_ND = encoder.target.target(z_ND)
        decoded_ND = encoder.codebooks.decode(encoder.encode(z_ND))
        assert ((u_ND - decoded_ND) ** 2).sum(axis=1).mean() < 1e-4

    def test_without_epochs_the_network_stays_at_its_start(self):
        start = make(dataclasses.replace(CONFIG, epochs=0))
        before = start.learner.weight.detach().clone()
        start.run()
        assert torch.equal(start.learner.weight, before)

    @pytest.mark.parametrize(("count", "batch"), [(2, 1), (3, 2), (5, 4), (7, 3), (9, 100)])
    def test_no_batch_has_fewer_than_two_images(self, count, batch):
        images = training_images(count, 2)
        trainer = make(dataclasses.replace(CONFIG, epochs=1, batch_size=batch), images)
        sizes = [len(rows) for rows in np.array_split(np.arange(count), trainer.batches)]
        assert min(sizes) >= 2
        assert max(sizes) <= max(batch, 3)
        trainer.run()


class TestSharpness:
    @pytest.fixture
    def asked(self, monkeypatch):
        """What the choice is asked with; it falls on .35."""
        calls = []

        def choose(target, trained, held_out, *, normalised):
            calls.append((target, trained, held_out, normalised))
            return 0.35

        monkeypatch.setattr(loop, "choose_sharpness", choose)
        return calls

    @pytest.mark.parametrize("config", [CONFIG, NO_NORM], ids=["dsq", "no-norm"])
    def test_it_is_chosen_by_held_out_images(self, asked, config):
        held_out = training_images(50)
        trainer = make(config, held_out=held_out)
        encoder = trainer.run()
        ((target, trained, judged, normalised),) = asked
        assert (target.sharpness, encoder.target.sharpness) == (SHARPNESS, 0.35)
        assert normalised == (config is not NO_NORM)
        z_ND, own_ND = (
            embed_batches(
                folded(trainer.learner.eval().network, PRE.size),
                PRE,
                images.pixels,
                batch=config.batch_size,
                mirror=True,
            )
            for images in (held_out, IMAGES)
        )
        np.testing.assert_array_equal(judged.z_ND, z_ND)
        np.testing.assert_array_equal(judged.labels_NC, held_out.labels)
        order = np.lexsort(trained.z_ND.T), np.lexsort(own_ND.T)
        np.testing.assert_array_equal(trained.z_ND[order[0]], own_ND[order[1]])
        np.testing.assert_array_equal(trained.labels_NC[order[0]], IMAGES.labels[order[1]])
        u_ND = encoder.target.target(own_ND)
        decoded_ND = encoder.codebooks.decode(Encoder(encoder.codebooks).encode(u_ND))
        assert ((u_ND - decoded_ND) ** 2).sum(axis=1).mean() < 1e-4

    def test_images_of_several_labels_choose_too(self, asked):
        held_out = training_images(50, several=True)
        config = dataclasses.replace(CONFIG, epochs=1)
        trainer = make(config, training_images(several=True), held_out=held_out)
        assert trainer.run().target.sharpness == 0.35
        ((target, _, judged, _),) = asked
        assert target.multi_label
        np.testing.assert_array_equal(judged.labels_NC, held_out.labels)

    @pytest.mark.parametrize("follows", [True, False])
    def test_so_is_the_reach_of_several_labels(self, monkeypatch, follows):
        asked = []

        def choose(target, held_out):
            asked.append((target, held_out))
            return 1.25

        monkeypatch.setattr(loop, "choose_reach", choose)
        held_out = training_images(50, several=True)
        config = dataclasses.replace(CONFIG, epochs=1, encode_toward_class=follows)
        trainer = make(config, training_images(several=True), held_out=held_out)
        assert trainer.run().target.reach == 1.25
        ((target, judged),) = asked
        assert target.multi_label
        np.testing.assert_array_equal(judged.labels_NC, held_out.labels)
        asked.clear()
        make(config, held_out=training_images(50)).run()
        assert not asked

    @pytest.mark.parametrize(
        ("config", "held_out"),
        [(CONFIG, None), (dataclasses.replace(CONFIG, encode_toward_class=False), IMAGES)],
        ids=["none held out", "no classes in codes"],
    )
    def test_probabilities_are_as_they_are_elsewhere(self, asked, config, held_out):
        trainer = make(dataclasses.replace(config, epochs=1), held_out=held_out)
        assert trainer.run().target.sharpness == SHARPNESS
        assert not asked


class TestSeeds:
    @pytest.mark.parametrize("config", [CONFIG, ADAMW])
    def test_the_same_seed_gives_the_same_bytes(self, config):
        assert_same_bytes(run(config), uninterrupted(config))

    def test_the_order_of_calls_to_torchs_generator_does_not_matter(self):
        def disturb(event: TrainEvent) -> None:
            torch.rand(3)

        # Epochs have seeds of their own: what is drawn in a report lasts to the epoch's end.
        quiet = make(dataclasses.replace(CONFIG, epochs=2), report=ignore)
        loud = make(
            dataclasses.replace(CONFIG, epochs=2),
            report=lambda event: disturb(event) if event.step % 4 == 0 else None,
        )
        assert_same_bytes(everything(quiet, quiet.run()), everything(loud, loud.run()))

    def test_another_seed_gives_others(self):
        other = run(dataclasses.replace(CONFIG, seed=1))
        assert other["codebooks"].tobytes() != uninterrupted(CONFIG)["codebooks"].tobytes()


class TestResume:
    @pytest.mark.parametrize("config", [CONFIG, ADAMW, CSQ, ORTHOHASH, NO_NORM])
    @pytest.mark.parametrize("after", [1, 3, 4, 6])
    def test_it_ends_with_the_bytes_of_an_uninterrupted_training(self, tmp_path, config, after):
        path = tmp_path / "checkpoint.safetensors"
        with pytest.raises(CutError):
            make(config, report=interrupt_after(after), path=path).run()
        assert load_checkpoint(path)[1]["epoch"] == after
        resumed = make(dataclasses.replace(config), path=path)
        torch.manual_seed(99)  # the generator stands elsewhere in another process
        result = everything(resumed, resumed.run())
        assert_same_bytes(result, uninterrupted(config))

    def test_interrupted_again_and_again(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        for after in (1, 2, 5):
            with pytest.raises(CutError):
                make(CONFIG, report=interrupt_after(after), path=path).run()
        resumed = make(CONFIG, path=path)
        assert_same_bytes(everything(resumed, resumed.run()), uninterrupted(CONFIG))

    def test_within_an_epoch_it_goes_on_from_the_one_before(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"

        def report(event: TrainEvent) -> None:
            if event.stage == "train" and event.step == 8:  # before the second epoch is kept
                raise CutError

        with pytest.raises(CutError):
            make(CONFIG, report=report, path=path).run()
        assert load_checkpoint(path)[1]["epoch"] == 1
        seen: list[TrainEvent] = []
        make(CONFIG, report=seen.append, path=path).run()
        assert seen[0].step > 4

    def test_the_state_stays_until_the_caller_has_saved(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        finished = make(CONFIG, path=path)
        result = everything(finished, finished.run())
        assert path.exists()
        again = make(CONFIG, path=path)
        assert_same_bytes(everything(again, again.run()), result)

    @pytest.fixture
    def unfinished(self, tmp_path) -> Path:
        path = tmp_path / "checkpoint.safetensors"
        with pytest.raises(CutError):
            make(CONFIG, report=interrupt_after(1), path=path).run()
        return path

    @pytest.mark.parametrize("change", [{"seed": 1}, {"centre_weight": 0.25}, {"epochs": 7}])
    def test_other_settings_are_refused(self, unfinished, change):
        with pytest.raises(
            SpherequantError, match=rf"other settings \({next(iter(change))}\): .*--overwrite"
        ):
            make(dataclasses.replace(CONFIG, **change), path=unfinished).run()

    def test_other_images_are_refused(self, unfinished):
        renamed = dataclasses.replace(IMAGES, keys=["x.png", *IMAGES.keys[1:]])
        with pytest.raises(SpherequantError, match="other images or labels"):
            make(CONFIG, renamed, path=unfinished).run()

    def test_other_labels_are_refused(self, unfinished):
        relabelled = dataclasses.replace(IMAGES, labels=np.roll(IMAGES.labels, 1, axis=0))
        with pytest.raises(SpherequantError, match="other images or labels"):
            make(CONFIG, relabelled, path=unfinished).run()

    def test_a_damaged_state_is_a_clear_error(self, unfinished):
        unfinished.write_bytes(unfinished.read_bytes()[:-100])
        with pytest.raises(FormatError, match=r"cannot be read.*--overwrite"):
            make(CONFIG, path=unfinished).run()

    @pytest.mark.parametrize(
        "lost", ["learner/weight", "average/n_averaged", "optimizer/0/momentum_buffer"]
    )
    def test_a_state_that_lacks_something_is_a_clear_error(self, unfinished, lost):
        tensors, facts = load_checkpoint(unfinished)
        del tensors[lost]
        tensors["learner/unknown"] = torch.zeros(1)
        save_checkpoint(unfinished, tensors, facts)
        with pytest.raises(FormatError, match="--overwrite"):
            make(CONFIG, path=unfinished).run()


class TestDivergence:
    @pytest.mark.parametrize("rate", [1e20, 1e30])
    def test_a_loss_that_is_no_number_is_a_clear_error(self, rate):
        with pytest.raises(SpherequantError, match="smaller learning_rate than 1e"):
            make(dataclasses.replace(CONFIG, learning_rate=rate)).run()

    def test_no_state_of_it_is_kept(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        config = dataclasses.replace(CONFIG, learning_rate=1e30)
        with pytest.raises(SpherequantError, match="no longer a number"):
            make(config, path=path).run()
        assert not path.exists()


def test_quantization_begins_before_the_last_epoch_at_the_latest():
    for epochs in range(1, 9):
        config = dataclasses.replace(CONFIG, epochs=epochs, warmup=0.95, rounds=1)
        assert min(round_epochs(config)) == min(math.ceil(0.95 * epochs), epochs - 1)


class TestAlternatives:
    @pytest.mark.parametrize(
        ("config", "names"),
        [(CSQ, {"central", "quantization", "total"}), (ORTHOHASH, {"orthogonal", "total"})],
    )
    def test_codes_of_signs_have_their_own_terms(self, config, names):
        seen: list[TrainEvent] = []
        make(config, report=seen.append).run()
        steps = [event for event in seen if event.losses]
        assert {frozenset(event.losses) for event in steps} == {frozenset(names)}
        assert steps[-1].losses["total"] < steps[0].losses["total"]

    def test_the_total_weighs_quantization(self):
        seen: list[TrainEvent] = []
        make(dataclasses.replace(CSQ, quantization_weight=0.3), report=seen.append).run()
        terms = seen[0].losses
        expected = terms["central"] + 0.3 * terms["quantization"]
        assert terms["total"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("config", [CSQ, ORTHOHASH])
    def test_codes_are_signs_and_the_classifier_is_the_targets(self, config):
        trainer = make(config)
        encoder = trainer.run()
        assert encoder.codebooks == sign_codebooks(8, unit=True)
        assert encoder.target.pull == 0
        targets = class_targets(config, 3).numpy()
        np.testing.assert_array_equal(np.sign(encoder.target.weight_CD), targets)
        z = embed_batches(trainer.learner.eval().network, PRE, IMAGES.pixels, batch=10, mirror=True)
        np.testing.assert_array_equal(encoder.encode(z), pack_signs(z))
        own = IMAGES.labels.argmax(axis=1)
        assert (encoder.target.predict(z).argmax(axis=1) == own).mean() > 0.9

    def test_only_codes_of_signs_learn_a_shift(self):
        for config, shifted in ((CONFIG, False), (CSQ, True), (ORTHOHASH, True)):
            centring = make(config).learner.network.centring
            assert [p.requires_grad for p in centring.parameters()] == [False, True] * shifted

    def test_bits_that_all_classes_share_are_learned(self):
        images = training_images(classes=2)
        trainer = make(CSQ, images)
        trainer.run()
        targets = class_targets(CSQ, 2).numpy()
        shared = targets[0] == targets[1]
        assert 0 < shared.sum() < 8
        z = embed_batches(trainer.learner.eval().network, PRE, images.pixels, batch=10, mirror=True)
        assert (np.sign(z[:, shared]) == targets[0, shared]).mean() > 0.95

    @pytest.mark.parametrize("config", [CSQ, ORTHOHASH])
    def test_several_labels_an_image(self, config):
        images = training_images(several=True)
        encoder = make(config, images).run()
        assert encoder.target.multi_label

    def test_without_normalisation_centres_are_means(self):
        trainer = make(NO_NORM)
        encoder = trainer.run()
        z = embed_batches(trainer.learner.eval().network, PRE, IMAGES.pixels, batch=10, mirror=True)
        assert np.linalg.norm(z, axis=1).std() > 0.01
        for c in range(3):
            mean = z[IMAGES.labels[:, c]].mean(axis=0)
            np.testing.assert_allclose(encoder.target.centres_CD[c], mean, atol=1e-5)
        u = encoder.target.target(z)
        decoded = encoder.codebooks.decode(Encoder(encoder.codebooks).encode(u))
        assert ((u - decoded) ** 2).sum(axis=1).mean() < 1e-4


@pytest.mark.parametrize(
    ("changed", "mixed", "pulled"),
    [
        ({}, True, True),
        ({"discriminative_weight": 0.0, "encode_toward_class": False}, True, False),
        # The discriminative term is then in the codebooks alone, by the labels that are given.
        ({"encode_toward_class": False}, False, True),
    ],
)
def test_kept_codebooks_are_learned_from_mixtures_of_what_will_be_encoded(
    changed, mixed, pulled, monkeypatch
):
    learned_from = []

    def learn(u_ND, *rest, **options):
        learned_from.append(u_ND.numpy())
        return learn_codebooks(u_ND, *rest, **options)

    monkeypatch.setattr(loop, "learn_codebooks", learn)
    trainer = make(dataclasses.replace(CONFIG, **changed))
    encoder = trainer.run()
    *rounds, kept = learned_from
    count = len(IMAGES.labels)
    assert rounds
    assert {len(rows) for rows in rounds} == {count}
    assert len(kept) == (count + FEWEST if mixed else count)
    lengths = np.linalg.norm(kept, axis=1)
    assert (lengths.min() < 0.999) == pulled  # between an embedding and a centre
    if mixed and pulled:
        z_ND = trainer._embed_clean(trainer.images.pixels, last=True)
        np.testing.assert_allclose(kept[:count], encoder.target.target(z_ND), atol=1e-5)
