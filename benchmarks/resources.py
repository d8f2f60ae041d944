"""What a layer takes of an FPGA: synthesise a design of networks, and fit the resource model to it.

    python benchmarks/resources.py [--out FILE] [--model FILE]

Networks are drawn from a seed, over everything that changes the hardware: kind and size of layers,
cores, encoder width, weights and membranes of any width, both neuron models. Yosys synthesises each
layer and each spike buffer by itself. What is in the file already is not synthesised again, so a
run that was stopped goes on where it was; a change of the RTL starts it anew.

The model is then fitted (`spikemeter.predictor.resources` says of what form), and cross-validated
with all layers of a network left out together. The fit to all of them is what ships.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import nnls

from spikemeter import load_config
from spikemeter.config import Config
from spikemeter.files import write_whole
from spikemeter.predictor import resource_parts, resources
from spikemeter.rtl.generator import SOURCES
from spikemeter.rtl.synthesis import Synthesis, synthesise
from spikemeter.rtl.yosys import FAMILY, Block, Resources

SEED = 12
NETWORKS = 20
FOLDS = 10
PARTS = {"core_array": "cores", "spike_packer": "packer", "spike_buffer": "buffer"}
"""Part of the model that a unit of a layer belongs to; all others are of its control."""
OUT = Path(__file__).parent / "results" / "resources.json"
MODEL = Path(resources.__file__).with_name("resources.json")

Rows = list[dict[str, Any]]


def main() -> None:
    """Synthesise the design, fit and cross-validate, write the model, and print its errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--model", type=Path, default=MODEL)
    options = parser.parse_args()
    rows, tool = synthesised_rows(options.out)
    errors = cross_validated(rows)
    fitted = {
        "family": FAMILY,
        "tool": tool,
        "rtl": rtl_digest(),
        "taps_per_cycle": [1],
        "layers": sum(row["kind"] == "layer" for row in rows),
        "networks": NETWORKS,
        "errors": errors,
        "coefficients": fitted_coefficients(rows),
    }
    write_whole(options.model, (json.dumps(fitted, indent=1) + "\n").encode())
    show(fitted)


def synthesised_rows(out: Path) -> tuple[Rows, str]:
    """Synthesise what is not in the file yet; give every block with its features."""
    digest, rows = rtl_digest(), []
    kept: dict[str, Any] = {"rtl": digest, "networks": {}}
    if out.is_file() and (found := json.loads(out.read_text()))["rtl"] == digest:
        kept = found
    for number, config in enumerate(track([*drawn_configs()], "synthesising")):
        if config.digest not in kept["networks"]:
            found = synthesise(config)
            kept["tool"] = found.tool
            kept["networks"][config.digest] = {
                "network": config.network,
                "neural_cores": config.neural_cores,
                "blocks": [measured_parts(block) for block in in_order(found)],
            }
            write_whole(out, (json.dumps(kept, indent=1) + "\n").encode())
        blocks = resource_parts.layer_blocks(config, config.neural_cores)
        measured = kept["networks"][config.digest]["blocks"]
        for sizes, parts in zip(blocks, measured, strict=True):
            kind = "layer" if sizes.cores else "buffer"
            estimated = resource_parts.block_parts(sizes)
            rows.append({"network": number, "kind": kind, "parts": estimated, "measured": parts})
    return rows, kept["tool"]


def rtl_digest() -> str:
    """Digest of everything that is synthesised."""
    content = b"".join(source.read_bytes() for source in SOURCES)
    return hashlib.sha256(content).hexdigest()[:16]


def in_order(found: Synthesis) -> Iterator[Block]:
    """Order blocks as `resource_parts.layer_blocks` does."""
    yield found.buffers[0]
    for layer, buffer in zip(found.layers, found.buffers[1:], strict=True):
        yield layer
        yield buffer


def measured_parts(block: Block) -> dict[str, dict[str, int]]:
    """Add up what each part of a block takes."""
    parts: dict[str, Resources] = {}
    for part in block.parts:
        name = PARTS.get(part.unit, "control")
        if name == "cores":
            name = "cores_lapicque" if block.parameters["Lapicque"] else "cores_lif"
        parts[name] = parts.get(name, Resources()) + part.each * part.count
    return {name: asdict(found) for name, found in parts.items()}


def fitted_coefficients(rows: Rows) -> dict[str, dict[str, dict[str, float]]]:
    """Fit each part of the model, in errors relative to the whole block."""
    return {
        part: {kind: fitted_part(rows, part, kind) for kind in ("lut", "ff")}
        for part in ("cores_lif", "cores_lapicque", "control", "packer", "buffer")
    }


def fitted_part(rows: Rows, part: str, kind: str) -> dict[str, float]:
    """Fit the logic of a part by non-negative least squares."""
    some = [row for row in rows if part in row["parts"]]
    sizes = [row["parts"][part].sizes(kind) for row in some]
    names = list(sizes[0])
    weights = np.array([1 / measured(row, kind) for row in some])
    values = np.array([[each[name] for name in names] for each in sizes], dtype=np.float64)
    wanted = np.array(
        [row["measured"][part][kind] - row["parts"][part].known[kind] for row in some]
    )
    scale = np.maximum(np.abs(values).max(axis=0), 1e-9)
    found, _ = nnls(values / scale * weights[:, None], wanted * weights)
    return {name: float(f"{value:.6g}") for name, value in zip(names, found / scale, strict=True)}


def cross_validated(rows: Rows) -> dict[str, dict[str, dict[str, float]]]:
    """Predict every block by a fit that saw no block of its network; give the errors."""
    predicted = []
    for fold in range(FOLDS):
        seen = [row for row in rows if row["network"] % FOLDS != fold]
        model = fitted_coefficients(seen)
        predicted += [
            (row, resources.amounts(row["parts"], model))
            for row in rows
            if row["network"] % FOLDS == fold
        ]
    return {
        kind: {
            "layer": errors_of([(amounts[kind], measured(row, kind))
                                for row, amounts in predicted if row["kind"] == "layer"]),
            "network": errors_of(
                [
                    tuple(sum(pair) for pair in zip(
                        *((amounts[kind], measured(row, kind)) for row, amounts in predicted
                          if row["network"] == number), strict=True))
                    for number in range(NETWORKS)
                ]
            ),
        }
        for kind in resources.KINDS
    }  # fmt: skip


def measured(row: Mapping[str, Any], kind: str) -> int:
    """Give what a whole block was synthesised to."""
    return sum(part[kind] for part in row["measured"].values())


def errors_of(pairs: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Summarise relative errors, of whatever is not zero on both sides."""
    errors = np.array([abs(round(found) - truth) / max(truth, 1)
                       for found, truth in pairs if round(found) or truth])  # fmt: skip
    return {
        "mape": round(float(errors.mean()), 5),
        "p90": round(float(np.quantile(errors, 0.9, method="higher")), 5),
        "worst": round(float(errors.max()), 5),
        "exact": round(float((errors == 0).mean()), 5),
    }


def show(fitted: Mapping[str, Any]) -> None:
    """Print the errors as a table."""
    title = f"cross-validated: {fitted['layers']} layers, {fitted['networks']} networks"
    table = Table("", "of", "MAPE", "90 % within", "worst", "exact", title=title)
    for kind, of in fitted["errors"].items():
        for what, errors in of.items():
            cells = [f"{100 * errors[key]:.2f} %" for key in ("mape", "p90", "worst", "exact")]
            table.add_row(kind, what, *cells)
    Console().print(table)


def drawn_configs() -> Iterator[Config]:
    """Draw the networks of the design."""
    rng = np.random.default_rng(SEED)

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    for number in range(NETWORKS):
        height, width = (int(side) for side in rng.integers(5, 35, 2))
        channels, steps = one_of(1, 2, 2, 3, 4), one_of(1, 4, 8, 8, 16, 25)
        tokens, pooled = [], min(height, width)
        for _ in range(number % 3):
            tokens.append(f"{_drawn_channels(rng)}C{one_of(1, 3, 3, 3, 5)}")
            if pooled >= 8 and rng.random() < 0.6:
                pool = one_of(2, 2, 4)
                tokens.append(f"MP{pool}")
                pooled //= pool
        if not tokens:
            tokens.append(str(_drawn_channels(rng)))
            height, width = min(height, 16), min(width, 16)
        tokens.append(str(one_of(2, 10, 10, 11, 20, 64)))
        content = {
            "network": "-".join(tokens),
            "neuron": {"model": one_of("lif", "lif", "lapicque")},
            "training": {"weight_bits": one_of(2, 3, 4, 4, 5, 6, 8)},
            "input": {
                "height": height, "width": width, "channels": channels, "time_steps": steps,
                "statistics": [[0.0] * channels] * steps,
            },
            "hardware": {
                "encoder_width": one_of(8, 16, 20, 32, 32, 64, 128),
                "membrane_bits": one_of(16, 18, 20, 24, 24, 24, 28, 32),
            },
        }  # fmt: skip
        layers = load_config(content).layers
        cores = [int(rng.integers(1, min(layer.out_channels, 16) + 1)) for layer in layers]
        yield load_config({**content, "hardware": {**content["hardware"], "neural_cores": cores}})


def _drawn_channels(rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(np.log(2), np.log(64))))


if __name__ == "__main__":
    main()
