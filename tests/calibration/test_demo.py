import pandas as pd
import pytest

from spikemeter.calibration.demo import _comparison


def table(*rows):
    return pd.DataFrame(rows, columns=["run_id", "status", "reason", "spikes_match"])


OK = ("a", "ok", None, True)
FAILED = ("b", "failed", "no luck", None)
MISMATCH = ("c", "mismatch", "layer 0:3C3: step 1, neuron 2", False)


@pytest.mark.parametrize(
    ("rows", "compared", "match", "mismatches"),
    [
        ([OK], 1, True, {}),
        ([OK, FAILED], 1, True, {}),
        ([FAILED], 0, False, {}),
        ([OK, MISMATCH, FAILED], 2, False, {"c": MISMATCH[2]}),
    ],
)
def test_only_runs_that_were_simulated_count_as_compared(rows, compared, match, mismatches):
    found = _comparison(table(*rows))
    assert (found["compared"], found["spikes_match"]) == (compared, match)
    assert found["mismatches"] == mismatches
    assert found["reasons"] == {row[0]: row[2] for row in rows if row[2] is not None}
