"""Share out neural cores among layers: before training, after it, and checked in RTL.

    python examples/allocate_cores.py [--cores 16] [--out DIR]

Real digits, seen by a simulated event camera. Takes about a minute on two cores, with the RTL tools
(pip install 'spikemeter[train,rtl,explain]') and a C++ compiler.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spikemeter.calibration.allocation import verify_allocation
from spikemeter.models import train_run
from spikemeter.predictor.allocation import AllocationPoint, allocate_cores
from spikemeter.predictor.allocation_plot import plot_allocation

CONTENT = {
    "dataset": "digits-saccade",
    "network": "8C3-MP2-16C3-MP2-10",
    "input": {"height": 12, "width": 12, "time_steps": 8},
    "surrogate": {"slope": 5},
    "training": {"epochs": 6, "lr": 5e-3, "batch_size": 32},
    "hardware": {"schedule": "step_pipelined"},
}
SAMPLES = 16
console = Console(highlight=False)


def main() -> None:
    """Allocate from hyperparameters, train, allocate from spikes, and simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=16, help="budget of cores")
    parser.add_argument("--out", type=Path, help="folder for the run and the plot")
    options = parser.parse_args()

    guess = allocate_cores(CONTENT, options.cores)
    low, high = guess.estimate.interval_cycles
    console.print(
        f"Before training: {list(guess.neural_cores)} of {options.cores} cores, "
        f"{guess.estimate.cycles:,.0f} cycles ({low:,.0f} to {high:,.0f});\n"
        f"an even share would take {guess.compared['even'].cycles:,.0f} cycles."
    )
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        run = train_run(guess.config, out / "run")
        accuracy = run.result["accuracy"]["integer"]["test"]
        found = allocate_cores(run.path, options.cores, samples=SAMPLES)
        console.print(f"After it ({100 * accuracy:.0f} % right), from {SAMPLES} spike trains:")
        show(found.front[-1], "best, proved" if found.exact else "best known", found.compared)

        console.print("The best and its neighbours in RTL (each is hardware of its own to build):")
        for point in verify_allocation(run, found):
            console.print(
                f"  {list(point.neural_cores)}: predicted {point.cycles:,.1f}, measured "
                f"{point.measured_cycles:,.1f} cycles"
            )
            assert point.difference_cycles == 0
        plot = plot_allocation(found, out / "allocation.png")
        if options.out:
            console.print(f"The front of {len(found.front)} points is drawn in {plot}.")


def show(best: AllocationPoint, title: str, others: Mapping[str, AllocationPoint]) -> None:
    """Print allocations beside the best one."""
    table = Table("", "cores of each layer", "sum", "cycles", "")
    names = {"configured": "chosen before training", "even": "even share"}
    rows = [(title, best), *((names[name], point) for name, point in others.items())]
    for name, point in rows:
        cores = ", ".join(map(str, point.neural_cores))
        longer = f"{100 * (point.cycles / best.cycles - 1):+.1f} %"
        table.add_row(name, cores, str(point.cores), f"{point.cycles:,.0f}", longer)
    console.print(table)


if __name__ == "__main__":
    main()
