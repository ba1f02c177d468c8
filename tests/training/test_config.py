from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import ConfigError
from spherequant.images import PROTOCOLS
from spherequant.training import TrainConfig

OTHER = TrainConfig(
    bits=48,
    objective="no-norm",
    sparsity=5000,
    backbone="test_resnet",
    weights='C:\\weights\\"mine".safetensors',
    image_size=96,
    dim=32,
    protocol="unseen-classes",
    labels="csv",
    epochs=7,
    batch_size=24,
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.0,
    label_smoothing=0.0,
    softmax_scale=9.5,
    softmax_margin=0.35,
    quantization_weight=0.2,
    centre_weight=0.0,
    discriminative_weight=1e-7,
    warmup=0.25,
    rounds=0,
    encode_toward_class=False,
    levelling=0.25,
    mirror=False,
    augment="crop",
    precision="float32",
    seed=2**40,
    split_seed=3,
)


class TestFiles:
    @pytest.mark.parametrize("config", [TrainConfig(), OTHER])
    def test_toml_brings_back_every_setting(self, tmp_path, config):
        path = tmp_path / "config.toml"
        path.write_text(config.to_toml(), encoding="utf-8")
        assert TrainConfig.load(path) == config
        assert set(tomllib.loads(config.to_toml())) == {f.name for f in dataclasses.fields(config)}

    @settings(max_examples=30)
    @given(
        st.sampled_from(range(8, 129, 8)),
        st.text(st.characters(codec="utf-8"), max_size=12),
        st.floats(0, 1e6),
        st.booleans(),
    )
    def test_any_values_survive(self, bits, weights, rate, mirror):
        config = TrainConfig(bits=bits, weights=weights, learning_rate=rate, mirror=mirror)
        assert TrainConfig.from_dict(tomllib.loads(config.to_toml())) == config

    def test_a_file_may_name_some_settings_only(self, tmp_path):
        (tmp_path / "some.toml").write_text("bits = 16\nlearning_rate = 1\n")
        assert TrainConfig.load(tmp_path / "some.toml") == TrainConfig(bits=16, learning_rate=1.0)

    def test_an_unknown_key_names_the_file_and_the_nearest(self, tmp_path):
        (tmp_path / "typo.toml").write_text("learning_rat = 0.1\n")
        with pytest.raises(ConfigError, match=r"typo\.toml.*'learning_rat'.*'learning_rate'"):
            TrainConfig.load(tmp_path / "typo.toml")

    def test_a_key_like_none_lists_them_all(self):
        with pytest.raises(
            ConfigError, match="one of bits, objective, sparsity, backbone, weights"
        ):
            TrainConfig.from_dict({"zzzzzz": 1})

    @pytest.mark.parametrize("data", [None, b"bits = ", b"\xff\xfe"])
    def test_a_file_that_cannot_be_read(self, tmp_path, data):
        path = tmp_path / "config.toml"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"config\.toml cannot be read"):
            TrainConfig.load(path)


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("bits", 32.0),
            ("bits", "32"),
            ("bits", True),
            ("bits", None),
            ("backbone", 3),
            ("learning_rate", "fast"),
            ("learning_rate", False),
            ("mirror", 1),
            ("mirror", "yes"),
            ("sparsity", 2.0),
            ("sparsity", None),
            ("sparsity", True),
        ],
    )
    def test_a_wrong_type_names_the_setting(self, name, value):
        with pytest.raises(ConfigError, match=f"{name} must be "):
            TrainConfig(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("bits", 0),
            ("bits", 12),
            ("bits", 136),
            ("bits", -8),
            ("image_size", -1),
            ("dim", -1),
            ("epochs", -1),
            ("batch_size", -2),
            ("learning_rate", -0.1),
            ("quantization_weight", -0.1),
            ("centre_weight", -0.1),
            ("discriminative_weight", -0.1),
            ("seed", -1),
            ("split_seed", -1),
            ("warmup", 1.0),
            ("warmup", -0.1),
            ("label_smoothing", 1.0),
            ("softmax_scale", -1.0),
            ("progressive", 1.0),
            ("progressive", -0.5),
            ("softmax_margin", -0.1),
            ("label_smoothing", -0.5),
            ("dim", 4_097),
            ("levelling", -0.1),
            ("levelling", 1.5),
            ("rounds", -1),
            ("learning_rate", float("nan")),
            ("weight_decay", float("-inf")),
            ("weight_decay", -0.5),
            ("discriminative_weight", float("inf")),
        ],
    )
    def test_a_value_out_of_range_names_the_setting(self, name, value):
        with pytest.raises(ConfigError, match=name):
            TrainConfig(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value", "nearest"),
        [
            ("optimizer", "adam", "adamw"),
            ("augment", "crops", "crop"),
            ("precision", "bf16", "bfloat16"),
            ("sparsity", "s1", "S1"),
            ("labels", "folder", "folders"),
            ("objective", "softmax-center", "softmax-centre"),
            ("protocol", "cifar10-54", "cifar10-54k"),
        ],
    )
    def test_an_unknown_choice_names_the_nearest(self, name, value, nearest):
        with pytest.raises(ConfigError, match=f"'{value}' is not .*did you mean '{nearest}'"):
            TrainConfig(**{name: value})

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_every_protocol_is_allowed(self, protocol):
        assert TrainConfig(protocol=protocol).protocol == protocol

    @pytest.mark.parametrize(("bits", "codebooks"), [(8, 1), (32, 4), (128, 16)])
    def test_a_byte_is_a_codebook(self, bits, codebooks):
        assert TrainConfig(bits=bits).n_codebooks == codebooks

    @pytest.mark.parametrize(
        ("sparsity", "budget"), [("none", None), ("S1", 16_384), ("S2", 20_480), (7, 7)]
    )
    def test_sparsity_is_a_name_or_a_count(self, sparsity, budget):
        config = TrainConfig(sparsity=sparsity)
        assert config.nonzero_budget(64) == budget
        assert TrainConfig.from_dict(tomllib.loads(config.to_toml())) == config

    def test_a_count_of_nonzeros_is_checked_once_the_dimension_is_known(self):
        config = TrainConfig(bits=8, sparsity=5_000)
        with pytest.raises(ConfigError, match="1 to 4096 nonzeros, not 5000; 'S1' would be 4096"):
            dataclasses.replace(config, dim=16)
        with pytest.raises(ConfigError, match="not 0"):
            TrainConfig(dim=16, sparsity=0)

    def test_the_pull_is_the_ratio_of_two_weights(self):
        config = TrainConfig(quantization_weight=0.2, discriminative_weight=0.5)
        assert config.pull == pytest.approx(2.5)
        assert TrainConfig(discriminative_weight=0.0).pull == 0

    def test_without_a_quantization_term_nothing_pulls(self):
        assert TrainConfig(quantization_weight=0.0, discriminative_weight=0.0).pull == 0
        with pytest.raises(ConfigError, match="needs a quantization_weight"):
            TrainConfig(quantization_weight=0.0)

    def test_it_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            TrainConfig().bits = 16  # type: ignore[misc]  # the test

    @pytest.mark.parametrize("objective", ["csq", "orthohash"])
    def test_codes_of_signs_have_a_bit_a_dimension_and_nothing_sparse(self, objective):
        assert TrainConfig(bits=32, objective=objective, dim=32).binary
        with pytest.raises(ConfigError, match="dim must be 0 or 32, not 64"):
            TrainConfig(bits=32, objective=objective, dim=64)
        with pytest.raises(ConfigError, match="sparsity must be 'none', not 'S1'"):
            TrainConfig(bits=32, objective=objective, sparsity="S1")

    def test_one_objective_leaves_the_sphere(self):
        assert not TrainConfig(objective="no-norm").normalised
        assert TrainConfig().normalised
        assert not TrainConfig().binary
