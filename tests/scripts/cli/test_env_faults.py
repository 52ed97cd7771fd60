"""Runs whose environments fail: exit code, one line, and what is written."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgtoolkit.errors import EnvFaultError
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.train import run

FILE = """
import os
import gymnasium, numpy as np
from gymnasium.spaces import Box

class Breaks(gymnasium.Env):
    observation_space = Box(-9.0, 9.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 20
    def __init__(self, at=7):
        self.n, self.at = 0, at
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.x, {}
    def step(self, action):
        self.n += 1
        self.x = (0.9 * self.x + 0.1 * action).astype(np.float32)
        if self.n == self.at:
            self.bad()
        return self.x, float(-(self.x**2).sum()), False, False, {}
    def bad(self):
        raise ValueError("sensor 3 is disconnected")

class Dies(Breaks):
    def bad(self):
        os._exit(3)

class Nan(Breaks):
    def bad(self):
        self.x = self.x * np.nan

class NanReward(Breaks):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.nan if self.n == self.at else reward, terminated, truncated, info
    def bad(self):
        pass
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "breaks.py"
    path.write_text(FILE)
    return str(path)


def arguments(env: str, folder: Path, *more: str) -> list[str]:
    small = "--num-envs 3 --n-steps 8 --total-steps 96 --eval-interval 0 --diagnostics-interval 0"
    return ["reinforce", "--env", env, *small.split(), "--run-dir", str(folder), *more]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_fault_ends_the_run_with_one_line(
    file: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, arguments(f"{file}:Breaks", tmp_path / "run", "--vectorization", mode))
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: environment 0 of Breaks failed at step 7 of its episode (seed ")
    assert re.search(r"ValueError: sensor 3 is disconnected \(breaks.py, line \d+\)", line)
    assert "Nothing was trained; with the cause mended, begin with `pgtoolkit resume " in line


def test_an_old_interface_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not again as the reason for how a resumed run would go on."""
    (tmp_path / "old.py").write_text(
        "import gymnasium\n"
        "class Old(gymnasium.Env):\n"
        "    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return self.observation_space.sample(), {}\n"
        "    def step(self, action):\n"
        "        return self.observation_space.sample(), 0.0, False, {}\n"
    )
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, arguments(f"{tmp_path / 'old.py'}:Old", tmp_path / "run"))
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("4 values") == 1
    assert "Nothing was trained" in printed.err and "checkpoint" not in printed.err


def test_a_bad_number_is_told_with_the_episode_that_repeats_it(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 7 of the first episode is step 6 of the window, whose steps count from 0."""
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, arguments(f"{file}:Nan", folder))
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(
        r"at step 6 of the window, environment 0 at step 7 of its episode \(seed", line
    )
    [path] = folder.glob("fault-*.json")
    fault = yaml.safe_load(path.read_text())
    assert len(fault["replay"]["actions"]) == 7
    assert fault["replay"]["start"]["seed"] == fault["seed"]


def test_a_bad_reward_is_told_with_its_episode_though_the_window_goes_beyond_its_end(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of 32 steps, episodes of 20."""
    folder, flags = tmp_path / "run", ["--n-steps", "32"]
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, arguments(f"{file}:NanReward", folder, *flags))
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(
        r"reward is not finite at step 6 of the window, environment 0 at step 7 of its episode "
        r"\(seed \d+\), in the window that began after 0 environment steps",
        line,
    )


@pytest.mark.parametrize(("name", "mode"), [("Breaks", "sync"), ("Dies", "async")])
def test_a_run_goes_on_with_new_environments(
    file: str, name: str, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--vectorization", mode, "--on-fault", "restart"]
    run(arguments(f"{file}:{name}", tmp_path / "run", *flags))
    found = [r for r in caplog.records if "--on-fault restart" in r.getMessage()]
    assert len(found) >= 9 and {r.levelno for r in found} == {logging.WARNING}
    config: dict[str, Any] = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["vectorization"], config["on_fault"]) == (mode, "restart")
    assert config["step_timeout"] is None
    summary: dict[str, Any] = yaml.safe_load((tmp_path / "run" / "summary.json").read_text())
    assert summary["last"]["rollout/env_faults"] == len(found)
    # Six good steps, then one that is not counted.
    assert summary["steps"] <= 96


def test_sync_and_async_write_the_same_numbers(file: str, tmp_path: Path) -> None:
    for mode in ("sync", "async"):
        flags = ["--vectorization", mode, "--on-fault", "restart"]
        run([*arguments(f"{file}:Breaks", tmp_path / mode), *flags])
    name = "policy/last.safetensors"
    one, other = ((tmp_path / mode / name).read_bytes() for mode in ("sync", "async"))
    assert one == other


def test_an_evaluation_that_no_episode_ends_in_is_given_up(file: str, tmp_path: Path) -> None:
    """Every environment fails at its seventh step of twenty, however often it is made again."""
    flags = ["--on-fault", "restart", "--eval-interval", "48", "--eval-episodes", "1"]
    with pytest.raises(EnvFaultError, match="3 restarts in a row were in vain"):
        run([*arguments(f"{file}:Breaks", tmp_path / "run"), *flags])


def test_when_all_are_dropped_the_run_ends(file: str, tmp_path: Path) -> None:
    with pytest.raises(EnvFaultError, match="all environments are dropped"):
        run(arguments(f"{file}:Breaks", tmp_path / "run", "--on-fault", "drop"))


@pytest.mark.parametrize(
    "flags", [["--on-fault", "drop"], ["--on-fault", "restart"], ["--step-timeout", "1"]]
)
def test_a_batch_of_tensors_is_refused(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, arguments("pgtoolkit/PointMass-v0", tmp_path / "run", *flags))
    assert stopped.value.code == 2 and not (tmp_path / "run").exists()
    [line] = capsys.readouterr().err.strip().splitlines()
    assert flags[0] in line and "--differentiate none" in line


def test_a_timeout_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run_command(run, ["reinforce", "--env", "CartPole-v1", "--step-timeout", "0"])
    assert stopped.value.code == 2
    assert "--step-timeout must be above 0" in capsys.readouterr().err
