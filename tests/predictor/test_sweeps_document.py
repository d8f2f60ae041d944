"""What docs/sweeps.md shows runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from spikemeter import cli

MANUAL = Path(__file__).parents[2] / "docs" / "sweeps.md"


def test_the_blocks_of_the_document_run_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.chdir(tmp_path)
    text = MANUAL.read_text(encoding="utf-8").partition("`examples/prune_a_sweep.py`")[0]
    names: dict[str, Any] = {}
    for kind, block in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL):
        if kind == "yaml":
            Path("space.yaml").write_text(block, encoding="utf-8")
        elif kind == "sh":
            with pytest.raises(SystemExit) as caught:
                cli.main(shlex.split(block)[1:])
            assert caught.value.code == 0
        else:
            exec(compile(block, str(MANUAL), "exec"), names)
    assert 0 < len(pd.read_csv("kept.csv")) < 4096
    assert names["pruned"].tightened == names["space"]
    states = [trial.state.name for trial in names["study"].trials]
    assert states.count("COMPLETE") == 20
