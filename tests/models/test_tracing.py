from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from brevitas.quant import Int8WeightPerTensorFloat
from torch import Tensor, nn

from spikemeter.errors import ConfigError, InputError
from spikemeter.models.imported import ImportedNetwork
from spikemeter.models.integer import network_spikes
from spikemeter.models.tracing import from_module
from spikemeter.predictor import predict_latency

STEPS, BATCH = 6, 3


def spikes(*shape: int, seed: int = 0, share: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(STEPS, BATCH, *shape, generator=generator) < share).float()


SAMPLE = spikes(2, 8, 8)


def lively(module: nn.Module) -> nn.Module:
    """Weights that make neurons fire, and running statistics that are not trivial."""
    generator = torch.Generator().manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            noise = torch.randn(part.weight.shape, generator=generator)
            part.weight.data = (noise + 0.1) * 1.5 / fan_in**0.5
            if part.bias is not None:
                part.bias.data.uniform_(-0.1, 0.2, generator=generator)
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            part.running_mean.uniform_(-0.3, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            part.weight.data.uniform_(0.7, 1.5, generator=generator)
            part.bias.data.uniform_(-0.1, 0.3, generator=generator)
    return module


def leaky(beta: float = 0.875, **settings: Any) -> snn.Leaky:
    return snn.Leaky(beta=beta, **{"init_hidden": True, **settings})


def sequential(**changes: nn.Module) -> nn.Sequential:
    """4C3-MP2-10 with batch normalisation; changes replace parts."""
    parts: dict[str, nn.Module] = {
        "conv": nn.Conv2d(2, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "lif1": leaky(),
        "pool": nn.MaxPool2d(2),
        "drop": nn.Dropout(0.5),
        "flat": nn.Flatten(),
        "fc": nn.Linear(64, 10),
        "lif2": leaky(0.5, output=True),
    }
    net = nn.Sequential()
    for name, part in {**parts, **changes}.items():
        net.add_module(name, part)
    return lively(net)


class Looping(nn.Module):
    """Explicit states, functions instead of modules, a loop over time inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {"conv": nn.Conv2d(2, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
        )
        self.lif1 = snn.Leaky(beta=0.875)
        self.head = nn.Linear(64, 10)
        self.lif2 = snn.Leaky(beta=0.5)

    def forward(self, sample: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in sample:
            current = self.body["norm"](self.body["conv"](step))
            spk1, mem1 = self.lif1(current, mem1)
            pooled = F.max_pool2d(spk1, 2)
            spk2, mem2 = self.lif2(self.head(pooled.view(len(pooled), -1)), mem=mem2)
            out.append(spk2)
        return torch.stack(out)


def expected_outputs(net: nn.Sequential) -> np.ndarray:
    net.eval()
    for part in net:
        if isinstance(part, snn.SpikingNeuron):
            part.reset_mem()
    with torch.no_grad():
        out = torch.stack([net(step)[0] for step in SAMPLE]).transpose(0, 1).numpy() > 0
    net.train()
    return out


def test_a_module_of_hidden_states_is_found_whole() -> None:
    net = sequential()
    found = from_module(net, SAMPLE)
    assert found.config.network == "4C3-MP2-10"
    assert found.modules == ("conv", "fc")
    assert found.config.input.time_steps == STEPS
    np.testing.assert_array_equal(found.frames, SAMPLE.transpose(0, 1).numpy() > 0)
    np.testing.assert_array_equal(found.spikes["outputs"], expected_outputs(net))
    assert found.spikes["inputs_1"].shape == (BATCH, STEPS, 64)
    assert found.input_rates == pytest.approx([x.mean() for x in list(found.spikes.values())[:2]])
    assert 0.02 < found.firing_rates[0] < 0.8
    assert not found.quantised


def test_loops_states_and_functions_make_no_difference() -> None:
    net, other = sequential(), Looping()
    other.body["conv"].load_state_dict(net.conv.state_dict())
    other.body["norm"].load_state_dict(net.norm.state_dict())
    other.head.load_state_dict(net.fc.state_dict())
    found, again = from_module(net, SAMPLE), from_module(other, SAMPLE)
    assert again.modules == ("body.conv", "head")
    assert again.config == found.config
    for name, train in found.spikes.items():
        np.testing.assert_array_equal(again.spikes[name], train)
    for one, two in zip(found.network.layers, again.network.layers, strict=True):
        np.testing.assert_array_equal(one.weight, two.weight)
        np.testing.assert_array_equal(one.bias, two.bias)


def test_a_forward_of_your_own_says_how_a_module_is_run() -> None:
    net = Looping()
    swapped = nn.Module()
    swapped.net = lively(net)
    found = from_module(swapped, SAMPLE, forward=lambda sample: net(sample))
    assert found.modules == ("net.body.conv", "net.head")
    with pytest.raises(ConfigError, match=r"module: Module runs neither .* give forward"):
        from_module(swapped, SAMPLE)


def test_the_module_is_left_as_it_was_found() -> None:
    net = sequential()
    net.conv.eval()
    net(torch.rand(5, 2, 8, 8))  # leaves membranes with a graph behind them
    state = {name: value.clone() for name, value in net.state_dict().items()}
    mems = [net.lif1.mem, net.lif2.mem]
    generator, instances = torch.get_rng_state(), list(snn.SpikingNeuron.instances)
    from_module(net, SAMPLE)
    assert [part.training for part in net] == [False] + [True] * 7
    assert net.lif1.mem is mems[0]
    assert net.lif2.mem is mems[1]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert snn.SpikingNeuron.instances == instances
    assert not any(part._forward_hooks for part in net.modules())


def test_a_refused_module_is_left_as_it_was_found_too() -> None:
    net = sequential(pool=nn.AvgPool2d(2))
    with pytest.raises(ConfigError):
        from_module(net, SAMPLE)
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize(
    "neurons",
    [
        {},
        {"lif1": leaky(0.5, threshold=0.6), "lif2": leaky(0.875, threshold=1.4)},
        {
            "lif1": leaky(reset_mechanism="zero"),
            "lif2": leaky(reset_mechanism="zero", reset_delay=False),
        },
        {
            "lif1": snn.Lapicque(R=5.0, C=2.0, threshold=0.4, init_hidden=True),
            "lif2": snn.Lapicque(beta=0.8, threshold=0.2, init_hidden=True),
        },
    ],
)
def test_the_integer_network_fires_as_a_module_whose_weights_it_can_hold(
    neurons: dict[str, nn.Module],
) -> None:
    net = on_grid(sequential(norm=nn.Identity(), **neurons), bits=8)
    sample = torch.cat([spikes(2, 8, 8, seed=seed) for seed in range(10)], dim=1)
    found = from_module(net, sample, weight_bits=8)
    again = from_module(net, sample, weight_bits=8, quantised=True)
    assert again.quantised
    assert 0.02 < found.spikes["outputs"].mean() < 0.98
    assert (found.spikes["outputs"] == again.spikes["outputs"]).mean() > 0.99
    assert again.firing_rates == pytest.approx(found.firing_rates, rel=0.01)
    trains = network_spikes(again.network, again.frames)
    np.testing.assert_array_equal(trains.outputs, again.spikes["outputs"])


def on_grid(net: nn.Sequential, bits: int) -> nn.Sequential:
    for part in (net.conv, net.fc):
        scale = part.weight.data.abs().max() / (2 ** (bits - 1) - 1)
        part.weight.data = torch.round(part.weight.data / scale) * scale
    return net


def test_batch_normalisation_is_folded_into_weights_and_bias() -> None:
    net = sequential()
    norm = net.norm
    gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    folded = sequential(norm=nn.Identity())
    folded.conv.weight.data = net.conv.weight.data * gain.reshape(-1, 1, 1, 1)
    folded.conv.bias.data = (net.conv.bias.data - norm.running_mean) * gain + norm.bias.data
    folded.fc.load_state_dict(net.fc.state_dict())
    one, two = (
        from_module(each, SAMPLE, weight_bits=8).network.layers[0] for each in (net, folded)
    )
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_allclose(one.bias, two.bias, atol=1)
    assert one.threshold == two.threshold


def test_constants_differ_from_layer_to_layer_and_the_configuration_has_their_mean() -> None:
    net = sequential(lif1=leaky(0.5, threshold=0.6), lif2=leaky(0.75, threshold=1.4))
    found = from_module(net, SAMPLE)
    assert [layer.decay for layer in found.network.layers] == [128, 192]
    assert found.config.neuron.beta == 0.625
    assert found.config.neuron.threshold == pytest.approx(1.0)


def test_lapicque_neurons_keep_decay_and_gain() -> None:
    lapicque = snn.Lapicque(R=5.0, C=2.0, time_step=0.5, threshold=0.4, init_hidden=True)
    net = sequential(lif1=lapicque, lif2=snn.Lapicque(beta=0.8, init_hidden=True))
    layers = from_module(net, SAMPLE).network.layers
    assert layers[0].decay == round((1 - 0.5 / 10) * 65536)
    assert layers[1].decay == pytest.approx((1 + np.log(0.8)) * 65536, abs=1)


def test_weights_that_are_quantised_already_are_taken_as_they_are() -> None:
    weights = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 4, "bias": True}
    net = sequential(
        conv=qnn.QuantConv2d(2, 4, 3, padding=1, **weights),
        norm=nn.Identity(),
        fc=qnn.QuantLinear(64, 10, **weights),
    )
    for bits in (4, 6):
        layers = from_module(net, SAMPLE, weight_bits=bits).network.layers
        for layer, part in zip(layers, (net.conv, net.fc), strict=True):
            np.testing.assert_array_equal(layer.weight, part.quant_weight().int().numpy())
    rough = from_module(net, SAMPLE, weight_bits=2).network.layers
    assert abs(rough[0].weight).max() == 1


def test_kernels_paddings_and_dense_rows_come_through() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 5, padding="same"), leaky(),
        nn.Conv2d(3, 4, 3, bias=False), leaky(),
        nn.Conv2d(4, 5, 1), leaky(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(5, 6), leaky(), nn.Linear(6, 4), leaky(),
    )  # fmt: skip
    found = from_module(lively(net), SAMPLE, hardware={"neural_cores": [1, 2, 3, 6, 4]})
    assert found.config.network == "3C5-4C3v-5C1-MP4-6-4"
    assert found.config.neural_cores == (1, 2, 3, 6, 4)
    assert found.modules == ("0", "2", "4", "8", "10")


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((2, 4, 4), None, (2, 4, 4)),
        ((4, 8), None, (1, 4, 8)),
        ((32,), None, (32, 1, 1)),
        ((32,), (2, 4, 4), (2, 4, 4)),
    ],
)
def test_a_linear_first_layer_has_the_frames_of_the_sample(
    shape: tuple[int, ...], given: tuple[int, int, int] | None, expected: tuple[int, int, int]
) -> None:
    net = lively(nn.Sequential(nn.Flatten(), nn.Linear(32, 5), leaky()))
    found = from_module(net, spikes(*shape), input_shape=given)
    assert found.frames.shape == (BATCH, STEPS, *expected)
    assert found.spikes["inputs_0"].shape == (BATCH, STEPS, 32)


class Skipping(nn.Module):
    """A skip connection whose neurons are silent on any sample."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(128, 16), leaky(threshold=90.0)
        self.fc2, self.lif2 = nn.Linear(16, 16), leaky()
        self.fc3, self.lif3 = nn.Linear(16, 10), leaky()

    def forward(self, step: Tensor) -> Tensor:
        first = self.lif1(self.fc1(step.flatten(1)))
        second = self.lif2(self.fc2(first)) + first
        return self.lif3(self.fc3(second))


class Feedback(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(128, 128), leaky()
        self.last: Tensor | None = None

    def forward(self, step: Tensor) -> Tensor:
        entering = step.flatten(1)
        if self.last is not None:
            entering = torch.maximum(entering, self.last)
        self.last = self.lif(self.fc(entering))
        return self.last


class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(128, 10), leaky()

    def forward(self, step: Tensor) -> Tensor:
        self.lif.reset_mem()
        return self.lif(self.fc(step.flatten(1)))


class Sharing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.lif = nn.Linear(128, 10), nn.Linear(10, 10), leaky()

    def forward(self, step: Tensor) -> Tensor:
        return self.lif(self.fc2(self.lif(self.fc1(step.flatten(1)))))


REFUSALS: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("stride", lambda: sequential(conv=nn.Conv2d(2, 4, 3, stride=2, padding=1),
                                  fc=nn.Linear(16, 10)),
     r"'conv' \(Conv2d\): its stride must be 1, got \(2, 2\)"),
    ("groups", lambda: sequential(conv=nn.Conv2d(2, 4, 3, padding=1, groups=2)),
     r"'conv' \(Conv2d\): its groups must be 1, got 2"),
    ("dilation", lambda: sequential(conv=nn.Conv2d(2, 4, 3, padding=2, dilation=2)),
     r"'conv' \(Conv2d\): its dilation must be 1, got \(2, 2\)"),
    ("kernel", lambda: sequential(conv=nn.Conv2d(2, 4, 7, padding=3)),
     r"'conv' \(Conv2d\): its kernel must be square with a side of 1, 3, 5, got \(7, 7\)"),
    ("padding", lambda: sequential(conv=nn.Conv2d(2, 4, 5, padding=1), fc=nn.Linear(36, 10)),
     r"'conv' \(Conv2d\): its padding must be 2, which keeps the size, or 0, got \(1, 1\)"),
    ("padding mode", lambda: sequential(conv=nn.Conv2d(2, 4, 3, padding=1,
                                                       padding_mode="circular")),
     r"'conv' \(Conv2d\): it must pad with zeros, got 'circular'"),
    ("average pooling", lambda: sequential(pool=nn.AvgPool2d(2)),
     r"'fc' \(Linear\): .* spikes of 'lif1' .*'pool' \(AvgPool2d\): averages of spikes"),
    ("wide pooling", lambda: sequential(pool=nn.MaxPool2d(3), fc=nn.Linear(16, 10)),
     r"'fc' \(Linear\): .*'pool' \(MaxPool2d\): .*2x2 or 4x4"),
    ("pooled currents", lambda: sequential(norm=nn.MaxPool2d(2), pool=nn.Identity()),
     r"'lif1' \(Leaky\): .* output of 'conv' .*'norm' \(MaxPool2d\): max pooling stands behind"),
    ("unknown layer", lambda: sequential(norm=nn.GroupNorm(2, 4)),
     r"'lif1' \(Leaky\): .*'norm' \(GroupNorm\): the hardware has no such layer"),
    ("batch statistics", lambda: sequential(norm=nn.BatchNorm2d(4, track_running_stats=False)),
     r"'norm' \(BatchNorm2d\): must track running statistics"),
    ("recurrent neurons", lambda: sequential(lif2=snn.RLeaky(0.5, linear_features=10,
                                                            init_hidden=True)),
     r"'lif2' \(RLeaky\): neurons must be snn.Leaky or snn.Lapicque"),
    ("second order", lambda: sequential(lif1=snn.Synaptic(alpha=0.5, beta=0.5, init_hidden=True)),
     r"'lif1' \(Synaptic\): neurons must be"),
    ("beta of each neuron", lambda: sequential(lif2=leaky(torch.linspace(0.2, 0.9, 10),
                                                              learn_beta=True)),
     r"'lif2' \(Leaky\): beta must be the same for all neurons of a layer, got 0\.2 to 0\.9"),
    ("no decay at all", lambda: sequential(lif2=leaky(0.0)),
     r"'lif2' \(Leaky\): beta: should be greater than 0, got 0"),
    ("no reset", lambda: sequential(lif2=leaky(reset_mechanism="none")),
     r"'lif2' \(Leaky\): its reset_mechanism must be subtract or zero"),
    ("early reset", lambda: sequential(lif1=leaky(reset_delay=False)),
     r"'lif1' \(Leaky\): reset_delay must be True to subtract"),
    ("graded spikes", lambda: sequential(lif1=leaky(graded_spikes_factor=2.0)),
     r"'lif1' \(Leaky\): graded_spikes_factor must be 1"),
    ("several models", lambda: sequential(lif2=snn.Lapicque(R=5.0, C=2.0, init_hidden=True)),
     r"'fc': model of its neurons must be lif, as in 'conv'.*got lapicque"),
    ("no neurons at the end", lambda: sequential(lif2=nn.Identity()),
     r"'fc' \(Linear\): spiking neurons must stand behind every weighted layer"),
    ("no neurons in between", lambda: sequential(lif1=nn.Identity()),
     r"'lif2' \(Leaky\): what enters must be the output of 'conv'"),
    ("a convolution at the end", lambda: nn.Sequential(nn.Conv2d(2, 3, 3), leaky()),
     "network: the last layer must be dense"),
    ("skip connection", lambda: lively(Skipping()),
     r"'fc3' \(Linear\): what enters must be the spikes of 'lif2' \(Leaky\), .*skip connections"),
    ("feedback", lambda: lively(Feedback()), r"'fc' \(Linear\): .* there is no feedback"),
    ("membranes that are reset", lambda: lively(Forgetful()),
     r"'lif' \(Leaky\): must fire as a plain neuron .* give forward"),
    ("shared neurons", lambda: lively(Sharing()),
     r"'lif' \(Leaky\): must run once in each of the 6 time steps.*it ran 12 times"),
    ("quantised inputs", lambda: sequential(conv=Scaling(2, 4, 3, padding=1)),
     r"'conv' \(Scaling\): must do no more than weigh and sum"),
    ("no neurons", lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 10), nn.ReLU()),
     r"'1' \(Linear\): spiking neurons must stand behind every weighted layer"),
    ("no weights", lambda: nn.Sequential(nn.Flatten()), "module: Sequential has no weights"),
]  # fmt: skip


class Scaling(nn.Conv2d):
    def forward(self, entered: Tensor) -> Tensor:
        return 2 * super().forward(entered)


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_what_the_hardware_cannot_express_is_refused_by_name(
    make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_module(make(), SAMPLE)


def test_direct_coding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'conv' \(Conv2d\): only spikes, 0 or 1, .*got 0\.7;"):
        from_module(sequential(), SAMPLE * 0.7)


@pytest.mark.parametrize("sample", [torch.zeros(4, 2), torch.zeros(0, 1, 2, 8, 8)])
def test_a_sample_without_steps_and_batch_is_refused(sample: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"sample: must have shape \(time_steps, batch, \.\.\.\)"):
        from_module(sequential(), sample)


def raising(sample: Tensor) -> None:
    raise ZeroDivisionError("by nothing\nat all")


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"module": raising}, "module: must be a torch.nn.Module, got function"),
    ({"module": None}, "module: must be a torch.nn.Module, got NoneType"),
    ({"sample": None}, "sample: must be a tensor or an array of numbers, got None"),
    ({"sample": "spikes"}, "sample: must be a tensor or an array of numbers, got str 'spikes'"),
    ({"sample": np.full((2, 1, 2, 8, 8), None)}, "sample: .* got an array of object"),
    ({"sample": SAMPLE * 1j}, "sample: .* of real numbers, got torch.complex64"),
    ({"forward": 3}, "forward: must be a function that runs .*, got int 3"),
    ({"forward": raising}, "forward: must run .* it raised ZeroDivisionError: by nothing$"),
    ({"hardware": "engine"}, "hardware: must be a section of a configuration, .*; got 'engine'"),
    ({"hardware": [1]}, r"hardware: must be a section .*; got \[1\]"),
    ({"hardware": {"cores": 1}}, r"unknown key 'hardware\.cores'"),
    ({"input_shape": "abc"}, "input_shape: must be channels, height and width, .*; got 'abc'"),
    ({"input_shape": (2, 8)}, r"input_shape: must be .* three whole numbers .*; got \(2, 8\)"),
    ({"input_shape": (2, 8, 0)}, r"input_shape: must be .* above 0; got \(2, 8, 0\)"),
    ({"weight_bits": "many"}, r"training\.weight_bits: "),
]


@pytest.mark.parametrize(
    ("change", "message"), ARGUMENTS, ids=[message[:32] for _, message in ARGUMENTS]
)
def test_arguments_of_no_use_are_refused_in_one_sentence(
    change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"module": sequential(), "sample": SAMPLE, **change}
    with pytest.raises(InputError, match=message) as caught:
        from_module(**arguments)
    assert "\n" not in str(caught.value)


class Choosy(nn.Module):
    """Runs on its own spikes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(128, 10), leaky(threshold=90.0)

    def forward(self, step: Tensor) -> Tensor:
        fired: Tensor = self.lif(self.fc(step.flatten(1)))
        if fired.any():
            raise ValueError("too lively")
        return fired


def test_a_module_that_raises_on_random_spikes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"module: Choosy .* raised ValueError: too lively"):
        from_module(lively(Choosy()), SAMPLE)


def changed(key: str, value: float) -> nn.Module:
    net = sequential()
    part, _, name = key.partition(".")
    with torch.no_grad():
        getattr(getattr(net, part), name).flatten()[0] = value
    return net


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "key", ["conv.weight", "conv.bias", "fc.weight", "norm.running_var", "norm.weight"]
)
def test_weights_that_are_no_numbers_are_refused_as_such(key: str, value: float) -> None:
    part, _, name = key.partition(".")
    with pytest.raises(
        ConfigError, match=rf"'{part}' \(.*\): its {name} must be finite, got {value}"
    ):
        from_module(changed(key, value), SAMPLE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["beta", "threshold"])
def test_constants_that_are_no_numbers_are_refused_as_such(key: str, value: float) -> None:
    net = sequential(lif2=leaky(**{key: value}))
    with pytest.raises(ConfigError, match=rf"'lif2' \(Leaky\): {key} must be finite, got {value}"):
        from_module(net, SAMPLE)


@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.uint8])
def test_an_array_may_be_read_only_and_in_any_order(dtype: type[np.generic]) -> None:
    net, array = sequential(), SAMPLE.numpy().astype(dtype)
    array.setflags(write=False)
    found = from_module(net, array)  # a warning would be an error
    np.testing.assert_array_equal(found.spikes["outputs"], expected_outputs(net))
    from_module(net, array[::-1, :, :, ::-1])


def test_a_frame_that_does_not_hold_the_inputs_is_refused() -> None:
    net = nn.Sequential(nn.Linear(32, 5), leaky())
    with pytest.raises(ConfigError, match=r"input_shape: must be .*got \(2, 4, 5\)"):
        from_module(net, spikes(32), input_shape=(2, 4, 5))


def test_membranes_too_narrow_for_a_threshold_are_refused() -> None:
    net = sequential(lif1=leaky(threshold=0.1), lif2=leaky(threshold=60.0))
    with pytest.raises(ConfigError, match=r"hardware\.membrane_bits: .*'fc'.*got 8 bits"):
        from_module(net, SAMPLE, weight_bits=8, hardware={"membrane_bits": 8})


def test_one_step_and_one_sample_are_enough() -> None:
    net = sequential()
    assert from_module(net, SAMPLE[:1, :1]).frames.shape == (1, 1, 2, 8, 8)
    dense = lively(nn.Sequential(nn.Linear(32, 5), leaky()))
    assert from_module(dense, spikes(32)[:1, :1]).frames.shape == (1, 1, 32, 1, 1)


def check_in_rtl(found: ImportedNetwork) -> None:
    from spikemeter.rtl import check_spikes, simulate

    estimate = predict_latency(found.config, spikes=found.spikes)
    simulation = simulate(found.config, found.network, found.frames)
    check_spikes(simulation, network_spikes(found.network, found.frames), found.config.layers)
    assert estimate.fidelity == "trace"
    np.testing.assert_array_equal(simulation.cycles, estimate.sample_cycles)
    np.testing.assert_array_equal(
        simulation.layer_cycles.mean(axis=0), [layer.cycles for layer in estimate.layers]
    )


def test_the_modules_own_spikes_can_be_predicted() -> None:
    found = from_module(sequential(), SAMPLE)
    estimate = predict_latency(found.config, spikes=found.spikes)
    assert estimate.fidelity == "trace"
    assert [layer.input_rate for layer in estimate.layers] == pytest.approx(found.input_rates)
    assert estimate.layers[-1].firing_rate == pytest.approx(found.firing_rates[-1])
    low, high = estimate.interval_cycles
    assert not estimate.quantised
    assert low < estimate.cycles < high
    assert any("floating point" in warning for warning in estimate.warnings)


def test_float_spikes_have_an_interval_that_holds_what_rounding_does() -> None:
    net = sequential()
    widths = []
    for bits in (8, 4, 2):
        found = from_module(net, SAMPLE, weight_bits=bits)
        exact = from_module(net, SAMPLE, weight_bits=bits, quantised=True)
        estimate = predict_latency(found.config, spikes=found.spikes, confidence=0.95)
        truth = predict_latency(exact.config, spikes=exact.spikes)
        assert truth.quantised
        assert truth.interval_cycles == (truth.cycles, truth.cycles)
        low, high = estimate.interval_cycles
        assert low <= truth.cycles <= high
        widths.append(high / low)
    assert widths == sorted(widths)


@pytest.mark.parametrize("wrong", [np.array([True, False]), np.array(0.5)])
def test_a_flag_that_is_none_is_refused(wrong: np.ndarray) -> None:
    found = from_module(sequential(), SAMPLE)
    with pytest.raises(ConfigError, match="quantised: must be a single true or false"):
        predict_latency(found.config, spikes={**found.spikes, "quantised": wrong})


@pytest.mark.rtl
def test_predicted_cycles_are_those_of_the_hardware() -> None:
    net = sequential(lif1=leaky(0.5, threshold=0.6), lif2=leaky(0.9, threshold=1.4))
    found = from_module(net, SAMPLE, quantised=True)
    assert 0.02 < found.firing_rates[0] < 0.9
    check_in_rtl(found)
