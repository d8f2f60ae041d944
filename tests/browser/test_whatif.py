"""The browser and Python predict the same, number by number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erfcx

from spikemeter import Config, LatencyPredictor, predict_latency
from spikemeter.config import load_config
from spikemeter.predictor.ensemble import TreeSettings, fit_head
from spikemeter.predictor.events import input_events
from spikemeter.predictor.features import layer_features
from spikemeter.predictor.folder import PredictorParts
from spikemeter.predictor.report.controls import changed_config
from spikemeter.predictor.report.whatif import panel_model
from spikemeter.predictor.sparsity import SparsityModel

POINTS = 200
WITHIN = 1e-9
"""Relative; sums are added up in another order, and exponentials differ in the last bit."""

_LINES = np.random.default_rng(5)
_BINARY = [[float(value) for value in _LINES.integers(0, 2, 40)] for _ in range(3)]
_MEANS = [[float(value) for value in _LINES.random(40)] for _ in range(3)]

CONFIGS = {
    "two convolutions": {"dataset": "nmnist-saccade", "network": "16C3-MP2-16C3-MP2-10"},
    "one convolution, pipelined": {
        "dataset": "nmnist-saccade",
        "network": "8C3-MP2-10",
        "neuron": {"model": "lapicque", "beta": 0.6, "match": "gain"},
        "hardware": {"schedule": "step_pipelined", "encoder_width": 24},
    },
    "four convolutions of another data set": {
        "dataset": "fashion-saccade",
        "network": "6C3-8C3-MP2-8C3-16C3-MP2-32-10",
        "input": {"height": 14, "width": 14},
        "surrogate": {"name": "atan", "width": 0.4},
    },
    "dense layers behind single pixels": {
        "dataset": "digits-saccade",
        "network": "32-24-10",
        "input": {"height": 12, "width": 12, "time_steps": 12},
        "neuron": {"model": "lapicque", "beta": 0.7, "match": "decay", "reset": "zero"},
    },
    "still images": {
        "dataset": "digits-saccade",
        "network": "32C3-MP4-10",
        "input": {"height": 20, "width": 20, "channels": 1, "encoding": "latency"},
        "neuron": {"model": "lapicque", "beta": 0.8, "match": "both"},
    },
    "a circuit, and a height and a width": {
        "dataset": "nmnist-saccade",
        "network": "12C5-MP2-12C5-MP2-10",
        "neuron": {"model": "lapicque", "R": 2, "C": 4},
        "surrogate": {"name": "spike_rate_escape", "slope": 3, "width": 0.5},
    },
    "nine taps at once": {
        "dataset": "nmnist-saccade",
        "network": "8C3-8C3-MP2-16C3v-MP4-10",
        "input": {"height": 20, "width": 20},
        "hardware": {"taps_per_cycle": 9, "neural_cores": [8, 3, 2, 10]},
    },
    "nine taps at once, pipelined": {
        "dataset": "nmnist-saccade",
        "network": "12C3-MP2-12C5-MP2-10",
        "hardware": {"taps_per_cycle": 9, "schedule": "step_pipelined"},
    },
    "another network": {
        "dataset": "nmnist-saccade",
        "network": "24C5v-MP2-20C1-MP2-40-10",
        "hardware": {"neural_cores": [5, 7, 9, 3]},
    },
    "far outside": {
        "dataset": "nmnist-saccade",
        "network": "64C3-MP2-10",
        "neuron": {"beta": 0.05, "threshold": 9},
        "surrogate": {"name": "sso"},
        "training": {"lr": 0.5, "epochs": 200, "batch_size": 1000, "loss": "ce_count"},
    },
    "frames that nobody measured": {
        "dataset": "nmnist-saccade",
        "network": "16C3-MP2-10",
        "input": {"height": 24, "width": 20, "time_steps": 9},
        "surrogate": {"name": "straight_through"},
        "training": {"epochs": 1},
    },
    "a private data set": {
        "network": "6C3-MP2-8C3-10",
        "input": {"height": 9, "width": 7, "time_steps": 5, "statistics": [[3, 0.5]] * 5},
        "surrogate": {"name": "triangular", "width": 0.3},
    },
    "single pixels": {
        "network": "12-10",
        "input": {
            "height": 1, "width": 1, "channels": 40, "time_steps": 6,
            "statistics": [*_BINARY, *_MEANS],
        },
    },
}  # fmt: skip


EXTREMES = {
    "every line spikes in every step": {
        "firing": 40, "output": 40, "taps": 9, "early": 0, "late": 0, "accuracy": 40, "spread": 9,
    },
    "hardly a spike, and late": {
        "firing": -40, "output": -40, "taps": -9, "early": -6, "late": 4, "accuracy": -40,
        "spread": -9,
    },
    "many spikes that pooling loses": {
        "firing": 40, "output": -40, "taps": 0, "early": 1, "late": 1, "accuracy": 0, "spread": 0,
    },
}  # fmt: skip
"""What the heads of a predictor say that is certain of everything."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration whose panel is asked about others."""

    name: str
    config: Config
    parts: PredictorParts
    confidence: float = 0.9


def cases() -> Iterator[Case]:
    parts = LatencyPredictor.default().parts
    for name, config in CONFIGS.items():
        yield Case(name=name, config=load_config(config), parts=parts)
    for name, heads in EXTREMES.items():
        for base in ("dense layers behind single pixels", "two convolutions"):
            config = load_config(CONFIGS[base])
            yield Case(name=name, config=config, parts=parts_that_say(parts, heads))
    untried = replace(parts, estimated=None, domain=replace(parts.domain, unseen={}))
    for base in ("frames that nobody measured", "another network"):
        config = load_config(CONFIGS[base])
        yield Case(name=f"untried: {base}", config=config, parts=untried, confidence=0.9999)


def parts_that_say(parts: PredictorParts, heads: dict[str, float]) -> PredictorParts:
    rows = np.random.default_rng(0).normal(size=(50, len(parts.domain.feature_names)))
    settings = TreeSettings(rounds=1)
    ensembles = {
        name: fit_head(rows.astype(np.float32), np.full(50, float(value)), settings)
        for name, value in heads.items()
    }
    return replace(parts, model=SparsityModel(ensembles=ensembles))


def drawn(model: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Settings that the controls reach, and for some numbers any value in between."""
    settings = dict(model["settings"])
    settings["hardware.neural_cores"] = list(settings["hardware.neural_cores"])
    for control in model["controls"]:
        key, stops = control["key"], control["values"]
        if "by" in control:
            stops = stops[settings[control["by"]]]
        value = stops[rng.integers(len(stops))] if stops else None
        if len(stops) > 1 and all(isinstance(stop, float) for stop in stops) and rng.random() < 0.5:
            value = rng.uniform(stops[0], stops[-1])
        if "layer" in control:
            settings[key][control["layer"]] = value
        else:
            settings[key] = value
        settings |= model["brought"].get(key, {}).get(value, {})
    return settings


def outside(case: Case, config: Config) -> set[str]:
    parts = case.parts
    entering = input_events(config, parts.statistics, parts.tap_ratios.input)
    features = layer_features(config, entering.events, parts.domain.categories)
    found = set(parts.domain.excursions(config, features))
    return found | ({"input"} if entering.estimated and parts.estimated is None else set())


def figures(estimate: dict[str, Any]) -> list[float]:
    """Every number of an estimate that both sides give."""
    layers = [
        layer[key]
        for layer in estimate["layers"]
        for key in ("input_rate", "firing_rate", "cycles")
    ]
    names = ("cycles", "microseconds", "initiation_interval_cycles", "accuracy")
    return [
        *(estimate[name] for name in names),
        *estimate["interval_cycles"],
        *estimate["interval_accuracy"],
        *layers,
    ]


def test_the_browser_predicts_what_python_predicts(open_page, panel_file):
    rng = np.random.default_rng(7)
    asked = list(cases())
    models = [panel_model(case.config, case.parts, case.confidence) for case in asked]
    points = [
        (index % len(asked), drawn(models[index % len(asked)], rng)) for index in range(POINTS)
    ]
    points += [(index, {}) for index in range(len(asked))]
    found = open_page(panel_file(*models)).evaluate(
        "points => points.map(([index, settings]) => spikemeter.predict(models[index], settings))",
        points,
    )
    inside = 0
    for (index, settings), estimate in zip(points, found, strict=True):
        case = asked[index]
        config = changed_config(case.config, settings)
        assert config is not None, (case.name, settings)
        expected = predict_latency(
            config,
            predictor=LatencyPredictor(parts=case.parts),
            confidence=case.confidence,
            fidelity="hyperparameters",
        )
        message = f"{case.name}: {settings}"
        np.testing.assert_allclose(
            figures(estimate), figures(expected.to_dict()), rtol=WITHIN, err_msg=message
        )
        assert estimate["in_domain"] == expected.in_domain, message
        assert set(estimate["outside"]) == outside(case, config), message
        inside += expected.in_domain
    assert POINTS / 4 < inside < POINTS  # both sorts were asked about


def test_erfcx_is_as_exact_as_scipys(open_page, panel_file):
    model = panel_model(
        load_config(CONFIGS["two convolutions"]), LatencyPredictor.default().parts, 0.9
    )
    x = np.concatenate(
        [[0.0, 1.5, 1e300], np.geomspace(1e-300, 1e300, 500), np.linspace(0, 8, 4001)]
    )
    found = open_page(panel_file(model)).evaluate("x => x.map(spikemeter.erfcx)", x.tolist())
    np.testing.assert_allclose(found, erfcx(x), rtol=1e-13)


def test_a_missing_browser_fails_the_tests_and_says_what_to_install(tmp_path):
    test = f"{Path(__file__)}::{test_erfcx_is_as_exact_as_scipys.__name__}"
    environment = {name: value for name, value in os.environ.items() if name != "CHROMIUM"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "browser", "-p", "no:cacheprovider", test],
        env=environment | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout
    assert "install Debian's chromium, or name one in CHROMIUM" in run.stdout
    assert "1 error" in run.stdout
