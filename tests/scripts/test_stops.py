"""Commands that are stopped, or whose surroundings fail: what they leave, and what they say."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.registry import AGENTS, lookup
from pgtoolkit.scripts.reliability.run_comparison import differences
from pgtoolkit.training.storage.event_file import EventFile
from pgtoolkit.training.storage.lock import locked
from pgtoolkit.training.writer import RunWriter

SIZES = ["--num-envs", "4", "--n-steps", "8", "--hidden", "8", "--diagnostics-interval", "3"]
SIZES += ["--total-steps", "320", "--eval-interval", "96", "--eval-episodes", "2"]
FLAGS = {"ppo": ["--batch-size", "16"], "reppo": ["--batch-size", "16"]}
"""Flags that an agent needs for so small a window."""


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


def train(path: Path, agent: str = "shac", env: str = "pgtoolkit/Pendulum-v0", *more: str) -> int:
    flags = [*SIZES, *FLAGS.get(agent, []), *more]
    return call("train", agent, "--env", env, "--run-dir", str(path), *flags)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``stop_at(k, signum)``: this process gets the signal while the k-th row is written."""
    plain = RunWriter.write

    def set_up(number: int, signum: int) -> None:
        count = [0]

        def write(writer: RunWriter, *arguments: Any) -> dict[str, float]:
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signum)
            return plain(writer, *arguments)

        monkeypatch.setattr(RunWriter, "write", write)

    yield set_up


@pytest.mark.parametrize("agent", AGENTS)
def test_stopped_and_resumed_runs_are_equal_to_the_bit(
    agent: str, tmp_path: Path, stop_at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three stops, at updates with and without evaluation; every agent of the table."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, agent) == 0
    stop_at(2, signal.SIGINT)
    assert train(stopped, agent) == 130
    line = f"interrupted at step 64: go on with `pgtoolkit resume {stopped}`\n"
    assert capsys.readouterr().err == line
    stop_at(1, signal.SIGTERM)
    assert call("resume", str(stopped)) == 143
    stop_at(3, signal.SIGHUP)
    assert call("resume", str(stopped)) == 129
    assert call("resume", str(stopped)) == 0
    assert differences(whole, stopped) == []
    assert (stopped / "summary.json").exists()


def test_a_signal_before_the_first_update_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgtoolkit.scripts.cli import experiment

    def make(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(experiment, "env_factory_of", make)
    assert train(tmp_path / "run") == 143
    message = "interrupted before the first update: nothing was trained\n"
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_before_its_summary_gets_one(tmp_path: Path) -> None:
    """Its last checkpoint is there; resuming trains nothing more."""
    path = tmp_path / "run"
    assert train(path) == 0
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    assert call("resume", str(path)) == 2
    (path / "summary.json").unlink()
    assert call("resume", str(path)) == 0
    assert (path / "summary.json").exists()
    assert differences(path, copy) == []


def test_a_run_that_is_being_written_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither resumed nor trained into; evaluating only reads."""
    path = tmp_path / "run"
    assert train(path) == 0
    with locked(path):
        assert call("resume", str(path), "--total-steps", "640") == 2
        error = capsys.readouterr().err
        assert f"is being written by process {os.getpid()}" in error and error.count("\n") == 1
        assert call("evaluate", str(path), "--episodes", "1") == 0
    new = tmp_path / "new"
    new.mkdir()
    with locked(new):
        assert train(new) == 2
    assert list(new.iterdir()) == []


ENVIRONMENT = """
import torch
from gymnasium.spaces import Box
from pgtoolkit.envs import DifferentiableEnv

class Bad(DifferentiableEnv):
    observation_space = Box(-float("inf"), float("inf"), (2,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 20
    calls = 0

    def initial(self, num_envs, generator):
        return torch.rand(num_envs, 2, generator=generator)

    def transition(self, state, action, noise):
        Bad.calls += 1
        if Bad.calls > 100:
            STATEMENT
        return 0.9 * state + 0.1 * action

    def observation(self, state):
        return state

    def reward(self, state, action, next_state):
        return -(next_state**2).sum(-1)

    def terminal(self, state):
        return torch.zeros(state.shape[0], dtype=torch.bool)
"""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("raise ValueError('solver diverged')", "ValueError: solver diverged ("),
        ("raise OSError('the sensor is gone')", "OSError: the sensor is gone ("),
        ("raise SystemExit('I quit')", "SystemExit: I quit ("),
        ("raise KeyboardInterrupt", "KeyboardInterrupt ("),
        ("raise ValueError('\\udcff \\n two lines')", "ValueError: \\udcff two lines ("),
        ("raise MemoryError", "out of memory (): make --num-envs"),
        ("torch.zeros(2**50)", "memory"),
    ],
)
def test_an_error_in_an_environment_is_a_line_with_its_place(
    statement: str, words: str, tmp_path: Path
) -> None:
    """In a process of its own, whose standard error cannot hold every character."""
    (tmp_path / "bad.py").write_text(ENVIRONMENT.replace("STATEMENT", statement))
    arguments = ["train", "shac", "--env", f"{tmp_path / 'bad.py'}:Bad", "--compile", "never"]
    done = run([*arguments, "--run-dir", str(tmp_path / "run"), *SIZES])
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "memory" in words or "bad.py, line 18, in transition" in done.stderr
    assert f"Last good checkpoint: {tmp_path / 'run' / 'resume.safetensors'}" in done.stderr


def run(arguments: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "pgtoolkit.scripts.cli", *arguments]
    given: dict[str, Any] = {"capture_output": True, "text": True} | settings
    return subprocess.run(command, check=False, **given)


def test_the_traceback_is_shown_to_those_who_ask(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(ENVIRONMENT.replace("STATEMENT", "raise ValueError('no')"))
    arguments = ["train", "shac", "--env", f"{tmp_path / 'bad.py'}:Bad", "--compile", "never"]
    environment = os.environ | {"PGTOOLKIT_TRACEBACK": "1"}
    done = run([*arguments, "--run-dir", str(tmp_path / "run"), *SIZES], env=environment)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_disk_that_fills_up_in_the_run_ends_it_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The events of the fifth row: the run goes on from its last checkpoint, and shows no gap."""
    path, whole, flush, count = tmp_path / "run", tmp_path / "whole", EventFile.flush, [0]

    def fill_up(events: EventFile) -> None:
        count[0] += 1
        if count[0] == 5:
            raise OSError(28, "No space left on device")
        flush(events)

    assert train(whole, "shac", "pgtoolkit/Pendulum-v0", "--checkpoint-interval", "64") == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "flush", fill_up)
        arguments = ["shac", "pgtoolkit/Pendulum-v0", "--checkpoint-interval", "64"]
        assert train(path, *arguments) == 1
    message = capsys.readouterr().err
    assert f"the run folder {path} cannot be written: No space left on device." in message
    assert f"Last good checkpoint: {path / 'resume.safetensors'}" in message
    assert message.count("\n") == 1
    assert call("resume", str(path)) == 0
    assert differences(path, whole) == []


def test_output_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    """A full disk, closed streams, and a pipe whose reader went away."""
    flags = ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--compile", "never", *SIZES]
    shell = f"{sys.executable} -m pgtoolkit.scripts.cli {' '.join(flags)} --run-dir"
    endings = [">/dev/full 2>/dev/full", ">&-", "<&- >&- 2>&-"]
    for number, ending in enumerate(endings):
        path = tmp_path / f"{number}"
        done = subprocess.run(
            f"{shell} {path} {ending}", shell=True, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), ending
        assert (path / "summary.json").exists() and not (path / ".lock").exists()
    pipe = f"bash -c 'set -o pipefail; {shell} {tmp_path / 'pipe'} | head -1'"
    done = subprocess.run(pipe, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1
    assert (tmp_path / "pipe" / "summary.json").exists()


def test_other_commands_say_that_their_output_is_lost() -> None:
    with open("/dev/full", "w") as full:
        done = run(["list"], capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_every_command_ends_at_a_signal(
    signum: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: Any) -> None:
        os.kill(os.getpid(), signum)
        time.sleep(1)

    with pytest.raises(SystemExit) as caught:
        cli.run_command(command, [])
    assert caught.value.code == code
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_of_our_own_is_three_lines_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    """No environment is in its traceback."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(
            functools.partial(lookup, table=cast("Any", None), what="y"), cast("Any", "x")
        )
    message = capsys.readouterr().err
    assert caught.value.code == 1 and message.count("\n") == 2
    assert "TypeError" in message and "registry.py" in message
    assert "PGTOOLKIT_TRACEBACK=1" in message
