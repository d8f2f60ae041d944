"""Hooks in a module: what they count is what enters its layers, and nothing of them stays."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from spiking_modules import (
    BATCH,
    HARDWARE,
    STEPS,
    STYLES,
    WHOLE,
    Explicit,
    Hidden,
    Stateless,
    entering,
    frames,
    lively,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spikemeter.errors import ConfigError, PredictorError
from spikemeter.predictor import predict_latency
from spikemeter.predictor.training import LatencyMonitor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def maps(steps: list[Tensor], channels: int) -> np.ndarray:
    """What entered a layer as (samples, time_steps, channels, pixels)."""
    stacked = torch.stack(steps, dim=1).detach().double()
    return stacked.reshape(*stacked.shape[:2], channels, -1).numpy()


def counted_by_hand(steps: list[list[Tensor]]) -> dict[str, np.ndarray]:
    """Counts and taps of 4C3-MP2-10, pixel by pixel; a 3x3 kernel has fewer taps at the edge."""
    inside = np.array([2, 3, 3, 3, 3, 3, 3, 2])
    first, second = maps(steps[0], 2), maps(steps[1], 4)
    return {
        "counts_0": first.sum(-1), "taps_0": (first * np.outer(inside, inside).ravel()).sum(-1),
        "counts_1": second.sum(-1), "taps_1": second.sum(-1),
    }  # fmt: skip


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == {*expected, "quantised"}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("whole", [False, True])
def test_counts_are_those_of_a_hand(style: Any, whole: bool) -> None:
    net = style().eval()
    with LatencyMonitor(net, WHOLE if whole else HARDWARE, every=1) as monitor:
        with entering(net) as first:
            net.run(frames(1))
        if style in (Hidden, Explicit):  # the others ran once before, to be understood
            same(monitor.counts(), counted_by_hand([steps[-STEPS:] for steps in first]))
        with entering(net) as second:
            net.run(frames(2))
        expected = [counted_by_hand([x[-STEPS:] for x in each]) for each in (first, second)]
        together = {key: np.concatenate([each[key] for each in expected]) for key in expected[0]}
        same(monitor.counts(), together)
        estimate = monitor.estimate()
        config = monitor.config
    assert config.input.time_steps == STEPS
    assert [layer.name for layer in config.layers] == ["0:4C3", "1:10"]
    arrays = {**together, "quantised": np.array(False)}
    asked = predict_latency(config, spikes=arrays)
    assert (estimate.cycles, estimate.interval_cycles) == (asked.cycles, asked.interval_cycles)
    assert estimate.fidelity == "statistics"
    assert estimate.statistics_level == "taps"
    assert not estimate.quantised
    assert "floating point" in estimate.warnings[0]


@pytest.mark.parametrize(
    "parts",
    [(nn.Dropout(0.5),), (nn.Flatten(), nn.Dropout(0.5)), (nn.Identity(), nn.Dropout2d(0.5))],
)
def test_hardware_drops_nothing(parts: tuple[nn.Module, ...]) -> None:
    net = Hidden(*parts).train()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor, torch.random.fork_rng():
        net.run(frames(1))
        with entering(net, (nn.Conv2d, type(parts[-1]))) as steps:
            net.run(frames(2))
        by_hand = counted_by_hand(steps)
        found = monitor.counts()
    for name, array in by_hand.items():
        np.testing.assert_array_equal(found[name][BATCH:], array)


def test_functional_dropout_counts_in_the_mean() -> None:
    class Dropping(Explicit):
        def forward(self, sample: Tensor) -> Tensor:
            mem1, mem2 = self.body["lif"].reset_mem(), self.out.reset_mem()
            for step in sample:
                fired, mem1 = self.body["lif"](self.body["conv"](step), mem1)
                pooled = nn.functional.max_pool2d(fired, 2).flatten(1)
                kept = nn.functional.dropout(pooled, 0.75, self.training)
                _, mem2 = self.out(self.head(kept), mem2)
            return mem2

    net, sample = Dropping().eval(), frames(4, batch=200, share=0.9)
    with LatencyMonitor(net, HARDWARE) as monitor, torch.random.fork_rng():
        net.run(sample)
        expected = monitor.counts()["counts_1"]
        net.train()
        net.run(sample)
        found = monitor.counts()["counts_1"]
        assert monitor.estimate().cycles > 0
    assert found.max() <= 16  # pixels of a channel, although a spike counts four times here
    assert found.mean() == pytest.approx(expected.mean(), rel=0.15)  # what overflows is lost
    assert (found != expected).any()


def test_autocast_rounds_no_count() -> None:
    net, sample = Hidden().train(), torch.ones(STEPS, 2, 2, 20, 20)
    net[-2] = lively(nn.Linear(4 * 100, 10))
    with LatencyMonitor(net, HARDWARE, every=1) as monitor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            net.run(sample)
            assert net[0](sample[0]).dtype == torch.bfloat16
            found = monitor.counts()  # also asked for under autocast
        estimate = monitor.estimate()
    assert (found["counts_0"] == 400).all()  # bfloat16 holds whole numbers up to 256
    assert (found["taps_0"] == (18 * 3 + 4) ** 2).all()
    assert estimate.cycles > 0


class NoReading(TorchDispatchMode):
    """Refuses whatever makes the host wait for a value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("style", STYLES)
def test_nothing_is_read_back_while_it_trains(style: Any) -> None:
    net = style().train()
    with LatencyMonitor(net, HARDWARE, every=1, gradient=True) as monitor:
        net.run(frames(1))
        monitor.counts()
        with NoReading():
            net.run(frames(2)).sum().backward()
            net.run(frames(3)).sum().backward()
        with pytest.raises(AssertionError), NoReading():
            torch.ones(1).item()
        assert len(monitor.counts()["counts_0"]) == 3 * BATCH


def test_one_batch_in_so_many_is_counted_and_the_last_samples_are_kept() -> None:
    net = Hidden().train()
    with LatencyMonitor(net, HARDWARE, every=3) as monitor:
        for seed in range(7):
            net.run(frames(seed))
        expected = torch.cat([frames(seed).transpose(0, 1) for seed in (0, 3, 6)])
        counts = monitor.counts()["counts_0"]
    np.testing.assert_array_equal(counts, expected.sum((3, 4)).numpy())
    with LatencyMonitor(net, HARDWARE, every=1, samples=2 * BATCH - 1) as monitor:
        for seed in range(5):
            net.run(frames(seed))
        expected = torch.cat([frames(seed).transpose(0, 1) for seed in (3, 4)])
        counts = monitor.counts()["counts_0"]
    np.testing.assert_array_equal(counts, expected.sum((3, 4)).numpy())


def test_counting_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr("spikemeter.predictor.hooks.time.perf_counter", tick)
    net = Hidden().train()
    with LatencyMonitor(net, HARDWARE) as monitor:
        net.run(frames(0))
        each = STEPS + 1  # seconds on the clock: of every step, and of the end
        for seed in range(1, 6):
            net.run(frames(seed))
        assert len(monitor.counts()["counts_0"]) == BATCH
        clock[0] += 400 * each
        for seed in range(6, 12):
            net.run(frames(seed))
        assert len(monitor.counts()["counts_0"]) == 2 * BATCH
        net.eval()
        net.run(frames(12))
        assert len(monitor.counts()["counts_0"]) == BATCH  # the first of another mode, always


class Cloning(Stateless):
    """Hands on copies of its states, which nothing tells from fresh ones."""

    def run(self, sample: Tensor) -> Tensor:
        state = [torch.zeros(BATCH, 4, 8, 8), torch.zeros(BATCH, 10)]
        for step in sample:
            fired, state = self(step, [mem.clone() for mem in state])
        return fired


def test_states_that_are_not_handed_on_as_they_are_are_refused() -> None:
    net = Cloning().eval()
    rule = "^module: its neurons must begin a batch at 0 and be handed their states as they left"
    with LatencyMonitor(net, HARDWARE) as monitor, torch.no_grad():
        net.run(frames(0))
        net.run(frames(1))
        with pytest.raises(ConfigError, match=rule):
            monitor.estimate()


def test_a_reset_in_place_is_one() -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor, torch.no_grad():
        for seed in range(3):
            for neuron in (net[1], net[-1]):
                neuron.mem.zero_()
            for step in frames(seed):
                net(step)
        assert monitor.config.input.time_steps == STEPS
        assert len(monitor.counts()["counts_0"]) == 3 * BATCH


def test_it_may_be_asked_in_the_middle_of_a_batch() -> None:
    net, expected = Hidden().eval(), torch.cat([frames(1), frames(2)], dim=1).transpose(0, 1)
    with LatencyMonitor(net, HARDWARE, every=1) as monitor:
        for step in frames(0)[:3]:
            net(step)
        assert monitor.config.input.time_steps == 3  # as far as one can tell
        for step in frames(0)[3:]:
            net(step)
        net.run(frames(1))
        assert monitor.config.input.time_steps == STEPS
        for neuron in (net[1], net[-1]):
            neuron.reset_mem()
        for step in frames(2):
            assert monitor.estimate().cycles > 0
            net(step)
        np.testing.assert_array_equal(monitor.counts()["counts_0"], expected.sum((3, 4)).numpy())


@pytest.mark.parametrize("every", [None, 1])
def test_a_training_with_mixed_precision_goes_as_if_nobody_watched(every: int | None) -> None:
    nets = [Hidden(nn.Dropout(0.2)).train() for _ in range(2)]
    for net in nets:
        net[0] = nn.Sequential(net[0], nn.BatchNorm2d(4))
    monitor = LatencyMonitor(nets[1], HARDWARE, every=every, gradient=every == 1)
    for net in nets:
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for seed in range(3):
                optimiser.zero_grad()
                for part in (0, 1):  # gradients add up over two batches
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        loss = net.run(frames(2 * seed + part)).float().square().mean()
                    loss.backward()
                optimiser.step()
    monitor.detach()
    plain, watched = (net.state_dict() for net in nets)
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name
    assert not torch.equal(watched["0.0.weight"], Hidden()[0].weight)  # it did train


def test_training_and_evaluation_and_epochs_are_not_mixed() -> None:
    net = Hidden().train()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor:
        rates = []
        for epoch in range(2):
            net.train()
            net.run(frames(10 * epoch))
            net.run(frames(10 * epoch + 1))
            assert len(monitor.counts()["counts_0"]) == 2 * BATCH
            net.eval()
            out = net.run(frames(10 * epoch + 2))
            rates.append(out.mean().item())
            monitor.end_epoch()
            assert len(monitor.counts()["counts_0"]) == BATCH
        net.run(frames(50))
        assert len(monitor.counts()["counts_0"]) == BATCH  # the mode is the same, the epoch not
        assert [layers[-1] for layers in monitor.firing_rates] == pytest.approx(rates)
        assert monitor.firing_rates[0][0] > 0
        monitor.forget()
        with pytest.raises(PredictorError, match="no batch has been counted in this epoch"):
            monitor.end_epoch()


def test_monitors_take_no_notice_of_one_another() -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE, every=1) as first:
        net.run(frames(0))
        with LatencyMonitor(net, WHOLE, every=1) as second:
            net.run(frames(1))
        same(second.counts(), {key: each[BATCH:] for key, each in first.counts().items()
                               if key != "quantised"})  # fmt: skip
        with LatencyMonitor(net, HARDWARE), LatencyMonitor(net, HARDWARE) as third:
            net.run(frames(2))
            assert len(third.counts()["counts_0"]) == BATCH
        assert len(first.counts()["counts_0"]) == 3 * BATCH


def saved(net: nn.Module) -> dict[str, bytes]:
    """Everything that `torch.save` writes of a module."""
    file = io.BytesIO()
    torch.save(net, file)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.endswith("serialization_id")]
        return {name: archive.read(name) for name in names}


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_detached_it_leaves_nothing(style: Any, gradient: bool) -> None:
    net, twin = style().train(), style().train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    monitor = LatencyMonitor(net, HARDWARE, gradient=gradient)
    for each in (net, twin):
        with torch.no_grad():
            each.run(frames(0))
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    net.run(frames(0))
    twin.run(frames(0))
    monitor.detach()
    monitor.detach()
    for each in (net, twin):  # membranes with a graph behind them cannot be pickled
        with torch.no_grad():
            each.run(frames(0))
    assert saved(net) == saved(twin)
    for part in net.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    reference = weakref.ref(net)
    del net, each, part
    gc.collect()
    assert reference() is None
    assert monitor.estimate().cycles > 0


def test_copies_and_pickles_of_a_watched_module_are_not_watched() -> None:
    net = Hidden().eval()
    with LatencyMonitor(net, HARDWARE, every=1) as monitor, torch.no_grad():
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            other.run(frames(1))  # before the network is known
        net.run(frames(0))
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other.run(frames(1)), Hidden().eval().run(frames(1)))
        assert len(monitor.counts()["counts_0"]) == BATCH
