"""The tests of ``tests/cuda`` on a pretended card, which finds mixed devices without a card."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "tests/cuda").glob("test_*.py"))
KINDS = "shac or ppo or trpo or sac"
PARTS = {
    "test_agents.py": ("three_updates", f"resume and ({KINDS})", f"processor and ({KINDS})"),
}
"""What is run of a file, each in a process of its own, where the whole would take long: operations
are slow on the pretended card. Every agent trains there; one of each kind resumes and is compared.
"""
CASES = [(name, part) for name in FILES for part in PARTS.get(name, ("",))]
HAS_BACKENDS = importlib.util.find_spec("torch.utils.backend_registration") is not None and hasattr(
    torch._C, "_acc"
)


@pytest.mark.skipif(not HAS_BACKENDS, reason="this torch has no back ends written in Python")
@pytest.mark.parametrize(("name", "part"), CASES)
def test_on_a_pretended_card(name: str, part: str) -> None:
    """In a process of its own, because the card stays registered with torch."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--device", "pretended"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", f"tests/cuda/{name}", "-k", part]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
