"""What pruning and gating save a sweep: hypervolume against training cost, on a hidden campaign.

    make bench NAME=sweep [ARGS="--seeds 5 --pool FILE --out FILE --image FILE"]

The pool is the table of `sweep/plan.yaml`: networks that were trained on digits-saccade once and
measured in RTL, of which the predictor knows nothing. Sweeps over the plan's space are replayed on
it: what a sampler proposes becomes the nearest row that is left, of the same network if there is
one. Other knobs count by the difference of their places in their ranges (in logarithms where the
range is logarithmic), choices without an order by 1 if they differ. So a study sees real points and
real outcomes. All that follows was decided before any of them was known.

Cost: a training takes its epochs, at the median seconds per epoch of the rows with its network and
batch size (the machine had other work, too), a simulation the median of its network. To these come
the CPU seconds that sampler, predictor and pruning take in the replay, in every arm alike.

Budgets: the first quarter and the median of the latencies that the predictor expects of 4096 points
of the space, which a user can ask before training anything; and none, that is 2000 us.

Hypervolume: accuracy above chance (0.1) times the logarithm of the budget over the latency. What is
above the budget counts for no arm; an arm that can use the budget is told it. A replay ends when it
has all that the pool holds.

Arms: `random`; `tpe` and `nsga2`, Optuna's samplers as they come (populations of 20). With TPE,
- `spikes`: a trial ends after its first epoch if it had more spikes per inference then than the
  median of the first epochs so far, from 10 finished trials on;
- `spikes, fitted`: it ends if a line through spikes and latencies of the finished trials, in
  logarithms, puts it above the budget;
- `gate`: a `LatencyGate` with the budget; `gate, accuracy` also asks for an accuracy of 0.5;
- `feasible` and `feasible, accuracy`: the same gates, and a `FeasibleSampler` around TPE;
- `tightened`: the space that `prune_space` leaves, and the gate.
Where there is no budget, those that know nothing else are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sweep_replay import (
    ARMS,
    CANDIDATES,
    LEAST_ACCURACY,
    PLAN,
    Arm,
    Floats,
    Pool,
    Sweep,
    read_pool,
    replay,
)

from spikemeter import LatencyPredictor
from spikemeter.calibration.campaign import campaign_table
from spikemeter.calibration.plan import read_plan
from spikemeter.calibration.table import USABLE
from spikemeter.predictor.pruning import prune_space

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
CHANCE = 0.1
QUANTILES, NO_BUDGET_US = {"first quarter": 0.25, "median": 0.5}, 2000.0
SHARES = (0.95, 0.99)
CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
TICKS = (1, 2, 5, 10, 20, 50, 100)
INK = "#22303c"
SHOWN = {
    "tpe": "#7a8794",
    "spikes": "#e0a030",
    "gate": "#2a78b5",
    "gate, accuracy": "#d1495b",
    "feasible, accuracy": "#3d9970",
}

Job = tuple[Arm, float, tuple[float, ...], int]
"""An arm, the budget that it is told, those that it is held to, and a seed."""

Replays = dict[str, dict[str, list[Sweep]]]
"""Sweeps of every seed, by budget and arm."""


def hypervolume(accuracy: Floats, microseconds: Floats, budget_us: float) -> float:
    """Area that points dominate, of accuracy above chance times log of budget over latency."""
    order = np.argsort(microseconds)
    order = order[microseconds[order] < budget_us]
    best = np.maximum.accumulate(np.maximum(accuracy[order] - CHANCE, 0))
    ends = np.log(np.append(microseconds[order], budget_us))
    return float(best @ np.diff(ends))


def progress(pool: Pool, sweep: Sweep, budget_us: float) -> Floats:
    """Share of the pool's hypervolume after each training."""
    rows = np.array(sweep.trained, dtype=int)
    found = [hypervolume(pool.accuracy[rows[:n]], pool.microseconds[rows[:n]], budget_us)
             for n in range(1, len(rows) + 1)]  # fmt: skip
    return np.array(found) / hypervolume(pool.accuracy, pool.microseconds, budget_us)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and ends; null is what was never reached."""
    found = {"median": float(np.median(values)), "low": min(values), "high": max(values)}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def scored(pool: Pool, sweeps: Sequence[Sweep], budget_us: float) -> dict[str, Any]:
    """Figures of one arm, over its seeds."""
    curves = [progress(pool, sweep, budget_us) for sweep in sweeps]
    found: dict[str, Any] = {
        "reached": spread([float(curve[-1]) for curve in curves]),
        "trained": spread([len(sweep.trained) for sweep in sweeps]),
        "refused": spread([len(sweep.refused) for sweep in sweeps]),
        "stopped": spread([len(sweep.stopped) for sweep in sweeps]),
        "own_seconds": spread([sweep.own_seconds for sweep in sweeps]),
    }
    for share in SHARES:
        first = [int(np.argmax(curve >= share)) if curve[-1] >= share else None for curve in curves]
        paid = [math.inf if n is None else sweep.paid[n]
                for n, sweep in zip(first, sweeps, strict=True)]  # fmt: skip
        found[f"to_{share:.0%}"] = {
            "seconds": spread(paid),
            "trainings": spread([math.inf if n is None else n + 1 for n in first]),
            "seeds": sum(n is not None for n in first),
        }
    return found


def judged(pool: Pool, predictor: LatencyPredictor) -> dict[str, Any]:
    """Errors of what was predicted for the pool, and how often its 90 % intervals hold."""
    given = predictor.predict(pool.space.frame(0, pool.space.points), confidence=0.9)
    given = given.iloc[pool.table["point"]].reset_index(drop=True)
    cycles, accuracy = pool.table["cycles"], pool.table["accuracy"]
    errors = np.log(cycles / given["cycles"])
    cycles_hold = cycles.between(given["interval_cycles.low"], given["interval_cycles.high"])
    accuracy_holds = accuracy.between(
        given["interval_accuracy.low"], given["interval_accuracy.high"]
    )
    return {
        "rmse_log_cycles": float(np.sqrt(np.mean(errors**2))),
        "rmse_accuracy": float(np.sqrt(np.mean((accuracy - given["accuracy"]) ** 2))),
        "coverage_cycles": float(cycles_hold.mean()),
        "coverage_cycles_of": cycles_hold.groupby(pool.table["network"]).mean().to_dict(),
        "coverage_accuracy": float(accuracy_holds.mean()),
        "in_domain": float(given["in_domain"].mean()),
    }


def pruned_pool(pool: Pool, predictor: LatencyPredictor, budgets: Mapping[str, float]) -> list[Any]:
    """What pruning the pool removes, and which of that was good in truth."""
    found = []
    for budget, budget_us in budgets.items():
        for least in (None, LEAST_ACCURACY):
            good = (pool.microseconds <= budget_us) & (pool.accuracy >= (least or 0))
            front = good & on_front(pool.accuracy, pool.microseconds)
            for confidence in CONFIDENCES:
                pruned = prune_space(
                    pool.space, budget_us=budget_us, min_accuracy=least, confidence=confidence,
                    predictor=predictor,
                )  # fmt: skip
                removed = ~np.isin(pool.table["point"], pruned.kept.index)
                found.append({
                    "budget": budget, "min_accuracy": least, "confidence": confidence,
                    "pruned": float(removed.mean()),
                    "cost_pruned": float(pool.training_seconds[removed].sum()
                                         / pool.training_seconds.sum()),
                    "good": int(good.sum()), "good_expected": pruned.report.expected_good,
                    "good_lost": int((good & removed).sum()),
                    "good_lost_expected": pruned.report.expected_loss,
                    "front": int(front.sum()), "front_lost": int((front & removed).sum()),
                })  # fmt: skip
    return found


def on_front(accuracy: Floats, microseconds: Floats) -> NDArray[np.bool_]:
    """Which points no other one dominates."""
    better = (accuracy[:, None] >= accuracy) & (microseconds[:, None] <= microseconds)
    better &= (accuracy[:, None] > accuracy) | (microseconds[:, None] < microseconds)
    return np.asarray(~better.any(axis=0))


def write_pool(campaign: Path, path: Path) -> None:
    """Keep of a finished campaign what the replay needs."""
    plan = read_plan(PLAN)
    rows = campaign_table(plan, campaign)
    configs = [plan.config(point) for point in range(len(rows))]
    table = pd.DataFrame([plan.changes(point) for point in range(len(rows))])
    spikes = [
        config.input.time_steps * sum(rate * layer.neurons for rate, layer in
                                      zip(epochs[0], config.layers, strict=True))
        for config, epochs in zip(configs, rows["epochs.firing_rate"], strict=True)
    ]  # fmt: skip
    table = table.assign(
        point=range(len(rows)), accuracy=rows["accuracy.integer.test"], cycles=rows["cycles.mean"],
        **{"spikes.first_epoch": spikes, "seconds.train": rows["seconds.train"],
           "seconds.simulate": rows["seconds.simulate"]},
    )  # fmt: skip
    table[rows["status"].isin(USABLE)].to_parquet(path, index=False)


def done(path: Path, job: Job) -> Sweep:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arm, budget_us, held_to, seed = job
    pool, predictor = read_pool(path), LatencyPredictor.default()
    return replay(pool, predictor, arm, budget_us, seed, partial(has_all, pool, held_to))


def has_all(pool: Pool, budgets: Sequence[float], sweep: Sweep) -> bool:
    """Whether the sweep has the whole hypervolume for each budget."""
    rows = np.array(sweep.trained, dtype=int)
    return all(
        hypervolume(pool.accuracy[rows], pool.microseconds[rows], budget)
        >= (1 - 1e-9) * hypervolume(pool.accuracy, pool.microseconds, budget)
        for budget in budgets
    )


def in_parallel(path: Path, jobs: Sequence[Job]) -> list[Sweep]:
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    console = Console(highlight=False, stderr=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = pool.map(partial(done, path), jobs)
        return list(track(found, "sweeps", total=len(jobs), console=console))


def budgets_of(pool: Pool, predictor: LatencyPredictor) -> dict[str, float]:
    expected = predictor.predict(pool.space.frame(0, CANDIDATES))["microseconds"]
    told = {name: float(expected.quantile(share)) for name, share in QUANTILES.items()}
    return told | {"none": NO_BUDGET_US}


def replayed(path: Path, budgets: Mapping[str, float], seeds: int) -> Replays:
    """Every arm with every budget; what asks for nothing is replayed once."""
    told = {
        budget: [arm for arm in ARMS if budget != "none" or arm.asks != "budget"]
        for budget in budgets
    }
    studies = {
        (arm.name, budget if arm.asks else ""):
            (arm, budget_us, (budget_us,) if arm.asks else tuple(budgets.values()))
        for budget, budget_us in budgets.items()
        for arm in told[budget]
    }  # fmt: skip
    jobs = [(*each, seed) for each in studies.values() for seed in range(seeds)]
    found = iter(in_parallel(path, jobs))
    sweeps = {key: [next(found) for _ in range(seeds)] for key in studies}
    return {
        budget: {arm.name: sweeps[arm.name, budget if arm.asks else ""] for arm in told[budget]}
        for budget in budgets
    }


def benchmark(
    pool: Pool, predictor: LatencyPredictor, budgets: Mapping[str, float], replays: Replays
) -> dict[str, Any]:
    cost = pool.training_seconds + pool.simulation_seconds
    recorded = pool.table["seconds.train"] + pool.table["seconds.simulate"]
    return {
        "points": len(pool),
        "seeds": len(replays["none"]["tpe"]),
        "seconds": float(cost.sum()),
        "recorded_seconds": float(recorded.sum()),
        "simulation_share": float(pool.simulation_seconds.sum() / cost.sum()),
        "predicted": judged(pool, predictor),
        "budgets_us": dict(budgets),
        "within_budget": {
            name: float((pool.microseconds <= budget).mean()) for name, budget in budgets.items()
        },
        "arms": {
            budget: {name: scored(pool, sweeps, budgets[budget]) for name, sweeps in arms.items()}
            for budget, arms in replays.items()
        },
        "pruning": pruned_pool(pool, predictor, budgets),
    }


def draw(pool: Pool, budgets: Mapping[str, float], replays: Replays, path: Path) -> None:
    """Hypervolume against cost for each budget: medians of the seeds, and quartiles."""
    whole = float((pool.training_seconds + pool.simulation_seconds).sum())
    grid = np.geomspace(0.01, 1, 300)
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True, layout="constrained")
    for axes, (budget, arms) in zip(panels, replays.items(), strict=True):
        for name, color in SHOWN.items():
            lines = [
                np.append(0.0, progress(pool, sweep, budgets[budget]))[
                    np.searchsorted(sweep.paid, grid * whole, side="right")
                ]
                for sweep in arms.get(name, ())
            ]
            if lines:
                quartiles = np.quantile(lines, (0.25, 0.75), axis=0)
                axes.fill_between(100 * grid, *quartiles, color=color, alpha=0.12, lw=0)
                axes.plot(100 * grid, np.median(lines, axis=0), color=color, label=name, lw=1.8)
        title = "no budget" if budget == "none" else f"budget: {budget}, {budgets[budget]:.0f} us"
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.set(xscale="log", xlim=(1, 100), ylim=(0, 1.02))
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axes.set_xlabel("cost, % of training every point", color=INK)
        axes.grid(color="#e6eaee")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the pool's hypervolume", color=INK)
    panels[0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def show(report: Mapping[str, Any]) -> None:
    console = Console(highlight=False, width=118)
    for budget, arms in report["arms"].items():
        names = [f"seconds to {share:.0%} (of TPE's)" for share in SHARES]
        table = Table("arm", *names, "reached", "trained",
                      title=f"budget: {budget}, {report['budgets_us'][budget]:.0f} us")  # fmt: skip
        for name, found in arms.items():
            cells = [compared(found, arms["tpe"], f"to_{share:.0%}") for share in SHARES]
            table.add_row(name, *cells, f"{found['reached']['median']:.1%}",
                          f"{found['trained']['median']:.0f}")  # fmt: skip
        console.print(table)
    table = Table("budget", "accuracy", "confidence", "pruned", "of the cost", "good", "lost",
                  "expected", "Pareto points", "lost", title="pruning the pool")  # fmt: skip
    for row in report["pruning"]:
        table.add_row(
            row["budget"], str(row["min_accuracy"] or "any"), f"{row['confidence']}",
            f"{row['pruned']:.0%}", f"{row['cost_pruned']:.0%}", f"{row['good']}",
            f"{row['good_lost']}", f"{row['good_lost_expected']:.1f}", f"{row['front']}",
            f"{row['front_lost']}",
        )  # fmt: skip
    console.print(table)


def compared(found: Mapping[str, Any], tpe: Mapping[str, Any], key: str) -> str:
    """Median and ends of the seconds, and the median over that of TPE."""
    own, base = found[key]["seconds"], tpe[key]["seconds"]["median"]
    middle, low, high = ("never" if own[end] is None else f"{own[end]:.0f}"
                         for end in ("median", "low", "high"))  # fmt: skip
    of = "" if own["median"] is None or base is None else f", {own['median'] / base:.2f}"
    return f"{middle} [{low}, {high}]{of}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, default=ROOT / "benchmarks/sweep/pool.parquet")
    parser.add_argument("--campaign", type=Path, help="write the pool from this campaign first")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sweep.json")
    parser.add_argument("--image", type=Path, default=ROOT / "docs/images/sweep.png")
    given = parser.parse_args()
    if given.campaign is not None:
        write_pool(given.campaign, given.pool)
    pool, predictor = read_pool(given.pool), LatencyPredictor.default()
    budgets = budgets_of(pool, predictor)
    replays = replayed(given.pool, budgets, given.seeds)
    report = benchmark(pool, predictor, budgets, replays)
    given.out.write_text(f"{json.dumps(report, indent=1)}\n")
    draw(pool, budgets, replays, given.image)
    show(report)


if __name__ == "__main__":
    main()
