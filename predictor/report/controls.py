"""Which values the controls of the what-if panel offer.

A control has stops: round values inside the calibrated range, and the configuration's own value,
wherever that lies. Some ranges depend on a name: a slope means something else for each surrogate,
and a Lapicque neuron of the same beta decays faster than a LIF neuron. Whatever `Config` might
refuse is tried on the configuration first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ..._checks import LARGEST_CORES
from ...config import Config, SurrogateConfig, load_config
from ...errors import ConfigError
from ..events import coding_of
from ..features import category, row_from_config
from ..folder import PredictorParts
from ..intervals import Domain

__all__ = ["changed_config", "known_steps", "panel_controls", "settings_of_names"]

_SERIES = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Stops within a decade, where values are compared as factors."""
_FACTORS = tuple(float(f"{stop}e{decade}") for decade in range(-6, 3) for stop in _SERIES)
_HUNDREDTHS = tuple(hundredths / 100 for hundredths in range(1, 101))
_TWENTIETHS = tuple(twentieths / 20 for twentieths in range(2001))
_BATCH_SIZES = tuple(2**power for power in range(17))
_ENCODER_WIDTHS = (8, 16, 32, 64, 128)
_CLOCKS_MHZ = (10, 20, 25, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000)

_GROUPS = {
    "neuron": "Neuron",
    "surrogate": "Surrogate",
    "training": "Training",
    "input": "Training",
    "hardware": "Hardware",
}
"""Legends by section; time steps are chosen with the training."""

_NOTHING = (math.inf, -math.inf)
"""Range of a name that was not calibrated."""

_BEYOND = 0.01
"""Share by which a stop may pass the end of a calibrated range, which is no round number."""

_Stops = list[Any]
_StopsByName = dict[str, _Stops]
_Control = dict[str, Any]


def panel_controls(config: Config, parts: PredictorParts) -> list[_Control]:
    """List the controls in reading order.

    Parameters
    ----------
    config : Config
        Its own values are among the stops.
    parts : PredictorParts
        Give the calibrated domain, and the numbers of time steps whose events are known.

    Returns
    -------
    list of dict
        Each has ``key``, ``label``, ``group``, ``kind`` (range, select or checkbox) and ``values``.
        With ``by``, the key of a name, ``values`` and ``start`` are by that name: no values where
        the key does not apply there. ``keeps`` tells whether a value means the same under another
        name. With ``layer``, the key holds one number for each layer.
    """
    domain, steps = parts.domain, known_steps(config, parts)
    return [
        *_neuron_controls(config, domain),
        *_surrogate_controls(config, domain),
        _slider(config, domain, "training.lr", _FACTORS),
        _slider(config, domain, "training.epochs", range(1, 1001)),
        _slider(config, domain, "training.batch_size", _BATCH_SIZES),
        _slider(config, domain, "training.weight_bits", range(2, 9)),
        _slider(config, domain, "training.dropout", _TWENTIETHS),
        _slider(config, domain, "training.batch_norm", (False, True)) | {"kind": "checkbox"},
        _control("input.time_steps", "range", steps),
        *_hardware_controls(config, max(steps)),
    ]


def settings_of_names(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """List the settings without a control that a name brings along, by its key and the name.

    A LIF neuron has nothing to match, and beta in place of R and C.
    """
    neuron = config.neuron
    return {
        "neuron.model": {
            "lif": {"neuron.match": "none", "neuron.R": None, "neuron.C": None},
            "lapicque": {
                "neuron.match": neuron.match, "neuron.R": neuron.R, "neuron.C": neuron.C
            },
        }
    }  # fmt: skip


def known_steps(config: Config, parts: PredictorParts) -> _Stops:
    """Numbers of time steps whose events are known on these frames, with this coding."""
    size, known = config.input, parts.statistics.get(config.dataset or "", ())
    if size.statistics is not None:
        return [size.time_steps]
    column = parts.domain.feature_names.index("input.time_steps")
    return sorted(
        {
            size.time_steps,
            *(
                entry.time_steps
                for entry in known
                if (entry.height, entry.width) == (size.height, size.width)
                and entry.events.shape[1] == size.channels
                and entry.coding == coding_of(config)
                and parts.domain.low[column] <= entry.time_steps <= parts.domain.high[column]
            ),
        }
    )


def changed_config(config: Config, changes: Mapping[str, Any]) -> Config | None:
    """Give the configuration with other values of some flat keys; None if it is refused."""
    content = config.model_dump(mode="python")
    for key, value in changes.items():
        section, _, inner = key.partition(".")
        content[section][inner] = value
    try:
        return load_config(content)
    except ConfigError:
        return None


def _neuron_controls(config: Config, domain: Domain) -> list[_Control]:
    """List those of the neuron; a model is offered if some whole configuration has it."""
    own, brought = config.neuron, settings_of_names(config)["neuron.model"]
    betas: _StopsByName = {}
    resets: _StopsByName = {}
    start: dict[str, Any] = {}
    for name in _names(config, domain, "neuron.model"):
        changes = {"neuron.model": name, **brought[name]}
        betas[name] = _betas(config, domain, changes)
        start[name] = _nearest(betas[name], own.decay if own.beta is None else own.beta)
        resets[name] = [
            reset
            for reset in _names(config, domain, "neuron.reset")
            if changed_config(
                config, {**changes, "neuron.beta": start[name], "neuron.reset": reset}
            )
        ]
    models = [name for name, found in resets.items() if found]
    first = {name: own.reset if own.reset in resets[name] else resets[name][0] for name in models}
    named = {"by": "neuron.model", "keeps": True}
    return [
        _control("neuron.model", "select", models),
        _control("neuron.beta", "range", betas) | named | {"start": start},
        _slider(config, domain, "neuron.threshold", _TWENTIETHS),
        _control("neuron.reset", "select", resets) | named | {"start": first},
    ]


def _betas(config: Config, domain: Domain, changes: Mapping[str, Any]) -> _Stops:
    """Values of beta whose decay is calibrated for a model; none where R and C stand for it."""
    low, high = domain.of_name["neuron.beta"].get(changes["neuron.model"], _NOTHING)
    betas = []
    for beta in _with_own(_HUNDREDTHS, config.neuron.beta):
        tried = changed_config(config, {**changes, "neuron.beta": beta, "neuron.reset": "subtract"})
        if tried and (beta == config.neuron.beta or _within(tried.neuron.decay, low, high)):
            betas.append(beta)
    return betas


def _surrogate_controls(config: Config, domain: Domain) -> list[_Control]:
    """List those of the surrogate, told by its width where the configuration does so."""
    own = config.surrogate
    slopes: _StopsByName = {}
    widths: _StopsByName = {}
    first: dict[str, dict[str, Any]] = {"slope": {}, "width": {}}
    for name in _names(config, domain, "surrogate.name"):
        slopes[name], widths[name] = _slopes_and_widths(config, domain, name)
        usual = own if name == own.name else SurrogateConfig(name=name)  # type: ignore[arg-type]
        first["slope"][name] = _nearest(slopes[name], usual.slope)
        first["width"][name] = _nearest(widths[name], own.width)
    named = {"by": "surrogate.name"}
    return [
        _control("surrogate.name", "select", list(slopes)),
        _control("surrogate.slope", "range", slopes)
        | named
        | {"keeps": False, "start": first["slope"]},
        _control("surrogate.width", "range", widths)
        | named
        | {"keeps": True, "start": first["width"]},
    ]


def _slopes_and_widths(config: Config, domain: Domain, name: str) -> tuple[_Stops, _Stops]:
    """Values by which a surrogate is told; both for the one whose height and width are free."""
    own = config.surrogate
    low, high = domain.of_name["surrogate.slope"].get(name, _NOTHING)
    free = name == "spike_rate_escape"
    if own.width is not None and not free and own.name != "spike_rate_escape":
        widths = [
            width
            for width in _FACTORS
            if _within(SurrogateConfig(name=name, width=width).steepness, low, high)  # type: ignore[arg-type]
        ]
        return [], _with_own(widths, own.width)
    mine = name == own.name
    slopes = [slope for slope in _FACTORS if _within(slope, low, high)]
    if name == "straight_through":
        return [], []
    if not (free and mine and own.width is not None):
        return _with_own(slopes, own.slope if mine else None), []
    low, high = domain.of_name["surrogate.width"].get(name, _NOTHING)
    widths = [width for width in _FACTORS if _within(width, low, high)]
    return _with_own(slopes, own.slope), _with_own(widths, own.width)


def _hardware_controls(config: Config, most_steps: int) -> list[_Control]:
    """List those of the machine: it is computed, so its range is what it can have."""
    hardware = config.hardware
    cores = [
        _control("hardware.neural_cores", "range", list(range(1, most + 1)))
        | {"layer": index, "label": f"cores of {layer.name}"}
        for index, layer in enumerate(config.layers)
        for most in [min(layer.out_channels, LARGEST_CORES)]
    ]
    # Narrow words are many, and the buffers hold so many only
    longest = {} if config.input.statistics else {"input.time_steps": most_steps}
    widths = [
        width
        for width in _with_own(_ENCODER_WIDTHS, hardware.encoder_width)
        if changed_config(config, {**longest, "hardware.encoder_width": width})
    ]
    return [
        *cores,
        _control("hardware.encoder_width", "range", widths),
        _control("hardware.schedule", "select", ["layer_serial", "step_pipelined"]),
        _control("hardware.clock_mhz", "range", _with_own(_CLOCKS_MHZ, hardware.clock_mhz)),
    ]


def _slider(config: Config, domain: Domain, key: str, candidates: Iterable[Any]) -> _Control:
    """Control of a number that is a feature by itself."""
    column = domain.feature_names.index(key)
    low, high = float(domain.low[column]), float(domain.high[column])
    stops = [value for value in candidates if _within(value, low, high)]
    return _control(key, "range", _with_own(stops, row_from_config(config)[key]))


def _control(key: str, kind: str, values: _Stops | _StopsByName) -> _Control:
    group, _, label = key.partition(".")
    return {
        "key": key,
        "label": label,
        "group": _GROUPS[group],
        "kind": kind,
        "values": values,
    }


def _names(config: Config, domain: Domain, key: str) -> list[str]:
    """Calibrated names that a configuration may have, and its own."""
    section, _, inner = key.partition(".")
    allowed = get_args(type(getattr(config, section)).model_fields[inner].annotation)
    return [name for name in allowed if name in (*domain.categories[key], category(config, key))]


def _within(value: float, low: float, high: float) -> bool:
    return low - _BEYOND * abs(low) <= value <= high + _BEYOND * abs(high)


def _with_own(stops: Iterable[Any], own: Any) -> _Stops:
    return sorted({*stops, *([] if own is None else [own])})


def _nearest(stops: _Stops, value: float | None) -> Any:
    """Stop nearest to a value, or the middle one; None without stops."""
    if value is None or not stops:
        return stops[len(stops) // 2] if stops else None
    return min(stops, key=lambda stop: abs(stop - value))
