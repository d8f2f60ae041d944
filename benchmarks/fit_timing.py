"""Error of a fitted backend on unseen layer shapes against the number of measurements.

    python benchmarks/fit_timing.py --loihi FOLDER

Draws ``docs/images/fit_timing.png`` and writes the numbers beside it as JSON. The published formula
and our own engine stand for unknown hardware, with their cores and encoder width in the
configuration or hidden; FOLDER holds tables that ``sanafe_adapter.py`` wrote (``measurements.csv``
and ``unseen.csv``), by default those of the tests, which end at 50 rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from spikemeter import fit_timing, score_timing

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from measured_tables import engine, hidden_engine, published, write_table  # noqa: E402

ROWS = (10, 20, 50, 100, 200)
UNSEEN = 200
LOIHI = ROOT / "tests" / "calibration" / "data" / "loihi"
MACHINES = {
    "published formula": (published, True),
    "our engine": (engine, True),
    "our engine, pipelined": (partial(engine, pipelined=True), True),
    "our engine, cores and width hidden": (hidden_engine, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loihi", type=Path, default=LOIHI, help="tables of sanafe_adapter.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "fit_timing")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (machine, visible)) in enumerate(MACHINES.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            table = write_table(place / "table.csv", machine, max(ROWS), 100, visible=visible)
            others = write_table(
                place / "unseen.csv", machine, UNSEEN, 101, visible=visible, whole=True
            )
            results += curve(name, table, others)
        loihi = arguments.loihi
        results += curve("Loihi (SANA-FE)", loihi / "measurements.csv", loihi / "unseen.csv")
    text = json.dumps(results, indent=1) + "\n"
    arguments.out.with_suffix(".json").write_text(text, encoding="utf-8")
    draw(results, arguments.out.with_suffix(".png"))


def curve(name: str, table: Path, others: Path) -> list[dict[str, Any]]:
    """Fit to the first rows of a table, more and more of them, and score on the others."""
    frame = pd.read_csv(table, dtype=str)
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            if rows > len(frame):
                continue
            part = frame.head(rows).copy()
            part["spikes"] = [str(table.parent / spikes) for spikes in part["spikes"]]
            path = Path(folder) / "part.csv"
            part.to_csv(path, index=False)
            start = time.perf_counter()
            report = fit_timing(path, Path(folder) / "backend")
            seconds = time.perf_counter() - start
            scores = score_timing(others, Path(folder) / "backend")
            points.append(
                {
                    "machine": name,
                    "rows": rows,
                    "unseen": scores["rows"],
                    "mape": scores["mape"],
                    "p99": scores["p99"],
                    "coverage": scores["coverage"],
                    "in_domain": scores["in_domain"],
                    "cross_validated_mape": report["mape"],
                    "residual_won": report["residual"]["won"],
                    "seconds": round(seconds, 1),
                }
            )
            print(json.dumps(points[-1]), flush=True)
    return points


def draw(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    floor = 0.01
    names = list(dict.fromkeys(point["machine"] for point in results))
    for name, marker in zip(names, "osv^D", strict=True):
        points = [point for point in results if point["machine"] == name]
        errors = [max(100 * point["mape"], floor) for point in points]
        axes.plot([point["rows"] for point in points], errors, marker=marker, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ROWS, [str(rows) for rows in ROWS])
    axes.minorticks_off()
    ticks = (0.01, 0.1, 1, 10, 100)
    axes.set_yticks(ticks, ["0.01 or less", *(f"{tick:g}" for tick in ticks[1:])])
    axes.set_xlabel("measurements")
    axes.set_ylabel("mean error on unseen layer shapes, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
