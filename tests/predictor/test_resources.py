"""What a configuration takes of an FPGA, from the model that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spikemeter.config import load_config
from spikemeter.errors import ConfigError
from spikemeter.predictor import resources
from spikemeter.predictor.memories import ram_cells
from spikemeter.predictor.resources import KINDS, estimate_resources

DIGITS = {
    "dataset": "nmnist-saccade",
    "network": "16C3-MP2-32C3-MP2-10",
    "input": {"height": 16, "width": 16, "time_steps": 8},
}
MODEL = json.loads(Path(resources.__file__).with_name("resources.json").read_text())


def changed(**hardware: object) -> resources.ResourceEstimate:
    return estimate_resources(load_config({**DIGITS, "hardware": hardware}))


def test_totals_are_the_sum_of_layers_and_buffers():
    found = estimate_resources(load_config(DIGITS))
    names = [block.name for block in (*found.layers, *found.buffers)]
    assert names == [
        "0:16C3", "1:32C3", "2:10", "input of 0:16C3", "input of 1:32C3", "input of 2:10", "output",
    ]  # fmt: skip
    for kind in KINDS:
        total = sum(getattr(block, kind) for block in (*found.layers, *found.buffers))
        assert getattr(found, kind) == total
        low, high = found.intervals[kind]
        assert low <= total <= high
    assert json.loads(json.dumps(found.to_dict()))["lut"] == found.lut


def test_only_lapicque_neurons_take_dsps():
    assert changed().dsp == 0
    lapicque = {**DIGITS, "neuron": {"model": "lapicque"}}
    for bits, slices in ((16, 1), (24, 1), (25, 1), (26, 2), (32, 2)):
        config = load_config({**lapicque, "hardware": {"membrane_bits": bits}})
        assert estimate_resources(config).dsp == slices * sum(config.neural_cores)


def test_more_cores_and_wider_membranes_take_more_logic():
    fewer, more = changed(neural_cores=[4, 8, 2]), changed(neural_cores=[8, 16, 4])
    assert more.lut > 1.5 * fewer.lut
    assert changed(membrane_bits=32).lut > changed(membrane_bits=16).lut
    assert changed(membrane_bits="auto") == changed(membrane_bits=24)
    assert changed().membrane_bits == 24


def test_the_whole_membrane_fits_into_what_it_is_mapped_to():
    for depth in range(1, 6000, 37):
        for width in (2, 7, 16, 24, 32):
            cells = ram_cells(depth, width)
            assert cells.ff or 2 * cells.lut * 32 + 18 * 1024 * cells.bram >= depth * width
            assert bool(cells.ff) + bool(cells.lut) + bool(cells.bram) == 1


def test_a_memory_of_one_word_is_a_register_and_a_larger_one_is_not():
    assert ram_cells(1, 24).ff == 24
    assert ram_cells(2, 24).lut == 16
    assert ram_cells(1024, 24).bram == 2
    assert ram_cells(256, 4, single_port=True).bram == 0


def test_the_model_was_fitted_to_enough_layers_and_is_this_good():
    assert MODEL["layers"] >= 30
    errors = MODEL["errors"]
    assert errors["lut"]["layer"]["mape"] <= 0.03
    assert errors["ff"]["layer"]["mape"] <= 0.03
    assert errors["bram"]["layer"]["exact"] >= 0.9
    assert errors["dsp"]["layer"]["exact"] == 1
    assert all(0 <= errors[kind]["network"]["p90"] <= 0.1 for kind in KINDS)


@pytest.mark.parametrize(
    ("hardware", "reason"),
    [
        ({"backend": "published"}, r"^hardware\.backend: must be engine to estimate resources"),
        ({"taps_per_cycle": 9}, r"^hardware\.taps_per_cycle: must be 1"),
    ],
)
def test_a_machine_that_nobody_synthesised_is_refused(hardware, reason):
    with pytest.raises(ConfigError, match=reason):
        changed(**hardware)


def test_estimating_loads_neither_rtl_nor_models(tmp_path):
    program = """
import sys
from spikemeter.config import load_config
from spikemeter.predictor.resources import estimate_resources
estimate_resources(load_config({"dataset": "nmnist-saccade", "network": "8C3-10"}))
heavy = [name for name in sys.modules if name.startswith(("spikemeter.rtl", "spikemeter.models",
         "xgboost", "torch", "jinja2"))]
print(heavy)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]", result.stderr
