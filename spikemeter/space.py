"""Spaces of configurations: what stays, what varies, and how points are drawn from them.

A space is a YAML file. `base` holds keys of a configuration, `vary` names what changes from point
to point: ranges, choices, and bundles of knobs that change together.

    base:
      dataset: nmnist-saccade
      training: {epochs: 4}
    vary:
      network: [8C3-MP2-10, 8C3-MP2-16C3-MP2-10]
      neuron.beta: {low: 0.3, high: 0.99}
      training.lr: {low: 3.0e-4, high: 2.0e-2, log: true}
      camera:
        - {input.camera_threshold: 0.38}
        - {input.encoding: latency, input.channels: 1}
    sampler: sobol
    runs: 65536
    seed: 1

Points are drawn one by one (`Space.config`) or as columns of a table (`Space.frame`), which is the
same but for the time that it takes. A calibration plan is a space with further keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from ._draws import Range, SpaceSection, WholeRange, combination, sequence, value_at, values_at
from ._flat import ABSENT, cells, changed, flat, is_whole, settle_nulls
from .config import Config, error_sentence, load_config, read_yaml
from .errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CAMPAIGN_KEYS",
    "MOST_RUNS",
    "Range",
    "Space",
    "SpaceSection",
    "WholeRange",
    "choices_of",
    "configured",
    "is_below",
    "is_bundle",
    "is_whole",
    "read_space",
]

MOST_RUNS = 1_000_000
"""Most that `runs` may ask for."""

CAMPAIGN_KEYS = ("samples", "repeats", "timing_share", "spot_checks", "limits", "held_out")
"""Keys of a calibration plan that say nothing about its space."""

_FLAT_NAMES = {"input.statistics": "input.events"}
"""Keys that a table has in another form."""

_BLOCK = 2**14
"""Points that are drawn together where they are asked for one by one."""

_Choices = Annotated[tuple[Any, ...], Field(min_length=1)]
_Variation = Annotated[
    Annotated[_Choices, Tag("[choices]")] | Annotated[Range, Tag("[range]")],
    Discriminator(lambda value: "[range]" if isinstance(value, Mapping | Range) else "[choices]"),
]


class Space(SpaceSection):
    """A space of configurations.

    Attributes
    ----------
    base : dict
        Keys of a configuration that hold for every point.
    vary : dict
        Key of a configuration, joined by dots, to a list of choices or a `Range`. Under any other
        name, a list of mappings from such keys to values: knobs that change together. No two may
        set the same key.
    sampler : {"halton", "sobol", "grid"}
        Scrambled Halton points, for any number of them; scrambled Sobol points, better balanced
        from 64 on, and drawn faster; or all combinations of the choices. Fewer Sobol points than
        that tie choices together: of 11 knobs in 30 points, some two always change at once.
    runs : int or None
        Sampled points; None for a grid, or where whoever draws says how many.
    seed : int
        Seed of the sampler.
    """

    base: dict[str, Any]
    vary: dict[str, _Variation] = Field(default_factory=dict)
    sampler: Literal["halton", "sobol", "grid"] = "halton"
    runs: Annotated[int, Field(ge=1, le=MOST_RUNS)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        ranges = [key for key, variation in self.vary.items() if isinstance(variation, Range)]
        for key, choices in self.vary.items():
            if is_bundle(key) and not _are_mappings(choices):
                rule = "is no key of a configuration; choices under another name must be mappings"
                raise ValueError(f"vary.{key}: {rule} of keys to values, got {choices!r}")
        if self.sampler == "grid" and ranges:
            raise ValueError(f"vary.{ranges[0]}: must be a list of choices in a grid, got a range")
        if self.sampler == "grid" and self.runs is not None:
            raise ValueError(f"runs: a grid runs every combination, got {self.runs}")
        return self

    @model_validator(mode="after")
    def _check_knobs(self) -> Self:
        setters: dict[str, str] = {}
        for name, variation in self.vary.items():
            if isinstance(variation, Range) and (variation.whole or is_whole(name)):
                _refuse_without_whole(name, variation)
            for choice in choices_of(name, variation):
                _refuse_clash(name, choice, setters)
            setters |= {key: name for choice in choices_of(name, variation) for key in choice}
        return self

    @property
    def points(self) -> int:
        """Count the points that it asks for; 0 if it leaves that open."""
        if self.sampler == "grid":
            return math.prod(len(choices) for choices in self._choices)
        return (self.runs or 0) if self.vary else 1

    def config(self, point: int) -> Config:
        """Give the configuration of one point, counted from 0.

        Raises
        ------
        ConfigError
            If it is no valid configuration.
        """
        return configured(self.base, self.changes(point))

    def changes(self, point: int, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """Give what a point changes in the base, or of that some keys and sections alone."""
        grid = self.sampler == "grid"
        drawn = combination(self._choices, point) if grid else self._shares_of(point)
        changes: dict[str, Any] = {}
        for (key, variation), share in zip(self.vary.items(), drawn, strict=True):
            value = share if grid else value_at(key, variation, share)
            changes |= value if is_bundle(key) else {key: value}
        if keys is not None:
            changes = {key: value for key, value in changes.items() if is_below(key, keys)}
        return changes

    def draw(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Draw points by number, `stop` excluded.

        Returns
        -------
        dict of str to ndarray, shape (stop - start,)
            For each knob of `vary` its values, or the places of its choices.
        """
        if not self.vary:
            return {}
        if self.sampler == "grid":
            return self._places(start, stop)
        drawn: dict[str, NDArray[Any]] = {}
        shares = sequence(self.sampler, len(self.vary), start, stop, self.seed)
        for (key, variation), share in zip(self.vary.items(), shares.T, strict=True):
            if isinstance(variation, Range):
                drawn[key] = values_at(key, variation, share)
            else:
                drawn[key] = (share * len(variation)).astype(np.int64)
        return drawn

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Give points by number as a table, `stop` excluded; see `frame_of`."""
        return self.frame_of(self.draw(start, stop), range(start, stop))

    def frame_of(self, drawn: Mapping[str, NDArray[Any]], points: range) -> pd.DataFrame:
        """Turn what was drawn into a table.

        Parameters
        ----------
        drawn : mapping of str to ndarray
            From `draw`.
        points : range
            Their numbers.

        Returns
        -------
        DataFrame
            A row for each point, with its number as index; columns are flat keys
            (``neuron.beta``), an empty cell is a default. `config_from_row` makes of a row what
            `config` makes of its number.

        Raises
        ------
        ConfigError
            If a key is unknown.
        """
        import pandas as pd

        constant, varied = self._tables
        columns = {
            key: drawn[key].copy() if values is None else values[drawn[knob]]
            for key, (knob, values) in varied.items()
        }
        fixed = {key: np.repeat(cell, len(points)) for key, cell in constant.items()}
        columns = {**fixed, **columns}
        settle_nulls(columns)
        index = pd.RangeIndex(points.start, points.stop, name="candidate")
        # Of a type that is said, or pandas would copy text into its own
        series = {key: pd.Series(x, index=index, dtype=x.dtype) for key, x in columns.items()}
        return pd.DataFrame(series, index=index)

    @property
    def varied_keys(self) -> tuple[str, ...]:
        """Flat keys that some point sets, in the order of `vary`."""
        return tuple(self._tables[1])

    def narrowed(self, vary: Mapping[str, tuple[Any, ...] | Range]) -> Space:
        """Give the same space with other variations of some knobs."""
        return Space(
            base=self.base, vary={**self.vary, **vary}, sampler=self.sampler, runs=self.runs,
            seed=self.seed,
        )  # fmt: skip

    def to_yaml(self) -> str:
        """Give the space as a YAML file holds it."""
        content = self.model_dump(mode="json", include=set(Space.model_fields))
        return yaml.safe_dump(content, sort_keys=False)

    @property
    def _choices(self) -> list[tuple[Any, ...]]:
        return [choices for choices in self.vary.values() if not isinstance(choices, Range)]

    @cached_property
    def _blocks(self) -> dict[int, NDArray[np.float64]]:
        """Points of the sequence that were asked for one by one, by the number of their block."""
        return {}

    def _shares_of(self, point: int) -> list[float]:
        """Give one point of the sequence; a longer one starts with the same."""
        if not self.vary:
            return []
        block, place = divmod(point, _BLOCK)
        start = block * _BLOCK
        if place >= len(self._blocks.get(block, ())):
            stop = start + _BLOCK
            if point < self.points:  # a short plan is not to draw more than it has
                stop = min(stop, self.points)
            self._blocks[block] = sequence(self.sampler, len(self.vary), start, stop, self.seed)
        shares: list[float] = self._blocks[block][place].tolist()
        return shares

    def _places(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Places of the choices of a grid."""
        number = np.arange(start, stop)
        places = {}
        for key, options in reversed(list(zip(self.vary, self._choices, strict=True))):
            number, places[key] = np.divmod(number, len(options))
        return {key: places[key] for key in self.vary}

    @cached_property
    def _tables(self) -> tuple[dict[str, NDArray[Any]], dict[str, _Column]]:
        """Cells of the keys that stay; and for each other key its knob, and a cell per choice.

        A key whose knob is a range has None for cells.
        """
        base = _located("base", flat, self.base)
        varied: dict[str, _Column] = {}
        for name, variation in self.vary.items():
            if isinstance(variation, Range):
                _located(f"vary.{name}", self._changed, {name: variation.low})
                varied[name] = (name, None)
                continue
            choices = variation if is_bundle(name) else [{name: choice} for choice in variation]
            contents = [_located(f"vary.{name}", self._changed, choice) for choice in choices]
            keys = [_FLAT_NAMES.get(key, key) for choice in choices for key in choice]
            for key in dict.fromkeys(key for content in (base, *contents) for key in content):
                if is_below(key, keys):
                    column = cells(key, [content.get(key, ABSENT) for content in contents])
                    varied[key] = (name, column)
        constant = {key: cells(key, [value]) for key, value in base.items() if key not in varied}
        return constant, varied

    def _changed(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Flat keys and values of the base with one choice."""
        return flat(changed(self.base, choice))


_Column = tuple[str, NDArray[Any] | None]


def read_space(source: Space | Mapping[str, Any] | str | Path) -> Space:
    """Read a space, and refuse knobs that no configuration has.

    Parameters
    ----------
    source : Space, mapping, str or Path
        A space, its keys, or a YAML file of them. A calibration plan is one, too: what else it
        says (`CAMPAIGN_KEYS`) is left aside.

    Returns
    -------
    Space

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key, a range or a choice is not allowed. Whether points are
        valid configurations is another question.
    """
    if isinstance(source, Space):
        space = source.narrowed({})  # no plan, whose numbers go on with repeats
    else:
        content = source if isinstance(source, Mapping) else read_yaml(Path(source), "space")
        content = {key: value for key, value in content.items() if key not in CAMPAIGN_KEYS}
        try:
            space = Space.model_validate(content)
        except ValidationError as error:
            raise ConfigError(error_sentence(error, Space)) from error
    _ = space.varied_keys
    return space


def configured(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Config:
    """Validate a configuration whose keys, joined by dots, are changed.

    Parameters
    ----------
    base : mapping
        Keys of a configuration.
    changes : mapping
        Other values of some, for instance the parameters of an Optuna trial.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        If a key, type, value or combination is not allowed.

    Examples
    --------
    >>> base = {"dataset": "nmnist-saccade", "network": "10"}
    >>> configured(base, {"neuron.beta": 0.5}).neuron.beta
    0.5
    """
    return load_config(changed(base, changes))


def is_bundle(name: str) -> bool:
    """Tell whether a name of `Space.vary` is no key, but of knobs that change together."""
    return name.partition(".")[0] not in Config.model_fields and "." not in name


def is_below(name: str, keys: Iterable[str]) -> bool:
    """Tell whether a key is one of some, or in a section of them."""
    return any(name == key or name.startswith(f"{key}.") for key in keys)


def choices_of(name: str, variation: tuple[Any, ...] | Range) -> Sequence[Mapping[str, Any]]:
    """Keys and values that a knob may set, one mapping for each choice; a range is one choice."""
    if is_bundle(name) and not isinstance(variation, Range):
        return variation
    return [{name: variation}]


def _are_mappings(choices: object) -> bool:
    """Tell whether these are choices of keys and values."""
    return isinstance(choices, tuple) and all(
        isinstance(choice, Mapping) and all(isinstance(key, str) for key in choice)
        for choice in choices
    )


def _refuse_without_whole(name: str, variation: Range) -> None:
    if not variation.holds_whole:
        given = f"got {variation.low:g} to {variation.high:g}"
        raise ValueError(f"vary.{name}: must hold a whole number, {given}")


def _refuse_clash(name: str, choice: Mapping[str, Any], setters: Mapping[str, str]) -> None:
    """Refuse a choice whose keys, or sections of them, are also set by it or by another knob."""
    seen = dict(setters)
    for key in choice:
        for other, setter in seen.items():
            if is_below(key, [other]) or is_below(other, [key]):
                raise ValueError(f"vary.{name}: sets {key}, and vary.{setter} sets {other}")
        seen[key] = name


def _located(
    where: str, read: Callable[[Mapping[str, Any]], dict[str, Any]], content: Mapping[str, Any]
) -> dict[str, Any]:
    """Let errors of reading say where in the space they are."""
    try:
        return read(content)
    except ConfigError as error:
        section, _, key = where.partition(".")
        said = f"{section}.{error}" if str(error).startswith(f"{key}: ") else f"{where}: {error}"
        raise ConfigError(said) from error
