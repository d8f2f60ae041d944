"""The commands ``spikemeter datasets``: what data sets there are, get one, measure one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._cli_output import JsonFlag, emit, progress_bars, quiet_stdout

__all__ = ["app"]

_DECIMALS = 4
"""Of measured statistics; finer than their noise."""

RootOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of your recordings; else $SPIKEMETER_DATA."),
]

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
def datasets(context: typer.Context, root: RootOption = None, as_json: JsonFlag = False) -> None:
    """List the data sets, and what of each is on this machine; get one, or measure one.

    Example: spikemeter datasets --root ~/data
    """
    if context.invoked_subcommand is not None:
        return
    from .datasets.catalogue import describe, root_folder

    folder = root_folder(root)
    emit({"root": folder, "datasets": describe(folder)}, as_json, _show_list)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered data set.")],
    root: RootOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Download a data set and check it; nothing else ever downloads one.

    Example: spikemeter datasets fetch nmnist --root ~/data
    """
    from .datasets import fetch as fetch_dataset
    from .datasets.catalogue import root_folder

    with quiet_stdout():
        folder = fetch_dataset(name, root_folder(root))
    emit({"name": name, "where": folder}, as_json, _show_fetched)


@app.command()
def measure(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings.")],
    as_json: JsonFlag = False,
) -> None:
    """Measure the events per step and channel of a data set, for input.statistics.

    Example: spikemeter datasets measure config.yaml --json
    """
    from .config import load_config

    settings = load_config(config)
    from .datasets import input_statistics, load_splits

    with quiet_stdout(), progress_bars() as progress:
        task = progress.add_task("frames", total=None)
        splits = load_splits(
            settings,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    size = settings.input
    report = {
        "dataset": settings.dataset,
        "samples": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "height": size.height,
        "width": size.width,
        "channels": size.channels,
        "time_steps": size.time_steps,
        "statistics": input_statistics(splits.train).round(_DECIMALS),
    }
    emit(report, as_json, _show_measured)


def _show_list(console: Console, report: Mapping[str, Any]) -> None:
    from .datasets.catalogue import ROOT_VARIABLE

    table = Table("name", "source", "size", "samples", "licence", "here")
    for entry in report["datasets"]:
        here = Text("yes", "green") if entry["present"] else Text("no", "yellow")
        samples = f"{entry['samples']:,}"
        row = (entry["name"], entry["source"], entry["size"], samples, entry["licence"])
        table.add_row(*row, here)
    console.print(table)
    for entry in report["datasets"]:
        if not entry["present"]:
            files = [file["path"] for file in entry["files"] if not file["present"]]
            console.print(f"{entry['name']} wants {', '.join(files)}", soft_wrap=True)
    if report["root"] is None:
        place = f"data_root of a configuration, {ROOT_VARIABLE}, or --root here"
        console.print(f"Paths are below a folder that you choose: {place}.", soft_wrap=True)


def _show_fetched(console: Console, report: Mapping[str, Any]) -> None:
    where = f"is in {report['where']}"
    if report["where"] is None:
        where = "comes with a package of the extra [train]; there is nothing to fetch"
    console.print(Text(f"{report['name']} {where}"), soft_wrap=True)


def _show_measured(console: Console, report: Mapping[str, Any]) -> None:
    """Print YAML that can stand in a configuration instead of the data set."""
    samples = f"{report['samples']['train']:,} training samples of {report['dataset']}"
    lines = [f"# mean over the {samples}", "input:"]
    for key in ("height", "width", "channels", "time_steps"):
        lines.append(f"  {key}: {report[key]}")
    lines.append("  statistics:")
    lines.extend(f"    - {row}" for row in report["statistics"].tolist())
    console.print(Text("\n".join(lines)), soft_wrap=True)
