"""The command `synth`: what each layer of the accelerator takes of an FPGA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from ._cli_output import JsonFlag, emit, progress_bars, quiet_stdout, steps

__all__ = ["synth"]

_COLUMNS = {"lut": "LUT", "lut_ram": "as RAM", "ff": "FF", "bram": "BRAM", "dsp": "DSP"}
_SHOWN = {"weight_mem": "weights", "current_mem": "currents", "mem_mem": "membranes"}
_PLACES = {"block": "BRAM", "distributed": "LUT", "flip-flops": "FF"}


def synth(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="Run folder, or YAML file of settings.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Synthesise the RTL of every layer: LUTs, flip-flops, block RAMs and DSPs of an FPGA.

    Yosys maps each layer, and each spike buffer, to the Xilinx 7 series. BRAM counts blocks of
    18 Kbit; one of 36 Kbit is two. Nothing is placed or routed: these are estimates, and say
    nothing about the clock. A layer takes some seconds the first time. A run folder brings the
    membrane width that it was trained to; for a YAML file with membrane_bits: auto it is assumed.

    Example: spikemeter synth config.yaml --json
    """
    from .config import load_config
    from .rtl.synthesis import synthesise

    config, network = load_config(source), None
    if source.is_dir():
        from .models import load_run

        network = load_run(source).network
    with quiet_stdout(), progress_bars() as progress:
        found = synthesise(config, network, progress=steps(progress))
    report = {"assumed_membrane_bits": _is_assumed(config, network), **found.to_dict()}
    emit(report, as_json, _show)


def _is_assumed(config: Any, network: Any) -> bool:
    return network is None and config.hardware.membrane_bits == "auto"


def _show(console: Console, report: Mapping[str, Any]) -> None:
    table = Table(Column(no_wrap=True))
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"{', '.join(_SHOWN.values())} in")
    for layer in report["layers"]:
        memories = [_PLACES[layer["memories"][memory]] for memory in _SHOWN]
        table.add_row(layer["name"], *_cells(layer), ", ".join(memories))
    table.add_section()
    for buffer in report["buffers"]:
        table.add_row(buffer["name"], *_cells(buffer))
    table.add_section()
    table.add_row("total", *_cells(report["total"]))
    console.print(table)
    assumed = ", assumed for auto" if report["assumed_membrane_bits"] else ""
    console.print(
        f"{report['tool']}, {report['family']}; membranes of {report['membrane_bits']} bits"
        f"{assumed}; BRAM in blocks of 18 Kbit; no latches. Estimates before place and route."
    )


def _cells(counts: Mapping[str, int]) -> list[str]:
    return [f"{counts[key]:,}" for key in _COLUMNS]
