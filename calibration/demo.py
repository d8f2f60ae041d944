"""The demonstration: the whole way from events to an explained prediction, on embedded data.

Small networks are trained and simulated; a predictor is fitted to most of them and asked about
the others, by their hyperparameters before it has seen any of their spikes, and by their spike
trains. Everything that is reported is measured in that run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingToolError, SimulationError
from ..predictor import LatencyPredictor
from ..predictor.explanation import feeding_layers, knob_importance
from ..predictor.features import config_from_row
from ..predictor.plots import parity_plot, shap_plot
from .campaign import CampaignState, campaign_table, run_campaign
from .fit import fit_predictor
from .plan import read_plan
from .table import USABLE
from .worker import MISMATCH

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["run_demo", "show_demo"]

_PLAN = Path(__file__).parent / "demo.yaml"
_HELD_OUT = 4
_CONFIDENCE = 0.9
_SHOWN_KNOBS = 8

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and how much there is."""


def run_demo(
    out: str | Path, *, plan: str | Path = _PLAN, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the demonstration.

    Parameters
    ----------
    out : str or Path
        Folder for ``campaign``, ``predictor``, ``parity.png`` and ``shap.png``. Runs that are
        already there are not done again.
    plan : str or Path
        Its last runs are held out of the fit.
    progress : callable, optional
        Told about steps as they go.

    Returns
    -------
    dict
        What was measured; see the keys below.

    Raises
    ------
    SimulationError
        If too few runs could be measured.
    MissingToolError
        If a package or compiler is missing.
    """
    for package in ("matplotlib", "shap"):
        if find_spec(package) is None:
            raise MissingToolError(f"the plots need {package}: pip install 'spikemeter[explain]'")
    report = progress or (lambda step, done, total: None)
    out, start = Path(out), time.perf_counter()
    parsed = read_plan(plan)
    run_campaign(parsed, out / "campaign", progress=partial(_report_state, report))
    table = campaign_table(parsed, out / "campaign")
    measured = time.perf_counter()
    fitted, held_out = _split(table)
    report("fit", 0, 1)
    scores = fit_predictor(fitted, out / "predictor")
    predictor = LatencyPredictor.load(out / "predictor")
    report("fit", 1, 1)
    points = []
    for number, row in enumerate(held_out.to_dict("records")):
        folder = out / "campaign" / "runs" / row["run_id"]
        points.append(_held_out_point(row, folder, parsed.samples, predictor))
        report("predict", number + 1, len(held_out))
    report("explain", 0, 3)
    knobs = knob_importance(predictor).to_dict("records")
    report("explain", 1, 3)
    parity_plot(_parity_points(points), out / "parity.png")
    report("explain", 2, 3)
    shap_plot(feeding_layers(predictor), out / "shap.png")
    report("explain", 3, 3)
    return {
        "runs": len(table),
        "status": {str(k): int(v) for k, v in table["status"].value_counts().items()},
        **_comparison(table),
        "fitted_on": len(fitted),
        "fit": scores,
        "held_out": points,
        "knobs": knobs,
        "campaign": str(out / "campaign"),
        "predictor": str(out / "predictor"),
        "plots": [str(out / "parity.png"), str(out / "shap.png")],
        "seconds": {"runs": measured - start, "total": time.perf_counter() - start},
    }


def show_demo(console: Console, report: Mapping[str, Any]) -> None:
    """Print what `run_demo` measured."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    states = ", ".join(f"{count} {status}" for status, count in report["status"].items())
    equal = "equal the reference" if report["spikes_match"] else "DIFFER from the reference"
    where = "in all of them" if report["spikes_match"] else f"in {len(report['mismatches'])}"
    console.print(
        f"{report['runs']} networks ({states}). RTL and reference were compared for "
        f"{report['compared']}: spikes {equal} {where}.\n"
        f"Fitted on {report['fitted_on']}, asked about {len(report['held_out'])} others:"
    )
    table = Table("network", "accuracy", "cycles", "predicted before", "from spikes", box=SIMPLE)
    for point in report["held_out"]:
        low, high = point["interval_cycles"]
        table.add_row(
            f"{point['network']}\n{point['choices']}",
            f"{100 * point['accuracy']:.1f} %",
            f"{point['measured_cycles']:,.0f}",
            f"{point['predicted_cycles']:,.0f} ({point['error_percent']:+.1f} %)\n"
            f"{low:,.0f} to {high:,.0f}",
            f"{point['trace_cycles']:,.0f}\n{point['trace_difference_cycles']:+g} cycles",
        )
    console.print(table)
    inside = sum(point["inside_interval"] for point in report["held_out"])
    console.print(
        "cycles: mean of the RTL. predicted before: from hyperparameters alone, with error and "
        f"{100 * _CONFIDENCE:.0f} % interval; {inside} of {len(report['held_out'])} intervals "
        "hold. from spikes: exact timing of the spike trains, with its largest difference to RTL.\n"
    )
    console.print(
        "Knobs by how far they move spiking (mean |SHAP| of the logit of a layer's rate):"
    )
    shown = [knob for knob in report["knobs"] if knob["mean_abs_shap"] > 0][:_SHOWN_KNOBS]
    largest = max((entry["mean_abs_shap"] for entry in shown), default=0.0) or 1.0
    knobs = Table("knob", "mean |SHAP|", "", box=SIMPLE)
    for entry in shown:
        bar = Text("█" * round(30 * entry["mean_abs_shap"] / largest), "green")
        knobs.add_row(entry["knob"], f"{entry['mean_abs_shap']:.3f}", bar)
    console.print(knobs)
    seconds = report["seconds"]
    console.print(
        f"Plots: {', '.join(report['plots'])}. Predictor: {report['predictor']}.\n"
        f"{seconds['total']:.0f} s, {seconds['runs']:.0f} s of them training and simulation."
    )


def _report_state(report: Progress, state: CampaignState) -> None:
    report(state.step, state.done, state.total)


def _split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to fit on and rows to ask about: the last of the plan, whatever came of them."""
    usable = table["status"].isin(USABLE)
    last = np.arange(len(table)) >= len(table) - _HELD_OUT
    fitted, held_out = table[usable & ~last], table[usable & last]
    if fitted.empty or held_out.empty:
        reasons = "; ".join(sorted(set(table["reason"].dropna())))
        raise SimulationError(f"too few runs could be measured to fit a predictor: {reasons}")
    return fitted.reset_index(drop=True), held_out.reset_index(drop=True)


def _comparison(table: pd.DataFrame) -> dict[str, Any]:
    """Say for how many runs RTL and reference were compared, and which did not get there."""
    compared = table["spikes_match"].dropna()
    return {
        "compared": len(compared),
        "spikes_match": bool(len(compared) and compared.all()),
        "mismatches": _reasons(table[table["status"] == MISMATCH]),
        "reasons": _reasons(table[table["reason"].notna()]),
    }


def _reasons(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["run_id"], table["reason"], strict=True))


def _held_out_point(
    row: Mapping[Any, Any], folder: Path, samples: int, predictor: LatencyPredictor
) -> dict[str, Any]:
    """Set both predictions of a run beside what the RTL took."""
    config = config_from_row(row)
    estimate = predictor.estimate(config, confidence=_CONFIDENCE)
    trace = predictor.estimate(folder, samples=samples)
    measured, (low, high) = row["cycles.mean"], estimate.interval_cycles
    exact = [
        trace.cycles - measured,
        min(trace.sample_cycles) - row["cycles.min"],
        max(trace.sample_cycles) - row["cycles.max"],
        *(layer.cycles - cycles
          for layer, cycles in zip(trace.layers, row["layers.cycles.mean"], strict=True)),
    ]  # fmt: skip
    neuron, surrogate = config.neuron, config.surrogate
    return {
        "run_id": row["run_id"],
        "network": config.network,
        "choices": f"{surrogate.name} {surrogate.steepness:.3g}\n"
        f"beta {neuron.beta:.2f}, lr {config.training.lr:.2g}\n"
        f"threshold {neuron.threshold:.2f}\n"
        f"{config.training.weight_bits}-bit weights",
        "accuracy": row["accuracy.integer.test"],
        "measured_cycles": measured,
        "predicted_cycles": estimate.cycles,
        "error_percent": 100 * (estimate.cycles / measured - 1),
        "interval_cycles": [low, high],
        "inside_interval": bool(low <= measured <= high),
        "trace_cycles": trace.cycles,
        "trace_difference_cycles": max(exact, key=abs),
    }


def _parity_points(points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Give the held-out runs in the columns of `parity_plot`."""
    import pandas as pd

    return pd.DataFrame(
        {
            "predicted": [point["predicted_cycles"] for point in points],
            "low": [point["interval_cycles"][0] for point in points],
            "high": [point["interval_cycles"][1] for point in points],
            "measured": [point["measured_cycles"] for point in points],
        }
    )
