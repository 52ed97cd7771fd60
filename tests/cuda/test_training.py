"""Commands with the device: train, resume and variance, with all files of a run."""

import json
from pathlib import Path

import pytest
import torch

from pgtoolkit.scripts import resume, train, variance

pytestmark = pytest.mark.cuda

FLAGS = """
--env pgtoolkit/Pendulum-v0 --num-envs 6 --n-steps 8 --hidden 8 --diagnostics-interval 1
--total-steps 192 --checkpoint-interval 96
--eval-interval 96 --eval-episodes 2 --eval-max-steps 20
"""


@pytest.mark.parametrize("agent", ["shac", "reinforce"])
def test_a_run(
    agent: str, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--device`` names the card; a pretended one has no name there, so it is put in."""
    monkeypatch.setattr("pgtoolkit.scripts.cli.experiment.choose_device", lambda name: device)
    folder = tmp_path / "run"
    train.run([agent, *FLAGS.split(), "--run-dir", str(folder)])
    resume.run([str(folder), "--total-steps", "288"])
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    variance.run([str(folder), "--horizons", "4", "--trajectories", "10"])
