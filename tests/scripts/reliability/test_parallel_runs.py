"""Runs of several processes; the long form is ``python scripts/studies/parallel_exact.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.reliability.forked_training import import_agent
from pgtoolkit.scripts.reliability.parallel_runs import compared
from pgtoolkit.scripts.reliability.resume_rows import Setup
from pgtoolkit.scripts.reliability.run_comparison import differences

ROOT = Path(__file__).parents[3]

DEADLY = '''
import os, signal
from pathlib import Path
import gymnasium

class Deadly(gymnasium.Wrapper):
    """Kills one process at its first step after the run's fifth checkpoint."""

    def __init__(self, folder: str) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.marker = Path(folder, "marker")
        self.checkpoint = Path(folder, "killed", "resume-4.safetensors")

    def step(self, action):
        if self.checkpoint.exists() and self._is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

    def _is_first(self) -> bool:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
'''
TRAIN = ["--total-steps", "600", "--num-envs", "4", "--n-steps", "25", "--batch-size", "50"]
TRAIN += ["--eval-interval", "200", "--eval-episodes", "2", "--eval-max-steps", "20"]
TRAIN += ["--checkpoint-interval", "1", "--keep-checkpoints", "9", "--hidden", "8"]


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ("ppo", "CartPole-v1"),
        ("trpo", "CartPole-v1"),
        ("reppo", "Pendulum-v1"),
        ("sac", "Pendulum-v1"),
        ("shac", "pgtoolkit/Pendulum-v0"),
    ],
)
def test_the_number_of_processes_changes_no_bit(agent: str, env: str, tmp_path: Path) -> None:
    """Three processes have unequal shares: 1, 1 and 2 of four environments."""
    import_agent(agent)
    setup = Setup(agent, env, "sync", "")
    assert list(compared(setup, (2, 3), 6, tmp_path, 120)) == [(2, []), (3, [])]


def test_an_environment_that_cannot_be_made_is_told_as_by_train() -> None:
    """The sentence of the run of one process, with its advice; this is no fault of pgtoolkit."""
    script = [sys.executable, "scripts/studies/parallel_exact.py"]
    flags = ["--agents", "ppo", "--envs", "CartPole-v7"]
    done = subprocess.run([*script, *flags], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    said = "error: ppo on CartPole-v7 does not train in one process: there is no environment Cart"
    assert done.stderr.startswith(said) and "fault of pgtoolkit" not in done.stderr


def test_a_run_of_one_process_that_does_not_end_is_told(tmp_path: Path) -> None:
    setup = Setup("ppo", "CartPole-v1", "sync", "")
    with pytest.raises(RequestError, match=r"in one process: no end after 0\.01 s$"):
        list(compared(setup, (2,), 6, tmp_path, 0.01))


def test_killed_runs_go_on_with_another_number_of_processes() -> None:
    """From two to one, and from two to two."""
    flags = ["--agents", "ppo", "--envs", "CartPole-v1", "--processes", "2"]
    done = subprocess.run(
        [
            sys.executable,
            "scripts/studies/parallel_exact.py",
            *flags,
            "--updates",
            "9",
            "--kills",
            "2",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "ppo CartPole-v1, 2 processes: equal",
        "ppo CartPole-v1, 2 processes, killed, then 1: equal",
        "ppo CartPole-v1, 2 processes, killed, then 2: equal",
    ]


def test_torchrun_restarts_a_run_that_lost_a_process(tmp_path: Path) -> None:
    """It goes on from its folder, and ends as a run that was left alone."""
    file = tmp_path / "deadly.py"
    file.write_text(DEADLY)

    def command(name: str) -> list[str]:
        env = ["--env", f"{file}:Deadly", "--env-kwargs", json.dumps({"folder": str(tmp_path)})]
        return ["-m", "pgtoolkit", "train", "ppo", *env, *TRAIN, "--run-dir", str(tmp_path / name)]

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    several = [*torchrun, "--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [*several, *command("killed")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "marker").exists()
    assert done.stderr.count("error: a process of the run has ended") == 1
    assert "from step 400" in done.stdout
    subprocess.run([sys.executable, *command("alone")], check=True, capture_output=True)
    found = [line for line in differences(tmp_path / "alone", tmp_path / "killed")]
    assert found == []


def test_a_run_that_may_be_restarted_needs_a_folder() -> None:
    job = {"TORCHELASTIC_MAX_RESTARTS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pgtoolkit", "train", "ppo", "--env", "CartPole-v1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | job,
    )
    assert done.returncode == 2 and "give --run-dir DIR" in done.stderr
