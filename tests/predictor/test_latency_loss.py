"""Latency in a loss: its gradient is that of the timing, and a budget is met."""

from __future__ import annotations

import copy
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from spiking_modules import HARDWARE, STYLES, WHOLE, Explicit, Hidden, entering, frames, leaky
from torch import Tensor, nn

from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor.differentiable import TorchTiming
from spikemeter.predictor.training import LatencyLoss, LatencyMonitor

PAGE = Path(__file__).parents[2] / "docs" / "training_loop.md"
CONFIG = load_config(WHOLE)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    parameters = list(net.parameters())
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True))


def trains(share: float = 0.5, seed: int = 0) -> list[Tensor]:
    """Spikes that enter the layers of `CONFIG`, time first, of the last with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    hidden = (torch.rand(5, 6, 64, generator=generator) < share).float()
    return [frames(seed), hidden.requires_grad_()]


@pytest.mark.parametrize("temperature", [None, 8.0, 0.5])
@pytest.mark.parametrize("style", STYLES)
def test_the_gradient_is_that_of_the_timing(style: Any, temperature: float | None) -> None:
    net = style().train()
    penalty = LatencyLoss(HARDWARE, weight=0.3, temperature=temperature)
    with LatencyMonitor(net, HARDWARE, gradient=True) as monitor:
        net.run(frames(1))
        assert penalty(monitor).item() == pytest.approx(0.3)
        with entering(net) as seen:
            net.run(frames(2))
        found = penalty(monitor)
    timing = TorchTiming(CONFIG, time_first=True, temperature=temperature)
    smooth = timing([torch.stack(steps) for steps in seen]).mean()
    first = penalty.get_extra_state()["reference_cycles"]
    for mine, expected in zip(
        gradients(net, found), gradients(net, 0.3 * smooth / first), strict=True
    ):
        assert (mine is None) == (expected is None)
        if mine is not None:
            torch.testing.assert_close(mine, expected)
    assert net.state_dict().keys() == style().state_dict().keys()
    timing.temperature = None
    exact = timing([torch.stack(steps) for steps in seen]).mean()
    assert penalty.cycles == exact  # the value is exact, however soft the gradient
    torch.testing.assert_close(found, 0.3 * exact / first)


def test_dropout_and_autocast_change_nothing() -> None:
    net = Hidden(nn.Dropout(0.5)).train()
    penalty = LatencyLoss(HARDWARE, weight=1.0, temperature=None)
    with LatencyMonitor(net, HARDWARE, gradient=True) as monitor, torch.random.fork_rng():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with entering(net, (nn.Conv2d, nn.Dropout)) as seen:
                net.run(frames(2))
            loss = penalty(monitor)
        loss.backward()
    timing = TorchTiming(CONFIG, time_first=True)
    expected = timing([torch.stack(steps[-5:]).flatten(2) for steps in seen]).mean()
    assert penalty.cycles == expected
    assert loss.dtype == torch.float32
    assert net[0].weight.grad is not None
    assert net[0].weight.grad.abs().max() > 0


def by_hand(values: list[float], every: int) -> Iterator[tuple[float, float, float]]:
    """The equations of the module, in plain numbers: loss, multiplier and penalty of each g."""
    m, r, before = 0.0, 1.0, math.inf
    window: list[float] = []
    for g in values:
        yield (max(0.0, m + r * g) ** 2 - m**2) / (2 * r), m, r
        window.append(g)
        if len(window) == every:
            mean, window = sum(window) / every, []
            stalled = mean > 0.9 * max(before, 0.0)
            moved = min(max(0.0, m + r * mean / 10), 1000.0)
            grown = min(2 * r, 100.0) if stalled and mean > 0.01 else r
            m, r, before = (moved if stalled or mean < 0 else m), grown, mean


def test_the_multiplier_follows_its_equation() -> None:
    timing = TorchTiming(CONFIG, time_first=True)
    shares = [0.9, 0.9, 0.8, 0.9, 0.9, 0.9, 0.5, 0.5, 0.2, 0.3, 0.0, 0.1, 0.6, 0.6, 0.7, 0.7] * 2
    batches = [trains(share, seed) for seed, share in enumerate(shares)]
    cycles = [timing(batch).mean().item() for batch in batches]
    budget = sum(cycles) / len(cycles)
    penalty = LatencyLoss(CONFIG, budget_us=budget / 100, update_every=2)
    g = [math.log(each / budget) for each in cycles]
    largest = 0.0
    for index, (batch, (loss, m, r)) in enumerate(zip(batches, by_hand(g, 2), strict=True)):
        state = penalty.get_extra_state()
        assert (state["multiplier"], state["penalty"]) == pytest.approx((m, r), rel=1e-3, abs=1e-6)
        found = penalty(batch)
        assert found.item() == pytest.approx(loss, rel=1e-3, abs=1e-6), index
        (gradient,) = torch.autograd.grad(found, batch[1])
        timing.temperature = 8.0
        (of_g,) = torch.autograd.grad(timing(batch).mean() / cycles[index], batch[1])
        timing.temperature = None
        torch.testing.assert_close(gradient, max(0.0, m + r * g[index]) * of_g, rtol=1e-3, atol=0)
        largest = max(largest, m)
    assert largest > 0
    assert 8 <= r <= 100
    with torch.no_grad():  # what has no gradient is not trained on
        before = penalty.get_extra_state()
        for batch in batches[:4]:
            penalty(batch)
        assert penalty.get_extra_state() == before


@pytest.mark.parametrize("settings", [{"weight": 0.5}, {"budget_us": 80.0, "update_every": 3}])
def test_the_state_dict_takes_it_up_again(settings: dict[str, Any]) -> None:
    whole, first = LatencyLoss(CONFIG, **settings), LatencyLoss(CONFIG, **settings)
    second = LatencyLoss(CONFIG, **settings)
    expected = [whole(trains(0.9 - 0.1 * seed, seed)) for seed in range(8)]
    for seed in range(4):
        first(trains(0.9 - 0.1 * seed, seed))
    file = io.BytesIO()
    torch.save(nn.ModuleDict({"loss": first}).state_dict(), file)
    file.seek(0)
    nn.ModuleDict({"loss": second}).load_state_dict(torch.load(file, weights_only=True))
    for seed in range(4, 8):
        torch.testing.assert_close(second(trains(0.9 - 0.1 * seed, seed)), expected[seed])
    assert second.get_extra_state() == whole.get_extra_state()


def test_half_precision_and_copies_keep_the_numbers() -> None:
    penalty = LatencyLoss(CONFIG, budget_us=80.0, update_every=1)
    for seed in range(3):
        penalty(trains(0.9, seed))
    before = penalty.get_extra_state()
    halved = copy.deepcopy(penalty).half()
    assert halved.get_extra_state() == before
    torch.testing.assert_close(halved(trains(0.9, 5)), penalty(trains(0.9, 5)))


def test_a_state_is_refused_or_leaves_no_reference_behind() -> None:
    unused = LatencyLoss(CONFIG, weight=0.5).state_dict()
    penalty = LatencyLoss(CONFIG, weight=0.5)
    penalty(trains(0.9))
    penalty.load_state_dict(unused)
    assert penalty(trains(0.2)).item() == pytest.approx(0.5)  # the first batch once more
    before = penalty.get_extra_state()
    with pytest.raises(PredictorError, match=r"^state: must be of a loss with weight, got one wi"):
        penalty.load_state_dict(LatencyLoss(CONFIG, budget_us=80.0).state_dict())
    for state in ({}, {**before, "penalty": None}, {**before, "batches": "some"}, None):
        with pytest.raises(PredictorError, match=r"^state: must be what get_extra_state of a L"):
            penalty.set_extra_state(state)  # type: ignore[arg-type]
    assert penalty.get_extra_state() == before


def test_weight_and_budget_may_change_but_not_their_kind() -> None:
    penalty, batch = LatencyLoss(CONFIG, weight=np.float32(0.5)), trains()
    assert penalty(batch).item() == pytest.approx(0.5)
    penalty.weight = 0.25
    assert penalty(batch).item() == pytest.approx(0.25)
    bound = LatencyLoss(CONFIG, budget_us=80.0)
    bound(batch)
    bound.budget_us = 76.0
    expected = LatencyLoss(CONFIG, budget_us=76)(batch).item()
    assert bound(batch).item() == pytest.approx(expected)
    assert expected > 0
    bound.budget_us = 2.0
    with pytest.raises(ConfigError, match=r"^budget_us: must be above the .* no neuron fires, got"):
        bound(batch)
    for loss, key, value, rule in (
        (penalty, "weight", None, "weight: must be a number above 0, got None"),
        (penalty, "budget_us", 80.0, "budget_us: cannot be set, for this loss was made with weig"),
        (bound, "budget_us", math.nan, "budget_us: must be a number above 0, got nan"),
        (bound, "weight", 1.0, "weight: cannot be set, for this loss was made with budget_us; "),
    ):
        with pytest.raises(InputError, match=f"^{rule}"):
            setattr(loss, key, value)
    assert (penalty.weight, penalty.budget_us) == (0.25, None)
    assert (bound.weight, bound.budget_us) == (None, 2.0)


def test_another_module_has_its_own_timing() -> None:
    wide = Hidden()
    wide[0] = nn.Conv2d(2, 4, 5, padding=2)
    shared = LatencyLoss(HARDWARE, weight=1.0)
    for net in (Hidden(), wide, Hidden()):
        with LatencyMonitor(net.train(), HARDWARE, gradient=True) as monitor:
            cycles = []
            for penalty in (shared, LatencyLoss(HARDWARE, weight=1.0)):
                net.run(frames(1))
                penalty(monitor)
                cycles.append(penalty.cycles)
        assert cycles[0] == cycles[1]


def test_a_section_goes_to_the_network_of_the_monitor() -> None:
    net = Explicit().train()
    slow = {"neural_cores": [1, 1], "clock_mhz": 50.0}
    on_slow, on_own = LatencyLoss(slow, weight=1.0), LatencyLoss(CONFIG, weight=1.0)
    with LatencyMonitor(net, HARDWARE, gradient=True) as monitor:
        for penalty in (on_own, on_slow):
            net.run(frames(1))
            penalty(monitor)
        assert on_slow.cycles > on_own.cycles
        net.run(frames(1))
        other = LatencyLoss({**WHOLE, "network": "4C3-MP4-10"}, weight=1.0)
        with pytest.raises(ConfigError, match=r"^network: must be that of the module, 4C3-MP2-10;"):
            other(monitor)
        net.run(frames(1))
        with pytest.raises(ConfigError, match=r"^hardware.neural_cores: "):
            LatencyLoss({"neural_cores": [1, 2, 3]}, weight=1.0)(monitor)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, r"^LatencyLoss: needs either weight or budget_us, got neither$"),
        ({"weight": 1.0, "budget_us": 1.0}, r"either weight or budget_us, got both$"),
        ({"weight": 0.0}, r"^weight: must be a number above 0, got 0.0$"),
        ({"weight": True}, r"^weight: must be a number above 0, got True$"),
        ({"budget_us": -3}, r"^budget_us: must be a number above 0, got -3$"),
        ({"budget_us": math.nan}, r"^budget_us: must be a number above 0, got nan$"),
        ({"weight": 1, "temperature": 0}, r"^temperature: must be a number above 0, got 0$"),
        ({"weight": 1, "update_every": 0}, r"^update_every: must be a whole number above 0, got 0"),
    ],
)
def test_settings_of_no_use_are_refused(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        LatencyLoss(HARDWARE, **settings)


def test_spikes_of_no_use_are_refused() -> None:
    penalty = LatencyLoss(CONFIG, weight=1.0)
    with pytest.raises(PredictorError, match=r"^spikes: must all be on one device, got cpu and m"):
        penalty([trains()[0], trains()[1].to("meta")])
    with pytest.raises(
        ValueError, match=r"^inputs must be 2 arrays, one per weighted layer, got 1"
    ):
        penalty(trains()[:1])
    with pytest.raises(ValueError, match=r"^inputs must be 2 arrays, one per weighted layer, got"):
        penalty(trains()[:1])
    with pytest.raises(PredictorError, match=r"^spikes: must be a tensor for each .* got none$"):
        penalty([])
    for given, kind in ((trains()[0], "Tensor"), (None, "NoneType"), ([None], "list")):
        with pytest.raises(PredictorError, match=rf"^spikes: must come from .*; got {kind}$"):
            penalty(given)
    with pytest.raises(ConfigError, match=r"^input.time_steps: must be those of the batch, 3; got"):
        LatencyLoss(CONFIG, weight=1.0)([each[:3] for each in trains()])
    rule = r"^hardware: must be a whole configuration to take spikes without a monitor; got the sec"
    with pytest.raises(ConfigError, match=rule):
        LatencyLoss(HARDWARE, weight=1.0)(trains())
    with pytest.raises(PredictorError, match=r"^monitor: must be made with gradient=True"):
        penalty(LatencyMonitor(Explicit(), HARDWARE))


def test_a_budget_that_no_training_can_reach_is_refused() -> None:
    rule = r"^budget_us: must be above the \d+\.\d+ us that inputs take when no neuron fires, got 2"
    with pytest.raises(ConfigError, match=rule):
        LatencyLoss(CONFIG, budget_us=2)(trains())


def digits() -> tuple[Tensor, Tensor]:
    """600 real digits of 8x8 pixels, whose grey values are rates."""
    found = load_digits()
    rates = 0.7 * torch.tensor(found.images[:600] / 16, dtype=torch.float32)
    chance = torch.rand(6, 600, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return (chance < rates[:, None]).float(), torch.tensor(found.target[:600])


def trained(**constraint: Any) -> tuple[float, float]:
    """Train 8C3-MP2-10 on digits; its accuracy and microseconds on what it was trained on."""
    sample, labels = digits()
    hardware = {"neural_cores": [8, 1]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), leaky(init_hidden=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 10), leaky(init_hidden=True),
        )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    penalty = LatencyLoss(hardware, **constraint) if constraint else None

    def outputs(part: Tensor) -> Tensor:
        for neuron in (net[1], net[-1]):
            neuron.reset_mem()
        return torch.stack([net(step) for step in part]).sum(0)

    with LatencyMonitor(net, hardware, samples=600, gradient=True, every=1) as monitor:
        for _ in range(12):
            for start in range(0, 600, 50):
                counts = outputs(sample[:, start : start + 50])
                loss = nn.functional.cross_entropy(counts, labels[start : start + 50])
                if penalty is not None:
                    loss = loss + penalty(monitor)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        net.eval()
        with torch.no_grad():
            accuracy = (outputs(sample).argmax(1) == labels).float().mean().item()
        return accuracy, monitor.estimate().microseconds


def test_a_training_on_real_digits_meets_its_budget() -> None:
    accuracy, plain = trained()
    constrained, reached = trained(budget_us=25.0)
    assert plain > 1.4 * 25
    assert 0.75 * 25 < reached < 1.01 * 25
    assert constrained > max(0.85, accuracy - 0.03)


@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*litlogger", "ignore:.*GPU available")
def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
