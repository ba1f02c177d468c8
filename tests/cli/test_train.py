"""``spherequant train``."""

import dataclasses
import inspect
import json
import shutil
import tomllib

import pytest
import typer

from spherequant.cli.train import _settings, train
from spherequant.training import Model, TrainConfig


def test_the_json_has_the_keys_that_others_rely_on(trained, photos):
    assert set(trained.json) == {
        "model",
        "bits",
        "seconds",
        "images",
        "skipped",
        "validation_map",
        "labels",
    }
    assert trained.json["model"] == str(trained.path)
    assert trained.json["bits"] == 16
    assert trained.json["images"] == 3 * 11  # one of each class is a query
    assert "ant, bee, cat" in trained.json["labels"]
    (skip,) = trained.json["skipped"]
    assert skip["path"] == "bee/broken.jpg"
    assert set(skip) == {"path", "reason"}


def test_labels_and_skips_are_told_on_stderr(trained):
    told = trained.result.stderr
    assert "3 folder names as labels: ant, bee, cat; --labels none" in told
    assert "Skipped (1):\n  bee/broken.jpg  " in told
    assert "training: " in told


def test_the_model_is_there_with_its_settings(trained):
    model = Model.load(trained.path)
    assert (model.bits, model.config.dim, model.config.epochs) == (16, 8, 1)
    assert model.classes == ("ant", "bee", "cat")
    assert tomllib.loads((trained.path / "config.toml").read_text())["image_size"] == 16


def test_a_model_is_replaced_only_when_asked(trained, photos, spherequant, quick, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained.path, model)
    refused = spherequant("train", photos, "--out", model, *quick, code=1)
    assert "--overwrite" in refused.stderr
    done = spherequant("train", photos, "--out", model, *quick, "--overwrite", "--seed", "5")
    assert "trained on" in done.stdout
    assert "33 images of 3 classes, protocol holdout, split seed 0" in done.stdout
    assert Model.load(model).config.seed == 5


def test_options_win_over_the_file(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text("bits = 16\ndim = 24\nwarmup = 0.25\n")
    settings = _settings(file, {"bits": 48, "dim": None})
    assert (settings.bits, settings.dim, settings.warmup) == (48, 24, 0.25)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bit = 32", "'bit' is not a setting; did you mean 'bits'?"),
        ("bits = 20", "bits must be a multiple of 8 from 8 to 128, not 20"),
        ("bits = ", "cannot be read"),
        ("bits = 'many'", "bits must be int, not str"),
    ],
)
def test_a_broken_configuration_is_an_error_with_its_cure(
    text, expected, photos, spherequant, tmp_path
):
    file = tmp_path / "f.toml"
    file.write_text(text)
    result = spherequant("train", photos, "--out", tmp_path / "m", "--config", file, code=1)
    assert expected in result.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--protocol", "hold-out"), "did you mean 'holdout'?"),
        (("--labels", "folder"), "did you mean 'folders'?"),
        (("--sparsity", "s1"), "budget of nonzeros (name or count); did you mean 'S1'?"),
        (("--sparsity", "70000", "--dim", "64"), "hold 1 to 65536 nonzeros, not 70000; 'S1' would"),
        (("--max-pixels", "0"), "--max-pixels must be at least 1"),
        (("--config", "no-such.toml"), "no-such.toml cannot be read"),
    ],
)
def test_impossible_values_are_errors_with_their_cure(
    arguments, expected, photos, spherequant, tmp_path
):
    result = spherequant("train", photos, "--out", tmp_path / "m", *arguments, code=1)
    assert expected in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [(), ("--bits", "many"), ("--epoch", "3")])
def test_wrong_usage_ends_with_2(arguments, photos, spherequant, tmp_path):
    out = ("--out", tmp_path / "m") if arguments else ()
    assert "Usage:" in spherequant("train", photos, *out, *arguments, code=2).stderr


def test_a_missing_source_is_named(spherequant, tmp_path):
    result = spherequant("train", tmp_path / "nowhere", "--out", tmp_path / "m", code=1)
    assert f"{tmp_path / 'nowhere'} does not exist" in result.stderr


def test_without_labels_and_weights_nothing_can_be_trained(photos, spherequant, quick, tmp_path):
    result = spherequant(
        "train", photos, "--out", tmp_path / "m", *quick, "--labels", "none", "--backbone", "small",
        code=1,
    )  # fmt: skip
    assert "--labels folders or csv" in result.stderr


def test_without_labels_it_says_that_it_only_quantized(photos, spherequant, tmp_path):
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    weights = tmp_path / "weights.safetensors"
    backbone = timm.create_model("test_efficientnet", pretrained=False)
    safetensors.save_file(backbone.state_dict(), weights)
    result = spherequant(
        "train", photos, "--out", tmp_path / "m", "--labels", "none", "--bits", "8", "--dim", "8",
        "--image-size", "32", "--backbone", "test_efficientnet", "--weights", weights, "--json",
    )  # fmt: skip
    assert "No labels: nothing is learned" in result.stderr
    assert "projected to their principal directions and quantized" in result.stderr
    value = json.loads(result.stdout)
    assert value["validation_map"] is None
    assert value["labels"] == "no labels, as asked"
    assert value["images"] == 36


def test_defaults_in_the_help_are_those_of_the_settings():
    defaults = {setting.name: setting.default for setting in dataclasses.fields(TrainConfig)}
    shown = {}
    for name, parameter in inspect.signature(train).parameters.items():
        if name in defaults:
            (option,) = parameter.annotation.__metadata__
            assert isinstance(option, typer.models.OptionInfo)
            shown[name] = option.show_default
    assert set(shown) >= {"bits", "backbone", "protocol", "labels", "seed", "split_seed"}
    for name in (
        "bits", "sparsity", "backbone", "weights", "protocol", "labels", "seed", "split_seed",
    ):  # fmt: skip
        assert shown[name] == str(defaults[name]), name
