"""The description of the machine that a benchmark runs on."""

import sys

import numpy as np

from pgtoolkit.scripts.benchmarks.hardware import describe_machine, is_busy


def test_the_machine_is_described() -> None:
    """Versions of Python and of the packages, the processor, and whether it is busy."""
    found = describe_machine()
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and found["cpu"]
    assert found["numpy"] == np.__version__
    assert is_busy(1e6) and not is_busy(0.0) and not is_busy(None)
