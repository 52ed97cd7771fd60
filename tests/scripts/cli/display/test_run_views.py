"""What a training prints: for people, quietly, or as JSON."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.display.run_views import Ending, QuietRun, Rarely, view_of, wrapped
from pgtoolkit.training.run_folder import RunFolder

NOISY = """
import atexit
import os
import gymnasium
import numpy as np

atexit.register(print, "at the end")

class Noisy(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        print("a reset")
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        os.write(1, b"a step\\n")
        self.time += 1
        return np.zeros(2, np.float32), 1.0, False, self.time == 8, {}
"""

FLAGS = "--num-envs 2 --n-steps 8 --hidden 4 --eval-episodes 2 --eval-interval 16"


def train(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "noisy.py").write_text(NOISY)
    command = ["train", "reinforce", "--env", "noisy.py:Noisy", "--run-dir", "run", *more]
    return call(folder, *command, *FLAGS.split(), "--total-steps", "64")


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "pgtoolkit.scripts.cli", *words]
    return subprocess.run(program, capture_output=True, text=True, cwd=folder)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_are_all_that_is_on_standard_output(tmp_path: Path) -> None:
    """Also of an environment that prints; the keys are those of the documentation."""
    done = train(tmp_path, "--json-lines")
    start, *progress, end = objects(done.stdout)
    assert done.returncode == 0
    assert "a step" in done.stderr and "at the end" in done.stderr
    assert start["event"] == "start" and start["run"] == "run" and start["step"] == 0
    assert {event["event"] for event in progress} == {"progress"}
    # An evaluation every 16 steps, which is every update.
    assert [event["step"] for event in progress] == [16, 32, 48, 64]
    assert all(event["mean_return"] == 8 for event in progress)
    assert progress[-1]["finished"] and end["event"] == "end" and end["finished"]
    assert (end["step"], end["eval_return"]) == (64, 8)
    page = (Path(__file__).parents[4] / "docs" / "terminal.md").read_text()
    keys = {key for event in (start, progress[0], end) for key in event}
    assert {key for key in keys if f"`{key}`" not in page} == set()
    done = call(tmp_path, "resume", "run", "--total-steps", "96", "--json-lines")
    start, *progress, end = objects(done.stdout)
    assert start["step"] == 64 and [event["step"] for event in progress] == [80, 96]


def test_a_quiet_run_prints_its_last_line_and_errors(tmp_path: Path) -> None:
    done = train(tmp_path, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("run: return: 8.0 at the end, 8.0 at best (deterministic evaluation)\n")
    again = train(tmp_path, "--quiet")
    assert (again.returncode, again.stdout) == (2, "") and "already holds a run" in again.stderr


def test_a_quiet_run_ends_with_its_return_whatever_stands_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = ["steps:          96 of 100, in whole windows of 32", "return:         -3.0 at the end"]
    view = QuietRun()
    with view.output():
        view.end(Ending(RunFolder(tmp_path), {}, True, lines))
        view.end(Ending(RunFolder(tmp_path), {}, True, ["stopped at step 32"]))
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: return: -3.0 at the end",
        f"{tmp_path}: stopped at step 32",
    ]


def test_a_quiet_run_warns_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("pgtoolkit")
    level = log.level
    with QuietRun().output():
        log.warning("unheard")
        log.error("an error")
        print("unseen")
    assert log.level == level
    assert capsys.readouterr().out == ""


def test_two_outputs_at_a_time_are_refused() -> None:
    with pytest.raises(RequestError, match="give one of them"):
        view_of(quiet=True, json_lines=True)


def test_long_lines_go_on_below_their_text() -> None:
    assert wrapped("policy:   one two three", 16) == [
        "policy:   one",
        "          two",
        "          three",
    ]
    assert wrapped("  - one two three four", 16) == ["  - one two", "    three four"]
    assert wrapped("one two three", 8) == ["one two", "three"]
    path = "runs/" + "x" * 30
    assert wrapped(f"policy:   {path}", 16) == ["policy:", f"          {path}"]


def test_rarely_is_due_at_first_when_forced_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 10.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    due = Rarely(5.0)
    assert due(False) and not due(False) and due(True)
    now = 14.0
    assert not due(False)
    now = 15.0
    assert due(False) and not due(False)
