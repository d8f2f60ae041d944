"""Names that the simulator's two sides share."""

JOB_VARIABLE = "SPIKEMETER_JOB"
"""Environment variable with the path of the job file."""
RESULT_NAME = "measured.json"
"""File beside the job that takes what was measured."""
