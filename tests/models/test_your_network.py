"""The examples of the manual."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nir")
MANUAL = Path(__file__).parents[2] / "docs" / "your_network.md"


@pytest.mark.rtl
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikemeter import predict_latency

    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", MANUAL.read_text(), flags=re.DOTALL):
        exec(compile(block, str(MANUAL), "exec"), names)
    assert predict_latency("net.yaml").fidelity == "trace"
