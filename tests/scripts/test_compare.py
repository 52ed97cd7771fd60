"""``pgtoolkit compare`` with processes of its own: results, failures, signals and going on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.comparison.scalars import read_scalars
from pgtoolkit.scripts.comparison.statistics import interquartile_mean
from pgtoolkit.training.checkpoint import load_checkpoint
from pgtoolkit.training.storage.lock import is_locked

SMALL = ["--total-steps", "60", "--set", "num_envs=2", "n_steps=5", "hidden=[4]"]
SMALL += ["--eval-interval", "20", "--eval-episodes", "2", "--final-episodes", "3"]

ENVS = """
import time

import gymnasium
import numpy as np


class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return observation, 1.0, False, self.steps == 10, {}


class Slow(Mine):
    def step(self, action):
        time.sleep(0.002)
        return super().step(action)


class Faulty(Mine):
    def step(self, action):
        if self.steps == 7:
            raise RuntimeError("the gearbox is broken")
        return super().step(action)
"""


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


@pytest.fixture
def envs(tmp_path: Path) -> str:
    """A file of environments in a folder whose name has a space."""
    (tmp_path / "my envs").mkdir()
    (tmp_path / "my envs" / "mine.py").write_text(ENVS)
    return f"{tmp_path}/my envs/mine.py"


def test_a_comparison_trains_evaluates_reports_and_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds of an agent; the second call runs nothing and reports the same."""
    found, picture, folder = tmp_path / "found.json", tmp_path / "a.png", tmp_path / "all runs"
    arguments = ["compare", "--env", "pgtoolkit/LQG-v0", "--agents", "apg:gamma=0.9"]
    arguments += ["--seeds", "2", "--first-seed", "5", *SMALL, "--run-dir", str(folder)]
    arguments += ["--json", str(found), "--plot", str(picture)]
    assert call(*arguments) == 0
    output = capsys.readouterr().out
    assert re.match(r"2 runs; at most \d+ at a time\n", output)
    assert "2 of 2 runs complete" in output and "| pgtoolkit/LQG-v0 | 1 | apg:gamma=0.9 |" in output
    (row,) = json.loads(found.read_text())
    assert (row["agent"], row["algorithm"]) == ("apg:gamma=0.9", "apg")
    assert (row["observation_size"], row["seeds"], row["steps"]) == (1, [5, 6], [60, 60])
    means = [float(np.mean(run["returns"])) for run in row["runs"]]
    assert row["returns"] == pytest.approx(means) and row["episodes"] == 3
    assert row["iqm"] == pytest.approx(interquartile_mean(np.array(means)))
    assert row["least"] == row["iqm_low"] == min(means)
    assert row["curves"]["steps"]["x"] == row["runs"][0]["curve_steps"] == [10, 30, 50, 60]
    seconds = row["curves"]["cpu_seconds"]["x"]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= max(row["cpu_seconds"])
    assert row["versions"].keys() >= {"torch", "gymnasium"} and picture.stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert call(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert json.loads(found.read_text()) == [row]
    assert capsys.readouterr().out.startswith("2 runs, 2 of them complete; at most")


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    envs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "--env", f"{envs}:Faulty", f"{envs}:Mine", "--agents", "reinforce"]
    arguments += ["--seeds", "1", *SMALL, "--run-dir", str(tmp_path / "runs"), "--jobs", "1"]
    arguments += ["--json", str(tmp_path / "found.json")]
    assert call(*arguments) == 1
    output, errors = capsys.readouterr()
    assert "reinforce on mine.py:Faulty, seed 0: failed; train: exit code 1" in output
    assert "the gearbox is broken" in output and "1 failed" in output
    assert errors.startswith("error: 1 of 2 runs failed: reinforce on mine.py:Faulty, seed 0.")
    assert errors.count("\n") == 1
    (row,) = json.loads((tmp_path / "found.json").read_text())
    assert row["env"] == "mine.py:Mine" and row["returns"] == [10.0]
    assert (row["iqm"], row["iqm_low"]) == (10.0, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env", "Pendulum-v1", "--agents", "shc"], "did you mean `shac`"),
        (["--env", "Pendulam-v1", "--agents", "ppo"], "Pendulam-v1"),
        (["--env", "CartPole-v1", "--agents", "apg"], "apg on CartPole-v1: "),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--seeds", "0"], "--seeds must be"),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--jobs", "0"], "--jobs must be"),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--json", "no/such/f.json"], "--json"),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--plot", "x.txt"], "--plot must end in"),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--set", "gama=0.9"], "no setting 'gama'"),
        (["--env", "Pendulum-v1", "Pendulum-v1", "--agents", "ppo"], "Pendulum-v1 twice"),
        (["--env", "Pendulum-v1", "--agents", "ppo", "--total-steps", "0"], "total"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("compare", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_dir_that_cannot_be_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = ["--env", "Pendulum-v1", "--agents", "ppo", "--run-dir", str(tmp_path / "file")]
    assert call("compare", *arguments) == 2
    assert "give another --run-dir" in capsys.readouterr().err


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def only(paths: Iterator[Path]) -> Path:
    (found,) = paths
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals")
def test_a_comparison_that_is_interrupted_or_killed_goes_on(envs: str, tmp_path: Path) -> None:
    """Ctrl-C in the first call, SIGKILL in the second; the third one ends. No step is there twice.

    The child of the killed one stops by itself, with a checkpoint.
    """
    folder, errors = tmp_path / "runs", tmp_path / "errors"
    arguments = ["--env", f"{envs}:Slow", "--agents", "reinforce", "--seeds", "1", *SMALL]
    arguments += ["--total-steps", "1500", "--run-dir", str(folder)]
    command = [sys.executable, "-m", "pgtoolkit.scripts.cli", "compare", *arguments]

    def start() -> "subprocess.Popen[bytes]":
        """The command, for which SIGINT is not ignored, as it is in a shell's background jobs."""
        with errors.open("wb") as file:
            return subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=file,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def events_grow_beyond(size: int) -> bool:
        return sum(path.stat().st_size for path in folder.glob("*/events*")) > size

    def steps() -> int:
        return int(
            load_checkpoint(only(folder.glob("*/resume.safetensors")))["progress"]["num_steps"]
        )

    process = start()
    until(lambda: any(folder.glob("*/resume.safetensors")))
    until(lambda: events_grow_beyond(20_000))
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert errors.read_text() == (
        "interrupted with 0 of 1 runs complete: the same command goes on\n"
    )
    run = only(folder.glob("*__*__*"))
    assert not is_locked(run) and 0 < steps() < 1500
    first = steps()
    size = sum(path.stat().st_size for path in run.glob("events*"))

    process = start()
    until(lambda: events_grow_beyond(size + 20_000))
    process.kill()
    process.wait()
    until(lambda: not is_locked(run))
    assert first < steps() < 1500

    process = start()
    assert process.wait() == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 1500 and summary["cpu_seconds"] > 0
    scalars: dict[str, Any] = read_scalars(run)
    assert scalars["train/std"][0] == list(range(10, 1501, 10))
    seconds = scalars["time/cpu_seconds"][1]
    assert seconds == sorted(seconds)
    assert json.loads((run / "evaluation.json").read_text())["returns"] == [10.0] * 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals")
def test_a_run_that_another_process_writes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the only run's folder is held for a second; then the run is made."""
    from pgtoolkit.scripts.comparison import schedule

    asked: list[Path] = []

    def locked_at_first(path: Path) -> bool:
        asked.append(path)
        return len(asked) == 1

    monkeypatch.setattr(schedule, "is_locked", locked_at_first)
    monkeypatch.setattr(schedule, "SECONDS_BETWEEN_TRIES", 0.2)
    arguments = ["--env", "pgtoolkit/LQG-v0", "--agents", "apg", "--seeds", "1", *SMALL]
    assert call("compare", *arguments, "--run-dir", str(tmp_path / "runs")) == 0
    assert len(asked) == 2
    assert os.listdir(tmp_path / "runs" / "logs")
