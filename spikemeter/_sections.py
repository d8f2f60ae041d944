"""Sections of a configuration: their keys, defaults, ranges, and what follows from them alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .errors import ConfigError

__all__ = [
    "HardwareConfig",
    "InputConfig",
    "NeuronConfig",
    "Section",
    "SurrogateConfig",
    "TrainingConfig",
]


class Section(BaseModel):
    """Keys of one section: unknown ones are refused, values do not change."""

    # Numbers may come as text, because YAML 1.1 reads "1e-3" as text.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if info.field_name == "knobs" and isinstance(value, Mapping):
            items = list(value.values())
        allowed = cls.model_fields[str(info.field_name)].annotation is bool
        items = [
            *items,
            *(part for item in items if isinstance(item, list | tuple) for part in item),
        ]
        if not allowed and any(isinstance(item, bool) for item in items):
            raise ValueError("should not be true or false")
        return value


class InputConfig(Section):
    """Frames that enter the network."""

    height: Annotated[int, Field(ge=1, le=4096, description="rows of a frame")] = 16
    width: Annotated[int, Field(ge=1, le=4096, description="columns of a frame")] = 16
    channels: Annotated[int, Field(ge=1, le=65_536, description="channels; 2 are ON and OFF")] = 2
    time_steps: Annotated[int, Field(ge=1, le=65_536, description="time bins of a recording")] = 8
    statistics: Annotated[
        tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None,
        Field(description="mean events (pixels that spike) per step and channel, steps first"),
    ] = None
    encoding: Annotated[
        Literal["events", "rate", "latency"],
        Field(description="events of a camera; or, from still images, spikes whose rate or whose "
              "time is their grey value"),
    ] = "events"  # fmt: skip
    gain: Annotated[
        float, Field(gt=0, le=1, description="spikes per step of the brightest pixel, rate-coded")
    ] = 1.0
    time_window_ms: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="length of a time bin; null: time_steps bins share a recording"),
    ] = None
    denoise_ms: Annotated[
        Annotated[float, Field(ge=0, le=1e6)] | None,
        Field(description="drop events without a neighbour in this time; 0: keep all; null: 10 for "
              "recordings, 0 for simulated ones"),
    ] = None  # fmt: skip
    values: Annotated[
        Literal["binary", "counts"],
        Field(description="of a pixel in a step: whether it had an event, or how many; hardware "
              "takes binary alone"),
    ] = "binary"  # fmt: skip
    camera_threshold: Annotated[
        Annotated[float, Field(ge=0.05, le=2)] | None,
        Field(description="change of log light that makes an event of the simulated camera; null: "
              "the data set's own"),
    ] = None  # fmt: skip
    camera_mismatch: Annotated[
        float, Field(ge=0, lt=0.2, description="relative spread of that threshold over pixels")
    ] = 0.05
    camera_leak_hz: Annotated[
        float, Field(ge=0, le=100, description="noise of the simulated camera: ON events per pixel")
    ] = 0.4


class NeuronConfig(Section):
    """Neuron model: U[t] = decay U[t-1] + gain I[t] - threshold R[t], R[t] = U[t-1] > threshold.

    LIF decays by beta and has a gain of 1. Lapicque's RC circuit decays by 1 - 1/(R C) and has a
    gain of 1/C; from beta alone R is 1 and C is 1/ln(1/beta), as in snnTorch. `match` sets one or
    both to those of the LIF neuron with the same beta.
    """

    model: Annotated[
        Literal["lif", "lapicque"],
        Field(description="leaky integrate-and-fire, or Lapicque's RC circuit"),
    ] = "lif"
    beta: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="membrane decay per step of a LIF neuron; null with R and C"),
    ] = 0.9
    R: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="resistance of a Lapicque neuron, with C instead of beta"),
    ] = None
    C: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="capacitance of a Lapicque neuron, in time steps per unit of R"),
    ] = None
    match: Annotated[
        Literal["none", "decay", "gain", "both"],
        Field(description="what a Lapicque neuron of a given beta takes from LIF"),
    ] = "none"
    threshold: Annotated[float, Field(gt=0, le=100, description="fires above this")] = 1.0
    reset: Annotated[
        Literal["subtract", "zero"],
        Field(description="one step after a spike: subtract the threshold, or forget the membrane"),
    ] = "subtract"

    @model_validator(mode="before")
    @classmethod
    def _let_r_and_c_stand_for_beta(cls, content: Any) -> Any:
        given = content if isinstance(content, Mapping) else {}
        if "beta" not in given and (given.get("R") is not None or given.get("C") is not None):
            return {**given, "beta": None}
        return content

    @property
    def decay(self) -> float:
        """Share of the membrane that stays for the next step, before quantisation."""
        if self.R is not None and self.C is not None:
            return 1 - 1 / (self.R * self.C)
        assert self.beta is not None
        free = self.model == "lapicque" and self.match in ("none", "gain")
        return 1 + _log(self.beta) if free else self.beta

    @property
    def gain(self) -> float:
        """Share of the input current that reaches the membrane."""
        if self.C is not None:
            return 1 / self.C
        assert self.beta is not None
        free = self.model == "lapicque" and self.match in ("none", "decay")
        return -_log(self.beta) if free else 1.0


def _log(value: float) -> float:
    """Natural logarithm; also of an array, where one `NeuronConfig` stands for many neurons."""
    if isinstance(value, float):
        return math.log(value)
    import numpy as np  # the array has loaded it

    logarithms: float = np.log(value)
    return logarithms


_OWN_SLOPES = {
    "fast_sigmoid": 25.0,
    "atan": 2.0,
    "spike_rate_escape": 25.0,
    "sso": 0.2,
    "sigmoid": 25.0,
    "triangular": 1.0,
}
"""Steepness of each surrogate where none is given, as in snnTorch."""

_HALF_WIDTH_BY_SLOPE = {
    "fast_sigmoid": math.sqrt(2) - 1,
    "atan": 2 / math.pi,
    "sigmoid": math.log(3 + 2 * math.sqrt(2)),
    "triangular": 0.5,
}
"""Half width at half maximum times slope."""


class SurrogateConfig(Section):
    """Gradient that stands in for the derivative of the spike while training.

    `slope` is each surrogate's own parameter: the slope of ``fast_sigmoid``, ``sigmoid`` and
    ``triangular``, the alpha of ``atan``, the height of ``spike_rate_escape``, the variance of
    ``sso``; ``straight_through`` has none. `width` is the half width at half maximum in units of
    the membrane, which compares surrogates fairly; it replaces the slope, but for
    ``spike_rate_escape``, whose height and width are free of one another.
    """

    name: Annotated[
        Literal[
            "fast_sigmoid", "atan", "spike_rate_escape", "sso", "sigmoid", "triangular",
            "straight_through",
        ],
        Field(description="as in snnTorch"),
    ] = "fast_sigmoid"  # fmt: skip
    slope: Annotated[
        Annotated[float, Field(gt=0, le=1e4)] | None,
        Field(description="steepness, in the surrogate's own parameter; null with width"),
    ] = 25.0
    width: Annotated[
        Annotated[float, Field(gt=0, le=1e3)] | None,
        Field(description="half width at half maximum, in membrane units, instead of slope"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_slope(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        name = content.get("name", "fast_sigmoid")
        if "slope" not in content and isinstance(name, str):
            free = content.get("width") is None or name == "spike_rate_escape"
            return {**content, "slope": _OWN_SLOPES.get(name) if free else None}
        return content

    @model_validator(mode="after")
    def _check_slope_and_width(self) -> Self:
        name, slope, width = self.name, self.slope, self.width
        if name == "straight_through":
            for key, value in (("slope", slope), ("width", width)):
                if value is not None:
                    raise ConfigError(f"surrogate.{key}: must be null for {name}; got {value:g}")
            return self
        if name == "sso" and width is not None:
            rule = "must be null for sso, whose gradient is a line"
            raise ConfigError(f"surrogate.width: {rule}; got {width:g}")
        if slope is None and (width is None or name in ("sso", "spike_rate_escape")):
            raise ConfigError(f"surrogate.slope: required for {name}, got null")
        if slope is not None and width is not None and name != "spike_rate_escape":
            rule = "must be absent where surrogate.width is given"
            raise ConfigError(f"surrogate.slope: {rule}; got {slope:g}")
        return self

    @property
    def steepness(self) -> float:
        """Slope in the surrogate's own parameter, from the width if that was given; 0 for none."""
        if self.slope is not None:
            return self.slope
        if self.width is None:
            return 0.0
        return _HALF_WIDTH_BY_SLOPE[self.name] / self.width

    @property
    def half_width(self) -> float:
        """Half width at half maximum in units of the membrane; 0 where there is none."""
        if self.width is not None:
            return self.width
        if self.name == "spike_rate_escape":
            return math.log(2)  # of exp(-|x - 1|)
        if self.name not in _HALF_WIDTH_BY_SLOPE:
            return 0.0
        return _HALF_WIDTH_BY_SLOPE[self.name] / self.steepness


class TrainingConfig(Section):
    """How the weights are found."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    lr: Annotated[float, Field(gt=0, le=10, description="learning rate of Adam")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    weight_bits: Annotated[int, Field(ge=2, le=8, description="signed, symmetric, per layer")] = 4
    batch_norm: Annotated[bool, Field(description="after convolutions, folded into them")] = True
    dropout: Annotated[float, Field(ge=0, lt=1, description="before each dense layer")] = 0.0
    loss: Annotated[
        Literal["mse_count", "ce_count"],
        Field(description="of the output spike counts: squared error, or cross-entropy"),
    ] = "mse_count"
    population: Annotated[int, Field(ge=1, le=1000, description="output neurons per class")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    patience: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="stop after so many epochs without a better validation accuracy"),
    ] = None
    precision: Annotated[
        Literal["float32", "mixed"],
        Field(description="mixed: bfloat16 where it is safe; faster on GPUs"),
    ] = "float32"


class HardwareConfig(Section):
    """The accelerator that runs the network."""

    backend: Annotated[
        str,
        Field(
            min_length=1,
            description="engine: Spikemeter's own; published: the one of arXiv 2603.24891 as a "
            "formula; anything else: the folder of a backend that fit-timing wrote",
        ),
    ] = "engine"
    clock_mhz: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    neural_cores: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | Literal["auto"],
        Field(description="cores per weighted layer; auto: a quarter of the channels of a "
              "convolution, at most 16 for a dense layer"),
    ] = "auto"  # fmt: skip
    encoder_width: Annotated[
        int, Field(ge=1, description="input lines scanned per cycle; 8 to 128 for the engine")
    ] = 32
    taps_per_cycle: Annotated[
        int,
        Field(
            ge=1,
            description="kernel taps per cycle and core; 1 or 9 for the engine, where 9 is for "
            "its layers with 3x3 kernels",
        ),
    ] = 1
    membrane_bits: Annotated[
        Annotated[int, Field(ge=8, le=32)] | Literal["auto"],
        Field(description="auto: wide enough that nothing saturates"),
    ] = "auto"
    schedule: Annotated[
        Literal["layer_serial", "step_pipelined"],
        Field(description="a layer starts when the one before has finished all steps, or one"),
    ] = "layer_serial"
    knobs: Annotated[
        dict[str, float],
        Field(description="further numbers that a fitted backend knows: its columns hw_NAME"),
    ] = {}

    @model_serializer(mode="wrap")
    def _leave_out_knobs_where_there_are_none(
        self, serialise: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        if not self.knobs:
            content.pop("knobs", None)
        return content
