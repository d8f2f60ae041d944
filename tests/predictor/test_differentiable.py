"""The torch twin of the timing: equal on spikes, continuous between, and of use to a training loop.

That the exact timing is right is shown by test_timing.py, test_published.py and tests/rtl.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import snntorch as snn
import torch
from random_networks import random_case
from torch import Tensor, nn

from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError
from spikemeter.models.integer import network_spikes
from spikemeter.network import Layer
from spikemeter.predictor.differentiable import TorchTiming
from spikemeter.predictor.timing import timing_model

PAGE = Path(__file__).parents[2] / "docs" / "latency_loss.md"
MACHINES = (
    {"schedule": "layer_serial"},
    {"schedule": "step_pipelined", "taps_per_cycle": 9},
    {"backend": "published"},
)


def small_config(network: str = "4C3-MP2-5", steps: int = 3, **hardware: object) -> Config:
    return load_config(
        {
            "network": network,
            "input": {
                "height": 7, "width": 6, "channels": 2, "time_steps": steps,
                "statistics": [[0.0, 0.0]] * steps,
            },
            "hardware": {"encoder_width": 8, **hardware},
        }
    )  # fmt: skip


def shapes(config: Config, samples: int) -> list[tuple[int, ...]]:
    return [
        (samples, config.input.time_steps, x.in_channels, x.in_height, x.in_width)
        for x in config.layers
    ]


def random_trains(config: Config, seed: int, samples: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    density = rng.choice([0.0, 0.01, 0.05, 0.3, 1.0], size=(samples, 1, 1, 1, 1))
    return [rng.random(shape) < density for shape in shapes(config, samples)]


def relaxed_trains(config: Config, seed: int, samples: int = 2) -> list[Tensor]:
    """Anything between 0 and 1; from sample to sample less of it, down to under one spike."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(0.02, 1, samples).reshape(-1, 1, 1, 1, 1)
    return [
        torch.from_numpy(scale * rng.random(shape)).requires_grad_()
        for shape in shapes(config, samples)
    ]


def tensors(trains: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(train)).to(dtype) for train in trains]


def last_only(train: Tensor) -> Tensor:
    """Keep what is in the last pixel: on the engine, the last word or words."""
    kept = torch.zeros_like(train)
    kept[..., -1, -1] = train[..., -1, -1]
    return kept


@pytest.mark.parametrize("seed", range(40))
def test_spikes_cost_what_the_exact_timing_says(seed: int) -> None:
    case = random_case(seed, taps_per_cycle=9 if seed % 2 else 1)
    trains = network_spikes(case.network, case.inputs).inputs
    exact, timing = timing_model(case.config).trace(trains), TorchTiming(case.config)
    np.testing.assert_array_equal(timing.cycles(tensors(trains)), exact.cycles)
    np.testing.assert_array_equal(timing.layer_cycles(tensors(trains)), exact.layer_cycles)


@pytest.mark.parametrize("encoder_width", [8, 13, 32, 64])
@pytest.mark.parametrize("seed", range(3))
def test_so_does_the_published_machine(seed: int, encoder_width: int) -> None:
    config = small_config("6C3-MP2-7C3-20-9", backend="published", encoder_width=encoder_width)
    trains = random_trains(config, seed)
    exact, timing = timing_model(config).trace(trains), TorchTiming(config)
    np.testing.assert_array_equal(timing.cycles(tensors(trains)), exact.cycles)
    np.testing.assert_array_equal(timing.layer_cycles(tensors(trains)), exact.layer_cycles)


@pytest.mark.parametrize("schedule", ["layer_serial", "step_pipelined"])
def test_a_large_network_is_exact_to_float32(schedule: str) -> None:
    network = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP2-1064-200"
    config = load_config(
        {
            "network": network,
            "input": {"height": 32, "width": 32, "time_steps": 4, "statistics": [[0, 0]] * 4},
            "hardware": {"neural_cores": [3, 1, 5, 1, 1, 1, 1, 1, 1], "schedule": schedule},
        }
    )
    rng = np.random.default_rng(0)
    trains = [rng.random(shape) < 0.7 for shape in shapes(config, 1)]
    exact = timing_model(config).trace(trains)
    assert exact.cycles[0] > 2**25  # float32 no longer holds every whole number
    timing = TorchTiming(config)
    np.testing.assert_allclose(timing(tensors(trains)).numpy(), exact.cycles, rtol=1e-6)
    np.testing.assert_allclose(
        timing.layer_cycles(tensors(trains)).numpy(), exact.layer_cycles, rtol=1e-6
    )
    np.testing.assert_array_equal(timing(tensors(trains, torch.float64)), exact.cycles)


@pytest.mark.parametrize("hardware", MACHINES)
def test_autocast_and_half_precision_round_no_cycle(hardware: dict[str, str]) -> None:
    content = small_config(**hardware).model_dump()
    content["input"] |= {"height": 20, "width": 21}
    config = load_config(content)
    trains = random_trains(config, 1)
    trains[0][0] = True  # 420 spikes in a map: bfloat16 holds whole numbers up to 256
    exact = timing_model(config).trace(trains).cycles
    for dtype in (torch.bool, torch.bfloat16, torch.float16, torch.float32):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cycles = TorchTiming(config)(tensors(trains, dtype))
        assert cycles.dtype == torch.float32
        np.testing.assert_array_equal(cycles, exact)
    halved = TorchTiming(config).half()
    np.testing.assert_array_equal(halved(tensors(trains, torch.float16)), exact)
    assert halved.state_dict() == {}


@pytest.mark.parametrize("hardware", MACHINES)
def test_layouts_cost_the_same(hardware: dict[str, str]) -> None:
    config = small_config(**hardware)
    trains = tensors(random_trains(config, 2))
    expected = TorchTiming(config).layer_cycles(trains)
    flat = [train.flatten(2) for train in trains]
    turned = [train.transpose(0, 1) for train in trains]
    torch.testing.assert_close(TorchTiming(config).layer_cycles(flat), expected)
    time_first = TorchTiming(config, time_first=True)
    torch.testing.assert_close(time_first.layer_cycles(turned), expected)
    torch.testing.assert_close(time_first.layer_cycles([x.flatten(2) for x in turned]), expected)


def plain_taps(layer: Layer, row: int, column: int) -> int:
    if layer.kind == "dense":
        return 1
    return sum(
        0 <= row + layer.padding - ky < layer.out_height
        and 0 <= column + layer.padding - kx < layer.out_width
        for ky in range(layer.kernel)
        for kx in range(layer.kernel)
    )


def plain_step_cycles(
    layer: Layer, cores: int, width: int, spikes: np.ndarray, temperature: float | None
) -> float:
    """One step of the engine (LIF) by the equations of the module, input by input."""
    phases, words = -(-layer.out_channels // cores), -(-layer.inputs // width)
    terms = [0.0]
    for word in range(words):
        service = events = 0.0
        for index in range(word * width, layer.inputs):
            pixel, channel = divmod(index, layer.in_channels)
            row, column = divmod(pixel, layer.in_width)
            service += phases * plain_taps(layer, row, column) * spikes[channel, row, column]
            events += spikes[channel, row, column]
        late = max(0, 8 + word - (words + 3)) * min(1.0, events)
        terms.append(service + min(8 + word, words + 3) + late - (words + 3))
    wait = max(terms)
    if temperature is not None:
        wait += temperature * np.log(np.exp((np.array(terms) - wait) / temperature).sum())
    return words + 3 + wait + layer.out_height * layer.out_width * phases + 6


@pytest.mark.parametrize("temperature", [None, 0.5, 20.0])
@pytest.mark.parametrize("encoder_width", [8, 12, 64])
def test_relaxed_spikes_cost_what_the_equations_say(
    encoder_width: int, temperature: float | None
) -> None:
    config = small_config(encoder_width=encoder_width, neural_cores=[3, 2])
    trains = relaxed_trains(config, 3)
    layer_cycles = TorchTiming(config, temperature=temperature).layer_cycles(trains)
    for index, (layer, cores) in enumerate(zip(config.layers, config.neural_cores, strict=True)):
        for sample, train in enumerate(trains[index].detach().numpy()):
            expected = sum(
                plain_step_cycles(layer, cores, encoder_width, spikes, temperature)
                for spikes in train
            )
            assert layer_cycles[sample, index].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("part", [lambda train: train, last_only])
@pytest.mark.parametrize("temperature", [None, 3.0])
@pytest.mark.parametrize("hardware", MACHINES)
def test_the_gradient_is_the_derivative(hardware, temperature, part) -> None:
    config = small_config("2C3-MP2-3", steps=2, **hardware)
    timing = TorchTiming(config, temperature=temperature)
    trains = relaxed_trains(config, 4)
    assert torch.autograd.gradcheck(lambda *given: timing([part(x) for x in given]), trains)


@pytest.mark.parametrize("hardware", MACHINES)
def test_nothing_jumps_where_the_last_spikes_fade(hardware: dict[str, str]) -> None:
    config = small_config(**hardware)
    timing = TorchTiming(config)
    trains = [last_only(torch.ones(shape, dtype=torch.float64)) for shape in shapes(config, 1)]
    faded = [
        timing([amount * train for train in trains]).item() for amount in (1.0, 0.5, 1e-9, 0.0)
    ]
    assert faded[0] > faded[3]
    assert faded[0] >= faded[1] >= faded[2] >= faded[3]
    assert faded[2] - faded[3] < 1e-5


def test_the_gradient_is_the_service_that_the_step_waits_for() -> None:
    """A 1x1 frame of 32 channels in words of 8; only what is served last, or at once, counts."""
    config = load_config(
        {
            "network": "6", "input": {"height": 1, "width": 1, "channels": 32, "time_steps": 1,
                                      "statistics": [[0] * 32]},
            "hardware": {"encoder_width": 8, "neural_cores": [1]},
        }
    )  # fmt: skip
    train = torch.zeros(1, 1, 32)
    train[0, 0, [0, 24]] = 1  # word 0 is served before word 3 arrives
    spikes = train.clone().requires_grad_()
    TorchTiming(config)([spikes]).sum().backward()
    # 8 + 0 + 2 x 6 against 8 + 3 + 6: word 0 is what the step waits for, and all after it
    assert spikes.grad is not None
    assert spikes.grad.unique().tolist() == [6]

    config = load_config(config.model_dump() | {"hardware": {"encoder_width": 8}})  # 1 phase
    spikes = train.clone().requires_grad_()
    TorchTiming(config)([spikes]).sum().backward()
    # 8 + 0 + 2 against 8 + 3 + 1: word 3
    assert spikes.grad is not None
    assert spikes.grad[0, 0].tolist() == [0] * 24 + [1] * 8

    silent = torch.zeros(1, 1, 32, requires_grad=True)
    TorchTiming(config)([silent]).sum().backward()
    assert silent.grad is not None
    assert not silent.grad.any()


@pytest.mark.parametrize("seed", range(10))
def test_the_gradient_never_promises_too_little(seed: int) -> None:
    """Removing spikes saves at most, and adding some costs at least, what the gradient says."""
    case = random_case(seed)
    content = case.config.model_dump()
    content["hardware"]["schedule"] = "layer_serial"
    config = load_config(content)
    before = tensors(network_spikes(case.network, case.inputs).inputs, torch.float64)
    before = [train.requires_grad_() for train in before]
    cycles = TorchTiming(config)(before)
    cycles.sum().backward()
    rng = np.random.default_rng(seed)
    last_words = 4 * config.input.time_steps * len(config.layers)  # up to 4 cycles a step
    for share in (0.01, 0.2, 0.9):
        after = [(rng.random(train.shape) < share) ^ train.detach().numpy().astype(bool)
                 for train in before]  # fmt: skip
        change = sum(
            ((torch.from_numpy(new).double() - old.detach()) * old.grad).flatten(1).sum(1)
            for new, old in zip(after, before, strict=True)
        )
        exact = torch.from_numpy(timing_model(config).trace(after).cycles)
        assert (exact >= cycles.detach() + change - last_words).all()


@pytest.mark.parametrize("hardware", MACHINES)
def test_a_temperature_bounds_from_above_and_converges(hardware: dict[str, str]) -> None:
    config = small_config("4C3-6C3-MP2-5", **hardware)
    trains = tensors(random_trains(config, 5, samples=6), torch.float64)
    timing = TorchTiming(config)
    exact, before = timing(trains), None
    for temperature in (64.0, 8.0, 1.0, 0.05):
        timing.temperature = temperature
        smooth = timing(trains)
        assert (smooth >= exact).all()
        assert before is None or (smooth <= before).all()
        before = smooth
        steps, layers = config.input.time_steps, config.layers
        if "backend" in hardware:
            convs = [
                (layer.in_channels, -(-layer.out_channels // cores))
                for layer, cores in zip(layers, config.neural_cores, strict=True)
                if layer.kind == "conv"
            ]
            most = steps * sum(channels * phases for channels, phases in convs) * np.log(2)
        else:
            most = steps * sum(np.log(-(-layer.inputs // 8) + 1) for layer in layers)
            if hardware["schedule"] == "step_pipelined":
                most += np.log(10)  # paths through 3 layers and 3 steps: comb(4, 2), and more
        assert (smooth <= exact + temperature * most).all()
    timing.temperature = None
    torch.testing.assert_close(timing(trains), exact, rtol=0, atol=0)


def test_a_temperature_gives_spikes_behind_the_scan_a_gradient() -> None:
    config = small_config("2C3-MP2-3", neural_cores=[2, 3])
    trains = [torch.zeros(shape) for shape in shapes(config, 1)]
    trains[0][0, 0, 0, 0, 0] = 1  # served long before the scan is over
    gradients = []
    for temperature in (None, 4.0):
        spikes = trains[0].clone().requires_grad_()
        TorchTiming(config, temperature=temperature)([spikes, trains[1]]).sum().backward()
        assert spikes.grad is not None
        gradients.append(spikes.grad)
    assert not gradients[0].any()
    assert (gradients[1] > 0).all()


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    rule = r"temperature must be a number above 0 or None, got"
    with pytest.raises(ValueError, match=rule):
        TorchTiming(small_config(), temperature=temperature)
    timing = TorchTiming(small_config())
    with pytest.raises(ValueError, match=rule):
        timing.temperature = temperature


def test_a_machine_without_such_a_timing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikemeter.predictor.differentiable.timing_model", lambda config: None)
    with pytest.raises(ConfigError, match=r"^hardware.backend: must be engine or published for a"):
        TorchTiming(small_config())


@pytest.mark.parametrize("hardware", MACHINES)
def test_arrays_that_do_not_fit_are_named(hardware: dict[str, str]) -> None:
    config = small_config(**hardware)
    timing = TorchTiming(config)
    trains = tensors(random_trains(config, 0))
    with pytest.raises(ValueError, match=r"^inputs must be 2 arrays, one per weighted layer, go"):
        timing(trains[:1])
    rule = (
        r"^inputs_1 must have shape \(samples, 3, 36\) or \(samples, 3, 4, 3, 3\), got \(3, 3, 3, 3"
    )
    with pytest.raises(ValueError, match=rule):
        timing([trains[0], trains[1][:, :, :3]])
    for wrong in (trains[0][:, :2], trains[0][:, 0, 0], trains[0][0, 0, 0]):
        with pytest.raises(ValueError, match=r"^inputs_0 must have shape \(samples, 3, 84\) or"):
            timing([wrong, trains[1]])
    rule = r"^inputs_1 must hold one sample or more, as many as layer 0, got 2"
    with pytest.raises(ValueError, match=rule):
        timing([trains[0], trains[1][:2]])
    with pytest.raises(ValueError, match=r"^inputs_0 must hold one sample or more, .* got 0"):
        timing([train[:0] for train in trains])
    rule = r"^inputs_0 must have shape \(3, samples, 84\) or .*, got \(2, 3, 2, 7, 6\)"
    with pytest.raises(ValueError, match=rule):
        TorchTiming(config, time_first=True)([train[:2] for train in trains])


@pytest.mark.parametrize(
    ("hardware", "network", "backend"),
    [
        (MACHINES[0], "2C3-MP2-3", "aot_eager"),
        (MACHINES[1], "3-2", "inductor"),  # generates and compiles C++, so as little as possible
        (MACHINES[2], "2C3-MP2-3", "aot_eager"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_it_says_the_same(hardware: dict[str, str], network: str, backend: str) -> None:
    config = small_config(network, steps=2, **hardware)
    timing = TorchTiming(config)
    trains = relaxed_trains(config, 6)
    torch.compiler.reset()
    compiled = torch.compile(timing, fullgraph=True, backend=backend)
    found, expected = compiled(trains), timing(trains)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), trains), torch.autograd.grad(expected.sum(), trains)
    )
    torch.compiler.reset()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("temperature", [None, 3.0])
@pytest.mark.parametrize("hardware", MACHINES)
def test_on_a_gpu_it_says_the_same(hardware: dict[str, str], temperature: float | None) -> None:
    config = small_config("4C3-6C3-MP2-5", **hardware)
    trains = random_trains(config, 7, samples=6)
    timing = TorchTiming(config, temperature=temperature).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        cycles = timing([train.cuda() for train in tensors(trains)])
    assert cycles.device.type == "cuda"
    assert cycles.dtype == torch.float32
    if temperature is None:
        exact = timing_model(config).trace(trains).cycles
        np.testing.assert_allclose(cycles.cpu().numpy(), exact, rtol=1e-5)
    relaxed = relaxed_trains(config, 7)
    on_gpu = [train.detach().cuda().requires_grad_() for train in relaxed]
    expected = TorchTiming(config, temperature=temperature)(relaxed)
    found = timing(on_gpu)
    torch.testing.assert_close(found.cpu(), expected)
    torch.testing.assert_close(
        [grad.cpu() for grad in torch.autograd.grad(found.sum(), on_gpu)],
        list(torch.autograd.grad(expected.sum(), relaxed)),
    )


class SmallNetwork(nn.Module):
    """8C3-MP2-6-3 in snnTorch; returns the spikes that enter each weighted layer."""

    def __init__(self) -> None:
        super().__init__()
        gradient = snn.surrogate.fast_sigmoid(slope=5)
        self.conv, self.dense = nn.Conv2d(2, 8, 3, padding=1), nn.Linear(8 * 3 * 3, 6)
        self.neurons = [snn.Leaky(beta=0.9, spike_grad=gradient) for _ in range(2)]
        for neuron in self.neurons:
            snn.SpikingNeuron.instances.remove(neuron)

    def forward(self, frames: Tensor) -> list[Tensor]:
        membranes = [neuron.reset_mem() for neuron in self.neurons]
        pooled, hidden = [], []
        for frame in frames:
            spikes, membranes[0] = self.neurons[0](2 * self.conv(frame), membranes[0])
            pooled.append(nn.functional.max_pool2d(spikes, 2))
            spikes, membranes[1] = self.neurons[1](
                2 * self.dense(pooled[-1].flatten(1)), membranes[1]
            )
            hidden.append(spikes)
        return [frames, torch.stack(pooled), torch.stack(hidden)]


@pytest.mark.parametrize("temperature", [None, 8.0])
@pytest.mark.parametrize("hardware", MACHINES)
def test_descent_on_cycles_lowers_the_true_cycles(
    hardware: dict[str, str], temperature: float | None
) -> None:
    config = small_config("8C3-MP2-6-3", steps=4, neural_cores=[1, 1, 1], **hardware)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallNetwork()
        frames = (torch.rand(4, 8, 2, 7, 6) < 0.3).float()
    timing = TorchTiming(config, time_first=True, temperature=temperature)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    true_cycles = []
    for _ in range(6):
        inputs = network(frames)
        hard = [train.detach().transpose(0, 1).numpy().astype(bool) for train in inputs]
        true_cycles.append(timing_model(config).trace(hard).cycles.mean())
        optimiser.zero_grad()
        timing(inputs).mean().backward()
        optimiser.step()
        if len(true_cycles) == 1:  # later, layers may be silent
            for weighted in (network.conv, network.dense):
                assert weighted.weight.grad is not None
                assert weighted.weight.grad.abs().max() > 0
    assert (np.diff(true_cycles) < 0).all()
    silent = [hard[0], *[np.zeros_like(train) for train in hard[1:]]]
    least = timing_model(config).trace(silent).cycles.mean()  # the input costs what it costs
    assert true_cycles[-1] - least < 0.2 * (true_cycles[0] - least)


def test_the_example_of_the_page_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    listed = list(snn.SpikingNeuron.instances)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(example, names)
    snn.SpikingNeuron.instances[:] = listed
    conv = names["conv"]
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.grad is not None
    assert conv.weight.grad.abs().max() > 0
