"""What surrogate, slope and neuron do to accuracy, firing rates and cycles, beside the paper.

    python benchmarks/characterization.py [--out FOLDER] [--workers N]

Trains on three sets of simulated event data, with three seeds each: four surrogates at three
slopes, and LIF beside Lapicque neurons that take nothing, the decay, the gain or both from it.
Every run is quantised and goes through the RTL. Stopped anywhere, the same command goes on. Writes
``benchmarks/results/characterization.json`` and ``docs/images/characterization.png``, and prints
the tables of docs/characterization.md.

The paper is arXiv 2603.24891. Its directions: spike rate escape costs fewer cycles than fast
sigmoid on DVS128-Gesture at little accuracy, Lapicque fewer than LIF on N-MNIST at comparable
accuracy, and accuracy tells little about latency.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from spikemeter.calibration import Plan, campaign_table, run_campaign

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "nmnist-saccade": {"height": 16, "width": 16},
    "digits-saccade": {"height": 14, "width": 14},
    "fashion-saccade": {"height": 16, "width": 16},
}
SEEDS = [0, 1, 2]
NEURONS = {
    "LIF": {"model": "lif"},
    **{
        f"Lapicque, match {match}": {"model": "lapicque", "match": match}
        for match in ("none", "decay", "gain", "both")
    },
}
BETA = 0.7
"""Where a Lapicque neuron's own decay, 1 + ln(beta), is 0.64, and its gain 0.36."""


def plans(dataset: str) -> dict[str, Plan]:
    """Plans of one data set: surrogates with their slopes, and neurons."""
    base = {
        "dataset": dataset,
        "network": "16C3-MP2-32C3-MP2-10",
        "input": {**SETS[dataset], "time_steps": 8},
        "neuron": {"beta": BETA},
        "training": {"epochs": 6, "batch_size": 64, "lr": 2.0e-3},
    }
    found = {
        "surrogates": Plan.model_validate(
            {
                "base": base,
                "vary": {
                    "surrogate.name": ["fast_sigmoid", "atan", "spike_rate_escape", "sso"],
                    "surrogate.slope": [1, 5, 25],
                    "training.seed": SEEDS,
                },
                "sampler": "grid",
                "samples": 32,
            }
        )
    }
    for name, neuron in NEURONS.items():
        found[name] = Plan.model_validate(
            {
                "base": base | {"neuron": {"beta": BETA, **neuron}},
                "vary": {"training.seed": SEEDS},
                "sampler": "grid",
                "samples": 32,
            }
        )
    return found


def measure(out: Path, workers: int | None) -> pd.DataFrame:
    """Run all plans and give their rows with a name of what was varied."""
    parts = []
    for dataset in SETS:
        for name, plan in plans(dataset).items():
            report = run_campaign(plan, out, workers=workers)
            print(f"{dataset}, {name}: {report['status']}", flush=True)
            rows = campaign_table(plan, out)
            slope = rows["surrogate.slope"].map("{:g}".format)
            rows["choice"] = rows["surrogate.name"] + " " + slope if name == "surrogates" else name
            rows["phase"] = "surrogate" if name == "surrogates" else "neuron"
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of every choice."""
    rows = rows.assign(
        accuracy=rows["accuracy.integer.test"],
        cycles=rows["cycles.mean"],
        spread=rows["cycles.sd"],
        rates=rows["layers.firing_rate"],
    )
    groups = rows.groupby(["dataset", "phase", "choice"], sort=False)
    found = groups.agg(
        runs=("cycles", "size"),
        accuracy=("accuracy", "mean"),
        accuracy_sd=("accuracy", "std"),
        cycles=("cycles", "mean"),
        cycles_sd=("cycles", "std"),
        spread_over_samples=("spread", "mean"),
    )
    found["firing_rates"] = groups["rates"].apply(
        lambda lists: np.mean(np.stack(lists.tolist()), axis=0).round(4).tolist()
    )
    return found.reset_index()


def findings(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    """What the paper says of these choices, and what was found."""
    cycles = {
        (row["dataset"], row["choice"]): (row["cycles"], row["accuracy"])
        for row in table.to_dict("records")
    }
    found: dict[str, Any] = {"spearman_of_accuracy_and_cycles": {}, "escape_against_sigmoid": {}}
    found["lapicque_against_lif"] = {}
    for dataset in SETS:
        mine = rows[(rows["dataset"] == dataset) & (rows["phase"] == "surrogate")]
        learned = mine[mine["accuracy.integer.test"] > 0.2]
        correlation = spearmanr(learned["accuracy.integer.test"], learned["cycles.mean"])
        found["spearman_of_accuracy_and_cycles"][dataset] = {
            "rho": float(correlation.statistic), "runs": len(learned), "left_out": len(mine)
            - len(learned),
        }  # fmt: skip
        best = {
            name: max(
                (cycles[dataset, f"{name} {slope}"] for slope in (1, 5, 25)),
                key=lambda pair: pair[1],
            )
            for name in ("fast_sigmoid", "spike_rate_escape")
        }
        (sigmoid, sigmoid_accuracy), (escape, escape_accuracy) = best.values()
        found["escape_against_sigmoid"][dataset] = {
            "cycles": escape / sigmoid - 1, "accuracy": escape_accuracy - sigmoid_accuracy
        }  # fmt: skip
        lif, lif_accuracy = cycles[dataset, "LIF"]
        found["lapicque_against_lif"][dataset] = {
            name.partition("match ")[2]: {
                "cycles": cycles[dataset, name][0] / lif - 1,
                "accuracy": cycles[dataset, name][1] - lif_accuracy,
            }
            for name in NEURONS
            if name != "LIF"
        }
    return found


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Accuracy against cycles: one panel per data set, one mark per run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        2, len(SETS), figsize=(11, 6.5), layout="constrained", squeeze=False
    )
    for column, dataset in enumerate(SETS):
        mine = rows[rows["dataset"] == dataset]
        for line, (phase, marks) in enumerate((("surrogate", "osv^"), ("neuron", "osv^D"))):
            axes = panels[line][column]
            part = mine[mine["phase"] == phase]
            kinds = part["surrogate.name"] if phase == "surrogate" else part["choice"]
            for kind, marker in zip(dict.fromkeys(kinds), marks, strict=True):
                chosen = part[kinds == kind]
                sizes = 16 + 10 * np.log(chosen["surrogate.slope"].to_numpy(float))
                axes.scatter(
                    chosen["cycles.mean"] / 1e3,
                    100 * chosen["accuracy.integer.test"],
                    s=sizes if phase == "surrogate" else 40,
                    marker=marker,
                    label=kind,
                    alpha=0.75,
                )
            axes.grid(alpha=0.3)
            axes.set_title(dataset if line == 0 else "", fontsize=10)
            if line:
                axes.set_xlabel("RTL cycles per inference, thousands")
            if column == 0:
                axes.set_ylabel("test accuracy, %")
                axes.legend(fontsize=7)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def show(table: pd.DataFrame, found: dict[str, Any]) -> None:
    """Print the tables in Markdown."""
    print("| data | choice | accuracy | cycles | sd over samples | firing rate by layer |")
    print("|---|---|---|---|---|---|")
    for row in table.to_dict("records"):
        rates = ", ".join(f"{100 * rate:.1f}" for rate in row["firing_rates"])
        print(
            f"| {row['dataset']} | {row['choice']} | {100 * row['accuracy']:.1f} "
            f"+- {100 * row['accuracy_sd']:.1f} % | {row['cycles']:,.0f} "
            f"+- {row['cycles_sd']:,.0f} | {row['spread_over_samples']:,.0f} | {rates} % |"
        )
    print(json.dumps(found, indent=1))


def main() -> None:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "characterization")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    rows = measure(arguments.out, arguments.workers)
    rows = rows[rows["cycles.mean"].notna()]
    table = summary(rows)
    found = findings(rows, table)
    show(table, found)
    draw(rows, ROOT / "docs" / "images" / "characterization.png")
    content = {"choices": table.to_dict("records"), "findings": found}
    path = ROOT / "benchmarks" / "results" / "characterization.json"
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
