"""The ``start`` benchmark runs the code that it names."""

import subprocess
import sys

import pytest

from pgtoolkit.scripts.benchmarks import start


def test_start_runs_what_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    """The code runs the console command; the benchmark discards its output."""
    code, _ = start.CODE_AND_TARGET["pgtoolkit --help"]
    start.process_side(code)(0)
    assert capfd.readouterr().out == ""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "usage: pgtoolkit COMMAND" in shown
