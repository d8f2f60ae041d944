"""The what-if panel: everything a browser needs to predict, as data for a script.

``whatif.js`` mirrors the chain from hyperparameters to cycles, and ``panel.js`` puts controls in
front of it. What the two read is a dictionary of plain values: trees, ranges, errors and layer
sizes, for one configuration and all that differ from it in the main knobs. Both languages
compute the same numbers.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...network import Layer
from ..ensemble import Ensemble
from ..estimate import LatencyEstimate
from ..events import input_events
from ..features import CATEGORICAL_KEYS, input_features, knob_of, layer_sizes, row_from_config
from ..folder import PredictorParts, estimation_doubt
from ..intervals import _CALLED, OF_NAME, Domain, _with_slack
from ..machine import tap_bounds
from ..timing import layer_shapes
from .controls import changed_config, known_steps, panel_controls, settings_of_names

__all__ = ["fallback_html", "panel_model", "panel_script", "panel_style", "script_json"]

_KEYS = (
    "neuron.model", "neuron.beta", "neuron.R", "neuron.C", "neuron.match", "neuron.threshold",
    "neuron.reset", "surrogate.name", "surrogate.slope", "surrogate.width", "training.lr",
    "training.epochs", "training.batch_size", "training.weight_bits", "training.batch_norm",
    "training.dropout", "training.loss", "training.population", "input.time_steps",
    "hardware.neural_cores", "hardware.encoder_width", "hardware.schedule", "hardware.clock_mhz",
)  # fmt: skip
"""Settings on which a prediction depends, beside the network and what enters it."""

_EXPORTS = "globalThis.spikemeter = { predict, mount, erfcx };"

_PLAIN_BELOW = 1e12
"""Numbers from here on are shown with an exponent."""


def panel_model(config: Config, parts: PredictorParts, confidence: float) -> dict[str, Any]:
    """Write down what predicts a configuration, and those that differ in the main knobs.

    Parameters
    ----------
    config : Config
        Where the controls start.
    parts : PredictorParts
        Of the predictor.
    confidence : float
        Of the intervals; in (0, 1).

    Returns
    -------
    dict
        Plain values for JSON. Where the hardware is a machine that the panel does not know, it has
        the key ``reason`` alone, with a sentence.

    Raises
    ------
    PredictorError
        If nothing is known of the data set; see `input_events`.
    """
    if reason := _unknown_machine(config):
        return {"reason": reason}
    row = row_from_config(config)
    domain = parts.domain
    return {
        "confidence": confidence,
        "settings": {key: row[key] for key in _KEYS},
        "layers": _layers(config),
        "taps_per_cycle": config.hardware.taps_per_cycle,
        "inputs": _inputs(config, parts),
        "pixels": config.input.height * config.input.width,
        "channels": config.input.channels,
        "heads": {name: _trees(trees) for name, trees in parts.model.ensembles.items()},
        "profile": {
            "mean": parts.profile.mean.tolist(),
            "components": parts.profile.components.tolist(),
        },
        "categories": [[key, list(domain.categories[key])] for key in CATEGORICAL_KEYS],
        "domain": _domain(config, domain),
        "half_widths": {
            "cycles": parts.residuals["hyperparameters"].half_width(confidence)[0],
            "accuracy": parts.residuals["accuracy"].half_width(confidence)[0],
            "estimated_input": estimation_doubt(parts, confidence)[0],
        },
        "controls": panel_controls(config, parts),
        "brought": settings_of_names(config),
    }


def script_json(value: Any) -> str:
    r"""Write JSON that may stand inside a ``<script type="application/json">``.

    Whatever text is in it, the script neither ends early nor opens a comment.

    Parameters
    ----------
    value : object
        Of JSON's types; numbers are finite.

    Examples
    --------
    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    # U+2028 and all else beyond ASCII is escaped already
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def panel_script() -> str:
    """JavaScript that sets ``spikemeter.predict(model, settings)`` and ``spikemeter.mount``.

    ``predict`` takes settings by flat key, those that differ from the configuration at least, and
    gives what `LatencyEstimate` gives. ``mount(element, model)`` builds the panel in an element.
    """
    parts = "\n".join(map(_beside, ("engine.js", "whatif.js", "panel.js")))
    return f'(() => {{\n"use strict";\n{parts}\n{_EXPORTS}\n}})();\n'


def panel_style() -> str:
    """CSS of the panel; colors are custom properties of the page."""
    return _beside("whatif.css")


def fallback_html(estimate: LatencyEstimate) -> str:
    """Write what stands in for the panel where no script runs: the prediction as tables.

    Parameters
    ----------
    estimate : LatencyEstimate
        Of the configuration, from hyperparameters.
    """
    low, high = estimate.interval_cycles
    per_cycle = estimate.microseconds / estimate.cycles
    figures = [
        ("Latency", f"{_tenths(estimate.microseconds)} µs"),
        ("Interval", f"{_tenths(low * per_cycle)} to {_tenths(high * per_cycle)} µs"),
        ("Cycles", f"{_whole(estimate.cycles)} ({_whole(low)} to {_whole(high)})"),
    ]
    if estimate.accuracy is not None and estimate.interval_accuracy is not None:
        least, most = (100 * share for share in estimate.interval_accuracy)
        figures.append(
            ("Accuracy", f"{100 * estimate.accuracy:.1f} % ({least:.1f} to {most:.1f} %)")
        )
    layers = [
        (layer.name, f"{layer.input_rate:.3f}", _rate(layer.firing_rate), _whole(layer.cycles))
        for layer in estimate.layers
    ]
    share = f"{100 * estimate.confidence:g} %"
    return (
        "<p>The controls need JavaScript. This is the configuration as it is.</p>"
        + _table(f"Prediction, with {share} intervals", (), figures)
        + _table("Layers", ("Layer", "Input rate", "Firing rate", "Cycles"), layers)
    )


def _unknown_machine(config: Config) -> str | None:
    hardware = config.hardware
    if hardware.backend != "engine":
        return (
            "The what-if panel computes the timing of Spikemeter's own engine alone; this "
            f"configuration has hardware.backend {hardware.backend!r}."
        )
    return None


def _layers(config: Config) -> list[dict[str, Any]]:
    shapes = layer_shapes(config.layers)
    sizes = layer_sizes(config.layers).tolist()
    return [
        {
            "name": layer.name,
            "sizes": sizes[index],
            "in_channels": layer.in_channels,
            "in_pixels": layer.in_height * layer.in_width,
            "lines_are_channels": _lines_are_channels(layer),
            "taps": list(tap_bounds(layer)),
            **{
                name: float(getattr(shapes, name)[index, 0])
                for name in ("channels", "height", "width", "pool", "inputs", "even_taps", "spread")
            },
            "bankable": bool(shapes.bankable[index, 0]),
        }
        for index, layer in enumerate(config.layers)
    ]


def _lines_are_channels(layer: Layer) -> bool:
    """Whether the maps are single pixels, so that counts by channel may be spike trains."""
    return layer.kind == "dense" and layer.in_height == layer.in_width == 1


def _inputs(config: Config, parts: PredictorParts) -> dict[str, Any]:
    """List what enters, for every number of time steps that may be chosen."""
    inputs = {}
    for steps in known_steps(config, parts):
        own = steps == config.input.time_steps
        chosen = config if own else changed_config(config, {"input.time_steps": steps})
        assert chosen is not None, "the statistics of a data set are of frames that it can have"
        entering = input_events(chosen, parts.statistics, parts.tap_ratios.input)
        events = entering.events
        inputs[str(steps)] = {
            "features": list(input_features(events, config.input.height * config.input.width)),
            "events": events.sum(axis=1).tolist(),
            "lines": [_spiking_lines(step) for step in events],
            "tap_ratio": entering.tap_ratio,
            "estimated": entering.estimated,
        }
    return inputs


def _spiking_lines(channels: NDArray[np.float64]) -> list[int] | None:
    """Channels that spike where each spikes once or not at all; None where counts are others."""
    whole = bool(np.all(channels * channels == channels))
    return np.flatnonzero(channels).tolist() if whole else None


def _trees(ensemble: Ensemble) -> dict[str, Any]:
    """Trees of one depth in heap order, as `Ensemble` has them; numbers are little-endian."""
    return {
        "trees": len(ensemble.leaf),
        "depth": ensemble.depth,
        "bias": ensemble.bias,
        "feature": _base64(ensemble.feature, "<u2"),
        "threshold": _base64(ensemble.threshold, "<f4"),
        "leaf": _base64(ensemble.leaf, "<f4"),
    }


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _domain(config: Config, domain: Domain) -> dict[str, Any]:
    """Limits that count as inside, and by what names that are new widen an interval."""
    low, high = domain._limits
    fixed = domain.unknown_names(config.dataset, config) | domain.strange_network(config.network)
    return {
        "feature_names": list(domain.feature_names),
        "knobs": [knob_of(name) for name in domain.feature_names],
        "low": [_finite(value) for value in low.tolist()],
        "high": [_finite(value) for value in high.tolist()],
        "named": [
            {
                "column": domain.feature_names.index(feature),
                "key": key,
                "ranges": {
                    # NumPy compares a feature with a plain number in the feature's precision
                    name: np.array(_with_slack(feature, *ranges), dtype=np.float32).tolist()
                    for name, ranges in domain.of_name[feature].items()
                    if feature == "surrogate.slope" or (feature, name) in _CALLED
                },
            }
            for feature, key in OF_NAME.items()
        ],
        # Names that no control changes
        "strange": [key for key in ("dataset", "network") if key in fixed],
        "network_is_new": config.network not in domain.networks,
        "unseen": dict(domain.unseen),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table whose first column names its rows."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    top = f"<thead><tr>{names}</tr></thead>" if head else ""
    return f"<table><caption>{escape(caption)}</caption>{top}<tbody>{body}</tbody></table>"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value < _PLAIN_BELOW else f"{value:.2e}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}" if value < _PLAIN_BELOW else f"{value:.2e}"


def _rate(rate: float | None) -> str:
    return "not known" if rate is None else f"{rate:.3f}"


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
