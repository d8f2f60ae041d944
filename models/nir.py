"""Networks as NIR graphs: built as a module of snnTorch neurons, then found like any other.

NIR describes neurons in continuous time. They are discretised by forward Euler with a step `dt`,
as snnTorch's own import does, so that ``tau v' = (v_leak - v) + r I`` becomes

    v[t] = (1 - dt/tau) v[t-1] + r dt/tau I[t] + dt/tau v_leak

which is a LIF neuron whose gain and drive belong to the weights and the bias before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import snntorch as snn
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import HardwareConfig
from ..errors import ConfigError, MissingToolError
from ._recording import sample_tensor
from .imported import ImportedNetwork
from .tracing import from_module

if TYPE_CHECKING:
    import nir

__all__ = ["from_nir"]

_SUPPORTED = "Conv2d, Linear, Affine, Flatten, LIF, CubaLIF, IF, SumPool2d and AvgPool2d"


def from_nir(
    graph: nir.NIRGraph | str | Path,
    sample: Tensor | NDArray[np.generic],
    *,
    dt: float = 1e-4,
    reset: Literal["zero", "subtract"] = "zero",
    weight_bits: int = 4,
    hardware: HardwareConfig | Mapping[str, Any] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    quantised: bool = False,
) -> ImportedNetwork:
    """Import a network from a NIR graph, so that it can be predicted and simulated.

    Parameters
    ----------
    graph : NIRGraph, str or Path
        A graph, or a file of one: a single row of Conv2d, Linear, Affine, Flatten and LIF nodes.
        IF is a LIF that never leaks, whose `r` counts per time step. CubaLIF is taken where it
        reduces to LIF: `tau_syn` is at most `dt`. SumPool2d and AvgPool2d are taken before a
        Linear or Affine, whose weights take them in; NIR has no max pooling.
    sample : Tensor or ndarray, shape (time_steps, batch, ...)
        Spikes, 0 or 1, which also say how many time steps there are and how large a frame is.
    dt : float, optional
        Seconds of a time step. Default: that of snnTorch, 0.1 ms.
    reset : {"zero", "subtract"}, optional
        What a spike does to the next step. A NIR node resets to `v_reset`, which must be 0;
        but networks that were trained to subtract the threshold, snnTorch's default, are exported
        to the same node.
    weight_bits, hardware, input_shape, quantised
        As for `from_module`.

    Returns
    -------
    ImportedNetwork
        As of `from_module`; names are those of the nodes.

    Raises
    ------
    ConfigError
        If the file is no graph, or the hardware has no place for a node; the sentence names it.
    MissingToolError
        If `nir` is not installed.
    """
    if reset not in ("zero", "subtract"):
        raise ConfigError(f"reset: must be zero or subtract, got {reset!r}")
    if not isinstance(dt, float | int) or not 0 < dt < math.inf:
        raise ConfigError(f"dt: must be above 0 seconds, got {dt!r}")
    frames = sample_tensor(sample).float()
    nodes = [_Node(name=name, node=node) for name, node in _row(_read(graph))]
    network = _Builder(nodes, frames, dt, reset).network()

    def step_by_step(steps: Tensor) -> None:
        for step in steps:
            network(step)

    return from_module(
        network,
        frames,
        forward=step_by_step,
        weight_bits=weight_bits,
        hardware=hardware,
        input_shape=input_shape,
        quantised=quantised,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Node:
    """A node of a graph."""

    name: str
    node: Any

    @property
    def kind(self) -> str:
        return type(self.node).__name__

    def refusal(self, rule: str) -> ConfigError:
        return ConfigError(f"node {self.name!r} ({self.kind}): {rule}")

    def constant(self, key: str) -> float:
        """Give a number that must be the same for all neurons."""
        values = np.unique(np.asarray(getattr(self.node, key), dtype=np.float64))
        if not np.isfinite(values).all():
            raise self.refusal(f"{key} must be finite, got {values[~np.isfinite(values)][0]}")
        if len(values) != 1:
            rule = f"{key} must be the same for all neurons of a layer"
            raise self.refusal(f"{rule}, got {values.min():g} to {values.max():g}")
        return float(values[0])


def _read(graph: nir.NIRGraph | str | Path) -> nir.NIRGraph:
    if all(hasattr(graph, part) for part in ("nodes", "edges")):
        return graph
    if not isinstance(graph, str | Path):
        rule = "must be a NIRGraph, or the name of a file that holds one"
        raise ConfigError(f"graph: {rule}; got {graph!r:.60}")
    try:
        import nir
    except ImportError as error:
        raise MissingToolError(
            "nir: not installed; it reads NIR files: pip install 'spikemeter[nir]'"
        ) from error
    try:
        return nir.read(Path(graph))
    except Exception as error:  # h5py and nir raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"cannot read the NIR graph {str(graph)!r}: {reason}") from error


def _row(graph: nir.NIRGraph) -> list[tuple[str, Any]]:
    """Nodes from input to output, both left aside; refuses whatever is not a single row."""
    nodes, edges = graph.nodes, set(graph.edges)
    _check_ends(nodes)
    for edge in sorted(edges):
        for end in edge:
            if end not in nodes:
                rule = f"must lead from node to node, there is no node {end!r}"
                raise ConfigError(f"the NIR graph's edge {edge!r} {rule}")
    (name,) = (name for name, node in nodes.items() if type(node).__name__ == "Input")
    if leading := sorted(first for first, last in edges if last == name):
        here = _Node(name=name, node=nodes[name])
        raise here.refusal(f"nothing may lead to the input; got {', '.join(map(repr, leading))}")
    row: list[tuple[str, Any]] = []
    while True:
        following = sorted(last for first, last in edges if first == name)
        preceding = sorted(first for first, last in edges if last == name)
        here = _Node(name=name, node=nodes[name])
        for neighbours, word in ((following, "followed"), (preceding, "preceded")):
            if len(neighbours) > 1:
                rule = f"layers stand in one row, it must be {word} by one node alone"
                raise here.refusal(f"{rule}; got {', '.join(map(repr, neighbours))}")
        if here.kind == "Output":
            break
        if not following:
            raise here.refusal("it must lead to the output; nothing follows it")
        name = following[0]  # no node twice: each is preceded by one alone, the input by none
        row.append((name, nodes[name]))
    rest = sorted(set(nodes) - {name for name, _ in row})
    unused = [name for name in rest if type(nodes[name]).__name__ != "Input"]
    if unused:
        here = _Node(name=unused[0], node=nodes[unused[0]])
        raise here.refusal("it must stand between input and output; nothing leads to it")
    return row[:-1]


def _check_ends(nodes: Mapping[str, Any]) -> None:
    for kind in ("Input", "Output"):
        ends = [name for name, node in nodes.items() if type(node).__name__ == kind]
        if len(ends) != 1:
            rule = f"must have one node of type {kind}"
            raise ConfigError(f"the NIR graph {rule}, got {', '.join(map(repr, ends)) or 'none'}")


class _Builder:
    """Builds the module of a row of nodes, node by node.

    Gain and drive of neurons go into the weighted layer before them, pooling by sum or average
    into the linear layer behind it.
    """

    def __init__(
        self, nodes: list[_Node], frames: Tensor, dt: float, reset: Literal["zero", "subtract"]
    ) -> None:
        self._nodes = nodes
        self._dt = dt
        self._reset = reset
        self._parts: dict[str, nn.Module] = {}
        self._shape = tuple(frames.shape[2:])
        self._weighted: nn.Conv2d | nn.Linear | None = None
        self._pool: tuple[_Node, tuple[int, ...]] | None = None

    def network(self) -> nn.Module:
        builders: dict[str, Callable[[_Node], None]] = {
            "Conv2d": self._conv,
            "Linear": self._linear,
            "Affine": self._linear,
            "Flatten": self._flatten,
            "SumPool2d": self._pooling,
            "AvgPool2d": self._pooling,
            "LIF": self._lif,
            "CubaLIF": self._cuba_lif,
            "IF": self._integrate_and_fire,
        }
        for node in self._nodes:
            if node.kind not in builders:
                raise node.refusal(f"the hardware has no such layer; supported: {_SUPPORTED}")
            builders[node.kind](node)
        if self._pool is not None:
            raise self._pool[0].refusal(_POOL_RULE)
        network = nn.Sequential()
        network._modules.update(self._parts)  # a node's name may be none that a module may have
        return network

    def _conv(self, node: _Node) -> None:
        if self._pool is not None:
            raise self._pool[0].refusal(_POOL_RULE)
        content = node.node
        weight = _weight(content)
        groups = int(content.groups)
        conv = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            stride=_pair(content.stride),
            padding=content.padding if isinstance(content.padding, str) else _pair(content.padding),
            dilation=_pair(content.dilation),
            groups=groups,
        )
        self._add_weighted(node, conv, weight, content.bias)

    def _linear(self, node: _Node) -> None:
        weight = _weight(node.node)
        if self._pool is not None:
            weight = self._unpooled(node, weight)
            self._shape, self._pool = (weight.shape[1],), None
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        self._add_weighted(node, linear, weight, getattr(node.node, "bias", 0.0))

    def _add_weighted(
        self, node: _Node, part: nn.Conv2d | nn.Linear, weight: Tensor, bias: Any
    ) -> None:
        offset = np.broadcast_to(np.asarray(bias, dtype=np.float32), len(weight))
        assert part.bias is not None
        with torch.no_grad():
            part.weight.copy_(weight)
            part.bias.copy_(torch.from_numpy(offset.copy()))
        self._weighted = part
        self._add(node, part)

    def _add(self, node: _Node, part: nn.Module) -> None:
        """Append a module, and see what it makes of the shape that it is given."""
        try:
            with torch.no_grad():
                shape = tuple(part(torch.zeros(1, *self._shape)).shape[1:])
        except (RuntimeError, ValueError) as error:
            raise node.refusal(f"it does not fit its input of shape {self._shape}") from error
        self._shape = shape
        self._parts[node.name] = part

    def _flatten(self, node: _Node) -> None:
        """Flatten whole maps: batches are not part of a graph, whatever its dimensions say."""
        if self._pool is None:
            self._add(node, nn.Flatten())
        else:
            self._parts[node.name] = nn.Flatten()

    def _pooling(self, node: _Node) -> None:
        kernel, stride, padding = (
            _pair(getattr(node.node, key)) for key in ("kernel_size", "stride", "padding")
        )
        if self._pool is not None or self._weighted is not None or len(self._shape) != 3:
            raise node.refusal(_POOL_RULE)
        if stride != kernel or padding != (0, 0):
            rule = "it must not overlap or pad"
            raise node.refusal(f"{rule}, got kernel {kernel}, stride {stride}, padding {padding}")
        self._pool = (node, kernel)

    def _unpooled(self, node: _Node, weight: Tensor) -> Tensor:
        """Weights on the spikes before pooling that do what `weight` does on their sums."""
        assert self._pool is not None
        pool, kernel = self._pool
        channels, height, width = self._shape
        rows, columns = height // kernel[0], width // kernel[1]
        if weight.shape[1] != channels * rows * columns:
            shape = (channels, rows, columns)
            raise node.refusal(f"it does not fit its input of shape {shape}, which must be flat")
        maps = weight.reshape(-1, channels, rows, columns)
        spread = maps.repeat_interleave(kernel[0], dim=2).repeat_interleave(kernel[1], dim=3)
        whole = torch.zeros(len(weight), channels, height, width)
        whole[:, :, : spread.shape[2], : spread.shape[3]] = spread
        if pool.kind == "AvgPool2d":
            whole /= kernel[0] * kernel[1]
        return whole.flatten(1)

    def _lif(self, node: _Node) -> None:
        self._leaky(node, tau=node.constant("tau"), gain=node.constant("r"))

    def _cuba_lif(self, node: _Node) -> None:
        tau = node.constant("tau_syn")
        if tau > self._dt * (1 + 1e-6):
            rule = f"tau_syn must be at most dt = {self._dt:g}: a synapse keeps no current here"
            raise node.refusal(f"{rule}, got {tau:g}")
        gain = node.constant("r") * node.constant("w_in")
        self._leaky(node, tau=node.constant("tau_mem"), gain=gain)

    def _leaky(self, node: _Node, *, tau: float, gain: float) -> None:
        if not tau > self._dt:
            raise node.refusal(f"tau must be longer than dt = {self._dt:g}, got {tau:g}")
        share = self._dt / tau
        self._neurons(node, 1 - share, gain * share, node.constant("v_leak") * share)

    def _integrate_and_fire(self, node: _Node) -> None:
        self._neurons(node, 1.0, node.constant("r"), 0.0)

    def _neurons(self, node: _Node, beta: float, gain: float, drive: float) -> None:
        """Append neurons; what enters them is scaled and shifted where it is made."""
        if node.constant("v_reset") != 0:
            raise node.refusal(f"v_reset must be 0, got {node.constant('v_reset'):g}")
        if not gain > 0:
            raise node.refusal(f"what it gains from its input must be above 0, got {gain:g}")
        if self._weighted is None:
            raise node.refusal("it must stand right behind a Conv2d, Linear or Affine")
        assert self._weighted.bias is not None
        with torch.no_grad():
            if not np.isclose(gain, 1.0, rtol=1e-6):  # exporters choose r such that it is 1
                self._weighted.weight.mul_(gain)
                self._weighted.bias.mul_(gain)
            self._weighted.bias.add_(drive)
        self._weighted = None
        neuron = snn.Leaky(
            beta=beta,
            threshold=node.constant("v_threshold"),
            reset_mechanism=self._reset,
            init_hidden=True,
        )
        snn.SpikingNeuron.instances.remove(neuron)
        self._parts[node.name] = neuron


_POOL_RULE = (
    "sums and averages of spikes are no spikes; it must stand behind neurons and before a Linear "
    "or Affine, whose weights can take it in"
)


def _weight(content: Any) -> Tensor:
    return torch.tensor(np.array(content.weight), dtype=torch.float32)


def _pair(value: Any) -> tuple[int, int]:
    sides = np.broadcast_to(np.asarray(value, dtype=np.int64), 2)
    return int(sides[0]), int(sides[1])
