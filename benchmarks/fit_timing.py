"""Error of a fitted backend on unseen layer shapes against the number of measurements.

    python benchmarks/sanafe_adapter.py --out loihi      # needs pip install sanafe
    python benchmarks/fit_timing.py --loihi loihi

Draws ``docs/images/fit_timing.png`` and writes the numbers beside it as JSON. Every machine is
measured several times, with other networks and spikes for each draw. The published formula and our
own engine stand for unknown hardware; hidden cores and encoder widths are drawn, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spikemeter import fit_timing, score_timing

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from measured_tables import Machine, engine, hidden, published, write_table  # noqa: E402

ROWS = (10, 20, 50)
DRAWS = 3
UNSEEN = 100
MACHINES: dict[str, Callable[[int], tuple[Machine, bool]]] = {
    "published formula": lambda draw: (published, True),
    "published, cores and width hidden": lambda draw: (hidden(published, draw), False),
    "our engine": lambda draw: (engine, True),
    "our engine, pipelined": lambda draw: (partial(engine, pipelined=True), True),
    "our engine, cores and width hidden": lambda draw: (hidden(engine, draw), False),
}
LOIHI = "Loihi (SANA-FE)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Measurements of one draw of a machine."""

    machine: str
    draw: int
    fit: Path
    unseen: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--loihi", type=Path, required=True, help="folder that sanafe_adapter.py wrote"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "fit_timing")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.processes) as pool,
    ):
        tables = [*known_machines(Path(folder)), *loihi_draws(arguments.loihi)]
        results = [point for points in pool.map(curve, tables) for point in points]
    text = json.dumps({"summary": summary(results), "fits": results}, indent=1) + "\n"
    arguments.out.with_suffix(".json").write_text(text, encoding="utf-8")
    draw_figure(results, arguments.out.with_suffix(".png"))
    for entry in summary(results):
        print(json.dumps(entry))


def known_machines(folder: Path) -> Iterator[Tables]:
    for name, machine_of in MACHINES.items():
        for draw in range(DRAWS):
            machine, visible = machine_of(draw)
            place = folder / f"{name} {draw}"
            place.mkdir()
            fit, unseen = place / "table.csv", place / "unseen.csv"
            write_table(fit, machine, max(ROWS), 100 + 2 * draw, visible=visible)
            write_table(unseen, machine, UNSEEN, 101 + 2 * draw, visible=visible, whole=True)
            yield Tables(machine=name, draw=draw, fit=fit, unseen=unseen)


def loihi_draws(folder: Path) -> Iterator[Tables]:
    for draw in range(DRAWS):
        place = folder / str(draw)
        yield Tables(
            machine=LOIHI,
            draw=draw,
            fit=place / "measurements.csv",
            unseen=place / "unseen.csv",
        )


def curve(tables: Tables) -> list[dict[str, Any]]:
    """Fit to the first rows of a table, more and more of them, and score on the others."""
    frame = pd.read_csv(tables.fit, dtype=str)
    frame["spikes"] = [str(tables.fit.parent.resolve() / spikes) for spikes in frame["spikes"]]
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            path, backend = Path(folder) / "part.csv", Path(folder) / "backend"
            frame.head(rows).to_csv(path, index=False)
            start = time.perf_counter()
            report = fit_timing(path, backend)
            seconds = time.perf_counter() - start
            scores = score_timing(tables.unseen, backend)
            points.append(
                {
                    "machine": tables.machine,
                    "draw": tables.draw,
                    "rows": rows,
                    **{key: scores[key] for key in ("mape", "p99", "coverage", "in_domain")},
                    "reported_mape": report["mape"],
                    "reported_coverage": report["coverage"],
                    "residual_won": report["residual"]["won"],
                    "seconds": round(seconds, 1),
                }
            )
            print(json.dumps(points[-1]), file=sys.stderr, flush=True)
    return points


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median and worst draw of every machine and number of rows."""
    found = []
    frame = pd.DataFrame(results)
    for (machine, rows), draws in frame.groupby(["machine", "rows"], sort=False):
        found.append(
            {
                "machine": machine,
                "rows": rows,
                "median_mape": float(draws["mape"].median()),
                "worst_mape": float(draws["mape"].max()),
                "median_p99": float(draws["p99"].median()),
                "mean_coverage": float(draws["coverage"].mean()),
                "worst_coverage": float(draws["coverage"].min()),
                "median_reported_mape": float(draws["reported_mape"].median()),
                "longest_seconds": float(draws["seconds"].max()),
            }
        )
    return found


def draw_figure(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
    floor = 0.01
    frame = pd.DataFrame(results)
    frame["percent"] = np.maximum(100 * frame["mape"], floor)
    names = list(dict.fromkeys(frame["machine"]))
    for index, (name, marker) in enumerate(zip(names, "oPsv^D", strict=True)):
        draws = frame[frame["machine"] == name].groupby("rows")["percent"]
        median = draws.median()
        axes.errorbar(
            median.index * 1.02 ** (index - len(names) / 2),  # side by side
            median,
            yerr=[median - draws.min(), draws.max() - median],
            marker=marker,
            markersize=5,
            capsize=2,
            linewidth=1,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ROWS, [str(rows) for rows in ROWS])
    axes.minorticks_off()
    ticks = (0.01, 0.1, 1, 10, 100)
    axes.set_yticks(ticks, ["0.01 or less", *(f"{tick:g}" for tick in ticks[1:])])
    axes.set_xlabel("measurements")
    axes.set_ylabel("mean error on unseen layer shapes, %")
    axes.set_title(f"median of {DRAWS} draws, bars from best to worst", fontsize=9)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
