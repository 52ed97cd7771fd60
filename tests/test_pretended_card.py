"""The tests of ``tests/cuda`` on a pretended card, which finds mixed devices without a card."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "tests/cuda").glob("test_*.py"))
HAS_BACKENDS = importlib.util.find_spec("torch.utils.backend_registration") is not None and hasattr(
    torch._C, "_acc"
)


@pytest.mark.skipif(not HAS_BACKENDS, reason="this torch has no back ends written in Python")
@pytest.mark.parametrize("name", FILES)
def test_on_a_pretended_card(name: str) -> None:
    """In a process of its own, because the card stays registered with torch."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--device", "pretended"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", f"tests/cuda/{name}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
