"""The command ``pgtoolkit benchmark``, on work of no size; no test depends on how long it takes."""

import dataclasses
import importlib
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import benchmark
from pgtoolkit.scripts.benchmarks import timing
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Row, Run
from pgtoolkit.scripts.cli import registry
from pgtoolkit.scripts.cli.registry import Benchmark

KEYS = {"benchmark", "case", "peer", "ratio", "ratio_low", "ratio_high", "target", "reached"}
KEYS |= {"ours_cpu_s", "peer_cpu_s", "ours_wall_s", "peer_wall_s", "throughput", "unit"}
KEYS |= {"repeats", "versions"}


def side() -> Run:
    return lambda index: None


def missing() -> Run:
    raise ModuleNotFoundError("No module named 'peer'", name="peer")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces all benchmarks by one, ``tiny``; the process is not pinned to a core."""
    module = types.ModuleType("tiny_benchmark")
    sides = {OURS: side, "peer": side, "absent": missing}
    missed = Row(case="made up", peer="peer", ratio=0.5, target=2.0, reached=False, unit="MB")
    found = [dataclasses.replace(missed, ours=[1.0], theirs=[2.0])]
    vars(module)["cases"] = lambda: [Case("nothing", 1.0, "units", sides, {"peer": 2.0})]
    vars(module)["rows"] = lambda repeats: found
    # A real clock may not advance between two calls that do nothing.
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))
    monkeypatch.setitem(sys.modules, "tiny_benchmark", module)
    monkeypatch.setattr(timing, "MIN_REPEAT_SECONDS", 0.0)
    monkeypatch.setattr(
        benchmark, "BENCHMARKS", {"tiny": Benchmark("tiny_benchmark", "no work at all")}
    )
    monkeypatch.setattr(benchmark, "pin_to_one_core", lambda: None)


@pytest.mark.usefixtures("tiny")
def test_rows_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing peers and missed targets are reported without an error."""
    file = tmp_path / "rows.json"
    benchmark.run(["tiny", "--repeats", "5", "--json", str(file)])
    timed, absent, made_up = json.loads(file.read_text())
    for row in (timed, absent, made_up):
        assert row.keys() >= KEYS and row["benchmark"] == "tiny"
        assert row["versions"]["torch"] == torch.__version__
    assert timed["repeats"] == 5 and timed["reached"] == (timed["ratio"] >= 2.0)
    assert absent["ratio"] is None and 'pip install "backpack-for-pytorch' in absent["note"]
    assert made_up["reached"] is False
    shown = capsys.readouterr().out
    assert "no work at all" in shown and "missed" in shown and "not installed" in shown


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["tinny"], "did you mean `tiny`"),
        (["tiny", "--repeats", "4"], "--repeats"),
        (["tiny", "--json", "/nowhere/rows.json"], "--json"),
    ],
)
def test_wrong_requests(arguments: list[str], advice: str) -> None:
    """A wrong request raises an error with advice, before anything is timed."""
    with pytest.raises(RequestError, match=advice):
        benchmark.run(arguments)


def test_the_list_has_every_benchmark_and_needs_no_torch() -> None:
    """The list's lines begin with the names, and torch is not imported."""
    code = (
        "from pgtoolkit.scripts import benchmark; benchmark.run(['--list']); "
        "import sys; assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert [line.split()[0] for line in found.stdout.splitlines()] == list(registry.BENCHMARKS)


@pytest.mark.parametrize("name", registry.BENCHMARKS)
def test_every_benchmark_has_cases_or_rows(name: str) -> None:
    """Ours is the first side, and every target is of one of the sides."""
    entry = registry.BENCHMARKS[name]
    module = importlib.import_module(entry.module)
    assert hasattr(module, entry.cases) or hasattr(module, "rows")
    for case in getattr(module, entry.cases, list)():
        assert next(iter(case.sides)) == OURS and case.work > 0
        assert case.targets.keys() <= case.sides.keys()
