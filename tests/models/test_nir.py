from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from spikemeter.errors import ConfigError
from spikemeter.models.integer import network_spikes
from spikemeter.models.nir import from_nir
from spikemeter.predictor import predict_latency

nir = pytest.importorskip("nir")

DT, STEPS, BATCH = 1e-4, 6, 3
SAMPLE = (
    torch.rand(STEPS, BATCH, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3
).float()
Nodes = dict[str, Any]


def constants(shape: tuple[int, ...], **values: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype=np.float32) for name, value in values.items()}


def lif(shape: tuple[int, ...], beta: float = 0.875, **changes: float) -> Any:
    """Neurons as snnTorch exports them: the resistance takes the time constant out of the gain."""
    tau = DT / (1 - beta)
    values = {"tau": tau, "r": tau / DT, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    return nir.LIF(**constants(shape, **{**values, **changes}))


def vars_of(count: int) -> dict[str, np.ndarray]:
    return constants((count,), tau=2e-4, r=2.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0)


def cuba(shape: tuple[int, ...], tau_syn: float) -> Any:
    values = {"r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    return nir.CubaLIF(
        **constants(shape, tau_syn=tau_syn, tau_mem=10 * DT, **values), w_in=np.float32(2)
    )


def drawn(*shape: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.1, 1, shape) * 1.5 / np.prod(shape[1:]) ** 0.5
    return noise.astype(np.float32)


def conv(**changes: Any) -> Any:
    content = {
        "input_shape": (8, 8), "weight": drawn(4, 2, 3, 3, seed=2), "stride": 1, "padding": 1,
        "dilation": 1, "groups": 1, "bias": np.linspace(-0.1, 0.2, 4, dtype=np.float32),
    }  # fmt: skip
    return nir.Conv2d(**{**content, **changes})


def pool(kind: Any = nir.SumPool2d, kernel: int = 2, stride: int = 2) -> Any:
    return kind(kernel_size=np.array([kernel] * 2), stride=np.array([stride] * 2),
                padding=np.array([0, 0]))  # fmt: skip


def graph(nodes: Nodes, extra: list[tuple[str, str]] | None = None) -> Any:
    whole = {
        "input": nir.Input(input_type=np.array([2, 8, 8])),
        **nodes,
        "output": nir.Output(output_type=np.array([10])),
    }
    names = list(whole)
    edges = [*itertools.pairwise(names), *(extra or [])]
    return nir.NIRGraph(nodes=whole, edges=edges, type_check=False)


def nodes(**changes: Any) -> Nodes:
    """Give 4C3-10; changes replace nodes, None leaves them out."""
    row = {
        "conv": conv(),
        "first.lif": lif((4, 8, 8)),
        "flat": nir.Flatten(input_type=np.array([4, 8, 8]), start_dim=0),
        "fc": nir.Linear(weight=drawn(10, 256, seed=3)),
        "forward": lif((10,), 0.5, v_threshold=0.75),
    }
    return {name: node for name, node in {**row, **changes}.items() if node is not None}


def twin(reset: str = "zero") -> nn.Sequential:
    """Give the same network as snnTorch has it."""
    settings = {"reset_mechanism": reset, "init_hidden": True}
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(beta=0.875, **settings), nn.Flatten(),
        nn.Linear(256, 10, bias=False), snn.Leaky(beta=0.5, threshold=0.75, **settings),
    )  # fmt: skip
    row = nodes()
    net[0].weight.data = torch.tensor(row["conv"].weight)
    net[0].bias.data = torch.tensor(row["conv"].bias)
    net[3].weight.data = torch.tensor(row["fc"].weight)
    return net


def outputs(net: nn.Module, sample: Tensor = SAMPLE) -> np.ndarray:
    with torch.no_grad():
        return torch.stack([net(step) for step in sample]).transpose(0, 1).numpy() > 0


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_graph_fires_as_the_same_network_in_snntorch(reset: Any) -> None:
    found = from_nir(graph(nodes()), SAMPLE, reset=reset)
    assert found.config.network == "4C3-10"
    assert found.config.neuron.reset == reset
    assert found.modules == ("conv", "fc")
    assert 0.02 < found.spikes["outputs"].mean() < 0.98
    np.testing.assert_array_equal(found.spikes["outputs"], outputs(twin(reset)))


def test_a_file_is_the_graph_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    nir.write(path, graph(nodes()))
    found, again = from_nir(graph(nodes()), SAMPLE), from_nir(path, SAMPLE)
    assert again.config == found.config
    np.testing.assert_array_equal(again.spikes["outputs"], found.spikes["outputs"])


def test_euler_steps_give_decay_gain_and_drive() -> None:
    neurons = lif((4, 8, 8), tau=8 * DT, r=4.0, v_leak=0.4)
    net = twin()
    net[0].weight.data *= 4 / 8
    net[0].bias.data = net[0].bias.data * 4 / 8 + 0.4 / 8
    found = from_nir(graph(nodes(**{"first.lif": neurons})), SAMPLE)
    np.testing.assert_array_equal(found.spikes["outputs"], outputs(net))


def test_a_step_of_another_length_changes_the_decay() -> None:
    row = {
        "flat": nir.Flatten(input_type=np.array([2, 8, 8]), start_dim=0),
        "fc": nir.Linear(weight=drawn(10, 128, seed=3)),
        "lif": lif((10,), tau=4e-3, r=4.0),
    }
    found = from_nir(graph(row), SAMPLE, dt=1e-3)
    assert found.config.neuron.beta == 0.75


@pytest.mark.parametrize("tau_syn", [DT, DT / 100])
def test_synapses_without_memory_reduce_to_lif(tau_syn: float) -> None:
    found = from_nir(graph(nodes(**{"first.lif": cuba((4, 8, 8), tau_syn)})), SAMPLE)
    again = from_nir(graph(nodes(**{"first.lif": lif((4, 8, 8), tau=10 * DT, r=20.0)})), SAMPLE)
    np.testing.assert_array_equal(found.spikes["outputs"], again.spikes["outputs"])


def test_integrate_and_fire_neurons_never_leak() -> None:
    neurons = nir.IF(**constants((4, 8, 8), r=1.0, v_threshold=1.0))
    net = twin()
    net[1].beta.fill_(1)
    found = from_nir(graph(nodes(**{"first.lif": neurons})), SAMPLE)
    assert found.network.layers[0].decay == 256
    np.testing.assert_array_equal(found.spikes["outputs"], outputs(net))


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize(
    ("kind", "module"), [(nir.SumPool2d, nn.LPPool2d), (nir.AvgPool2d, nn.AvgPool2d)]
)
def test_pooling_before_a_linear_layer_goes_into_its_weights(
    kind: Any, module: Any, kernel: int
) -> None:
    weight = drawn(10, 4 * (8 // kernel) ** 2, seed=4)
    row = nodes(flat=None, fc=None, forward=None)
    row |= {"pool": pool(kind, kernel, kernel),
            "flat": nir.Flatten(input_type=np.array([4, 8 // kernel, 8 // kernel]), start_dim=0),
            "fc": nir.Affine(weight=weight, bias=np.full(10, 0.1)),
            "lif": lif((10,), 0.5, v_threshold=0.75)}  # fmt: skip
    pooling = nn.LPPool2d(1, kernel) if module is nn.LPPool2d else module(kernel)
    net = twin()
    net = nn.Sequential(net[0], net[1], pooling, net[2], nn.Linear(weight.shape[1], 10), net[4])
    net[4].weight.data, net[4].bias.data = torch.tensor(weight), torch.full((10,), 0.1)
    found = from_nir(graph(row), SAMPLE)
    assert found.config.network == "4C3-10"
    agreement = found.spikes["outputs"] == outputs(net)
    assert agreement.mean() > 0.99  # sums in another order may round to another side


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv": conv(stride=2), "fc": nir.Linear(weight=drawn(10, 64, seed=3)),
          "first.lif": lif((4, 4, 4))}, r"'conv' \(Conv2d\): its stride must be 1"),
        ({"first.lif": nir.LI(**constants((4, 8, 8), tau=1.0, r=1.0, v_leak=0.0))},
         r"node 'first\.lif' \(LI\): the hardware has no such layer; supported: Conv2d, Linear,"),
        ({"flat": nir.Delay(delay=np.ones(3))}, r"node 'flat' \(Delay\): the hardware has no such"),
        ({"first.lif": cuba((4, 8, 8), 2 * DT)},
         r"node 'first\.lif' \(CubaLIF\): tau_syn must be at most dt = 0\.0001: .* got 0\.0002"),
        ({"first.lif": lif((4, 8, 8), v_reset=0.5)}, r"\(LIF\): v_reset must be 0, got 0\.5"),
        ({"first.lif": lif((4, 8, 8), tau=DT / 2)}, r"\(LIF\): tau must be longer than dt"),
        ({"first.lif": lif((4, 8, 8), r=-1.0)}, r"\(LIF\): what it gains .* above 0"),
        ({"forward": nir.LIF(**{**vars_of(10), "tau": np.linspace(2e-4, 4e-4, 10)})},
         r"'forward' \(LIF\): tau must be the same for all neurons of a layer, got 0\.0002 to"),
        ({"first.lif": pool()}, r"node 'first\.lif' \(SumPool2d\): sums and averages of spikes"),
        ({"conv": None}, r"node 'first\.lif' \(LIF\): it must stand right behind a Conv2d"),
        ({"forward": None}, r"'fc' \(Linear\): spiking neurons must stand behind every weighted"),
        ({"fc": nir.Linear(weight=drawn(10, 77, seed=3))},
         r"node 'fc' \(Linear\): it does not fit its input of shape \(256,\)"),
    ],
)  # fmt: skip
def test_nodes_without_a_place_are_refused_by_name(changes: Nodes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_nir(graph(nodes(**changes)), SAMPLE)


def test_pooling_before_a_convolution_is_refused() -> None:
    row = {"conv": conv(), "lif": lif((4, 8, 8)), "pool": pool(), **nodes()}
    row["conv2"] = conv(weight=drawn(4, 4, 3, 3, seed=5), input_shape=(4, 4))
    order = ["conv", "lif", "pool", "conv2"]
    with pytest.raises(
        ConfigError, match=r"node 'pool' \(SumPool2d\): .* before a Linear or Affine"
    ):
        from_nir(graph({name: row[name] for name in order}), SAMPLE)
    with pytest.raises(ConfigError, match=r"node 'pool' \(SumPool2d\): it must not overlap"):
        from_nir(graph({**row, "pool": pool(stride=1)}), SAMPLE)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (("fc", "first.lif"), r"'first\.lif' \(LIF\): .* preceded by one node alone; got"),
        (
            ("first.lif", "fc"),
            r"node 'first\.lif' \(LIF\): .* followed by one node alone; got 'fc'",
        ),
    ],
)
def test_branches_and_loops_are_refused(edge: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_nir(graph(nodes(), extra=[edge]), SAMPLE)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("input", "conv"), ("conv", "input")],
         r"node 'input' \(Input\): nothing may lead to the input; got 'conv'"),
        ([("input", "input")], r"node 'input' \(Input\): nothing may lead to the input"),
        ([("input", "conv"), ("conv", "nowhere")],
         r"edge \('conv', 'nowhere'\) must lead from node to node, there is no node 'nowhere'"),
        ([("nowhere", "conv")], "there is no node 'nowhere'"),
        ([("input", "conv"), ("conv", "conv")], r"'conv' \(Conv2d\): .* preceded by one node"),
        ([("input", "conv")], r"'conv' \(Conv2d\): it must lead to the output"),
    ],
)  # fmt: skip
def test_edges_that_lead_nowhere_are_refused(edges: list[tuple[str, str]], message: str) -> None:
    whole = graph(nodes())
    whole.edges = edges
    with pytest.raises(ConfigError, match=message):
        from_nir(whole, SAMPLE)


@pytest.mark.parametrize("thing", [3, None, ["graph"], b"net.nir"])
def test_what_is_no_graph_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigError, match="graph: must be a NIRGraph, or the name of a file"):
        from_nir(thing, SAMPLE)


@pytest.mark.parametrize("sample", [np.zeros(8), None, "spikes", np.full((2, 2, 2), None)])
def test_a_sample_of_no_use_is_refused(sample: Any) -> None:
    with pytest.raises(ConfigError, match="sample: must "):
        from_nir(graph(nodes()), sample)


def test_weights_and_samples_may_be_read_only() -> None:
    sample, row = SAMPLE.numpy().copy(), nodes()
    for array in (sample, row["conv"].weight, row["fc"].weight):
        array.setflags(write=False)
    found = from_nir(graph(row), sample)  # a warning would be an error
    np.testing.assert_array_equal(found.spikes["outputs"], outputs(twin()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["tau", "r", "v_leak", "v_threshold", "v_reset"])
def test_constants_that_are_no_numbers_are_refused_as_such(key: str, value: float) -> None:
    row = nodes(**{"first.lif": lif((4, 8, 8), **{key: value})})
    with pytest.raises(
        ConfigError, match=rf"'first\.lif' \(LIF\): {key} must be finite, got {value}"
    ):
        from_nir(graph(row), SAMPLE)


def test_weights_that_are_no_numbers_are_refused_as_such() -> None:
    weight = drawn(10, 256, seed=3)
    weight[3, 4] = np.nan
    with pytest.raises(ConfigError, match=r"'fc' \(Linear\): its weight must be finite, got nan"):
        from_nir(graph(nodes(fc=nir.Linear(weight=weight))), SAMPLE)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    path.write_text("no graph")
    for name in (path, tmp_path / "none.nir"):
        with pytest.raises(ConfigError, match=r"cannot read the NIR graph '.*none|network\.nir'"):
            from_nir(name, SAMPLE)


@pytest.mark.parametrize(
    "settings",
    [
        {"reset": "none"},
        {"dt": 0.0},
        {"dt": "x"},
        {"dt": float("nan")},
        {"dt": None},
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=f"{name}: must be"):
        from_nir(graph(nodes()), SAMPLE, **settings)


@pytest.mark.rtl
def test_predicted_cycles_are_those_of_the_hardware() -> None:
    from spikemeter.rtl import check_spikes, simulate

    found = from_nir(graph(nodes()), SAMPLE, quantised=True)
    estimate = predict_latency(found.config, spikes=found.spikes)
    simulation = simulate(found.config, found.network, found.frames)
    check_spikes(simulation, network_spikes(found.network, found.frames), found.config.layers)
    np.testing.assert_array_equal(simulation.cycles, estimate.sample_cycles)
