"""Everything that Spikemeter raises on purpose, on one page.

Two families: what the caller can mend by other input (`InputError`, exit code 2) and what went
wrong although the input was good (every other `SpikemeterError`, exit code 1).
"""

from __future__ import annotations

__all__ = [
    "ClusterError",
    "ConfigError",
    "EngineError",
    "InputError",
    "MissingToolError",
    "PredictorError",
    "RunFolderError",
    "SimulationError",
    "SpikeMismatchError",
    "SpikemeterError",
    "SynthesisError",
    "TimingMismatchError",
    "ToolKilledError",
    "in_one_line",
]

_LONGEST_REASON = 300


class SpikemeterError(Exception):
    """Base of all errors raised by this package; ends a command with exit code 1."""

    exit_code = 1


class InputError(SpikemeterError, ValueError):
    """Input that cannot be used; the message names key, rule and value. Exit code 2."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration, plan or network notation that is refused."""


class RunFolderError(InputError):
    """A run folder that is missing, incomplete or damaged."""


class PredictorError(InputError):
    """A predictor folder that cannot be read, or a question that it cannot answer."""


class MissingToolError(SpikemeterError):
    """A package, compiler or simulator that is not on this machine; says how to get it."""


class SimulationError(SpikemeterError):
    """The simulator failed, or did not finish within the cycles it was given."""


class SpikeMismatchError(SpikemeterError):
    """RTL and integer reference disagree; the message names layer, step and neuron."""


class TimingMismatchError(SpikemeterError):
    """RTL and timing model disagree about the cycles of the same spikes, by so many at most."""

    def __init__(self, message: str, difference_cycles: int | None = None) -> None:
        super().__init__(message)
        self.difference_cycles = difference_cycles


class EngineError(SpikemeterError):
    """An engine behind registers reports an error, does not answer, or is another one."""


class SynthesisError(SpikemeterError):
    """Yosys failed on the RTL, or made of it what must not be there."""


class ToolKilledError(SimulationError):
    """A compiler or simulator was killed from outside; running it again may well succeed."""


class ClusterError(SpikemeterError):
    """The cluster that does the runs cannot be reached, or was lost; finished rows are kept."""


def in_one_line(reason: object) -> str:
    """Make a reason one line that can be shown; it may quote what a stranger has written."""
    plain = "".join(each if each.isprintable() else " " for each in str(reason))
    line = " ".join(plain.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} ..."
