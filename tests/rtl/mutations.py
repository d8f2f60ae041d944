"""The RTL broken on purpose, one change at a time; see ``make rtl-mutations``.

Every mutation must be noticed: by an assertion, by spikes or cycles that differ on a fixed set of
random networks, or else by the benches of the blocks.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "tests" / name) for name in ("support", "rtl")]

from block_bench import RTL_VARIABLE  # noqa: E402
from engine_checks import CycleMismatchError, check_case  # noqa: E402
from mutation_list import MUTATIONS, Mutation  # noqa: E402
from random_networks import Case, random_case, random_network  # noqa: E402
from simulator_cache import own_cache, tidy_cache  # noqa: E402

from spikemeter.config import load_config  # noqa: E402
from spikemeter.errors import SimulationError, SpikeMismatchError  # noqa: E402
from spikemeter.rtl.generator import RTL_FOLDER  # noqa: E402
from spikemeter.rtl.runners import Build  # noqa: E402
from spikemeter.rtl.toolchain import tool_environment  # noqa: E402

SEEDS = (328, 43, 284, 270, 95, 30, 341, 259, 17, 273, 244)
"""Networks of ``test_engine.py``, those that exercise most first."""
BANKED_SEEDS = (105, 80, 72, 493)
"""Those of them with nine taps per cycle."""
BENCH_OF = {
    "neural_core": "core_array", "neuron_bank": "core_array", "line_packer": "strip_packer"
}  # fmt: skip
"""Blocks without a bench of their own, and whose bench exercises them."""
BENCHES = REPOSITORY / "tests" / "rtl" / "blocks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every mutation; return 0 if all are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--match", default="", help="only mutations whose description has this")
    parser.add_argument("--banked", action="store_true", help="only those of nine banks")
    given = parser.parse_args(arguments)
    console, began = Console(), time.perf_counter()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if given.match in mutation.breaks and mutation.banked >= given.banked
    ]
    table = Table("file", "what is broken", "caught by", "seen on")
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as name:
        folder = Path(name)
        with ProcessPoolExecutor(
            given.workers, initializer=own_cache, initargs=(folder / "cache",)
        ) as pool:
            sources = _copy(folder / "whole", None)
            whole = pool.submit(_caught_by_networks, sources, networks())
            tried = [
                pool.submit(_caught, mutation, folder / str(number))
                for number, mutation in enumerate(chosen)
            ]
            intact = whole.result()
            if intact:
                console.print(f"The RTL as it is fails already: {intact}", style="red")
                return 1
            results = track([*zip(chosen, tried, strict=True)], "mutations", console=console)
            for mutation, future in results:
                catch, where = future.result()
                survivors += not catch
                table.add_row(mutation.file, mutation.breaks, catch or "NOTHING", where)
    console.print(table)
    seconds = time.perf_counter() - began
    console.print(
        f"{len(chosen) - survivors} of {len(chosen)} mutations are caught; {seconds:.0f} s"
    )
    return 1 if survivors else 0


def networks(*, banked_first: bool = False) -> list[tuple[str, Case]]:
    """Networks that every mutation must face, with their names."""
    cases = [(f"seed {seed}", random_case(seed)) for seed in SEEDS]
    banked = [
        (f"seed {seed}, nine taps", random_case(seed, taps_per_cycle=9)) for seed in BANKED_SEEDS
    ]
    cases = [*banked, *cases] if banked_first else [*cases, *banked]
    # Its last layers are still clearing when the first one could start
    config = load_config(
        {
            "network": "1C1-8C1-MP4-1",
            "input": {
                "height": 32, "width": 32, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
            "hardware": {"neural_cores": [1, 1, 1], "encoder_width": 128},
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = rng.random((2, 1, 1, 32, 32)) < 0.02
    cases.append(
        ("late clear", Case(config=config, network=random_network(config, rng), inputs=inputs))
    )
    return cases


def _copy(folder: Path, mutation: Mutation | None) -> Path:
    """Copy the RTL, with one mutation if one is given."""
    shutil.copytree(RTL_FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if mutation is not None:
        path = folder / mutation.file
        text = path.read_text()
        if text.count(mutation.old) != 1:
            raise ValueError(f"{mutation.old!r} stands {text.count(mutation.old)} times in {path}")
        path.write_text(text.replace(mutation.old, mutation.new))
    return folder


def _caught(mutation: Mutation, folder: Path) -> tuple[str, str]:
    """Name what notices a mutation, and on what; empty if nothing does."""
    sources = _copy(folder, mutation)
    found = _caught_by_networks(sources, networks(banked_first=mutation.banked))
    return found if found else _caught_by_benches(mutation, sources)


def _caught_by_networks(sources: Path, cases: list[tuple[str, Case]]) -> tuple[str, str] | None:
    build = Build(folder=sources, checked=True)
    for name, case in cases:
        try:
            check_case(case, "native", build)
        except SpikeMismatchError:
            return "spikes", name
        except CycleMismatchError as error:
            return f"cycles ({str(error).split(' of ')[0].split(':')[0]})", name
        except SimulationError as error:
            return _reason(str(error)), name
        finally:
            tidy_cache()
    return None


def _reason(message: str) -> str:
    """Say in a word or two why a simulation failed."""
    assertion = re.search(r"Assertion failed in [\w.\[\]]*?(\w+): ", message)
    if assertion:
        return f"assertion {assertion[1]}"
    return "no end" if "no result within" in message else f"build: {message:.200}"


def _caught_by_benches(mutation: Mutation, sources: Path) -> tuple[str, str]:
    """Run the bench of the mutated block on the mutated sources."""
    block = mutation.file.split(".")[0]
    bench = BENCHES / f"test_{BENCH_OF.get(block, block)}.py"
    if not bench.exists():
        return "", ""
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(bench)]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=tool_environment() | {RTL_VARIABLE: str(sources)},
        capture_output=True,
        text=True,
    )
    tidy_cache()
    failed = re.search(r"^FAILED [^:]*::(\w+)", result.stdout, re.MULTILINE)
    return (failed[1], bench.name) if result.returncode == 1 and failed else ("", "")


if __name__ == "__main__":
    sys.exit(main())
