"""What a report says, section by section: sentences, charts and tables, before any markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .charts import Chart, Table
from .configuration import bucket_chart, layer_cycles_chart, layer_sparsity_chart, waterfall
from .drivers import cycle_charts, sparsity_charts
from .landscape import pareto_chart, parity_chart, plane_charts
from .sentences import summary_sentences
from .style import Cell, amount, listed, percent

if TYPE_CHECKING:
    from ..changes import Change
    from ..explanation import LatencyExplanation

__all__ = ["Section", "report_sections"]

_MODELS = {
    "hyperparameters": "before training, from hyperparameters",
    "statistics": "from spike counts, without kernel taps",
    "mean_firing_rate": "one firing rate for all layers, and exact timing",
    "mean": "the mean of all cycles",
}
_MEASURES = {
    "rmse_log": "RMSE of log cycles",
    "r2_log": "R2 of log cycles",
    "mape": "mean error (%)",
}
_FIGURES = {
    "runs": "runs that it was calibrated on",
    "points": "points among them, whose runs differ in the seed alone",
    "noise_floor_log": "what a training seed alone moves log cycles (standard deviation)",
    "firing_rate_r2": "R2 of the log odds of firing rates of layers",
    "accuracy_mae": "mean error of the predicted accuracy (points)",
}
_TERMS = (
    (
        "Cycles, microseconds",
        "Mean clock cycles of one inference over test samples, and the time they take at the clock "
        "of the configuration.",
    ),
    (
        "Interval",
        "Low and high end of what the mean may turn out to be, with the confidence given. It comes "
        "from errors on runs that a model had not seen (conformal prediction).",
    ),
    (
        "Knob",
        "A setting that one can turn, or several that only make sense together: a surrogate with "
        "its slope, a network with its cores.",
    ),
    (
        "Effect on cycles",
        "Interventional Shapley value of the log of cycles, through the whole chain from settings "
        "over firing rates to cycles: other knobs are set to those of the configurations compared, "
        "in random order, and the knob's step is averaged. Effects are factors, shown as percent; "
        "they multiply to the prediction.",
    ),
    (
        "Effect on the firing rate",
        "Exact SHAP value of the learned model of a layer's firing rate, in logits: at a rate of "
        "10 %, +0.1 logits is a rate of 10.9 %.",
    ),
    (
        "Interaction",
        "What two features do together beyond the sum of what each does alone, as SHAP interaction "
        "values.",
    ),
    (
        "Encode, accumulate, fire, stall",
        "Every cycle of a layer is one of these: it looks for spikes, adds up the weights of a "
        "spike, updates neurons, or waits.",
    ),
    (
        "Calibrated domain",
        "The ranges and names that the predictor has seen, and a little beyond. Outside, intervals "
        "are wider and no change is proposed.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """A part of the page.

    Attributes
    ----------
    id : str
        Anchor.
    heading : str
    paragraphs : tuple of str
        Plain text.
    points : tuple of str
        Sentences of a list.
    tables : tuple of Table
        Shown at once.
    charts : tuple of Chart
    terms : tuple of (str, str)
        What is explained, and how.
    """

    id: str
    heading: str
    paragraphs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()


def report_sections(
    explanation: LatencyExplanation, verified: Sequence[Any] = ()
) -> tuple[Section, ...]:
    """Write every section of a report, in its order; the one of id ``what-if`` holds the panel.

    Parameters
    ----------
    explanation : LatencyExplanation
    verified : sequence of VerifiedChange, optional
        Changes that were trained and simulated.
    """
    confidence = explanation.estimate.confidence
    return (
        Section(
            id="summary",
            heading="Summary",
            paragraphs=summary_sentences(explanation),
            points=(*explanation.warnings, *explanation.estimate.warnings),
        ),
        Section(
            id="what-if",
            heading="What if",
            paragraphs=(
                "Turn the main knobs and core counts: the prediction follows at once, computed in "
                "this page by the same trees and the same timing.",
            ),
        ),
        _changes(explanation, verified),
        Section(
            id="configuration",
            heading="This configuration",
            paragraphs=(f"Compared with: {explanation.scope}",),
            charts=_drawn(
                waterfall(explanation.local, confidence),
                layer_sparsity_chart(explanation.local_sparsity),
            ),
        ),
        Section(
            id="cycles",
            heading="Where the cycles go",
            charts=tuple(_cycles(explanation)),
        ),
        _drivers(
            "latency",
            cycle_charts(explanation.cycles, confidence),
            f"Over many configurations: {explanation.scope}",
            *_together(explanation),
        ),
        _drivers(
            "sparsity",
            sparsity_charts(explanation.sparsity, confidence),
            "Latency follows from how often each layer spikes. This is what the learned half has "
            "found to move the firing rate of a layer; sparsity is one minus that rate.",
        ),
        _search(explanation),
        Section(
            id="pareto",
            heading="Accuracy and latency",
            charts=_drawn(pareto_chart(explanation.runs, explanation.estimate)),
        ),
        Section(
            id="trust",
            heading="How far to trust it",
            charts=_drawn(parity_chart(explanation.runs, confidence)),
            tables=tuple(_scores(explanation.scores)),
        ),
        Section(
            id="unknown",
            heading="What this report does not know",
            points=explanation.unknowns,
        ),
        Section(id="terms", heading="How to read it", terms=_TERMS),
    )


def _drivers(of: str, charts: tuple[Chart, ...], *paragraphs: str) -> Section:
    nothing = () if charts else (f"Nothing that varies here moves {of}.",)
    heading = f"What drives {of}"
    return Section(id=of, heading=heading, paragraphs=(*paragraphs, *nothing), charts=charts)


def _drawn(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _together(explanation: LatencyExplanation) -> Iterator[str]:
    """Name the knobs that go together, whose effects cannot be told apart for sure."""
    pairs = explanation.correlated
    if len(pairs):
        named = [
            f"{row['first']} and {row['second']} ({amount(row['strength'])})"
            for row in pairs.head(5).to_dict("records")
        ]
        yield (
            "In the configurations compared some knobs go together: "
            f"{listed(named)}; 0 is not at all, 1 is always. What is said of one of them is partly "
            "said of the other."
        )


def _cycles(explanation: LatencyExplanation) -> Iterator[Chart]:
    yield bucket_chart(explanation.estimate)
    if explanation.layer_cycles is not None:
        yield layer_cycles_chart(explanation.local, explanation.layer_cycles, explanation.estimate)


def _search(explanation: LatencyExplanation) -> Section:
    first, second = explanation.planes
    charts = [chart for plane in (*first, *second) for chart in plane_charts(plane)]
    return Section(
        id="search",
        heading="The two-phase search",
        paragraphs=(
            "First the surrogate and its slope, then the neuron, its decay and its threshold, as "
            "the paper of Aliyev, Lopez and Adegbija searches; everything else stays as it is "
            "here. Crosses lie outside the calibrated domain, and say nothing.",
        ),
        charts=tuple(charts),
    )


def _changes(explanation: LatencyExplanation, verified: Sequence[Any]) -> Section:
    tables = []
    if explanation.changes:
        tables.append(_changes_table(explanation.changes, explanation.estimate.confidence))
    if verified:
        tables.append(_verified_table(verified))
    return Section(
        id="changes",
        heading="What to change",
        paragraphs=(explanation.changes_note,),
        tables=tuple(tables),
    )


def _changes_table(changes: Sequence[Change], confidence: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for change in changes:
        low, high = (round(100 * share, 1) for share in change.interval_cycles)
        worst, best = (round(100 * share, 1) for share in change.interval_accuracy)
        rows.append(
            (
                f"{change.knob} {change.before} → {change.after}",
                round(100 * change.cycles, 1),
                low,
                high,
                round(100 * change.accuracy, 1),
                worst,
                best,
                round(change.estimate.cycles),
                round(change.estimate.microseconds, 1),
            )
        )
    interval = f"{percent(confidence)} interval"
    return Table(
        caption="Single changes, the cheapest first",
        columns=(
            "change",
            "cycles (%)",
            f"{interval}, from (%)",
            "to (%)",
            "accuracy (points)",
            f"{interval}, from (points)",
            "to (points)",
            "then (cycles)",
            "then (µs)",
        ),
        rows=tuple(rows),
    )


def _verified_table(verified: Sequence[Any]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in verified:
        change = each.change
        low, high = (round(100 * share, 1) for share in change.interval_cycles)
        rows.append(
            (
                f"{change.knob} {change.before} → {change.after}",
                round(100 * change.cycles, 1),
                low,
                high,
                round(100 * each.cycles, 1),
                bool(each.held),
                round(100 * change.accuracy, 1),
                round(100 * each.accuracy, 1),
                round(each.before_cycles),
                round(each.after_cycles),
            )
        )
    return Table(
        caption=f"Trained, and simulated in RTL on {verified[0].samples} test samples",
        columns=(
            "change",
            "cycles, predicted (%)",
            "interval, from (%)",
            "to (%)",
            "measured (%)",
            "inside",
            "accuracy, predicted (points)",
            "measured (points)",
            "measured before (cycles)",
            "after (cycles)",
        ),
        rows=tuple(rows),
    )


def _scores(scores: Mapping[str, Any]) -> Iterator[Table]:
    models = scores.get("scores", {})
    measures = [key for key in _MEASURES if any(key in values for values in models.values())]
    if measures:
        yield Table(
            caption="Cycles of runs that a model had not seen",
            columns=("predicted", *(_MEASURES[key] for key in measures)),
            rows=tuple(
                (
                    _MODELS.get(name, name),
                    *(_score(values.get(key), 100 if key == "mape" else 1) for key in measures),
                )
                for name, values in models.items()
            ),
        )
    known = [key for key in _FIGURES if isinstance(scores.get(key), (int, float))]
    if known:
        yield Table(
            caption="The predictor",
            columns=("figure", "value"),
            rows=tuple(
                (_FIGURES[key], _score(scores[key], 100 if key == "accuracy_mae" else 1))
                for key in known
            ),
        )


def _score(value: Any, scale: float) -> Cell:
    if not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) else float(f"{scale * value:.4g}")
