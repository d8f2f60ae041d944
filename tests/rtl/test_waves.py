"""Waveforms of the RTL, read back by readers that are not ours: those of Surfer and GTKWave."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pylibfst
import pytest
from numpy.typing import NDArray
from pywellen import Waveform
from random_networks import Case, random_case

from spikemeter.errors import InputError, SimulationError
from spikemeter.rtl import Simulation, simulate, simulated_spans, simulator
from spikemeter.rtl.fst import Changes, FstWriter, Scope, Variable
from spikemeter.rtl.runners import Build
from spikemeter.rtl.vcd import read_changes, read_declarations

SEEDS = (95, 244)
"""Of networks with convolutions, pooling and several steps: step_pipelined and layer_serial."""
CLOCK_MHZ = 300
"""Whose period is no whole number of picoseconds."""
BUCKETS = {"encode": 1, "accumulate": 2, "fire": 4, "stall": 8}
CHECKED = Build(checked=True)


class Recorded:
    """One simulation with waves: what it returned, and what the file says."""

    def __init__(self, case: Case, path: Path, shown: int) -> None:
        self.case = case
        self.simulation: Simulation = simulate(
            case.config, case.network, case.inputs, build=CHECKED, waves=path, waves_samples=shown
        )
        self.path = path
        self.file = Waveform(str(path))
        self.variables: dict[str, Any] = {each.full_name: each for each in self.file.all_vars()}

    def changes(self, name: str) -> list[tuple[int, int]]:
        return list(self.variables[f"snn_top.{name}"].tv)

    def layer(self, index: int) -> str:
        return f"layer{index}_{self.case.config.layers[index].name.partition(':')[2]}"

    def cycle_of(self, time: int) -> float:
        """Cycle in which something happened, from the time in picoseconds."""
        return round(time * CLOCK_MHZ / 1e6, 3)

    def spans(self, name: str) -> Iterator[tuple[int, float, float]]:
        """Value, first cycle and first cycle after, of every stretch."""
        changes = [(value, self.cycle_of(time)) for time, value in self.changes(name)]
        end = self.cycle_of(self.changes("overview.clk")[-1][0])
        ends = [start for _, start in changes[1:]] + [end]
        for (value, start), past in zip(changes, ends, strict=True):
            yield value, start, past


@pytest.fixture(scope="module", params=SEEDS)
def case(request: pytest.FixtureRequest) -> Case:
    drawn = random_case(request.param)
    hardware = drawn.config.hardware.model_copy(update={"clock_mhz": CLOCK_MHZ})
    return replace(drawn, config=drawn.config.model_copy(update={"hardware": hardware}))


@pytest.fixture(scope="module")
def recorded(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(case, tmp_path_factory.mktemp("waves") / "one.fst", 1)


@pytest.mark.rtl
def test_recording_changes_neither_cycles_nor_spikes(recorded: Recorded) -> None:
    case = recorded.case
    plain = simulate(case.config, case.network, case.inputs, build=CHECKED)
    for field in ("cycles", "layer_cycles", "outputs"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(recorded.simulation, field))
    for ours, theirs in zip(plain.inputs, recorded.simulation.inputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert plain.initiation_interval_cycles == recorded.simulation.initiation_interval_cycles


@pytest.mark.rtl
def test_done_pulses_in_the_last_of_the_counted_cycles(recorded: Recorded) -> None:
    cycles = int(recorded.simulation.cycles[0])
    high = [span for span in recorded.spans("overview.done") if span[0]]
    assert high == [(1, cycles - 1, cycles)]
    counted = recorded.changes("overview.cycle")
    # Two more cycles follow, and the edge that ends them
    assert [value for _, value in counted] == list(range(cycles + 3))
    times = [round(cycle * 1e6 / CLOCK_MHZ) for cycle in range(cycles + 3)]
    assert [time for time, _ in counted] == times
    rising = [time for time, value in recorded.changes("overview.clk") if value]
    assert rising == times


@pytest.mark.rtl
def test_buckets_last_as_long_as_the_performance_counters_say(recorded: Recorded) -> None:
    simulation = recorded.simulation
    for index in range(len(recorded.case.config.layers)):
        spans = list(recorded.spans(f"overview.{recorded.layer(index)}_bucket"))
        for bucket, value in BUCKETS.items():
            total = sum(past - start for found, start, past in spans if found == value)
            assert total == pytest.approx(simulation.buckets[bucket][0, index], abs=1e-6)
        assert {value for value, *_ in spans} <= {0, *BUCKETS.values()}


@pytest.mark.rtl
def test_buckets_and_steps_are_those_of_the_timeline(recorded: Recorded) -> None:
    case = recorded.case
    expected = simulated_spans(case.config, case.network, case.inputs[:1], build=CHECKED)
    for index in range(len(case.config.layers)):
        name = f"overview.{recorded.layer(index)}"
        steps = list(recorded.spans(f"{name}_step"))
        found = []
        for value, start, past in recorded.spans(f"{name}_bucket"):
            # A step may begin in the bucket in which the one before has ended
            for step, first, end in steps:
                low, high = max(start, first), min(past, end)
                if value and low < high:
                    found.append((index, step, value, low, high - low))
        spans = [
            (span.layer, span.step, BUCKETS[span.bucket], span.start, span.cycles)
            for span in expected
            if span.layer == index
        ]
        np.testing.assert_allclose(found, spans, atol=1e-3)


@pytest.mark.rtl
def test_names_are_those_of_layers_states_and_buckets(recorded: Recorded) -> None:
    names = [name.removeprefix("snn_top.") for name in recorded.variables]
    folders = {name.partition(".")[0] for name in names if "." in name}
    layers = [recorded.layer(index) for index in range(len(recorded.case.config.layers))]
    buffers = ["input", *(layer.partition("_")[2] for layer in layers)]
    named = [f"buffer{index}_{name}" for index, name in enumerate(buffers)]
    assert folders == {"overview", *layers, *named}
    assert not [name for name in names if re.search(r"\b(u_|gen_|unused_)", name)]
    for layer in layers:
        for name in (f"overview.{layer}_state", f"{layer}.state", f"{layer}.event_control.state_q"):
            _, values = recorded.variables[f"snn_top.{name}"].enum_type
            assert dict(values)["010"] == "StScan"
        _, values = recorded.variables[f"snn_top.{layer}.bucket"].enum_type
        assert {name: int(bits, 2) for bits, name in values} == {"idle": 0, **BUCKETS}
        assert f"{layer}.core_array.core0.spk_o" in names
    # Within a generate block of the RTL
    assert f"{layers[0]}.event_control.event_row_q" in names
    # A memory is there only while it is small, and each of these has a large one
    words = [int(found[1]) for name in names if (found := re.search(r"mem\.\[(\d+)\]$", name))]
    assert 0 < max(words) < 32


@pytest.mark.rtl
def test_several_samples_follow_one_another(case: Case, tmp_path: Path) -> None:
    two = Recorded(case, tmp_path / "two.fst", 2)
    cycles = two.simulation.cycles
    first, second = [span for span in two.spans("overview.done") if span[0]]
    assert first[1:] == (cycles[0] - 1, cycles[0])
    begins = [start for step, start, _ in two.spans(f"overview.{two.layer(0)}_bucket") if step == 8]
    start = min(each for each in begins if each > cycles[0])
    assert second[1] - start == pytest.approx(cycles[1] - 1)


@pytest.mark.rtl
def test_a_failed_simulation_leaves_what_was_there(
    case: Case, tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "waves.fst"
    path.write_bytes(recorded.path.read_bytes())
    monkeypatch.setattr(simulator, "_cycle_limit", lambda config: 7)
    with pytest.raises(SimulationError, match="no result within 7 cycles"):
        simulate(case.config, case.network, case.inputs, build=CHECKED, waves=path)
    assert [each.name for each in tmp_path.iterdir()] == ["waves.fst"]
    assert path.read_bytes() == recorded.path.read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("run.vcd", {}, r"waves: must be a file that ends in .fst, got .*run\.vcd"),
        ("missing/run.fst", {}, r"waves: must be in a folder that exists, got .*missing"),
        ("folder.fst", {}, r"waves: must be a plain file, got .*folder\.fst"),
        ("notes.fst", {}, r"waves: must not exist, or be a waveform, .*notes\.fst"),
        ("run.fst", {"runner": "cocotb"}, r"runner: must be native to record waves, got 'cocotb'"),
        ("run.fst", {"waves_samples": 4}, r"waves_samples: must be 1 to 3, .*; got 4"),
        ("run.fst", {"waves_samples": 0}, r"waves_samples: must be 1 to 3, .*; got 0"),
    ],
)
def test_waves_that_cannot_be_written_are_refused_before_a_build(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setenv("SPIKEMETER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "folder.fst").mkdir()
    (tmp_path / "notes.fst").write_text("not a waveform")
    with pytest.raises(InputError, match=message):
        simulate(case.config, case.network, case.inputs, waves=tmp_path / name, **options)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.fst", "notes.fst"]
    assert (tmp_path / "notes.fst").read_text() == "not a waveform"


WIDTHS = (1, 3, 8, 64, 129, 1, 5)
"""The last two never change, and have no name."""


def random_changes(
    rng: np.random.Generator, times: NDArray[np.int64], history: dict[int, dict[int, int]]
) -> list[Changes]:
    """Draw changes, and note them by signal and time."""
    drawn = []
    for signal, width in enumerate(WIDTHS[:5]):
        density = 1.0 if not history else (0.9, 0.02, 0.0005, 0.3, 0.1)[signal]
        steps = np.flatnonzero(rng.random(len(times)) < density)
        if history.get(signal) is None:
            steps = np.union1d(steps, [0])
        if len(steps):
            bits = rng.integers(0, 2, (len(steps), width), dtype=np.uint8)
            values = ["".join(map(str, row)) for row in bits]
            noted = history.setdefault(signal, {})
            noted.update(zip(times[steps].tolist(), (int(v, 2) for v in values), strict=True))
            drawn.append(Changes(signal, steps, bits))
    drawn.append(Changes(6, np.array([0]), np.ones((1, 5), dtype=np.uint8)))
    return drawn


def value_at(path: Path, name: str, times: NDArray[np.int64]) -> list[str]:
    """Ask GTKWave's own reader what a signal is at some times."""
    lib, ffi = pylibfst.lib, pylibfst.ffi
    reader = lib.fstReaderOpen(bytes(path))
    handle = pylibfst.get_scopes_signals2(reader)[1].by_name[name].handle
    text = ffi.new("char[]", max(WIDTHS) + 1)
    found = [
        pylibfst.string(lib.fstReaderGetValueFromHandleAtTime(reader, int(time), handle, text))
        for time in times
    ]
    lib.fstReaderClose(reader)
    return found


def without_repeats(history: dict[int, int]) -> dict[int, int]:
    """Leave out what is no change; the reader does."""
    kept = {}
    last = None
    for time, value in history.items():
        if value != last:
            kept[time] = last = value
    return kept


def test_other_readers_find_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = (("off", "000"), ("on", "001"), ("spare_7", "111"))
    inner = Scope(
        name="inner", variables=[Variable(name=f"s{i}", signal=i) for i in (4, 2, 0, 1, 3)]
    )
    root = Scope(
        name="top",
        variables=[
            Variable(name="mode [2:0]", signal=1, values=values),
            Variable(name="Width", signal=2, constant=True),
            Variable(name="again", signal=0),
        ],
        scopes=[inner],
    )
    path = tmp_path / "drawn.fst"
    history: dict[int, dict[int, int]] = {}
    with path.open("wb") as file:
        writer = FstWriter(file, root, WIDTHS, exponent=-12, writer="a test")
        begin = 0
        for length in (30, 700, 20_000):
            times = begin + np.cumsum(rng.integers(1, 400, length)) - 1
            writer.write(times, random_changes(rng, times, history))
            begin = int(times[-1]) + 1
        writer.finish()
    read = Waveform(str(path))
    assert (read.version, str(read.timescale)) == ("a test", "1ps")
    variables = {variable.full_name: variable for variable in read.all_vars()}
    assert list(variables) == [
        "top.mode", "top.Width", "top.again",
        "top.inner.s4", "top.inner.s2", "top.inner.s0", "top.inner.s1", "top.inner.s3",
    ]  # fmt: skip
    assert variables["top.Width"].var_type == "Parameter"
    assert {name: bits for bits, name in variables["top.mode"].enum_type[1]} == dict(values)
    names = {"top.mode": 1, "top.Width": 2, "top.again": 0}
    names |= {f"top.inner.s{signal}": signal for signal in range(5)}
    for name, signal in names.items():
        assert variables[name].bitwidth == WIDTHS[signal]
        assert dict(variables[name].tv) == without_repeats(history[signal]), name
    for signal in range(5):
        noted = np.array(list(history[signal]))
        times = np.array([noted[0], *rng.integers(noted[0], begin, 60)])
        places = np.searchsorted(noted, times, side="right") - 1
        values_then = [history[signal][noted[place]] for place in places]
        texts = [format(value, f"0{WIDTHS[signal]}b") for value in values_then]
        assert value_at(path, f"top.inner.s{signal}", times) == texts


VCD = b"""$version Generated $end
$scope module TOP $end
 $scope module top $end
  $var wire 1 ! clk $end
  $var wire 1 ! again $end
  $var wire 4 !" level [3:0] $end
 $upscope $end
$upscope $end
$enddefinitions $end


#0
1!
b0101 !"
#1
0!
#12
1!
b1111 !"
#13
0!
"""


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_value_changes_are_read_the_same_in_blocks_of_any_size(block_bytes: int) -> None:
    stream = io.BytesIO(VCD)
    declared = read_declarations(stream)
    assert declared is not None
    assert declared.widths == [1, 4]
    top = declared.root.scopes[0].scopes[0]
    assert [(each.name, each.signal) for each in top.variables] == [
        ("clk", 0), ("again", 0), ("level [3:0]", 1),
    ]  # fmt: skip
    found: dict[int, list[tuple[int, str]]] = {0: [], 1: []}
    for times, changes in read_changes(stream, declared, block_bytes):
        for signal, steps, bits in changes:
            words = ("".join(map(str, row)) for row in bits)
            found[signal] += zip(times[steps].tolist(), words, strict=True)
    assert found[0] == [(0, "1"), (1, "0"), (12, "1"), (13, "0")]
    assert found[1] == [(0, "0101"), (12, "1111")]


@pytest.mark.parametrize("length", range(0, len(VCD), 7))
def test_a_stream_that_is_cut_off_gives_whole_times(length: int) -> None:
    stream = io.BytesIO(VCD[:length])
    declared = read_declarations(stream)
    if declared is None:
        assert b"$enddefinitions $end\n" not in VCD[:length]
        return
    times = [time for block, _ in read_changes(stream, declared, 11) for time in block.tolist()]
    assert times == [0, 1, 12, 13][: len(times)]
