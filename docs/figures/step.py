"""Draw one step of a layer from its RTL: ``PYTHONPATH=tests/support python docs/figures/step.py``.

Writes ``docs/images/step.png``. The layer is small enough for every cycle to be seen: 1C3 on a
frame of 4 x 4, scanned in two words of 8 bits, with a spike in a corner and one at an edge.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from block_bench import check_block
from matplotlib.axes import Axes

from spikemeter.config import load_config
from spikemeter.models.integer import IntegerLayer, IntegerNetwork
from spikemeter.rtl.packing import config_writes, pack_spikes

HERE = Path(__file__).parent
STATES = ("StIdle", "StClear", "StScan", "StFire", "StDrain")
BUCKETS = {1: "encode", 2: "accumulate", 4: "fire", 8: "stall"}
COLOURS = {"encode": "#9ecae1", "accumulate": "#fdae6b", "fire": "#a1d99b", "stall": "#d9d9d9"}
# Label, path below snn_layer, and how to show it
SIGNALS = [
    ("state_q", "u_event_control.state_q", STATES.__getitem__),
    ("in_next_o", "in_next_o", None),
    ("in_word_i", "in_word_i", "{:02x}".format),
    ("list_push", "u_event_control.list_push", None),
    ("pending_q", "u_event_control.pending_q", "{:02x}".format),
    ("flat_valid_q", "u_event_control.flat_valid_q", None),
    ("pixel_valid_q", "u_event_control.pixel_valid_q", None),
    ("event_valid_q", "u_event_control.event_valid_q", None),
    ("op_accumulate_o", "u_event_control.op_accumulate_o", None),
    ("op_fire_o", "u_event_control.op_fire_o", None),
    ("op_neuron_o", "u_event_control.op_neuron_o", str),
    ("spk_valid", "spk_valid", None),
    ("spk", "spk", None),
    ("out_line_valid_o", "out_line_valid_o", None),
    ("out_line_o", "out_line_o", "{:02x}".format),
    ("step_done_o", "step_done_o", None),
    ("bucket_o", "bucket_o", BUCKETS.__getitem__),
]
# Where a value means nothing, by the signal that says so
MEANINGFUL = {
    "op_neuron_o": ("op_accumulate_o", "op_fire_o"),
    "spk": ("spk_valid",),
    "out_line_o": ("out_line_valid_o",),
}


def main() -> None:
    """Simulate, draw and save."""
    config = load_config(
        {
            "network": "1C3-1",
            "input": {
                "height": 4, "width": 4, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
            "hardware": {"neural_cores": [1, 1], "encoder_width": 8},
        }
    )  # fmt: skip
    spikes = np.zeros((1, 1, 4, 4), dtype=np.bool_)
    spikes[0, 0, 0, 0] = spikes[0, 0, 3, 1] = True
    cycles = _recorded(config, spikes)
    figure = _drawn(cycles)
    figure.savefig(HERE.parent / "images" / "step.png", dpi=130, bbox_inches="tight")


def _recorded(config: Any, spikes: Any) -> dict[str, list[int]]:
    layers = tuple(
        IntegerLayer(
            geometry=layer,
            weight=np.full(layer.weight_shape, 3, dtype=np.int8),
            bias=np.zeros(layer.out_channels, dtype=np.int32),
            threshold=2,
            gain_shift=0,
            decay=128,
            membrane_bits=16,
            weight_bits=4,
        )
        for layer in config.layers
    )
    writes = config_writes(config, IntegerNetwork(layers=layers))
    parameters = {
        "TimeSteps": 1, "InChannels": 1, "InHeight": 4, "InWidth": 4, "OutChannels": 1,
        "OutHeight": 4, "OutWidth": 4, "Kernel": 3, "Padding": 1, "Pool": 1, "Dense": 0,
        "Cores": 1, "EncoderWidth": 8, "WeightBits": 4, "MembraneBits": 16, "Lapicque": 0,
        "LineWidth": 8,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cycles.json"
        job = {
            "writes": [write for write in writes if write.layer == 0],
            "words": pack_spikes(spikes, 8),
            "signals": [path for _, path, _ in SIGNALS],
            "out": str(out),
        }
        check_block("snn_layer", parameters, HERE / "step_bench.py", job)
        rows = json.loads(out.read_text())
    return {label: [row[i] for row in rows] for i, (label, _, _) in enumerate(SIGNALS)}


def _drawn(cycles: dict[str, list[int]]) -> Any:
    length = len(cycles["state_q"])
    figure, axes = plt.subplots(figsize=(13, 0.36 * len(SIGNALS) + 0.6))
    for row, (label, _, show) in enumerate(SIGNALS):
        base = -1.2 * row
        if show is None:
            _draw_bit(axes, cycles[label], base)
        else:
            shown = [
                show(value) if _means_something(cycles, label, cycle) else None
                for cycle, value in enumerate(cycles[label])
            ]
            _draw_value(axes, shown, base)
        axes.text(-0.4, base + 0.4, label, ha="right", va="center", family="monospace", size=8)
    for cycle in range(0, length + 1, 5):
        axes.axvline(cycle, color="#cccccc", linewidth=0.5, zorder=0)
        axes.text(cycle, 1.3, str(cycle), ha="center", va="bottom", size=8)
    axes.set_xlim(0, length)
    axes.set_ylim(-1.2 * (len(SIGNALS) - 1) - 0.3, 1.2)
    axes.axis("off")
    return figure


def _means_something(cycles: dict[str, list[int]], label: str, cycle: int) -> bool:
    valid = MEANINGFUL.get(label)
    return valid is None or any(cycles[name][cycle] for name in valid)


def _draw_bit(axes: Axes, values: list[int], base: float) -> None:
    edges = np.repeat(np.arange(len(values) + 1), 2)[1:-1]
    levels = base + 0.8 * np.repeat(values, 2)
    axes.plot(edges, levels, color="#08519c", linewidth=1.2)


def _draw_value(axes: Axes, shown: list[str | None], base: float) -> None:
    start = 0
    for cycle in range(1, len(shown) + 1):
        if cycle < len(shown) and shown[cycle] == shown[start]:
            continue
        text = shown[start]
        if text is not None:
            face = COLOURS.get(text, "#f2f2f2")
            axes.fill_between(
                [start, cycle], base, base + 0.8, facecolor=face, edgecolor="#555555", linewidth=0.7
            )
            size = 7 if cycle - start > 0.3 * len(text) else 4.5
            axes.text((start + cycle) / 2, base + 0.4, text, ha="center", va="center", size=size)
        else:
            axes.plot([start, cycle], [base + 0.4] * 2, color="#bbbbbb", linewidth=0.7)
        start = cycle


if __name__ == "__main__":
    main()
