from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from hostile_folders import hostile_tables

from spikemeter.errors import PredictorError
from spikemeter.predictor.calibrated_runs import read_runs

REFUSED = {
    "an empty table": "cannot read the runs of the predictor: ",
    "a table that is none": "cannot read the runs of the predictor: ",
    "a table of many rows": "at most 200000 runs of 50000000 numbers, got 2000000 of 2000000",
    "a table that unpacks to 512 MiB": "50000000 numbers, got 16 of 64000000",
    "a table of long text": "text must have at most 1000 bytes",
    "a table of bytes": "'network' must hold text or numbers, got binary",
    "a table of tables": "'network' must hold text or numbers, got struct",
}


@pytest.fixture(scope="module")
def tables():
    return dict(hostile_tables())


def parquet(table):
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_a_table_is_read_as_pandas_reads_it(predictor, table):
    content = predictor.parts.table
    runs = read_runs(content)
    pd.testing.assert_frame_equal(runs, pd.read_parquet(io.BytesIO(content)))
    assert runs["run_id"].tolist() == table["run_id"].tolist()
    assert runs["cycles.mean"].tolist() == table["cycles.mean"].tolist()
    steps = runs["layers.step_counts"][3]
    np.testing.assert_array_equal(np.stack(steps), table["layers.step_counts"][3])


def test_empty_cells_stay_empty():
    given = pd.DataFrame(
        {
            "dataset": ["a", None],
            "neuron.R": [1.5, None],
            "reason": [None, None],
            "flag": [True, False],
            "layers.taps": [[1.0], None],
        }
    )
    runs = read_runs(parquet(given))
    assert runs.isna().to_numpy().tolist() == given.isna().to_numpy().tolist()
    assert runs["flag"].tolist() == [True, False]
    assert len(read_runs(parquet(given[:0]))) == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_or_too_large_a_one_is_refused(tables, name):
    with pytest.raises(PredictorError) as caught:
        read_runs(tables[name])
    assert re.search(REFUSED[name], str(caught.value))
    assert "\n" not in str(caught.value)


def test_what_is_left_of_them_are_tables(tables):
    for name in tables.keys() - REFUSED.keys():
        assert isinstance(read_runs(tables[name]), pd.DataFrame), name


def test_text_of_another_type_is_text():
    texts = pd.DataFrame({"network": pd.array(["10", "20"], dtype="string[pyarrow]")})
    assert read_runs(parquet(texts))["network"].tolist() == ["10", "20"]
