from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.layers import Conv2dSame

from spherequant.embedding import BackboneSpec, create_backbone
from spherequant.embedding.backbone import DEFAULT_TIMM, feature_count
from spherequant.errors import ConfigError, FormatError, SourceError


def write_folder(
    folder: Path, architecture: str, model_args: dict[str, Any], **config: Any
) -> None:
    """Write random weights in timm's local form; the classifier of ten classes goes with them."""
    torch.manual_seed(11)
    model = timm.create_model(architecture, num_classes=10, **model_args)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    own = {
        "num_classes": 10,
        "input_size": [3, 48, 48],
        "interpolation": "bilinear",
        "crop_pct": 0.75,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "first_conv": model.pretrained_cfg["first_conv"],
        "classifier": model.pretrained_cfg["classifier"],
    }
    values = {
        "architecture": architecture,
        "num_classes": 10,
        "model_args": model_args,
        "pretrained_cfg": own | config,
    }
    (folder / "config.json").write_text(json.dumps(values))


def never(function: Any) -> Any:
    """A function of the same signature that must not be called."""

    @functools.wraps(function)
    def fail(*_: object, **__: object) -> None:
        raise AssertionError(f"{function.__name__} was called")

    return fail


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "resnet"
    write_folder(folder, "test_resnet", {})
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing cached: as with HF_HUB_OFFLINE=1 on a fresh machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def outputs(module: torch.nn.Module, side: int) -> torch.Tensor:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module.eval()(images)


class TestSmall:
    def test_it_has_its_own_preprocessing(self):
        module, features, preprocessing, spec = create_backbone("small", "none")
        assert features == 256
        assert (preprocessing.size, preprocessing.crop) == (32, 1.0)
        assert spec == BackboneSpec("small")
        assert outputs(module, 32).shape == (2, 256)

    def test_it_is_built_again_from_its_description(self):
        module, _, _, spec = create_backbone("small", "none", 16)
        built, features = BackboneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).build()
        built.load_state_dict(module.state_dict())
        assert features == 256
        assert not built.whiten.weight.requires_grad
        assert torch.equal(outputs(built, 16), outputs(module, 16))

    @pytest.mark.parametrize("weights", ["pretrained", "some/file.safetensors"])
    def test_it_has_no_pretrained_weights(self, weights):
        with pytest.raises(ConfigError, match="'small' has no pretrained weights"):
            create_backbone("small", weights)

    def test_images_may_be_too_small_for_it(self):
        with pytest.raises(ConfigError, match="16 pixels or more, not 15"):
            create_backbone("small", "none", 15)


class TestTimm:
    @pytest.mark.parametrize(
        "name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet"]
    )
    def test_the_same_architecture_is_built_from_the_description(self, name):
        module, features, preprocessing, spec = create_backbone(name, "none")
        assert preprocessing.size == 160
        assert outputs(module, 160).shape == (2, features)
        built, count = BackboneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).build()
        built.load_state_dict(module.state_dict())
        assert count == features
        assert torch.equal(outputs(built, 160), outputs(module, 160))

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
    def test_another_size_of_image_also_where_the_architecture_is_made_for_one(self, name):
        module, features, preprocessing, spec = create_backbone(name, "none", 64)
        assert preprocessing.size == 64
        assert outputs(module, 64).shape == (2, features)
        built, _ = spec.build()
        built.load_state_dict(module.state_dict())
        assert torch.equal(outputs(built, 64), outputs(module, 64))

    def test_its_crop_belongs_to_its_own_size(self):
        assert create_backbone("test_resnet", "none")[2].crop == 0.95
        assert create_backbone("test_resnet", "none", 160)[2].crop == 0.95
        assert create_backbone("test_resnet", "none", 96)[2].crop == 1.0

    def test_random_weights_follow_torchs_seed(self):
        torch.manual_seed(3)
        first = create_backbone("test_resnet", "none")[0].state_dict()
        torch.manual_seed(3)
        again = create_backbone("test_resnet", "none")[0].state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_a_head_wider_than_the_last_features_counts(self):
        module = timm.create_model("mobilenetv3_small_050", num_classes=0)
        assert feature_count(module) == outputs(module, 32).shape[1]

    def test_the_default_is_known_and_has_weights(self):
        assert timm.is_model_pretrained(DEFAULT_TIMM)

    def test_an_unknown_name_is_an_error_that_names_the_nearest(self):
        with pytest.raises(ConfigError, match="mobilenetv3_large_100"):
            create_backbone("mobilenetv3_larg_100", "none")

    def test_an_unknown_tag_is_an_error_without_guesses(self):
        with pytest.raises(ConfigError, match=r"test_resnet\.no_such_tag") as caught:
            create_backbone("test_resnet.no_such_tag", "pretrained")
        assert "Did you mean" not in str(caught.value)

    def test_a_name_like_a_path_says_how_to_name_it(self):
        with pytest.raises((ConfigError, SourceError), match="some/model"):
            create_backbone("some/model", "none")

    def test_a_description_that_this_timm_cannot_build_is_a_format_error(self):
        with pytest.raises(FormatError, match=r"'no_such_net' is no architecture of timm \d"):
            BackboneSpec("no_such_net").build()
        with pytest.raises(FormatError, match="wrong_argument"):
            BackboneSpec("test_resnet", {"wrong_argument": 1}).build()

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("test_resnet", {"checkpoint_path": "x.pth"}),
            ("test_resnet", {"pretrained": True}),
            ("test_resnet", {"pretrained_cfg_overlay": {"file": "x.pth"}}),
            ("test_resnet", {"pretrained_strict": False}),
            ("test_resnet", {"cache_dir": "x"}),
            ("hf-hub:someone/network", {}),
            ("local-dir:x", {}),
            ("test_resnet.tag", {}),
            ("../test_resnet", {}),
        ],
    )
    def test_a_description_makes_timm_load_nothing(self, monkeypatch, name, arguments):
        """Old versions of timm unpickle a ``checkpoint_path``; a hub's name asks a network."""
        monkeypatch.setattr(timm, "create_model", never(timm.create_model))
        with pytest.raises(FormatError, match="no architecture"):
            BackboneSpec(name, arguments).build()


class TestLocalFolder:
    def test_weights_preprocessing_and_arguments_come_from_it(self, tmp_path):
        write_folder(tmp_path, "test_efficientnet", {"pad_type": "same"})
        module, features, preprocessing, spec = create_backbone(
            f"local-dir:{tmp_path}", "pretrained"
        )
        assert spec == BackboneSpec("test_efficientnet", {"pad_type": "same"})
        assert preprocessing.to_dict() == {
            "size": 48,
            "crop": 0.75,
            "interpolation": "bilinear",
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
        }
        assert all(type(value) is float for value in (*preprocessing.mean, *preprocessing.std))
        torch.manual_seed(11)
        original = timm.create_model("test_efficientnet", num_classes=10, pad_type="same")
        original.reset_classifier(0)
        expected = outputs(original, 48)
        assert torch.equal(outputs(module, 48), expected)
        built, count = spec.build()
        built.load_state_dict(module.state_dict())
        assert count == features == expected.shape[1]
        assert any(isinstance(layer, Conv2dSame) for layer in built.modules())
        assert torch.equal(outputs(built, 48), expected)

    def test_it_may_be_named_as_weights(self, resnet_folder):
        by_name = create_backbone(f"local-dir:{resnet_folder}", "pretrained")
        by_weights = create_backbone("test_resnet", str(resnet_folder))
        assert by_weights[2:] == by_name[2:]
        assert torch.equal(outputs(by_weights[0], 48), outputs(by_name[0], 48))

    def test_weights_none_takes_its_architecture_alone(self, resnet_folder):
        module, _, preprocessing, spec = create_backbone(f"local-dir:{resnet_folder}", "none")
        loaded = create_backbone(f"local-dir:{resnet_folder}", "pretrained")[0]
        assert (spec.name, preprocessing.size) == ("test_resnet", 48)
        assert not torch.equal(outputs(module, 48), outputs(loaded, 48))

    def test_weights_of_another_architecture_than_named_are_refused(self, resnet_folder):
        with pytest.raises(ConfigError, match=r"'test_resnet', not of 'test_vit'.*local-dir:"):
            create_backbone("test_vit", str(resnet_folder))

    def test_pickles_in_it_are_refused(self, tmp_path):
        write_folder(tmp_path, "test_resnet", {})
        (tmp_path / "model.safetensors").unlink()
        torch.save({}, tmp_path / "pytorch_model.bin")
        with pytest.raises(SourceError, match=r"model\.safetensors do not exist"):
            create_backbone(f"local-dir:{tmp_path}", "pretrained")

    @pytest.mark.parametrize("config", [None, "{", "[1]"])
    def test_a_folder_without_a_readable_description_is_refused(self, tmp_path, config):
        write_folder(tmp_path, "test_resnet", {})
        (tmp_path / "config.json").unlink()
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(SourceError, match="no folder in timm's local form"):
            create_backbone(f"local-dir:{tmp_path}", "pretrained")

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="do not exist"):
            create_backbone(f"local-dir:{tmp_path / 'nothing'}", "pretrained")

    def test_real_weights_of_a_local_folder(self):
        root = os.environ.get("SPHEREQUANT_WEIGHTS")
        if root is None:
            pytest.skip("SPHEREQUANT_WEIGHTS, the folder of pretrained weights, is not set")
        folder = Path(root) / "mobilenetv2_100.tf_in1k"
        module, features, preprocessing, spec = create_backbone(
            f"local-dir:{folder}", "pretrained", 96
        )
        assert (features, preprocessing.size, preprocessing.crop) == (1280, 96, 1.0)
        assert spec == BackboneSpec("mobilenetv2_100", {"pad_type": "same"})
        built, count = spec.build()
        built.load_state_dict(module.state_dict())
        assert count == features
        assert torch.equal(outputs(built, 96), outputs(module, 96))


class TestWeightFile:
    def test_a_safetensors_file_is_loaded_and_its_classifier_left_out(self, resnet_folder):
        file = str(resnet_folder / "model.safetensors")
        module, _, preprocessing, spec = create_backbone("test_resnet", file)
        expected = create_backbone(f"local-dir:{resnet_folder}", "pretrained")[0]
        assert torch.equal(outputs(module, 48), outputs(expected, 48))
        assert preprocessing.size == 160  # a file has no description: timm's own for the name
        assert spec == BackboneSpec("test_resnet")

    def test_with_a_folders_architecture(self, tmp_path, resnet_folder):
        write_folder(tmp_path, "test_efficientnet", {"pad_type": "same"})
        file = tmp_path / "model.safetensors"
        spec = create_backbone(f"local-dir:{tmp_path}", str(file))[3]
        assert spec.arguments == {"pad_type": "same"}

    def test_what_follows_does_not_depend_on_where_weights_came_from(self, resnet_folder):
        torch.manual_seed(5)
        create_backbone("test_resnet", "none")
        expected = torch.rand(3)
        torch.manual_seed(5)
        create_backbone("test_resnet", str(resnet_folder / "model.safetensors"))
        assert torch.equal(torch.rand(3), expected)

    def test_another_architectures_weights_are_refused(self, tmp_path, resnet_folder):
        for name in ("test_efficientnet", "test_vit"):
            with pytest.raises(ConfigError, match=f"'{name}'"):
                create_backbone(name, str(resnet_folder / "model.safetensors"))

    def test_a_file_that_lacks_a_filter_is_refused(self, tmp_path, resnet_folder):
        model = timm.create_model("test_resnet", num_classes=10)
        tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("layer3.")}
        save_file(tensors, tmp_path / "part.safetensors")
        with pytest.raises(ConfigError, match=r"lack \d+ of its tensors, such as 'layer3"):
            create_backbone("test_resnet", str(tmp_path / "part.safetensors"))

    def test_a_damaged_file_is_a_source_error(self, tmp_path, resnet_folder):
        data = (resnet_folder / "model.safetensors").read_bytes()
        (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
        with pytest.raises(SourceError, match="could not be read"):
            create_backbone("test_resnet", str(tmp_path / "cut.safetensors"))

    @pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.pth", "weights.pkl"])
    def test_a_pickle_is_refused_unread(self, tmp_path, name):
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "ran"),)

        torch.save({"conv1.weight": Trap()}, tmp_path / name)
        with pytest.raises(SourceError, match="can run code"):
            create_backbone("test_resnet", str(tmp_path / name))
        assert not (tmp_path / "ran").exists()

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(SourceError, match="do not exist"):
            create_backbone("test_resnet", str(tmp_path / "none.safetensors"))


class TestHub:
    @pytest.mark.usefixtures("offline")
    @pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "hf-hub:timm/test_resnet.r160_in1k"])
    def test_without_a_network_the_error_names_the_cure(self, name):
        with pytest.raises(SourceError, match="--backbone local-dir:FOLDER --weights pretrained"):
            create_backbone(name, "pretrained")

    @pytest.mark.parametrize("error", [ConnectionError("no route"), TimeoutError("too slow")])
    def test_a_broken_connection_is_a_source_error(self, monkeypatch, error):
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(timm.models._hub, "hf_hub_download", fail)
        with pytest.raises(SourceError, match="could not be read or downloaded"):
            create_backbone("test_resnet.r160_in1k", "pretrained")

    def test_arguments_of_a_page_are_kept(self, monkeypatch, tmp_path):
        write_folder(tmp_path, "test_efficientnet", {"pad_type": "same"})
        monkeypatch.setattr(
            timm.models._hub,
            "hf_hub_download",
            lambda *a, **k: str(tmp_path / (k.get("filename") or a[1])),
        )
        module, _, _, spec = create_backbone("hf-hub:somebody/something", "pretrained")
        assert spec == BackboneSpec("test_efficientnet", {"pad_type": "same"})
        built, _ = spec.build()
        built.load_state_dict(module.state_dict())
        np.testing.assert_array_equal(outputs(built, 48), outputs(module, 48))
