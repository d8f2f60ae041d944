"""A sweep under a latency budget: prune the space, then let Optuna train what may meet it.

Trains some 10 tiny networks on handwritten digits seen by an event camera, for real:

    pip install 'spikemeter[train,sweep]'
    python examples/prune_a_sweep.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from spikemeter import LatencyPredictor, predict_latency
from spikemeter.models import train_run
from spikemeter.predictor.distributions import suggest_params
from spikemeter.predictor.optuna import FeasibleSampler, LatencyGate
from spikemeter.predictor.pruning import prune_space
from spikemeter.space import configured

BASE = {
    "dataset": "digits-saccade",
    "input": {"height": 12, "width": 12, "time_steps": 8},
    "training": {"epochs": 4, "batch_size": 32},
}
SPACE = {
    "network": CategoricalDistribution(["8C3-MP2-10", "8C3-8C3-MP2-10", "16C3-MP2-16C3-MP2-10"]),
    "neuron.beta": FloatDistribution(0.4, 0.95),
    "neuron.threshold": FloatDistribution(0.4, 1.6, log=True),
    "surrogate.slope": FloatDistribution(2, 50, log=True),
    "training.lr": FloatDistribution(1e-3, 1e-2, log=True),
}


def main() -> None:
    """Prune, sweep, and hold what was predicted against what was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-us", type=float, default=600, help="mean latency allowed")
    parser.add_argument("--trials", type=int, default=10, help="trials of the study")
    options = parser.parse_args()
    predictor = LatencyPredictor.default()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    pruned = prune_space(
        distributions=SPACE, base=BASE, budget_us=options.budget_us, candidates=4096,
        predictor=predictor,
    )  # fmt: skip
    report = pruned.report
    print(
        f"{report.kept:,} of {report.candidates:,} points may run in {options.budget_us:g} us; of "
        f"{report.expected_good:,.0f} that truly will, {report.expected_loss:.1f} are expected lost"
    )
    for name, distribution in (pruned.tightened or SPACE).items():
        print(f"  {name}: {distribution}")

    gate = LatencyGate(predictor, options.budget_us)
    space = pruned.tightened or SPACE
    inner = optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=FeasibleSampler(inner, gate, space, BASE, seed=0),
    )
    begin = time.perf_counter()
    print("trial  predicted us          measured us  accuracy  network")
    with tempfile.TemporaryDirectory() as folder:

        def objective(trial: optuna.Trial) -> tuple[float, float]:
            config = configured(BASE, suggest_params(trial, space))
            estimate = gate.check(trial, config)  # ends the trial here if it must be too slow
            run = train_run(config, Path(folder) / str(trial.number))
            measured = predict_latency(run.path).microseconds  # of its spikes: that of the RTL
            accuracy = float(run.result["accuracy"]["integer"]["test"])
            low, high = (cycles / 100 for cycles in estimate.interval_cycles)  # at 100 MHz
            expected = f"{estimate.microseconds:4.0f} ({low:.0f} to {high:.0f})"
            print(
                f"{trial.number:5d}  {expected:20s}  {measured:11.0f}  {accuracy:8.3f}  "
                f"{config.network}",
                flush=True,
            )
            return accuracy, measured

        study.optimize(objective, n_trials=options.trials)
    ended = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    print(
        f"{options.trials} trials in {time.perf_counter() - begin:.0f} s; {ended} points were "
        "too slow for sure, and cost no training. Best trade-offs:"
    )
    for best in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        knobs = (x if isinstance(x, str) else f"{x:.3g}" for x in best.params.values())
        print(f"  {best.values[1]:.0f} us at {100 * best.values[0]:.1f} %: {', '.join(knobs)}")


if __name__ == "__main__":
    main()
