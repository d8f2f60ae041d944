"""Commands of a predictor: `predict` asks one, `fit` makes one, `evaluate` scores one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._cli_output import SAMPLES, JsonFlag, emit, quiet_stdout
from ._cli_show import show_estimate, show_evaluation, show_fit
from .errors import InputError, RunFolderError
from .predictor.estimate import FIDELITIES

__all__ = ["evaluate", "fit", "predict"]


def predict(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="Run folder, or YAML file of settings.")
    ],
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=f"Known samples to use; the first {SAMPLES} of a run by default."
        ),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(metavar="|".join(FIDELITIES), help="Use less than the source would allow."),
    ] = None,
    firing_rates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Forecast from the firing rates of the first epochs: JSON, a list for each epoch "
            "of a rate for each layer, or the result.json of a run.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Take the first N epochs of --firing-rates.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Share of intervals that hold the truth, between 0 and 1.")
    ] = 0.9,
    predictor: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fitted predictor; else the one shipped.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict cycles, with an interval, by the best fidelity that the source allows.

    Example: spikemeter predict config.yaml --confidence 0.9
    """
    from .predictor import LatencyPredictor, predict_latency

    asked = None if predictor is None else LatencyPredictor.load(predictor)
    if firing_rates is None:
        if epochs is not None:
            raise InputError(f"--epochs: is for --firing-rates alone, got {epochs}")
        with quiet_stdout():
            estimate = predict_latency(
                source,
                confidence=confidence,
                predictor=asked,
                fidelity=fidelity,
                samples=_first_samples(source, fidelity) if samples is None else samples,
            )
    else:
        if fidelity is not None or samples is not None:
            given = "--fidelity" if fidelity is not None else "--samples"
            raise InputError(f"{given}: must be absent with --firing-rates, which forecast")
        from .predictor.forecast import read_rates

        with quiet_stdout():
            asked = asked or LatencyPredictor.default()
            rates = read_rates(firing_rates, epochs)
            estimate = asked.forecast(source, rates, confidence=confidence)
    emit(estimate.to_dict(), as_json, show_estimate)


def fit(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE|DIR", help="Each a table.parquet, or its campaign folder."),
    ],
    out: Annotated[Path, typer.Option(metavar="PREDICTOR", help="Folder to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Fit a predictor to a calibration table, or to several.

    Example: spikemeter fit campaign --out predictor
    """
    from .calibration import fit_predictor, read_table

    with quiet_stdout():
        report = fit_predictor(read_table(*tables), out)
    emit(report, as_json, show_fit)


def evaluate(
    predictor: Annotated[
        Path | None,
        typer.Argument(metavar="[PREDICTOR]", help="Fitted predictor; else the one shipped."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Frozen split: random, unseen_topology, unseen_surrogate, unseen_dataset or "
            "unseen_hardware.",
        ),
    ] = "random",
    as_json: JsonFlag = False,
) -> None:
    """Score a predictor's way of fitting on runs that it has not seen, beside baselines.

    It is fitted again, to the part of its own table that the split does not hold out.

    Example: spikemeter evaluate --split unseen_topology
    """
    from .calibration import evaluate as score
    from .predictor import LatencyPredictor

    with quiet_stdout():
        asked = (
            LatencyPredictor.default() if predictor is None else LatencyPredictor.load(predictor)
        )
        report = score(asked, split)
    emit(report, as_json, show_evaluation)


def _first_samples(source: Path, fidelity: str | None) -> int | None:
    """As many samples of a run folder as `simulate` takes by default; None where none are read."""
    trace = source / "trace.npz"
    if fidelity == "hyperparameters" or not trace.is_file():
        return None
    from .config import load_config
    from .predictor.spikes import read_spikes

    known = read_spikes(trace, load_config(source), refusal=RunFolderError)
    return min(SAMPLES, known.samples)
