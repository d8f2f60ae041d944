"""What of an FPGA an allocation may take: LUTs and block RAMs, as the resource model has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._checks import LARGEST_CORES
from ..config import Config
from ..errors import PredictorError
from .allocation_bounds import Limits, unlimited
from .allocation_costs import AllocationCosts
from .resource_parts import layer_blocks
from .resources import block_resources

__all__ = [
    "allocation_limits",
    "checked_limits",
    "even_cores",
    "even_share",
    "fits",
    "nothing_fits",
]


def checked_limits(luts: int | None, brams: int | None) -> dict[str, int]:
    """Give the limits that were set, by kind of resource."""
    for name, most in {"luts": luts, "brams": brams}.items():
        if most is None:
            continue
        if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
            raise PredictorError(f"{name}: must be a whole number of 1 or more, got {most!r}")
    limits = {"lut": luts, "bram": brams}
    return {kind: int(most) for kind, most in limits.items() if most is not None}


def allocation_limits(config: Config, costs: AllocationCosts, limited: Mapping[str, int]) -> Limits:
    """Estimate what each option of each layer, with the buffer behind it, takes of what is limited.

    The buffer of the input does not depend on the cores, and is taken off the limits.
    """
    if not limited:
        return unlimited(costs)
    amounts = []
    for layer, counts in enumerate(costs.cores):
        rows = []
        for cores in counts.tolist():
            every = [1] * len(costs.cores)
            every[layer] = cores
            blocks = layer_blocks(config, every)[2 * layer + 1 : 2 * layer + 3]
            taken = [block_resources(block) for block in blocks]
            rows.append([sum(each[kind] for each in taken) for kind in limited])
        amounts.append(np.array(rows, dtype=np.float64))
    entering = block_resources(layer_blocks(config, [1] * len(amounts))[0])
    most = [limit - entering[kind] for kind, limit in limited.items()]
    return Limits(amounts=tuple(amounts), most=np.array(most, dtype=np.float64))


def nothing_fits(config: Config, limits: Limits, limited: Mapping[str, int], budget: int) -> str:
    """Say which limit is too low, and what the network takes at least."""
    least = sum(amount.min(axis=0) for amount in limits.amounts)
    for place, (kind, limit) in enumerate(limited.items()):
        short = float(np.asarray(least)[place] - limits.most[place])
        if short > 0:
            rule = f"must be at least about {limit + round(short)}, which {config.network} takes"
            return f"{kind}s: {rule} on the cheapest cores, as estimated; got {limit}"
    given = ", ".join(f"{kind}s {limit}" for kind, limit in limited.items())
    rule = f"no allocation of {config.network} that keeps to all limits was found"
    return f"{rule}; got {given}, cores {budget}"


def fits(config: Config, neural_cores: Sequence[int], limited: Mapping[str, int]) -> bool:
    """Tell whether a configuration with these cores keeps to all limits, as estimated."""
    if not limited:
        return True
    taken = [block_resources(block) for block in layer_blocks(config, neural_cores)]
    return all(sum(each[kind] for each in taken) <= limited[kind] for kind in limited)


def even_share(config: Config, budget: int, limited: Mapping[str, int]) -> tuple[int, ...] | None:
    """Spread the budget evenly, or the most of it that fits the limits."""
    most = [min(layer.out_channels, LARGEST_CORES) for layer in config.layers]
    for cores in range(min(budget, sum(most)), len(most) - 1, -1):
        even = even_cores(most, cores)
        if fits(config, even, limited):
            return even
    return None


def even_cores(most: Sequence[int], budget: int) -> tuple[int, ...]:
    """Spread cores evenly; what a layer cannot use goes to those that can."""
    cores, left = [0] * len(most), budget
    for place, layer in enumerate(sorted(range(len(most)), key=lambda layer: most[layer])):
        cores[layer] = min(most[layer], left // (len(most) - place))
        left -= cores[layer]
    return tuple(cores)
