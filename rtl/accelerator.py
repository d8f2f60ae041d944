"""The engine behind registers and streams: writes ``snn_accelerator`` and names its sources."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Config
from ..models.integer import IntegerNetwork
from ..network import packed_words
from .generator import RTL_FOLDER, line_words, source_files
from .packing import SPACE_BIAS, SPACE_WEIGHT, ConfigWrite, config_writes
from .registers import RegisterAddress, pack_fields

__all__ = ["AcceleratorSizes", "accelerator_files", "accelerator_sizes", "accelerator_source"]

_MODULES = (
    "axi_lite_port",
    "control_registers",
    "input_stream",
    "output_stream",
    "config_port",
    "control_status",
)
_ADDRESS_BITS = 7


class AcceleratorSizes(NamedTuple):
    """What an accelerator says of itself in its registers.

    Attributes
    ----------
    layers, time_steps, encoder_width : int
        Register ``network``.
    input_words, output_words : int
        Words of the streams that an inference takes and gives.
    config_writes : int
        Writes that load a whole network.
    layer_words : tuple of int
        Register ``layer`` for each layer.
    """

    layers: int
    time_steps: int
    encoder_width: int
    input_words: int
    output_words: int
    config_writes: int
    layer_words: tuple[int, ...]


def accelerator_sizes(config: Config, network: IntegerNetwork) -> AcceleratorSizes:
    """Say what the accelerator of a network is to say of itself.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware.
    network : IntegerNetwork
        Its widths and neurons are used.

    Returns
    -------
    AcceleratorSizes
        Equal for all networks that one accelerator serves.
    """
    width, steps = config.hardware.encoder_width, config.input.time_steps
    return AcceleratorSizes(
        layers=len(config.layers),
        time_steps=steps,
        encoder_width=width,
        input_words=steps * packed_words(config.layers[0].inputs, width),
        output_words=steps * packed_words(config.layers[-1].outputs, width),
        config_writes=len(config_writes(config, network)),
        layer_words=tuple(
            pack_fields(
                RegisterAddress.LAYER,
                cores=cores,
                membrane_bits=integer.membrane_bits,
                weight_bits=integer.weight_bits,
                taps_per_cycle=config.hardware.taps_per_cycle if layer.kernel == 3 else 1,
                lapicque=integer.neuron == "lapicque",
            )
            for layer, cores, integer in zip(
                config.layers, config.neural_cores, network.layers, strict=True
            )
        ),
    )


def accelerator_files(folder: Path = RTL_FOLDER) -> tuple[Path, ...]:
    """Modules around every ``snn_top`` and in it, in the order in which they are compiled."""
    return (*source_files(folder), *(folder / f"{name}.sv" for name in _MODULES))


def accelerator_source(config: Config, network: IntegerNetwork, folder: Path = RTL_FOLDER) -> str:
    """Write the module around the engine of a network.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware.
    network : IntegerNetwork
        Its widths and neurons are used: weights and constants are loaded at run time.
    folder : Path
        Holds the template, ``snn_accelerator.sv.j2``.

    Returns
    -------
    str
        SystemVerilog source of ``snn_accelerator``, which instantiates the ``snn_top`` of
        `spikemeter.rtl.top_source`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is SystemVerilog
    )
    sizes, last = accelerator_sizes(config, network), config.layers[-1]
    writes = config_writes(config, network)
    return environment.get_template("snn_accelerator.sv.j2").render(
        network=config.network,
        addr_width=_ADDRESS_BITS,
        time_steps=sizes.time_steps,
        encoder_width=sizes.encoder_width,
        stream_width=-(-sizes.encoder_width // 8) * 8,
        inputs=config.layers[0].inputs,
        input_words=sizes.input_words,
        output_words=sizes.output_words,
        output_step_words=packed_words(last.outputs, sizes.encoder_width),
        output_line_words=line_words(config.neural_cores[-1], sizes.encoder_width),
        config_writes=sizes.config_writes,
        layers=[_layer_values(index, info, writes) for index, info in enumerate(sizes.layer_words)],
    )


def _layer_values(index: int, info: int, writes: Iterable[ConfigWrite]) -> dict[str, Any]:
    """Count the addresses that a layer's weights and biases have in a core."""
    counts = {SPACE_WEIGHT: 0, SPACE_BIAS: 0}
    for write in writes:
        if write.layer == index and write.space in counts:
            counts[write.space] = max(counts[write.space], write.addr + 1)
    return {"info": info, "weights": counts[SPACE_WEIGHT], "biases": counts[SPACE_BIAS]}
