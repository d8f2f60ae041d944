import math
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spikemeter.config import (
    DATASETS,
    Config,
    SurrogateConfig,
    json_schema,
    load_config,
    measured_config,
)
from spikemeter.errors import ConfigError, InputError

BASE = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}


def refusal(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config({**BASE, **changes})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("network: '10'\nnetwork: '20'\n", "'network' in line 2"),
        ("network: '10'\nneuron: {beta: 0.5, beta: 0.6}\n", "'beta' in line 2"),
        ("network: '10'\nneuron: [{a: 1}, {b: 1, 'b': 1}]\n", "'b' in line 2"),
    ],
)
def test_a_key_twice_is_refused(tmp_path, text, where):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"must have each key once, got another {where}"):
        load_config(path)


def test_keys_may_be_merged_in_and_overridden(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "dataset: nmnist-saccade\n"
        "network: '10'\n"
        "neuron: {<<: &cell {beta: 0.9, threshold: 0.7}, beta: 0.5}\n"
    )
    neuron = load_config(path).neuron
    assert (neuron.beta, neuron.threshold) == (0.5, 0.7)


def test_every_key_but_data_and_network_has_a_default():
    config = load_config(BASE)
    assert config.neuron.beta == 0.9
    assert config.training.seed == 0
    assert [layer.name for layer in config.layers] == ["0:8C3", "1:10"]


@pytest.mark.parametrize(
    ("neuron", "decay", "gain"),
    [
        ({"beta": 0.7}, 0.7, 1.0),
        ({"model": "lapicque", "beta": 0.7}, 1 + math.log(0.7), -math.log(0.7)),
        ({"model": "lapicque", "beta": 0.7, "match": "decay"}, 0.7, -math.log(0.7)),
        ({"model": "lapicque", "beta": 0.7, "match": "gain"}, 1 + math.log(0.7), 1.0),
        ({"model": "lapicque", "beta": 0.7, "match": "both"}, 0.7, 1.0),
        ({"model": "lapicque", "R": 5, "C": 2}, 0.9, 0.5),
        ({"model": "lapicque", "R": 1, "C": 0.5}, -1.0, 2.0),
    ],
)
def test_neurons_decay_and_take_input_as_their_model_says(neuron, decay, gain):
    config = load_config({**BASE, "neuron": neuron})
    assert config.neuron.decay == pytest.approx(decay)
    assert config.neuron.gain == pytest.approx(gain)
    assert load_config(config.model_dump()) == config
    assert load_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("neuron", "sentence"),
    [
        ({"R": 5}, "neuron.R: is for neuron.model lapicque, not lif; got 5"),
        ({"beta": None}, "neuron.beta: required for neuron.model lif, got null"),
        ({"match": "both"}, "neuron.match: is for neuron.model lapicque, not lif; got 'both'"),
        ({"model": "lapicque", "R": 5}, "neuron.C: a Lapicque neuron needs R and C, or beta; got"),
        ({"model": "lapicque", "beta": None}, "neuron.R: a Lapicque neuron needs R and C, or beta"),
        (
            {"model": "lapicque", "R": 5, "C": 2, "beta": 0.9},
            "neuron.R: must be absent where beta is given (R and C replace it), got 5",
        ),
        (
            {"model": "lapicque", "R": 5, "C": 2, "match": "gain"},
            "neuron.match: must be none where R and C are given",
        ),
        ({"model": "lapicque", "R": 0.6, "C": 0.8}, "neuron.R: R C must be at least 0.5"),
        ({"model": "lapicque", "beta": 0.13}, "neuron.beta: must be at least exp(-2) = 0.1353"),
        ({"model": "lapicque", "beta": 1}, "neuron.beta: must be below 1 for a Lapicque neuron"),
        ({"model": "izhikevich"}, "neuron.model: should be 'lif' or 'lapicque', got 'izhikevich'"),
        ({"reset": "none"}, "neuron.reset: should be 'subtract' or 'zero', got 'none'"),
    ],
)
def test_neurons_that_do_not_exist_are_refused(neuron, sentence):
    assert sentence in refusal(neuron=neuron)


def test_networks_beyond_the_engine_are_refused():
    deep = "-".join(["1C1"] * 32 + ["10"])
    assert "network: must have at most 32 weighted layers" in refusal(network=deep)
    huge = {"height": 128, "width": 128, "channels": 1024, "time_steps": 1024}
    sentence = refusal(
        dataset=None, network="1", hardware={"encoder_width": 8},
        input=huge | {"statistics": [[0.0] * 1024] * 1024},
    )  # fmt: skip
    assert "network: the buffer before 0:1 must have at most 1073741824 words" in sentence
    assert "should not be true or false" in refusal(input={"statistics": [[True, False]] * 8})


def test_statistics_stand_in_for_a_data_set():
    config = load_config(
        {"network": "8C3-6", "input": {"time_steps": 2, "statistics": [[1, 2], [3, 4.5]]}}
    )
    assert config.input.statistics == ((1.0, 2.0), (3.0, 4.5))
    assert config.classes == 6


def test_auto_cores_are_a_quarter_of_the_channels_and_at_most_16_for_dense():
    config = load_config(BASE | {"network": "9C3-MP2-40-20", "training": {"population": 2}})
    assert config.neural_cores == (3, 16, 16)
    assert load_config(BASE | {"network": "1C3-10"}).neural_cores == (1, 10)


def test_yaml_dict_and_object_mean_the_same(tmp_path: Path):
    config = load_config(BASE | {"hardware": {"neural_cores": [2, 5]}, "neuron": {"beta": 0.5}})
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config
    assert load_config(str(path)) == config
    assert load_config(tmp_path) == config
    assert load_config(config) is config
    assert load_config(config.model_dump()) == config


def test_the_digest_knows_every_setting_but_not_how_it_was_written():
    config = load_config(BASE)
    assert config.digest == load_config(BASE | {"neuron": {"beta": "0.9"}}).digest
    assert config.digest != load_config(BASE | {"neuron": {"beta": 0.91}}).digest
    assert config.digest != load_config(BASE | {"hardware": {"clock_mhz": 50}}).digest
    assert len(config.digest) == 64


def test_a_digest_outlives_keys_that_come_later():
    """A digest is made of what differs from the defaults, so no default may ever change.

    A new key gets a line here; its default has to leave what a run does as it is.
    """
    assert load_config(BASE).model_dump(mode="json") == {
        **BASE,
        "data_root": None,
        "input": {
            "height": 16,
            "width": 16,
            "channels": 2,
            "time_steps": 8,
            "statistics": None,
            "encoding": "events",
            "gain": 1.0,
            "time_window_ms": None,
            "denoise_ms": None,
            "values": "binary",
            "camera_threshold": None,
            "camera_mismatch": 0.05,
            "camera_leak_hz": 0.4,
        },
        "neuron": {
            "model": "lif",
            "beta": 0.9,
            "R": None,
            "C": None,
            "match": "none",
            "threshold": 1.0,
            "reset": "subtract",
        },
        "surrogate": {"name": "fast_sigmoid", "slope": 25.0, "width": None},
        "training": {
            "epochs": 10,
            "lr": 0.001,
            "batch_size": 64,
            "weight_bits": 4,
            "batch_norm": True,
            "dropout": 0.0,
            "loss": "mse_count",
            "population": 1,
            "seed": 0,
            "patience": None,
            "precision": "float32",
        },
        "hardware": {
            "backend": "engine",
            "clock_mhz": 100.0,
            "neural_cores": "auto",
            "encoder_width": 32,
            "taps_per_cycle": 1,
            "membrane_bits": "auto",
            "schedule": "layer_serial",
        },
        "spikes": None,
    }
    assert load_config(BASE).digest[:16] == "12628efcaf6f2edd"
    changed = load_config(BASE | {"surrogate": {"name": "atan", "slope": 25}})
    assert changed.digest != load_config(BASE | {"surrogate": {"name": "atan"}}).digest


def test_a_configuration_without_knobs_says_nothing_of_them():
    assert "knobs" not in load_config(BASE).model_dump()["hardware"]
    assert "knobs" not in load_config(BASE).to_yaml()


def test_spikes_stand_in_for_a_data_set():
    config = load_config({"network": "8C3-6", "spikes": "spikes.npz"})
    assert (config.dataset, config.classes) == (None, 6)


def test_a_measurement_may_be_of_any_machine(tmp_path: Path):
    content = {
        "network": "6C7-MP3-3C2v",
        "input": {"width": 300, "channels": 1},
        "hardware": {"neural_cores": [3000, 1], "encoder_width": 1, "knobs": {"a": 2}},
    }
    config = measured_config(content, spikes="x.npz", knobs={"b": 3})
    assert [layer.name for layer in config.layers] == ["0:6C7", "1:3C2v"]
    assert config.hardware.knobs == {"a": 2, "b": 3}
    content["hardware"]["backend"] = str(tmp_path)
    assert load_config(content | {"spikes": "x.npz"}).hardware.knobs == {"a": 2}
    assert load_config(yaml.safe_load(config.to_yaml()) | content).neural_cores == (3000, 1)
    other = {"dataset": "nmnist-saccade", "training": {"epochs": "no"}, "neuron": 3}
    assert measured_config(content | other, spikes="x.npz", knobs={"b": 3}) == config
    with pytest.raises(ConfigError, match=r"unknown key 'trainin'; allowed here: network, input"):
        measured_config(content | {"trainin": {}}, spikes="x.npz")


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(BASE) + "training: {lr: 1e-3}\n", encoding="utf-8")
    assert load_config(path).training.lr == 0.001


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"netwrok": "10"}, ["unknown key 'netwrok'", "network"]),
        ({"neuron": {"betta": 1}}, ["unknown key 'neuron.betta'", "beta", "threshold"]),
        (
            {"surrogate": {"name": "sgd"}},
            ["surrogate.name", "'triangular' or 'straight_through'", "'sgd'"],
        ),
        ({"dataset": "mnist"}, ["dataset", "nmnist-saccade", "'mnist'"]),
        ({"dataset": None}, ["dataset", "input.statistics"]),
        ({"network": "8C3-MP2-20"}, ["network", "10 neurons", "20", "8C3-MP2-20"]),
        ({"network": "8C3-MP7-10"}, ["network", "'MP7'", "pooling"]),
        ({"network": 10}, ["network", "string", "10"]),
        ({"neuron": {"beta": 1.01}}, ["neuron.beta", "less than or equal to 1", "1.01"]),
        ({"neuron": {"beta": "x"}}, ["neuron.beta", "valid number", "'x'"]),
        ({"neuron": {"beta": True}}, ["neuron.beta", "true or false"]),
        ({"neuron": None}, ["neuron: should hold keys and values, got None"]),
        ({"training": {"epochs": True}}, ["training.epochs", "true or false"]),
        ({"training": {"epochs": 1.5}}, ["training.epochs", "integer", "1.5"]),
        ({"training": {"lr": float("nan")}}, ["training.lr", "finite", "nan"]),
        ({"training": {"weight_bits": 9}}, ["training.weight_bits", "8", "9"]),
        ({"training": {"population": 3}}, ["training.population", "divide", "3"]),
        ({"training": {"seed": -1}}, ["training.seed", "-1"]),
        ({"hardware": {"neural_cores": [9, 10]}}, ["hardware.neural_cores.0", "8", "0:8C3", "9"]),
        ({"hardware": {"neural_cores": [1]}}, ["hardware.neural_cores", "2 numbers", "[1]"]),
        ({"hardware": {"neural_cores": "many"}}, ["hardware.neural_cores", "'auto'", "'many'"]),
        (
            {"hardware": {"neural_cores": 8}},
            ["hardware.neural_cores: should be a list (or 'auto'), got 8"],
        ),
        (
            {"hardware": {"neural_cores": [0, 1]}},
            ["hardware.neural_cores.0: should be greater than or equal to 1, got 0"],
        ),
        ({"hardware": {"neural_cores": [True, 1]}}, ["hardware.neural_cores", "true or false"]),
        ({"hardware": {"membrane_bits": 4}}, ["hardware.membrane_bits", "'auto'", "8", "4"]),
        (
            {"hardware": {"backend": "fpga"}},
            ["hardware.backend", "'engine' or 'published'", "'fpga'"],
        ),
        (
            {"hardware": {"backend": "published"}, "network": "8C3-4C5-10"},
            ["network: must have padded 3x3 kernels (nC3)", "'1:4C5'", "8C3-4C5-10"],
        ),
        (
            {"hardware": {"backend": "published"}, "network": "8C3v-10"},
            ["network: must have padded 3x3 kernels (nC3)", "'0:8C3v'"],
        ),
        (
            {"hardware": {"backend": "published", "schedule": "step_pipelined"}},
            ["hardware.schedule: must be layer_serial", "'step_pipelined'"],
        ),
        ({"hardware": {"taps_per_cycle": 3}}, ["hardware.taps_per_cycle: must be 1 or 9", "got 3"]),
        (
            {"hardware": {"backend": "published", "taps_per_cycle": 9}},
            ["hardware.taps_per_cycle: must be 1 with hardware.backend published", "got 9"],
        ),
        (
            {
                "network": "1000C3-10",
                "hardware": {"taps_per_cycle": 9, "neural_cores": [1000, 1]},
            },
            ["hardware.taps_per_cycle: must be 1 where 0:1000C3 on 1000 cores", "got 9, for 9000"],
        ),
        ({"hardware": {"encoder_width": 4}}, ["hardware.encoder_width: must be 8 to 128", "got 4"]),
        (
            {"hardware": {"backend": "published", "encoder_width": 129}},
            ["hardware.encoder_width: must be 8 to 128 with hardware.backend published", "129"],
        ),
        (
            {"network": "2000-10", "hardware": {"neural_cores": [1025, 1]}},
            ["hardware.neural_cores.0: must be at most 1024 with hardware.backend engine", "1025"],
        ),
        ({"hardware": {"knobs": {"x": 1}}}, ["hardware.knobs.x: is for a fitted backend", "got 1"]),
        ({"hardware": {"knobs": {"x": True}}}, ["hardware.knobs", "true or false"]),
        ({"hardware": {"knobs": {"x": "a"}}}, ["hardware.knobs.x", "valid number", "'a'"]),
        ({"hardware": {"backend": ""}}, ["hardware.backend", "at least 1 character"]),
        ({"hardware": {"backend": 5}}, ["hardware.backend", "string", "5"]),
        ({"dataset": None, "spikes": "x.npz", "input": {"height": 129}}, ["input.height", "128"]),
        ({"network": "8C3"}, ["network: the last layer must be dense", "'8C3'"]),
        ({"input": {"height": 35}}, ["input.height", "34", "35"]),
        ({"input": {"channels": 1}}, ["input.channels", "2", "1"]),
        ({"input": {"time_steps": 0}}, ["input.time_steps", "1", "0"]),
        ({"input": {"statistics": [[1, 2]]}}, ["input.statistics", "8 rows", "1 rows"]),
        ({"input": {"statistics": []}}, ["input.statistics", "8 rows", "0 rows"]),
        (
            {"input": {"time_steps": 1, "statistics": [[1, 300]]}},
            ["input.statistics", "256 pixels", "300"],
        ),
        ({"input": {"time_steps": 1, "statistics": [[-1, 2]]}}, ["input.statistics.0.0", "-1"]),
    ],
)
def test_a_refusal_names_key_rule_and_value(changes, parts):
    message = refusal(**changes)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_an_object_is_checked_like_a_file():
    with pytest.raises(ValidationError, match=r"network: the kernel must be one of"):
        Config(dataset="nmnist-saccade", network="8C2-10")
    with pytest.raises(ValidationError, match=r"hardware\.neural_cores\.0: must be at most the 8"):
        Config(**BASE, hardware={"neural_cores": [9, 10]})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"dataset: [", "not valid YAML"),
        (b"- 1\n", "must hold keys and values, got list"),
        (b"", "must hold keys and values, got NoneType"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"dataset: 2020-13-45", "not valid YAML: month must be in 1..12"),
        (b"dataset: " + 20_000 * b"[", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content, part):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=part) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_bad_input(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        load_config(tmp_path / "none.yaml")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers()),
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from([*Config.model_fields, "other"]),
        st.one_of(
            scalars,
            st.dictionaries(
                st.sampled_from(["beta", "height", "neural_cores", "statistics", "lr", "seed"]),
                scalars,
            ),
        ),
    )
)
def test_anything_is_a_valid_configuration_or_one_sentence(content):
    try:
        config = load_config(content)
    except ConfigError as error:
        assert str(error)  # noqa: PT017
    else:
        assert load_config(yaml.safe_load(config.to_yaml())) == config


def test_the_schema_describes_every_key_and_refuses_others():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["required"] == ["network"]
    assert schema["$defs"]["TrainingConfig"]["properties"]["lr"]["maximum"] == 10


def test_registered_data_sets_have_sizes():
    for spec in DATASETS.values():
        assert min(spec.classes, spec.channels, spec.height, spec.width) >= 1


def test_a_width_stands_for_the_slope_of_any_surrogate():
    def surrogate(**keys):
        return load_config(BASE | {"surrogate": keys}).surrogate

    assert surrogate() == surrogate(name="fast_sigmoid", slope=25)
    assert surrogate(name="atan").slope == 2
    for name in ("fast_sigmoid", "atan", "sigmoid", "triangular"):
        by_width = surrogate(name=name, width=0.3)
        assert by_width.slope is None
        assert by_width.half_width == 0.3
        by_slope = surrogate(name=name, slope=by_width.steepness)
        assert by_slope.half_width == pytest.approx(0.3)
    escape = surrogate(name="spike_rate_escape", width=0.3)
    assert (escape.slope, escape.half_width) == (25, 0.3)
    assert surrogate(name="spike_rate_escape").half_width == pytest.approx(math.log(2))
    assert surrogate(name="straight_through").steepness == 0
    assert surrogate(name="sso").half_width == 0


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"name": "sso", "width": 1}, ["surrogate.width", "sso", "1"]),
        ({"name": "straight_through", "slope": 2}, ["surrogate.slope", "null", "2"]),
        ({"name": "atan", "slope": 2, "width": 1}, ["surrogate.slope", "absent", "2"]),
        ({"name": "atan", "slope": None}, ["surrogate.slope", "required", "null"]),
        ({"name": "atan", "width": -1}, ["surrogate.width: should be greater than 0", "-1"]),
    ],
)
def test_slope_and_width_must_fit_the_surrogate(changes, parts):
    message = refusal(surrogate=changes)
    for part in parts:
        assert part in message, message


def test_a_private_data_set_says_what_it_is(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    spec = {"classes": 3, "channels": 1, "height": 40, "width": 50}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    content = {"network": "8C3-3", "input": {"height": 40, "width": 50, "channels": 1}}
    config = load_config(content | {"dataset": str(folder)})
    assert config.classes == 3
    # Found beside the file, and where it was once found
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content | {"dataset": "mine"}), encoding="utf-8")
    assert load_config(path).dataset == str(folder)
    shutil.rmtree(folder)
    assert load_config(config.model_dump()) == config


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (None, ["cannot read", "dataset.yaml", "No such file"]),
        ("", ["dataset.yaml", "must hold keys and values"]),
        ("classes: [", ["dataset.yaml", "not valid YAML"]),
        ("{classes: 3, height: 4}", ["dataset.yaml", "width"]),
        ("{classes: 0, height: 4, width: 4}", ["dataset.yaml", "classes", "0"]),
        ("{classes: 3, height: 4, width: 4, depth: 1}", ["dataset.yaml", "depth"]),
        ("{classes: 4, channels: 2, height: 16, width: 16}", ["network", "4 neurons"]),
        ("{classes: 3, channels: 1, height: 16, width: 16}", ["input.channels", "must be 1"]),
        ("{classes: 3, channels: 2, height: 8, width: 16}", ["input.height", "at most", "16"]),
    ],
)
def test_a_wrong_private_data_set_is_refused(tmp_path: Path, spec, parts):
    if spec is not None:
        (tmp_path / "dataset.yaml").write_text(spec, encoding="utf-8")
    message = refusal(dataset=str(tmp_path), network="8C3-3")
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"dataset": "nmist"}, ["must be one of", "nmnist", "folder", "'nmist'"]),
        (
            {"dataset": "nmnist", "input": {"encoding": "rate", "channels": 1}},
            ["input.encoding", "still images", "'rate'"],
        ),
        ({"input": {"encoding": "rate"}}, ["input.channels", "must be 1", "encoding rate"]),
        (
            {"input": {"encoding": "rate", "channels": 1, "denoise_ms": 3}},
            ["input.denoise_ms", "events", "3"],
        ),
        ({"input": {"gain": 0.5}}, ["input.gain", "encoding rate", "0.5"]),
        ({"dataset": "nmnist", "input": {"camera_leak_hz": 5}}, ["camera_leak_hz", "simulated"]),
        ({"dataset": "x" * 5000}, ["dataset", "must be one of"]),
        (
            {"dataset": "nmnist", "input": {"camera_threshold": 0.3}},
            ["input.camera_threshold", "simulated", "0.3"],
        ),
    ],
)
def test_frames_must_suit_the_data_set(changes, parts):
    message = refusal(**changes)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("section", ["input", "neuron", "surrogate", "training", "hardware"])
@pytest.mark.parametrize("content", ["atan", 3, ["sso"], None])
def test_a_section_must_hold_keys_and_values(section, content):
    message = refusal(**{section: content})
    assert section in message
    assert "keys and values" in message


def test_a_surrogate_is_checked_wherever_it_is_made():
    with pytest.raises(ValidationError, match=r"surrogate\.width"):
        SurrogateConfig(name="sso", width=1.0)
    with pytest.raises(ValidationError, match=r"surrogate\.slope: required"):
        SurrogateConfig(name="atan", slope=None)
