"""Proposed changes, trained and simulated for real."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spikemeter.calibration import measure as measuring
from spikemeter.calibration.explanation import verify_changes
from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError, SpikeMismatchError
from spikemeter.predictor.explanation import LatencyExplanation, explain_latency

pytest.importorskip("shap")
pytest.importorskip("snntorch")

CONTENT = {
    "dataset": "digits-saccade",
    "network": "8C3-MP2-10",
    "input": {"height": 12, "width": 12, "time_steps": 6},
    "training": {"epochs": 4},
}
SPACE = {
    "base": CONTENT,
    "vary": {"neuron.threshold": [1.0, 1.9], "input.time_steps": [4, 6, 8]},
    "sampler": "grid",
}


@pytest.fixture(scope="module")
def explanation() -> LatencyExplanation:
    found = explain_latency(CONTENT, space=SPACE, confidence=0.5)
    assert [change.knob for change in found.changes] == ["input.time_steps"]
    return found


@pytest.mark.rtl
def test_a_change_is_trained_and_simulated_beside_its_prediction(explanation):
    told = []
    (verified,) = verify_changes(explanation, 1, progress=lambda *step: told.append(step))
    change = verified.change
    assert change is explanation.changes[0]
    assert verified.cycles == pytest.approx(verified.after_cycles / verified.before_cycles - 1)
    # Half the steps take about half the cycles, by any training.
    assert -0.6 < verified.cycles < -0.2
    assert abs(verified.before_cycles / explanation.estimate.cycles - 1) < 0.5
    low, high = change.interval_cycles
    assert verified.held == (low <= verified.cycles <= high)
    assert 0 <= verified.before_accuracy <= 1
    assert verified.accuracy == verified.after_accuracy - verified.before_accuracy
    assert told == [("training and simulating", done, 2) for done in range(3)]
    content = json.loads(json.dumps(verified.to_dict(), allow_nan=False))
    assert content["measured_cycles"] == verified.cycles
    assert content["predicted_cycles"] == change.cycles
    assert content["interval_cycles"] == list(change.interval_cycles)
    assert content["seeds"] == [0]


@pytest.mark.rtl
def test_rtl_that_spikes_otherwise_than_the_reference_is_an_error(explanation, monkeypatch):
    simulate = measuring.simulate_run

    def wrong(run, samples, **options):
        simulation, expected = simulate(run, samples, **options)
        flipped = replace(expected, outputs=~expected.outputs)
        return simulation, flipped

    monkeypatch.setattr(measuring, "simulate_run", wrong)
    with pytest.raises(SpikeMismatchError):
        verify_changes(explanation, 1)


@pytest.mark.parametrize(
    ("count", "seeds", "sentence"),
    [
        (0, (0,), "verify: must be 1 to 1, the changes that are proposed; got 0"),
        (2, (0,), "verify: must be 1 to 1, the changes that are proposed; got 2"),
        (1, (), "seeds: at least one is needed"),
    ],
)
def test_only_proposed_changes_can_be_verified(explanation, count, seeds, sentence):
    with pytest.raises(InputError, match=sentence):
        verify_changes(explanation, count, seeds=seeds)


def test_a_seed_that_is_none_is_refused(explanation):
    with pytest.raises(ConfigError, match=r"training\.seed: .*-1"):
        verify_changes(explanation, 1, seeds=(-1,))


def test_where_there_is_no_change_there_is_none_to_verify(explanation):
    none = replace(explanation, changes=(), changes_note="Nothing helps.")
    with pytest.raises(InputError, match=r"there is no change to verify; Nothing helps\."):
        verify_changes(none, 1)


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (
            {**CONTENT, "hardware": {"backend": "published"}},
            ConfigError,
            r"hardware\.backend: must be engine to simulate",
        ),
        (
            {
                "network": "8C3-MP2-10",
                "input": {"time_steps": 2, "statistics": [[1.0, 1.0]] * 2},
            },
            InputError,
            "dataset: required to verify changes",
        ),
    ],
)
def test_what_cannot_be_trained_or_simulated_is_refused(explanation, content, error, sentence):
    with pytest.raises(error, match=sentence):
        verify_changes(replace(explanation, config=load_config(content)), 1)
