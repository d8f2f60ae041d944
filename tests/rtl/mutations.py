"""The RTL broken on purpose, one change at a time; see ``make rtl-mutations``.

Every mutation must be noticed: by an assertion, by spikes or cycles that differ on a fixed set of
random networks, or else by the benches of the blocks.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from block_bench import RTL_VARIABLE  # noqa: E402
from engine_checks import CycleMismatchError, check_case  # noqa: E402
from random_networks import Case, random_case, random_network  # noqa: E402
from simulator_cache import own_cache, tidy_cache  # noqa: E402

from spikemeter.config import load_config  # noqa: E402
from spikemeter.errors import SimulationError, SpikeMismatchError  # noqa: E402
from spikemeter.rtl.generator import RTL_FOLDER  # noqa: E402
from spikemeter.rtl.runners import Build  # noqa: E402
from spikemeter.rtl.toolchain import tool_environment  # noqa: E402

SEEDS = (328, 43, 284, 270, 95, 30, 341, 259, 17, 273, 244)
"""Networks of ``test_engine.py``, those that exercise most first."""
BENCHES = REPOSITORY / "tests" / "rtl" / "blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One exact replacement in one file, where the old text must stand exactly once."""

    file: str
    breaks: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        file="event_control.sv",
        breaks="the first tap of an event near the far edge reaches outside the frame",
        old="TapWidth'(position + Padding - side + 1) : '0",
        new="TapWidth'(position + Padding - side) : '0",
    ),
    Mutation(
        file="event_control.sv",
        breaks="the last tap of an event near the first edge is left out",
        old="position + Padding + 1 < Kernel ? TapWidth'(position + Padding)",
        new="position + Padding < Kernel ? TapWidth'(position + Padding - 1)",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a word that enters the list while one leaves is overwritten by the next",
        old="if (list_push) list_wr_q <= list_wr_q + CntWidth'(1);",
        new="if (list_push && !list_fetch) list_wr_q <= list_wr_q + CntWidth'(1);",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step fires although a word still waits behind the list",
        old="&& list_rd_q == list_wr_q && !list_valid_q && !pending_valid",
        new="&& list_rd_q == list_wr_q && !pending_valid",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step starts before its input is there",
        old="dispatch    = state_q == StIdle && in_step_valid_i && out_free_i",
        new="dispatch    = state_q == StIdle && (in_step_valid_i || step_q != '0) && out_free_i",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step starts although its output has no room",
        old="dispatch    = state_q == StIdle && in_step_valid_i && out_free_i",
        new="dispatch    = state_q == StIdle && in_step_valid_i && (out_free_i || step_q == '0)",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step ends one cycle before its last spikes are in the buffer",
        old="DrainCycles  = FireLatency + 3",
        new="DrainCycles  = FireLatency + 2",
    ),
    Mutation(
        file="event_control.sv",
        breaks="encode goes before accumulate where a cycle is both",
        old="""perf_accumulate_o = state_q == StScan && event_valid_q;
  assign perf_encode_o     = state_q == StScan && !event_valid_q;""",
        new="""perf_accumulate_o = state_q == StScan && event_valid_q && !in_next_o;
  assign perf_encode_o     = state_q == StScan && (!event_valid_q || in_next_o);""",
    ),
    Mutation(
        file="event_control.sv",
        breaks="the currents are not cleared after reset",
        old="op_clear_o      <= state_q == StClear;",
        new="op_clear_o      <= 1'b0;",
    ),
    Mutation(
        file="core_array.sv",
        breaks="two additions to the same current in a row lose the first one",
        old="forward       = written_q && written_neuron_q == neuron_q",
        new="forward       = written_q && 1'b0 && written_neuron_q == neuron_q",
    ),
    Mutation(
        file="core_array.sv",
        breaks="the current that was written last is taken for every other one",
        old="forward       = written_q && written_neuron_q == neuron_q",
        new="forward       = written_q && (written_neuron_q == neuron_q || accumulate_q)",
    ),
    Mutation(
        file="core_array.sv",
        breaks="cores without a channel in the last phase spike",
        old="spk_o       = spk_last_phase_q ? spk & OwnersInLastPhase : spk",
        new="spk_o       = spk_last_phase_q ? spk | ~OwnersInLastPhase : spk",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a membrane above its largest value wraps",
        old="if (sum > SumWidth'(MemMax)) saturated = MemMax;",
        new="if (sum > SumWidth'(MemMax)) saturated = MembraneBits'(sum);",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a membrane below its smallest value wraps",
        old="if (sum < SumWidth'(MemMin)) saturated = MemMin;",
        new="if (sum < SumWidth'(MemMin)) saturated = MembraneBits'(sum);",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="the decayed membrane of a LIF neuron is rounded, not floored",
        old="(MembraneBits + 1)'(total >>> FractionBits)",
        new="(MembraneBits + 1)'((total + DecayWidth'(1 << (FractionBits - 1))) >>> FractionBits)",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a negative term of a LIF neuron's decay is added",
        old="total -= DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);",
        new="total += DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="the decayed membrane of a Lapicque neuron is truncated towards zero",
        old="decayed_q <= (MembraneBits + 1)'(product >>> FractionBits);",
        new="decayed_q <= (MembraneBits + 1)'(product / ProductWidth'(1 << FractionBits));",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="the sign of a Lapicque neuron's decay is ignored",
        old="product = factor_q * $signed(decay_i)",
        new="product = factor_q * $signed({1'b0, decay_i})",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a LIF neuron that resets to zero keeps its membrane",
        old="decayed_q <= reset && reset_zero_i ? '0 : decayed(mem_old);",
        new="decayed_q <= decayed(mem_old);",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a Lapicque neuron that resets to zero keeps its step",
        old="early_forget_q <= reset && reset_zero_i;",
        new="early_forget_q <= 1'b0;",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="the first step begins with the membrane of the inference before",
        old="mem_old = first_step_i ? '0 : mem_rdata_q",
        new="mem_old = first_step_i && threshold_i < 0 ? '0 : mem_rdata_q",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a neuron fires at the threshold, not above it",
        old="<= mem_new > threshold_i;",
        new="<= mem_new >= threshold_i;",
    ),
    Mutation(
        file="neural_core.sv",
        breaks="firing leaves the input current for the next step",
        old="current + CurrentBits'(weight_q) : '0;",
        new="current + CurrentBits'(weight_q) : current;",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="the incomplete line of a step is lost",
        old="(emit && full) || (flush_i && fill_q != '0)",
        new="(emit && full)",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="spikes behind a full line are taken for others",
        old="waiting_q <= full ? LineWidth'(joined >> LineWidth) : LineWidth'(joined);",
        new="waiting_q <= full ? LineWidth'(joined >> (LineWidth - 1)) : LineWidth'(joined);",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="pooling sees the last row of a square only",
        old="row_in_q == '0 && col_in_q == '0 ? spk_i",
        new="col_in_q == '0 ? spk_i",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="pooling takes a column that does not fill a square",
        old="&& col_q < ColWidth'(PooledWidth * Pool)",
        new="&& col_q <= ColWidth'(PooledWidth * Pool)",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="the second inference is written over the first one",
        old="wr_ptr_q <= wr_ptr_q == AddrWidth'(Depth - 1)",
        new="wr_ptr_q <= wr_ptr_q == AddrWidth'(Depth / 2 - 1)",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="one half is never used",
        old="wr_free_o       = whole_q != 2'd2",
        new="wr_free_o       = whole_q == 2'd0",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="a layer starts a step before the layer before has finished all of them",
        old="(pipelined_i && rd_step_q < wr_step_q)",
        new="((pipelined_i || 1'b1) && rd_step_q < wr_step_q)",
    ),
    Mutation(
        file="perf_counters.sv",
        breaks="an inference counts on where the one before ended",
        old="cnt_q <= done_i ? '0 : cnt_d;",
        new="cnt_q <= cnt_d;",
    ),
    Mutation(
        file="snn_top.sv.j2",
        breaks="the first inference starts while layers still clear their currents",
        old="may_start = go_q && cleared_q",
        new="may_start = go_q && (cleared_q || 1'b1)",
    ),
    Mutation(
        file="snn_top.sv.j2",
        breaks="an inference stands still where no new one may start",
        old="(mid_inference_q || may_start)",
        new="(mid_inference_q && may_start || may_start)",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every mutation; return 0 if all are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--match", default="", help="only mutations whose description has this")
    given = parser.parse_args(arguments)
    console, began = Console(), time.perf_counter()
    chosen = [mutation for mutation in MUTATIONS if given.match in mutation.breaks]
    table = Table("file", "what is broken", "caught by", "seen on")
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as name:
        folder = Path(name)
        with ProcessPoolExecutor(
            given.workers, initializer=own_cache, initargs=(folder / "cache",)
        ) as pool:
            sources = _copy(folder / "whole", None)
            whole = pool.submit(_caught_by_networks, sources)
            tried = [
                pool.submit(_caught, mutation, folder / str(number))
                for number, mutation in enumerate(chosen)
            ]
            intact = whole.result()
            if intact:
                console.print(f"The RTL as it is fails already: {intact}", style="red")
                return 1
            results = track([*zip(chosen, tried, strict=True)], "mutations", console=console)
            for mutation, future in results:
                catch, where = future.result()
                survivors += not catch
                table.add_row(mutation.file, mutation.breaks, catch or "NOTHING", where)
    console.print(table)
    seconds = time.perf_counter() - began
    console.print(
        f"{len(chosen) - survivors} of {len(chosen)} mutations are caught; {seconds:.0f} s"
    )
    return 1 if survivors else 0


def networks() -> list[tuple[str, Case]]:
    """Networks that every mutation must face, with their names."""
    cases = [(f"seed {seed}", random_case(seed)) for seed in SEEDS]
    # Its last layers are still clearing when the first one could start
    config = load_config(
        {
            "network": "1C1-8C1-MP4-1",
            "input": {
                "height": 32, "width": 32, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
            "hardware": {"neural_cores": [1, 1, 1], "encoder_width": 128},
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = rng.random((2, 1, 1, 32, 32)) < 0.02
    cases.append(
        ("late clear", Case(config=config, network=random_network(config, rng), inputs=inputs))
    )
    return cases


def _copy(folder: Path, mutation: Mutation | None) -> Path:
    """Copy the RTL, with one mutation if one is given."""
    shutil.copytree(RTL_FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if mutation is not None:
        path = folder / mutation.file
        text = path.read_text()
        if text.count(mutation.old) != 1:
            raise ValueError(f"{mutation.old!r} stands {text.count(mutation.old)} times in {path}")
        path.write_text(text.replace(mutation.old, mutation.new))
    return folder


def _caught(mutation: Mutation, folder: Path) -> tuple[str, str]:
    """Name what notices a mutation, and on what; empty if nothing does."""
    sources = _copy(folder, mutation)
    found = _caught_by_networks(sources)
    return found if found else _caught_by_benches(mutation, sources)


def _caught_by_networks(sources: Path) -> tuple[str, str] | None:
    build = Build(folder=sources, checked=True)
    for name, case in networks():
        try:
            check_case(case, "native", build)
        except SpikeMismatchError:
            return "spikes", name
        except CycleMismatchError as error:
            return f"cycles ({str(error).split(' of ')[0].split(':')[0]})", name
        except SimulationError as error:
            return _reason(str(error)), name
        finally:
            tidy_cache()
    return None


def _reason(message: str) -> str:
    """Say in a word or two why a simulation failed."""
    assertion = re.search(r"Assertion failed in [\w.\[\]]*?(\w+): ", message)
    if assertion:
        return f"assertion {assertion[1]}"
    return "no end" if "no result within" in message else f"build: {message:.200}"


def _caught_by_benches(mutation: Mutation, sources: Path) -> tuple[str, str]:
    """Run the bench of the mutated block on the mutated sources."""
    block = mutation.file.split(".")[0]
    bench = BENCHES / f"test_{'core_array' if block == 'neural_core' else block}.py"
    if not bench.exists():
        return "", ""
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(bench)]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=tool_environment() | {RTL_VARIABLE: str(sources)},
        capture_output=True,
        text=True,
    )
    tidy_cache()
    failed = re.search(r"^FAILED [^:]*::(\w+)", result.stdout, re.MULTILINE)
    return (failed[1], bench.name) if result.returncode == 1 and failed else ("", "")


if __name__ == "__main__":
    sys.exit(main())
