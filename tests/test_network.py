import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikemeter.errors import ConfigError
from spikemeter.network import Layer, parse_network


def parse(notation: str, *, channels: int = 2, height: int = 16, width: int = 12):
    return parse_network(notation, channels=channels, height=height, width=width)


def torch_shape(tokens, shape):
    """Sizes after each weighted layer, from the formulas of torch's Conv2d and MaxPool2d."""
    shapes = []
    for token in tokens:
        if isinstance(token, int):
            shape = (token, 1, 1)
            shapes.append([shape, shape])
        elif token[0] == "pool":
            shape = (
                shape[0],
                *(math.floor((side - token[1]) / token[1] + 1) for side in shape[1:]),
            )
            shapes[-1][1] = shape
        else:
            _, channels, kernel, padding = token
            sides = (math.floor((side + 2 * padding - (kernel - 1) - 1) + 1) for side in shape[1:])
            shape = (channels, *sides)
            shapes.append([shape, shape])
    return shapes


@st.composite
def networks(draw):
    """Tokens that fit an input map, with their notation."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    channels = draw(st.integers(1, 5))
    rows, columns = height, width
    tokens, words = [], []
    for _ in range(draw(st.integers(0, 4))):
        features = draw(st.integers(1, 70))
        kernel, valid = draw(st.sampled_from([1, 3, 5])), draw(st.booleans())
        if valid and min(rows, columns) < kernel:
            valid = False
        padding = 0 if valid else kernel // 2
        tokens.append(("conv", features, kernel, padding))
        words.append(f"{features}C{kernel}{'v' if valid else ''}")
        rows, columns = rows + 2 * padding - kernel + 1, columns + 2 * padding - kernel + 1
        factor = draw(st.sampled_from([0, 2, 4]))
        if factor and min(rows, columns) >= factor:
            tokens.append(("pool", factor))
            words.append(f"MP{factor}")
            rows, columns = rows // factor, columns // factor
    for _ in range(draw(st.integers(1, 3))):
        features = draw(st.integers(1, 300))
        tokens.append(features)
        words.append(str(features))
    return "-".join(words), (channels, height, width), tokens


@given(networks())
def test_sizes_are_those_of_the_same_torch_layers(network):
    notation, (channels, height, width), tokens = network
    layers = parse_network(notation, channels=channels, height=height, width=width)
    shapes = torch_shape(tokens, (channels, height, width))
    for layer, (neurons, pooled) in zip(layers, shapes, strict=True):
        assert (layer.out_channels, layer.out_height, layer.out_width) == neurons
        assert (layer.out_channels, layer.pooled_height, layer.pooled_width) == pooled


@given(networks())
def test_what_leaves_a_layer_enters_the_next(network):
    notation, (channels, height, width), _ = network
    layers = parse_network(notation, channels=channels, height=height, width=width)
    first = layers[0]
    assert (first.in_channels, first.in_height, first.in_width) == (channels, height, width)
    for before, after in pairwise(layers):
        assert before.outputs == after.inputs
        assert (before.out_channels, before.pooled_height, before.pooled_width) == (
            after.in_channels,
            after.in_height,
            after.in_width,
        )
    assert layers[-1].kind == "dense"


@given(networks())
def test_names_give_the_notation_back(network):
    notation, (channels, height, width), _ = network
    layers = parse_network(notation, channels=channels, height=height, width=width)
    words = []
    for index, layer in enumerate(layers):
        number, _, word = layer.name.partition(":")
        assert int(number) == index
        words += [word] if layer.pool == 1 else [word, f"MP{layer.pool}"]
    assert "-".join(words) == notation


@given(st.text(alphabet="0123456789CMPvx- \nC٣", max_size=12))
def test_any_text_is_parsed_or_refused_in_one_sentence(notation):
    try:
        layers = parse(notation)
    except ConfigError as error:
        assert str(error).startswith("network: ")  # noqa: PT017
        assert repr(notation) in str(error)  # noqa: PT017
    else:
        assert all(isinstance(layer, Layer) for layer in layers)
        assert min(layer.outputs for layer in layers) >= 1


@pytest.mark.parametrize(
    ("notation", "token", "rule"),
    [
        ("", "''", "tokens are"),
        ("8C3--10", "''", "tokens are"),
        ("8c3-10", "'8c3'", "tokens are"),
        ("0C3-10", "'0C3'", "tokens are"),
        ("8C03-10", "'8C03'", "tokens are"),
        ("8C3-MP02-10", "'MP02'", "tokens are"),
        ("8C٣-10", "'8C٣'", "tokens are"),
        ("8C3-10\n", "'10\\n'", "tokens are"),
        ("8C2-10", "'8C2'", "kernel must be one of"),
        ("8C0-10", "'8C0'", "kernel must be one of"),
        ("8C3-MP3-10", "'MP3'", "pooling must be one of"),
        ("8C3-MP1-10", "'MP1'", "pooling must be one of"),
        ("MP2-10", "'MP2'", "must follow a convolution"),
        ("10-MP2", "'MP2'", "must follow a convolution"),
        ("8C3-MP2-MP2-10", "'MP2'", "must follow a convolution"),
        ("32-8C3-10", "'8C3'", "cannot follow a dense one"),
        ("8C3-MP2", "'MP2'", "last layer must be dense"),
        ("8C3", "'8C3'", "last layer must be dense"),
        ("8C3-MP4-8C5v-10", "'8C5v'", "kernel exceeds its 4x3 input"),
        ("8C3-MP4-8C3-MP4-10", "'MP4'", "pooling exceeds its 4x3 map"),
    ],
)
def test_a_malformed_network_names_token_and_rule(notation, token, rule):
    with pytest.raises(ConfigError) as caught:
        parse(notation)
    assert token in str(caught.value)
    assert rule in str(caught.value)


def test_other_machines_may_have_other_kernels_and_end_in_a_convolution():
    layers = parse_network("4C7-MP3-8C4v", channels=1, height=20, width=30, any_machine=True)
    assert [(x.kernel, x.padding, x.pool) for x in layers] == [(7, 3, 3), (4, 0, 1)]
    assert (layers[1].out_height, layers[1].out_width) == (3, 7)
    for notation, rule in (
        ("4C4-10", "the kernel must be odd where it is padded"),
        ("4C0v", "the kernel must be odd"),
        ("4C3-MP1", "the pooling must be at least 2"),
    ):
        with pytest.raises(ConfigError, match=rule):
            parse_network(notation, channels=1, height=20, width=30, any_machine=True)


def test_sizes_of_a_known_network():
    conv, dense = parse("16C3-MP2-10")
    assert (conv.inputs, conv.neurons, conv.outputs, conv.fan_in) == (384, 3072, 768, 18)
    assert conv.weight_shape == (16, 2, 3, 3)
    assert (dense.inputs, dense.neurons, dense.outputs, dense.fan_in) == (768, 10, 10, 768)
    assert dense.weight_shape == (10, 768)


def test_pooling_floors():
    layer, _ = parse("4C3v-MP4-10", height=9, width=13)
    assert (layer.out_height, layer.out_width) == (7, 11)
    assert (layer.pooled_height, layer.pooled_width) == (1, 2)
