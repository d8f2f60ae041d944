"""Timelines of a run: what the timing model says each layer does, and what the RTL did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..predictor.timeline import Slice, engine_timeline

if TYPE_CHECKING:
    from ..models import Run

__all__ = ["run_timelines"]


def run_timelines(run: Run, *, sample: int = 0, rtl: bool = False) -> dict[str, tuple[Slice, ...]]:
    """Lay out one inference of a run, cycle by cycle.

    Parameters
    ----------
    run : Run
        Trained, for the engine.
    sample : int, optional
        Which of its recorded samples.
    rtl : bool, optional
        Whether to simulate the RTL too.

    Returns
    -------
    dict of str to tuple of Slice
        ``"timing model"`` and, with `rtl`, ``"RTL"``; the two are equal.

    Raises
    ------
    InputError
        If the run has no such sample, or its configuration names a machine without RTL.
    SpikemeterError
        If a tool is missing, or the simulation fails.

    See Also
    --------
    spikemeter.predictor.timeline.chrome_trace : writes them for a trace viewer.
    """
    recorded = len(run.labels)
    if not 0 <= sample < recorded:
        rule = f"must be 0 to {recorded - 1}, the samples recorded in {str(run.path)!r}"
        raise InputError(f"sample: {rule}; got {sample}")
    inputs = [spikes[sample : sample + 1] for spikes in run.inputs]
    timelines = {"timing model": engine_timeline(run.config, inputs)}
    if rtl:
        from ..rtl import simulated_spans

        size = run.config.input
        frames = inputs[0].reshape(1, size.time_steps, size.channels, size.height, size.width)
        spans = simulated_spans(run.config, run.network, frames)
        timelines["RTL"] = tuple(Slice(**span._asdict()) for span in spans)
    return timelines
