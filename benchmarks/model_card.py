"""What the shipped predictor knows and how well: the figures and the page of its model card.

    make bench NAME=model_card [ARGS="--predictor FOLDER --resplits 100 --out FOLDER"]

Everything is computed from the table that the predictor keeps: each frozen split as
``spikemeter evaluate`` scores it; 100 random splits by points, for the intervals; forecasts from
the first epochs; and the error against the number of runs, with points as Sobol's sequence gives
them and as the widest intervals choose them. Writes ``benchmarks/results/model_card.json``,
``docs/model_card.md`` and its pictures.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import binom

from spikemeter.calibration.acquisition import interval_widths, widest
from spikemeter.calibration.evaluation import (
    CONFIDENCE,
    FittedAnswers,
    answers,
    fitted_answers,
    scored,
    split_of,
)
from spikemeter.calibration.fit import Unseen, fitted_parts, new_name_errors, noise_floor
from spikemeter.calibration.learning import known_statistics, lessons
from spikemeter.calibration.observed import Observed, observed_runs
from spikemeter.calibration.plan import read_plan
from spikemeter.calibration.runs import run_numbers
from spikemeter.calibration.table import SPLITS
from spikemeter.calibration.tuning import DEFAULT_SETTINGS, HeadSettings
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.ensemble import TreeSettings
from spikemeter.predictor.folder import PredictorParts
from spikemeter.predictor.forecast import PROGRESS
from spikemeter.predictor.intervals import DEPTHS, quantisation_errors

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
TEST_SHARE = 0.2
KEPT = ("resplits", "curve")
"""What takes longest, and hangs on the fit alone."""
CURVE_SEEDS = 5
CURVE_FIRST = 48
CURVE_STEP = 48
Found = TypeVar("Found")
INK, BLUE, RED, GREY = "#22303c", "#2a78b5", "#d1495b", "#9aa5b1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plan",
        type=Path,
        default=ROOT / "calibration/default/plan.yaml",
        help="whose sequence the learning curve follows",
    )
    parser.add_argument("--predictor", type=Path, help="default: the one that ships")
    parser.add_argument("--resplits", type=int, default=100)
    parser.add_argument("--curve-seeds", type=int, default=CURVE_SEEDS)
    parser.add_argument(
        "--keep", nargs="*", choices=KEPT, default=(), help="take these from the last results"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="repository to write into")
    given = parser.parse_args()
    predictor = (
        LatencyPredictor.default()
        if given.predictor is None
        else LatencyPredictor.load(given.predictor)
    )
    observed = observed_runs(predictor.table())
    console = Console(highlight=False, stderr=True)
    results = given.out / "benchmarks/results/model_card.json"
    last = json.loads(results.read_text()) if given.keep else {}
    settings = settings_of(predictor)
    found_of = splits(observed, console)
    of_splits: dict[str, Any] = {
        split: scored(observed, split_of(observed, split), split, found)
        for split, found in found_of.items()
    }
    again = (
        last["resplits"]
        if "resplits" in given.keep
        else resplits(observed, settings, given.resplits, console)
    )
    found = (
        last["curve"]["found"]
        if "curve" in given.keep
        else curve(in_sequence(observed, given.plan), given.curve_seeds, console)
    )
    report = {
        "table": about(observed),
        "new_names": new_names(observed, settings, predictor.parts),
        "fit": dict(predictor.parts.scores),
        "splits": of_splits,
        "resplits": again,
        "aims": aims(of_splits, again),
        **unseen_runs(observed, settings),
        "curve": {"seeds": given.curve_seeds, "found": found, "rows": rows_of(found)},
        "rounding": rounding(),
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(f"{json.dumps(report, indent=1)}\n")
    images = given.out / "docs/images"
    images.mkdir(parents=True, exist_ok=True)
    draw_parity(found_of, images / "parity_splits.png")
    draw_curve(found, images / "learning_curve.png")
    (given.out / "docs/model_card.md").write_text(page(report))


def in_sequence(observed: Observed, plan: Path) -> Observed:
    """Give the runs of a plan in its order."""
    numbers = run_numbers(read_plan(plan))
    place = np.array([numbers.get(run_id, -1) for run_id in observed.table["run_id"]])
    if (place < 0).all():
        raise SystemExit(f"--plan: must be a plan of these runs; {plan} has none of them")
    order = np.argsort(place, kind="stable")
    return observed.chosen(order[place[order] >= 0])


def settings_of(predictor: LatencyPredictor) -> HeadSettings:
    """How the trees of the predictor were grown."""
    kept = predictor.parts.scores["settings"]
    return {name: TreeSettings(**values) for name, values in kept.items()}


def about(observed: Observed) -> dict[str, Any]:
    configs = observed.configs
    return {
        "runs": len(observed),
        "points": len(np.unique(observed.groups)),
        "noise_floor_log": noise_floor(observed),
        "noise_floor_learned": noise_floor(
            observed.chosen(np.flatnonzero(observed.accuracy > 0.5))
        ),
        "sd_log_cycles": float(observed.log_cycles.std()),
        "cycles": [float(np.exp(value)) for value in np.quantile(observed.log_cycles, [0, 0.5, 1])],
        "accuracy_above_half": float((observed.accuracy > 0.5).mean()),
        "silent": float((observed.table["status"] == "silent").mean()),
        "variants": sum(len(each) for each in known_statistics(observed).values()),
        "datasets": sorted({str(config.dataset) for config in configs}),
        "networks": sorted({config.network for config in configs}),
        "surrogates": sorted({config.surrogate.name for config in configs}),
    }


def splits(observed: Observed, console: Console) -> dict[str, FittedAnswers]:
    """Every frozen split, tuned on its training part."""
    return {
        split: fitted_answers(observed, split_of(observed, split), split)
        for split in track(SPLITS, "frozen splits", console=console)
    }


def resplits(
    observed: Observed, settings: HeadSettings, count: int, console: Console
) -> dict[str, Any]:
    """Coverage and errors on random splits by points; seeds of a point stay together."""
    found = in_parallel(partial(resplit, observed, settings), count, "random splits", console)
    return {
        "splits": count,
        **{
            name: {"mean": float(np.mean(values)), "sd": float(np.std(values))}
            for name, values in ((name, [each[name] for each in found]) for name in found[0])
        },
    }


def resplit(observed: Observed, settings: HeadSettings, seed: int) -> dict[str, float]:
    """Score one random split."""
    points = np.unique(observed.groups)
    rng = np.random.default_rng(seed)
    held = rng.choice(points, round(TEST_SHARE * len(points)), replace=False)
    test = np.isin(observed.groups, held)
    train = observed.chosen(np.flatnonzero(~test))
    parts, _ = fitted_parts(train, settings, known=known_statistics(observed), new_names=False)
    given = answers(parts, observed.chosen(np.flatnonzero(test)))
    errors = given.log_cycles - given.predicted
    inside = (given.accuracy_low <= given.accuracy) & (given.accuracy <= given.accuracy_high)
    return {
        "coverage": float((np.abs(errors) <= given.half_width).mean()),
        "accuracy_coverage": float(inside.mean()),
        "rmse_log": float(np.sqrt(np.mean(errors**2))),
    }


def in_parallel(
    work: Callable[[int], Found], count: int, what: str, console: Console
) -> list[Found]:
    """Do the same for the seeds 0 to `count` - 1, on every processor."""
    workers = min(count, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(track(pool.map(work, range(count)), what, total=count, console=console))


def aims(scored: Mapping[str, Any], again: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, what was measured, and whether it was met."""
    random = scored["random"]
    rows = []

    def add(what: str, aim: str, measured: float, met: bool) -> None:
        rows.append({"what": what, "aim": aim, "measured": measured, "met": bool(met)})

    if random["noise_floor_log"] is not None:
        over = random["rmse_log"] / random["noise_floor_log"]
        add("`random`: RMSE of log cycles over the noise of a seed", "<= 1.1", over, over <= 1.1)
        share = random["r2_log"] / random["r2_log_ceiling"]
        add("`random`: share of the explainable variance", ">= 0.93", share, share >= 0.93)
        below = random["spearman_ceiling"] - random["spearman"]
        add("`random`: Spearman below its ceiling", "<= 0.03", below, below <= 0.03)
    for split, least in (("topology", 0.9), ("dataset", 0.8), ("surrogate", 0.8)):
        part = scored[f"unseen_{split}"]
        add(f"`unseen_{split}`: R2 of log cycles", f">= {least}", part["r2_log"],
            part["r2_log"] >= least)  # fmt: skip
        gain = part["baselines"]["mean_firing_rate"]["rmse_log"] / part["rmse_log"]
        add(f"`unseen_{split}`: RMSE of mean firing rate + exact timing over ours", "> 1", gain,
            gain > 1)  # fmt: skip
    held = again["coverage"]["mean"]
    add(f"90 % intervals, mean over {again['splits']} random splits", "0.88 to 0.92", held,
        0.88 <= held <= 0.92)  # fmt: skip
    for split, part in scored.items():
        low, high = binom.interval(0.95, part["rows"], CONFIDENCE)
        low, high = low / part["rows"], high / part["rows"]
        add(f"90 % intervals of `{split}`, within binomial bounds", f"{low:.2f} to {high:.2f}",
            part["coverage"], low <= part["coverage"] <= high)  # fmt: skip
    return rows


def unseen_runs(observed: Observed, settings: HeadSettings) -> dict[str, Any]:
    """What cross-validation says of all runs: forecasts, and where the errors are."""
    parts, unseen = fitted_parts(observed, settings, new_names=False)
    return {"forecast": forecasts(observed, parts, unseen), "limits": limits(observed, unseen)}


def new_names(
    observed: Observed, settings: HeadSettings, parts: PredictorParts
) -> list[dict[str, Any]]:
    """How much wider intervals are for names that no run has, and how many of each name hold."""
    given = lessons(observed, parts.statistics, parts.domain.categories, parts.tap_ratios.input)
    _, unseen = fitted_parts(observed, settings, new_names=False)
    usual = parts.residuals["hyperparameters"].half_width(CONFIDENCE)[0]
    found = []
    for key, each in new_name_errors(given, observed, settings, unseen).items():
        factor = parts.domain.unseen[key]
        inside = np.abs(each.errors.error) <= factor * usual
        by_name = {str(name): float(inside[each.names == name].mean())
                   for name in np.unique(each.names)}  # fmt: skip
        worst = min(by_name, key=by_name.__getitem__)
        found.append({"key": key, "factor": factor, "coverage": float(inside.mean()),
                      "worst": worst, "by_name": by_name})  # fmt: skip
    return found


def limits(observed: Observed, unseen: Unseen) -> dict[str, Any]:
    """Where the errors of log cycles are."""
    errors = observed.log_cycles - unseen.log_cycles
    squares = np.sort(errors**2)[::-1]
    configs = observed.configs
    normed = np.array([config.training.batch_norm for config in configs])
    coarse = np.array([config.training.weight_bits == 2 for config in configs])
    maps = np.array([[layer.kernel > 1 for layer in config.layers[1:]].count(True)
                     for config in configs])  # fmt: skip
    groups = {
        "no hidden convolution": maps == 0,
        "one hidden convolution": maps == 1,
        "two and more": maps > 1,
        "batch norm": normed,
        "no batch norm": ~normed,
        "2 weight bits": coarse,
        "3 to 8 weight bits": ~coarse,
        "learned (accuracy above 0.5)": observed.accuracy > 0.5,
        "did not learn": observed.accuracy <= 0.5,
    }
    return {
        "worst_twentieth": float(squares[: len(squares) // 20].sum() / squares.sum()),
        "median_error": float(np.median(np.abs(errors))),
        "groups": [
            {"what": what, "runs": int(rows.sum()),
             "rmse_log": float(np.sqrt(np.mean(errors[rows] ** 2)))}
            for what, rows in groups.items()
        ],
    }  # fmt: skip


def forecasts(observed: Observed, parts: PredictorParts, unseen: Unseen) -> list[dict[str, float]]:
    """Errors of log cycles forecast after a share of the epochs, on unseen runs."""
    middle = float(np.median(unseen.spread))
    before = parts.residuals["hyperparameters"].half_width(CONFIDENCE)[0] * middle
    errors = [observed.log_cycles - unseen.log_cycles]
    errors += [each.error * np.sqrt(unseen.spread) for each in parts.forecaster.residuals]
    return [
        {
            "progress": progress,
            "rmse_log": float(np.sqrt(np.mean(error**2))),
            "half_width": parts.forecaster.half_width(progress, before, middle, CONFIDENCE),
        }
        for progress, error in zip((0.0, *PROGRESS), errors, strict=True)
    ]


def curve(observed: Observed, seeds: int, console: Console) -> dict[str, Any]:
    """Error on held-out points against the runs learned from, for two ways of choosing them."""
    found: dict[str, Any] = {}
    for name, order in (("sobol", in_order), ("widest intervals", by_width)):
        lines = in_parallel(partial(grown, observed, order), seeds, f"curve, {name}", console)
        found[name] = [
            {"runs": at[0][0], "rmse_log": float(np.mean([rmse for _, rmse in at])),
             "sd": float(np.std([rmse for _, rmse in at]))}
            for at in zip(*lines, strict=True)
        ]  # fmt: skip
    return found


def rows_of(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    return [
        {"runs": int(cells[0]["runs"]), "cells": list(cells)}
        for cells in zip(*found.values(), strict=True)
    ]


Order = Callable[[LatencyPredictor, Observed, NDArray[np.int64], int], NDArray[np.int64]]


def in_order(
    _: LatencyPredictor, __: Observed, left: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Take the next points of the sequence."""
    return left[:count]


def by_width(
    predictor: LatencyPredictor, observed: Observed, left: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Take the points whose interval is widest."""
    widths = interval_widths(predictor, [observed.configs[run] for run in left])
    return left[widest(widths, count)]


def grown(observed: Observed, order: Order, seed: int) -> list[tuple[int, float]]:
    """Learn from more and more runs; the held-out points and the beginning depend on the seed."""
    line: list[tuple[int, float]] = []
    rng = np.random.default_rng(1000 + seed)
    points = np.unique(observed.groups)
    held = np.isin(observed.groups, rng.choice(points, round(TEST_SHARE * len(points)), False))
    asked = observed.chosen(np.flatnonzero(held))
    known = known_statistics(observed)
    once = np.zeros(len(observed), dtype=bool)
    once[np.unique(observed.groups, return_index=True)[1]] = True  # not the repeated seeds
    left = np.flatnonzero(once & ~held)
    left = np.roll(left, -int(rng.integers(len(left))))  # a stretch of the sequence is as good
    chosen, predictor = left[:0], None
    while len(left):
        if predictor is None:
            added = left[: CURVE_FIRST - len(chosen)]
        else:
            added = order(predictor, observed, left, CURVE_STEP)
        chosen, left = np.concatenate([chosen, added]), left[~np.isin(left, added)]
        train = observed.chosen(chosen)
        parts, _ = fitted_parts(train, DEFAULT_SETTINGS, known=known, new_names=False)
        predictor = LatencyPredictor(parts=parts)
        given = answers(parts, asked)
        rmse = float(np.sqrt(np.mean((given.log_cycles - given.predicted) ** 2)))
        line.append((len(chosen), rmse))
    return line


def rounding() -> list[dict[str, Any]]:
    """Ninety percent of float networks move by less than this, by depth and weight bits."""
    depths = {f"up to {most}": most for most in DEPTHS} | {"more": DEPTHS[-1] + 1}
    return [
        {
            "layers": name,
            "moved": {
                bits: float(np.expm1(quantisation_errors(bits, layers).half_width(CONFIDENCE)[0]))
                for bits in range(2, 9)
            },
        }
        for name, layers in depths.items()
    ]


def draw_curve(found: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, points), color in zip(found.items(), (BLUE, RED), strict=True):
        runs = [point["runs"] for point in points]
        middle = np.array([point["rmse_log"] for point in points])
        spread = np.array([point["sd"] for point in points])
        axes.plot(runs, middle, "o-", color=color, label=name, markersize=4)
        axes.fill_between(runs, middle - spread, middle + spread, color=color, alpha=0.15, lw=0)
    axes.set_xlabel("runs learned from", color=INK)
    axes.set_ylabel("RMSE of log cycles on held-out points", color=INK)
    axes.set_ylim(bottom=0)
    axes.set_title("What another run buys, and whether choosing helps", loc="left", color=INK)
    axes.grid(color="#e6eaee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_parity(found: Mapping[str, FittedAnswers], path: Path) -> None:
    """Predicted against measured cycles on every frozen split."""
    figure, grid = plt.subplots(1, len(found), figsize=(3.1 * len(found), 3.5), sharey=True,
                                layout="constrained")  # fmt: skip
    measured = np.concatenate([each.answers.log_cycles for each in found.values()])
    ends = np.exp([measured.min(), measured.max()]) * [0.7, 1.4]
    for axes, (split, fitted) in zip(grid, found.items(), strict=True):
        given = fitted.answers
        held = np.abs(given.log_cycles - given.predicted) <= given.half_width
        axes.plot(ends, ends, color=GREY, lw=1)
        for rows, color in ((held, BLUE), (~held, RED)):
            axes.plot(np.exp(given.log_cycles[rows]), np.exp(given.predicted[rows]), "o",
                      color=color, markersize=3, alpha=0.7, markeredgewidth=0)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        axes.set_title(split.replace("_", " "), loc="left", fontsize=10, color=INK)
        axes.set_xlabel("measured cycles")
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("predicted cycles")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def page(report: Mapping[str, Any]) -> str:
    """Write the model card."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["percent"] = lambda share, digits=0: f"{share:.{digits}%}"
    environment.filters["number"] = lambda value, digits=3: (
        "-" if value is None else f"{value:.{digits}f}"
    )
    environment.filters["over"] = lambda value, base: value / base if base else None
    environment.filters["factor"] = lambda half_width: float(np.expm1(half_width))
    environment.filters["code"] = "`{}`".format
    return environment.get_template("model_card.md.j2").render(**report)


if __name__ == "__main__":
    main()
