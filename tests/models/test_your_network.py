"""The examples of the manual."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "docs" / "your_network.md"
PARTS = ("## A module of yours", "## A NIR graph", "## What is supported")


def examples(index: int) -> list[str]:
    """Give the Python code of a part of the manual."""
    text = MANUAL.read_text()
    part = text[text.index(PARTS[index]) : text.index(PARTS[index + 1])]
    found = re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)
    assert found
    return found


def run(blocks: list[str]) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(MANUAL), "exec"), names)
    return names


@pytest.mark.rtl
def test_the_examples_of_a_module_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikemeter import predict_latency

    monkeypatch.chdir(tmp_path)
    run(examples(0))
    assert predict_latency("net.yaml").fidelity == "trace"


def test_the_examples_of_nir_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nir")
    monkeypatch.chdir(tmp_path)
    names = run([*examples(0)[:1], *examples(1)])  # they share their sample
    assert names["found"].config.network == "10"  # type: ignore[attr-defined]


def test_no_example_of_a_module_needs_nir() -> None:
    assert not any("nir" in block for block in examples(0))
