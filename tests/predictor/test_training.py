"""The monitor of a training: what it finds, says, logs and refuses; test_watching.py is of counts.

The loss is in test_latency_loss.py, Lightning in test_lightning.py and Optuna in test_trials.py.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import snntorch as snn
import torch
from brevitas.quant import Int8WeightPerTensorFloat
from spiking_modules import (
    BATCH,
    HARDWARE,
    STEPS,
    STYLES,
    WHOLE,
    Explicit,
    Hidden,
    frames,
    leaky,
)
from torch import Tensor, nn

from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.models.network import SpikingNetwork
from spikemeter.models.tracing import from_module
from spikemeter.predictor import LatencyPredictor, predict_latency
from spikemeter.predictor.training import LatencyMonitor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("style", STYLES[:2])
def test_an_estimate_is_that_of_a_trace_of_the_same_samples(style: Any) -> None:
    net = style().eval()
    found = from_module(net, frames(3), hardware=HARDWARE)
    expected = predict_latency(found.config, spikes=found.spikes, fidelity="statistics")
    with LatencyMonitor(net, HARDWARE) as monitor:
        net.run(frames(3))
        estimate = monitor.estimate()
    assert estimate.cycles == expected.cycles
    assert estimate.interval_cycles == expected.interval_cycles
    assert estimate.warnings == expected.warnings
    assert [x.cycles for x in estimate.layers] == [x.cycles for x in expected.layers]
    assert [x.firing_rate for x in estimate.layers] == pytest.approx(found.firing_rates)
    assert monitor.estimate() == estimate  # what was counted last can still be asked for


@pytest.mark.parametrize("batch_norm", [False, True])
def test_networks_of_this_package_are_watched_too(batch_norm: bool) -> None:
    config = load_config({**WHOLE, "training": {"batch_norm": batch_norm}})
    net = SpikingNetwork(config).train()
    sample = frames(1, share=0.9).transpose(0, 1)
    with LatencyMonitor(net, config, every=1, gradient=True) as monitor:
        net(sample)
        fired = net(sample)
        spikes = monitor.spikes()
        assert spikes[1].grad_fn is not None
        pooled = nn.functional.max_pool2d(fired[0].flatten(0, 1), 2).reshape(STEPS, BATCH, 4, 16)
        assert torch.equal(spikes[1].flatten(2), pooled.flatten(2))
        counts = monitor.counts()
        np.testing.assert_array_equal(counts["counts_0"][:BATCH], sample.sum((3, 4)).numpy())
        by_hand = pooled.sum(3).transpose(0, 1).detach().numpy()
        np.testing.assert_array_equal(counts["counts_1"][BATCH:], by_hand)
        assert monitor.estimate().quantised is not batch_norm
        if batch_norm:
            net.fold()
            assert monitor.estimate().quantised
    with pytest.raises(ConfigError, match=r"^hardware: must be the whole configuration of a Spi"):
        LatencyMonitor(net, HARDWARE)
    other = load_config({**WHOLE, "network": "4C3-MP4-10"})
    with pytest.raises(ConfigError, match=r"^network: must be that of the module, 4C3-MP2-10 on 2"):
        LatencyMonitor(net, other)


@pytest.mark.parametrize(
    ("bits", "beta", "norm", "quantised"),
    [(4, 0.875, False, True), (6, 0.875, False, False), (4, 0.9, False, False),
     (4, 0.875, True, False)],
)  # fmt: skip
def test_weights_on_the_grid_of_the_hardware_are_quantised(
    bits: int, beta: float, norm: bool, quantised: bool
) -> None:
    settings = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": bits, "bias": True}
    net = nn.Sequential(
        qnn.QuantConv2d(2, 4, 3, padding=1, **settings),
        nn.BatchNorm2d(4) if norm else nn.Identity(), leaky(beta, init_hidden=True),
        nn.Flatten(), qnn.QuantLinear(256, 10, **settings), leaky(0.5, init_hidden=True),
    )  # fmt: skip
    with LatencyMonitor(net, HARDWARE) as monitor:
        for step in frames(0):
            net(step)
        assert monitor.estimate().quantised is quantised


def test_the_first_inference_says_how_many_steps_there_are() -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor:
        net.run(frames(0))
        net.run(frames(1, batch=BATCH - 2))  # the last batch of an epoch is smaller
        net.run(frames(2, steps=3))
        with pytest.warns(
            UserWarning, match="an inference of 3 time steps was left aside.* have 5"
        ):
            net.run(frames(3))
        net.run(frames(4, steps=3))
        net.run(frames(5))  # it is said once
        assert monitor.config.input.time_steps == STEPS
        assert monitor.config.input.statistics[0] == monitor.config.input.statistics[-1]
        assert len(monitor.counts()["counts_0"]) == 4 * BATCH - 2
    with LatencyMonitor(net, WHOLE, every=1) as monitor:
        net.run(frames(0, steps=3))
        with pytest.warns(UserWarning, match="an inference of 3 time steps was left aside"):
            net.run(frames(0, steps=3))  # one may be a trial
        with pytest.raises(ConfigError, match=r"^input.time_steps: must be the 3 time steps .* 5"):
            net.run(frames(0, steps=3))


@pytest.mark.parametrize("steps", [1, 3])
def test_a_trial_run_before_training_does_not_count(steps: int) -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE, every=1) as alone:
        net.run(frames(1))
        net.run(frames(2))
        expected = alone.estimate()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor:
        net.run(frames(0, steps=steps))
        net.run(frames(1))
        net.run(frames(2))
        assert monitor.config.input.time_steps == STEPS
        assert monitor.estimate() == expected


def test_neurons_that_are_never_reset_are_pointed_out() -> None:
    net = Hidden().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def train_a_batch() -> None:
        for step in frames(0):
            spikes, _ = net(step)
        spikes.sum().backward()
        optimizer.step()
        for part in net.modules():  # which frees the graph, but resets nothing
            if isinstance(part, snn.SpikingNeuron):
                part.mem = part.mem.detach()

    with LatencyMonitor(net, HARDWARE, every=1):
        train_a_batch()
        with pytest.warns(UserWarning, match=f"^weights were updated {STEPS} steps into an infer"):
            train_a_batch()
        train_a_batch()  # said once


def test_a_module_that_fails_in_its_first_call_may_be_called_again() -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE) as monitor:
        with pytest.raises(RuntimeError):
            net.run(frames(0)[:, :, :1])
        net.run(frames(0))
        assert monitor.estimate().cycles > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"neuron": {"beta": 0.5}}, r"neuron\.beta 0\.5 and the module 0\.875: forecasts"),
        ({"training": {"batch_norm": True}}, r"training\.batch_norm true, which the module lacks"),
    ],
)
def test_a_module_that_is_trained_otherwise_than_its_configuration_says(
    change: dict[str, Any], said: str
) -> None:
    net = Hidden().eval()
    whole = {**WHOLE, **{key: {**WHOLE.get(key, {}), **value} for key, value in change.items()}}
    with (
        LatencyMonitor(net, whole),
        pytest.warns(UserWarning, match=f"^the configuration says .*{said}"),
    ):
        net.run(frames(0))


def test_an_epoch_that_cannot_be_logged_is_not_kept(tmp_path: Path) -> None:
    net = Hidden().eval()
    with pytest.raises(InputError, match=r"^csv: must be a file, got the folder"):
        LatencyMonitor(net, HARDWARE, csv=tmp_path)
    with LatencyMonitor(net, HARDWARE, csv=tmp_path / "missing" / "x.csv") as monitor:
        (tmp_path / "missing").write_text("a file stands in the way")
        net.run(frames(0))
        with pytest.raises(InputError):
            monitor.end_epoch()
        assert monitor.firing_rates == []
        assert monitor.rows == []


def test_an_input_that_is_encoded_by_chance_is_no_hindrance() -> None:
    class Encoding(Explicit):
        def forward(self, rates: Tensor) -> Tensor:
            return super().forward((torch.rand(STEPS, *rates.shape) < rates).float())

    net = Encoding().eval()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = net(torch.full((BATCH, 2, 8, 8), 0.4))
        torch.manual_seed(3)
        with LatencyMonitor(net, HARDWARE) as monitor:
            assert torch.equal(net(torch.full((BATCH, 2, 8, 8), 0.4)), expected)
        assert monitor.counts()["counts_0"].mean() == pytest.approx(0.4 * 64, rel=0.1)


def test_a_linear_first_layer_has_the_maps_that_the_module_was_called_with() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 10), leaky(init_hidden=True))
    with LatencyMonitor(net, {"neural_cores": [2]}) as monitor:
        for step in frames(0, batch=40):
            net(step)
        assert monitor.config.layers[0].in_channels == 2
        expected = frames(0, batch=40).sum((3, 4)).transpose(0, 1)
        np.testing.assert_array_equal(monitor.counts()["counts_0"], expected.numpy())
    whole = load_config({**WHOLE, "network": "10", "hardware": {}})
    flat = net[1:]
    with LatencyMonitor(flat, whole) as monitor:
        for step in frames(0):
            flat(step.flatten(1))
        assert monitor.counts()["counts_0"].shape == (BATCH, STEPS, 2)


def whole_config() -> Config:
    return load_config(WHOLE)


def test_epochs_are_logged_with_the_forecast(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    net, predictor = Explicit().eval(), LatencyPredictor.default()
    settings = {"csv": tmp_path / "latency.csv", "tensorboard": tmp_path / "board"}
    estimates, forecasts = [], []
    with LatencyMonitor(net, whole_config(), predictor=predictor, **settings) as monitor:
        for epoch in range(5):  # one more than planned
            net.run(frames(epoch))
            estimates.append(monitor.end_epoch())
            if epoch < 4:
                forecasts.append(monitor.forecast())
                expected = predictor.forecast(whole_config(), monitor.firing_rates)
                assert forecasts[-1] == expected
        state = monitor.state_dict()
        with pytest.raises(PredictorError, match=r"at most the 4 training.epochs, got 5"):
            monitor.forecast()
    rows = list(csv.DictReader((tmp_path / "latency.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [float(row["microseconds"]) for row in rows] == [x.microseconds for x in estimates]
    low = [float(row["microseconds_low"]) for row in rows]
    assert low == pytest.approx([x.interval_cycles[0] / 100 for x in estimates])
    found = [row["forecast_microseconds"] for row in rows]
    assert [float(each) for each in found[:4]] == [x.microseconds for x in forecasts]
    assert found[4] == ""
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    for name, expected in (("microseconds", estimates), ("forecast_microseconds", forecasts)):
        scalars = board.Scalars(f"latency/{name}")
        assert [each.step for each in scalars] == [*range(1, len(expected) + 1)]
        assert [x.value for x in scalars] == pytest.approx([x.microseconds for x in expected])
    with LatencyMonitor(net, whole_config(), csv=tmp_path / "latency.csv") as resumed:
        resumed.load_state_dict(state)
        net.run(frames(9))
        resumed.end_epoch()
    assert len((tmp_path / "latency.csv").read_text().splitlines()) == 1 + 6


def test_a_forecast_outside_of_the_domain_says_so() -> None:
    strange = load_config({**WHOLE, "training": {"epochs": 4, "lr": 3.0, "batch_norm": False}})
    net = Explicit().eval()
    with LatencyMonitor(net, strange) as monitor:
        net.run(frames(0))
        with pytest.warns(UserWarning, match=r"^forecasts are not to be trusted: training.lr: 3 "):
            monitor.end_epoch()
        forecast = monitor.forecast()  # it is said once
    assert not forecast.in_domain
    assert "training.lr" in forecast.warnings[0]


def refused(net: nn.Module, rule: str, hardware: Any = HARDWARE, **settings: Any) -> None:
    """Expect a refusal, at once or when the module runs; afterwards it is not watched."""

    def watched() -> None:
        LatencyMonitor(net, hardware, **settings)
        net.run(frames(0))

    with pytest.raises(ConfigError, match=rule):
        watched()
    if isinstance(net, nn.Module):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
        assert torch.equal(net.run(frames(0)), net.run(frames(0))) or not hasattr(net, "run")


def test_what_is_of_no_use_is_refused_in_one_sentence() -> None:
    no_neurons = nn.Sequential(nn.Linear(2, 2))
    no_neurons.run = lambda sample: sample
    refused(no_neurons, r"^module: must hold neurons of snnTorch.*; Sequential has none$")
    with pytest.raises(ConfigError, match=r"^module: must be a torch.nn.Module, got dict$"):
        LatencyMonitor({}, HARDWARE)
    split = Hidden()
    split[-2].to("meta")
    with pytest.raises(ConfigError, match=r"^module: must be on one device, got cpu and meta$"):
        LatencyMonitor(split, HARDWARE)
    averaging = Hidden()
    averaging[2] = nn.AvgPool2d(2)
    refused(averaging, r"averages of spikes are no spikes; pool by maximum$")
    rule = r"^hardware.neural_cores: .*\(2\).*\[4, 8, 10\]|^hardware.neural_cores: "
    refused(Hidden(), rule, {"neural_cores": [4, 8, 10]})
    refused(Hidden(), r"^unknown key 'hardware.cores'", {"cores": [1]})
    refused(Hidden(), r"^hardware.clock_mhz: .* got -1$", {"clock_mhz": -1})
    refused(Hidden(), r"^hardware: must be a configuration or its section of that name, got 3$", 3)
    refused(Hidden(), r"^network: must be that of the module, 4C3-MP2-10 on 2 channels of 8x8; got",
            {**WHOLE, "network": "4C3-MP4-10"})  # fmt: skip
    refused(Hidden(), r"^neuron.model: must be that of the module's neurons, lif; got lapicque$",
            {**WHOLE, "neuron": {"model": "lapicque", "beta": 0.9}})  # fmt: skip
    other = {**WHOLE["input"], "time_steps": 8}
    rule = r"^input.time_steps: must be the 5 time steps that the module runs; got 8$"
    refused(Explicit(), rule, {**WHOLE, "input": other})
    for key in ("every", "samples"):
        refused(Hidden(), f"^{key}: must be a whole number above 0, got 0$", **{key: 0})


def test_a_module_whose_parts_run_without_it_is_refused() -> None:
    net = Explicit()
    LatencyMonitor(net, HARDWARE)
    with pytest.raises(ConfigError, match=r"^module: parts of Explicit run, but not Explicit its"):
        net.body["lif"](net.body["conv"](frames(0)[0]))


def test_neurons_that_nothing_resets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikemeter.predictor.watching._MOST_STEPS", 20)
    net = Hidden()
    steps = torch.cat([frames(0)] * 5)
    with LatencyMonitor(net, HARDWARE), pytest.raises(ConfigError, match="reset them before every"):
        net.run(steps)


def test_questions_that_come_too_early_or_too_late_are_refused() -> None:
    net = Explicit().train()
    with LatencyMonitor(net, HARDWARE, gradient=True) as monitor:
        for ask in (monitor.estimate, monitor.counts, monitor.end_epoch):
            with pytest.raises(PredictorError, match=r"^monitor: no batch has been counted.*; run"):
                ask()
        with pytest.raises(PredictorError, match=r"^monitor: no batch has run yet, so the network"):
            monitor.config  # noqa: B018
        with pytest.raises(PredictorError, match=r"^forecast: needs a whole configuration"):
            monitor.forecast()
        with torch.no_grad():
            net.run(frames(0))
        with pytest.raises(PredictorError, match=r"has not run, with gradients, since .* run it f"):
            monitor.spikes()
        net.run(frames(0))
        assert [tuple(each.shape) for each in monitor.spikes()] == [(5, 6, 2, 8, 8), (5, 6, 64)]
        with pytest.raises(PredictorError, match="has not run, with gradients, since spikes were"):
            monitor.spikes()
        net.run(frames(0))
    with pytest.raises(PredictorError, match=r"^monitor: is detached, so it holds no spikes$"):
        monitor.spikes()
    with pytest.raises(PredictorError, match=r"^monitor: is detached, so that no epoch can end$"):
        monitor.end_epoch()
    with pytest.raises(PredictorError, match=r"^monitor: must be made with gradient=True to hold"):
        LatencyMonitor(net, HARDWARE).spikes()
    with pytest.raises(PredictorError, match=r"^forecast: no epoch has ended yet"):
        LatencyMonitor(Explicit(), WHOLE).forecast()
