"""Real digits, real training, real RTL: what was trained is what the hardware computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikemeter.calibration import run_timelines, simulate_run
from spikemeter.config import load_config
from spikemeter.models import load_run, train_run
from spikemeter.predictor.timing import timing_model
from spikemeter.rtl import check_spikes

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    "neuron",
    [
        {"beta": 0.9},
        {"beta": 0.7, "threshold": 0.5, "reset": "zero"},
        {"model": "lapicque", "beta": 0.6, "threshold": 0.5},
        {"model": "lapicque", "R": 3.0, "C": 1.0, "threshold": 0.5, "reset": "zero"},
    ],
    ids=["lif", "lif to zero", "lapicque", "lapicque to zero"],
)
def test_integers_are_as_accurate_and_the_rtl_fires_as_they_say(
    neuron: dict[str, Any], tmp_path: Path
) -> None:
    config = load_config(
        {
            "dataset": "nmnist-saccade",
            "network": "8C3-MP2-10",
            "input": {"height": 12, "width": 12, "time_steps": 4},
            "neuron": neuron,
            "training": {"epochs": 3, "lr": 5e-3, "batch_size": 16},
        }
    )
    train_run(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    accuracy = run.result["accuracy"]
    assert accuracy["float"]["test"] > 0.25  # a tenth by chance
    for split in ("validation", "test"):
        assert abs(accuracy["integer"][split] - accuracy["float"][split]) <= 0.01

    simulation, expected = simulate_run(run, 4)
    check_spikes(simulation, expected, config.layers)
    timing = timing_model(config).trace([spikes[:4] for spikes in run.inputs])
    np.testing.assert_array_equal(simulation.cycles, timing.cycles)
    timelines = run_timelines(run, sample=1, rtl=True)
    assert timelines["RTL"] == timelines["timing model"]
