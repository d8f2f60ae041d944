"""What is learned of many training points, column by column.

A point is a network with its input and training choices. Points of networks with as many layers and
time steps are described, asked about and held against the calibrated domain together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from .columns import Asked
from .events import KnownInput
from .features import (
    POOL_COLUMN,
    input_features,
    layer_columns,
    layer_sizes,
    run_features,
)
from .folder import PredictorParts
from .intervals import OUTSIDE_FACTOR, Domain
from .machine import tap_bounds
from .sparsity import SparsityModel, factor_of, logistic, rate_of
from .timing import DRAIN_CYCLES, LayerShapes, layer_shapes, stack_shapes

__all__ = ["Learned", "Networks", "Question", "add_sentences", "learn", "stack_networks"]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]
_Texts = NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Networks:
    """Networks of as many layers and time steps, and what enters them.

    Attributes
    ----------
    configs : list of Config
        One that has each network.
    entering : list of KnownInput
    estimated : ndarray of bool, shape (networks,)
        Where what enters was estimated.
    full : ndarray of bool, shape (networks,)
        Where exactly one event enters some channel in some step.
    inputs : ndarray of float, shape (networks, input features)
    sizes : ndarray of float32, shape (networks, layers, sizes)
        Features of what enters, and of the layers.
    events : ndarray of float, shape (networks, time_steps)
        That enter, of all channels.
    shapes : LayerShapes
        Arrays have shape (networks, layers, 1).
    pixels, channels : ndarray of float, shape (networks, layers)
        Of the maps that enter each layer.
    fewest, most : ndarray of float, shape (networks, layers)
        Taps that a spike can have.
    lines : ndarray of bool, shape (networks, layers)
        Layers whose counts may say which word holds which spike: their maps are single pixels.
    """

    configs: list[Config]
    entering: list[KnownInput]
    estimated: _Flags
    full: _Flags
    inputs: _Floats
    sizes: NDArray[np.float32]
    events: _Floats
    shapes: LayerShapes
    pixels: _Floats
    channels: _Floats
    fewest: _Floats
    most: _Floats
    lines: _Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """Some of what is asked, all of networks of as many layers and time steps.

    Attributes
    ----------
    asked : Asked
    networks : Networks
    chosen : ndarray of int, shape (chosen,)
        Which are asked here.
    network : ndarray of int, shape (chosen,)
        Which of `networks` each of them has.
    """

    asked: Asked
    networks: Networks
    chosen: _Indices
    network: _Indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """What is learned of some points.

    Attributes
    ----------
    counts : ndarray of float, shape (points, layers, time_steps)
        Spikes that enter each layer, of all channels.
    taps : ndarray of float, shape (points, layers)
        Kernel taps of each of them.
    drain : ndarray of float, shape (points,)
        Cycles that the engine needs to empty its pipeline behind such neurons.
    known_places : ndarray of bool, shape (points,)
        Where a layer with maps of a single pixel gets exactly one spike a line.
    accuracy, spread : ndarray of float, shape (points,)
    widening : ndarray of float, shape (points,)
        How much wider the interval is than inside the calibrated domain.
    texts : ndarray of str, shape (points,)
        Why they are outside the calibrated domain; empty for those inside.
    """

    counts: _Floats
    taps: _Floats
    drain: _Floats
    known_places: _Flags
    accuracy: _Floats
    spread: _Floats
    widening: _Floats
    texts: _Texts


def stack_networks(configs: list[Config], entering: list[KnownInput]) -> Networks:
    """Describe networks of as many layers and time steps, one of each configuration."""
    layers = [config.layers for config in configs]
    inputs = [
        input_features(known.events, config.input.height * config.input.width)
        for config, known in zip(configs, entering, strict=True)
    ]
    sizes = [
        [
            (layer.in_height * layer.in_width, layer.in_channels, *tap_bounds(layer))
            for layer in each
        ]
        for each in layers
    ]
    pixels, channels, fewest, most = np.moveaxis(np.array(sizes, dtype=np.float64), 2, 0)
    dense = np.array([[layer.kind == "dense" for layer in each] for each in layers])
    return Networks(
        configs=configs,
        entering=entering,
        estimated=np.array([known.estimated for known in entering]),
        full=np.array([bool(np.any(known.events == 1)) for known in entering]),
        inputs=np.array(inputs),
        sizes=np.stack([layer_sizes(each) for each in layers]),
        events=np.stack([known.events.sum(axis=1) for known in entering]),
        shapes=stack_shapes([layer_shapes(each) for each in layers]),
        pixels=pixels,
        channels=channels,
        fewest=fewest,
        most=most,
        lines=dense & (pixels == 1),
    )


def learn(question: Question, first: _Indices, parts: PredictorParts) -> Learned:
    """Ask the model about points.

    Parameters
    ----------
    question : Question
    first : ndarray of int, shape (points,)
        Where the question asks about each of them first.
    parts : PredictorParts
    """
    networks, network = question.networks, question.network[first]
    kinds = list(_kinds(question, first))
    columns = _features(networks, network, kinds, parts.domain)
    texts, widening = _excursions(parts, networks, network, kinds, columns)
    between = _between(parts, columns, networks.events.shape[1])
    lines, sizes = networks.lines[network], networks.pixels[network] * networks.channels[network]
    ones = np.concatenate([networks.full[network, None], (between == 1).any(axis=2)], axis=1)
    drain = np.empty(len(first))
    for members, config in kinds:
        drain[members] = DRAIN_CYCLES[config.neuron.model]
    last, ensembles = columns[:, -1], parts.model.ensembles
    return Learned(
        counts=np.concatenate(
            [networks.events[network][:, None], between * sizes[:, 1:, None]], axis=1
        ),
        taps=_taps(parts.model, columns, networks, network),
        drain=drain,
        known_places=(lines & ones).any(axis=1),
        accuracy=logistic(ensembles["accuracy"].values_of_many(last)),
        spread=factor_of(ensembles["spread"].values_of_many(last)),
        widening=widening,
        texts=texts,
    )


def _kinds(question: Question, first: _Indices) -> Iterator[tuple[_Indices, Config]]:
    """Points that differ in numbers alone, with a `Config` in which these are arrays."""
    asked, networks = question.asked, question.networks
    rows, network = asked.row[question.chosen[first]], question.network[first]
    population = np.array([config.training.population for config in networks.configs])
    order = np.argsort(asked.kind[rows], kind="stable")
    changes = np.flatnonzero(np.diff(asked.kind[rows[order]])) + 1
    for members in np.split(order, changes):
        config = asked.config(int(asked.kinds[asked.kind[rows[members[0]]]]))
        given: dict[str, dict[str, Any]] = {"neuron": {}, "surrogate": {}, "training": {}}
        given["training"]["population"] = population[network[members]]
        for key, numbers in asked.rows.numbers.items():
            section, _, name = key.partition(".")
            of_members = numbers[rows[members]]
            if section in given and not np.isnan(of_members[0]):  # then of no one of this kind
                given[section][name] = of_members
        sections = {
            section: getattr(config, section).model_copy(update=numbers)
            for section, numbers in given.items()
        }
        steps = {"input": networks.configs[0].input}  # the others have as many
        yield members, config.model_copy(update=sections | steps)


def _features(
    networks: Networks,
    network: _Indices,
    kinds: Sequence[tuple[_Indices, Config]],
    domain: Domain,
) -> NDArray[np.float32]:
    """Describe every layer of every point, shape (features, layers, points)."""
    described = [(members, run_features(config, domain.categories)) for members, config in kinds]
    run = [np.empty(len(network)) for _ in described[0][1]]
    for members, values in described:
        for column, value in zip(run, values, strict=True):
            column[members] = value
    return layer_columns(networks.inputs[network], networks.sizes[network], run)


def _between(parts: PredictorParts, columns: NDArray[np.float32], steps: int) -> _Floats:
    """Spikes per line and step that enter each layer but the first, shape (points, layers, steps).

    As `expected_counts` has them: no step gets more than one spike a line.
    """
    _, layers, points = columns.shape
    hidden = np.ascontiguousarray(columns[:, :-1]).reshape(len(columns), -1)
    rates = _output_rates(parts.model, hidden)
    heads = [parts.model.ensembles[name].values_of_many(hidden) for name in ("early", "late")]
    courses = parts.profile.over_steps(np.stack(heads, axis=1), steps)
    spikes: _Floats = np.minimum(rates[:, None] * courses, 1.0)
    return spikes.reshape(layers - 1, points, steps).swapaxes(0, 1)


def _output_rates(model: SparsityModel, hidden: NDArray[np.float32]) -> _Floats:
    """Rates of what the next layers receive; without pooling, of what fires."""
    odds = np.empty(hidden.shape[1])
    pooled = hidden[POOL_COLUMN] != 1
    for head, members in (("firing", ~pooled), ("output", pooled)):
        if members.any():
            chosen = hidden.compress(members, axis=1)
            odds[members] = model.ensembles[head].values_of_many(chosen)
    return rate_of(odds)


def _taps(
    model: SparsityModel, columns: NDArray[np.float32], networks: Networks, network: _Indices
) -> _Floats:
    """Kernel taps of a spike that enters each layer, shape (points, layers)."""
    fewest, most = networks.fewest[network], networks.most[network]
    ratio = np.ones(fewest.shape)
    ratio[:, 0] = np.array([known.tap_ratio for known in networks.entering])[network]
    open_ = (fewest < most).T
    open_[0] = False
    chosen = columns.reshape(len(columns), -1).compress(open_.ravel(), axis=1)
    ratio.T[open_] = factor_of(model.ensembles["taps"].values_of_many(chosen))
    even = networks.shapes.even_taps[network][:, :, 0]
    taps: _Floats = np.minimum(np.maximum(even * ratio, fewest), most)
    return taps


def _excursions(
    parts: PredictorParts,
    networks: Networks,
    network: _Indices,
    kinds: Sequence[tuple[_Indices, Config]],
    columns: NDArray[np.float32],
) -> tuple[_Texts, _Floats]:
    """Say where points leave the calibrated domain, as `Domain.excursions` and `widening` do."""
    domain = parts.domain
    texts: _Texts = np.full(len(network), "", dtype=object)
    outside = networks.estimated[network] & (parts.estimated is None)
    unseen = np.ones(len(network))

    def add(key: str, where: _Indices, sentences: str | Sequence[str]) -> None:
        add_sentences(texts, where, sentences)
        if key in domain.unseen:
            unseen[where] *= domain.unseen[key]
        else:
            outside[where] = True

    datasets = [config.dataset for config in networks.configs]
    number = {name: index for index, name in enumerate(dict.fromkeys(datasets))}
    dataset = np.array([number[name] for name in datasets])[network]
    for members, config in kinds:
        for name, index in number.items():
            alike = members[dataset[members] == index]
            for key, sentence in domain.unknown_names(name, config).items():
                add(key, alike, sentence)
    names = [config.network for config in networks.configs]
    said = [domain.strange_network(name).get("network", "") for name in names]
    (new,) = np.nonzero(np.array([name not in domain.networks for name in names])[network])
    add("network", new, [said[each] for each in network[new]])
    for members, config in kinds:
        for row, feature, sentence in domain.named_excursions(config, columns[:, 0, members].T):
            add(feature, members[row : row + 1], sentence)
    out = domain.outside(columns.T)
    somewhere = np.asarray(out.any(axis=1))
    for column in np.flatnonzero(somewhere.any(axis=0)).tolist():
        (rows,) = np.nonzero(somewhere[:, column])
        layers = out[rows, :, column].argmax(axis=1)
        of_layers = [
            networks.configs[at].layers[layer].name
            for at, layer in zip(network[rows].tolist(), layers.tolist(), strict=True)
        ]
        found = list(zip(of_layers, columns[column, layers, rows].tolist(), strict=True))
        sentence_of = {each: domain.range_sentence(column, *each) for each in set(found)}
        add(domain.feature_names[column], rows, [sentence_of[each] for each in found])
    return texts, unseen * np.where(outside, OUTSIDE_FACTOR, 1.0)


def add_sentences(texts: _Texts, where: _Indices, sentences: str | Sequence[str]) -> None:
    """Add a sentence to some texts, the same one to all or each its own."""
    if isinstance(sentences, str):
        sentences = [sentences] * len(where)
    texts[where] = [
        f"{text}; {sentence}" if text and sentence else text or sentence
        for text, sentence in zip(texts[where], sentences, strict=True)
    ]
