"""``pgtoolkit check-env``: the page, the file, exit codes, and errors of an environment."""

import json
from pathlib import Path

import pytest

from pgtoolkit.scripts import check_env as command
from pgtoolkit.scripts.cli import main as cli

BROKEN_ENV = f"{Path(__file__).parents[1]}/envs/checks/test_ordinary.py:TimeLimitAsTermination"


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit check-env ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(command.run, arguments)
    return int(caught.value.code or 0)


def test_exit_codes_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 without a fault, 1 with one, 2 for a wrong request; JSON has what the page has."""
    file = tmp_path / "findings.json"
    quick = ("--samples", "8", "--seconds", "0.3", "--json", str(file))
    assert call("pgtoolkit/PointMass-v0", *quick) == 0
    page = capsys.readouterr().out
    rows = json.loads(file.read_text())
    assert {tuple(row) for row in rows} == {
        ("part", "check", "status", "finding", "meaning", "advice")
    }
    assert {row["status"] for row in rows} <= {"pass", "warning", "fault", "not checked"}
    assert all(row["check"] in page for row in rows)
    assert len(page.splitlines()) <= 60
    assert call(BROKEN_ENV, *quick) == 1
    assert "fault" in capsys.readouterr().out
    assert any(row["status"] == "fault" for row in json.loads(file.read_text()))
    assert call("NoSuchEnvironment-v0") == 2
    assert call("Pendulum-v1", "--samples", "0") == 2
    assert call("Pendulum-v1", "--env-kwargs", '{"mass": 1}') == 2
    assert call("Pendulum-v1", "--json", str(tmp_path / "missing" / "file.json")) == 2


def test_actions_that_no_agent_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The parts are named and no agent is; Discrete actions fit those without a gradient."""
    file = tmp_path / "odd.py"
    file.write_text(
        "import gymnasium\n"
        "class Odd(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Discrete(2)\n"
        "    def __init__(self, start):\n"
        "        self.action_space = gymnasium.spaces.Discrete(3) if start == 0 else (\n"
        "            gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)]))\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return self.np_random.integers(2), {}\n"
        "    def step(self, action):\n"
        "        over = bool(self.np_random.random() < 0.2)\n"
        "        return self.np_random.integers(2), 1.0, over, False, {}\n"
    )
    quick = (f"{file}:Odd", "--seconds", "0.3", "--env-kwargs")
    assert call(*quick, '{"start": 1}') == 2
    said = capsys.readouterr().err
    assert "Odd have the parts" in said and "policies choose one row" in said
    assert call(*quick, '{"start": 0}') == 0
    page = " ".join(capsys.readouterr().out.split())
    fitting = (
        "the spaces fit reinforce, ppo, a2c, npg, trpo; not reppo, sac, svg: a critic's slope by "
        "the action"
    )
    assert fitting in page and "; not td3:" in page
    assert "; not apg, shac, sapo, ahac, rpo: the action_space of Odd" in page


def test_an_error_is_named_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The finding names file and line, and no traceback is printed."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from pgtoolkit.envs.control.point_mass import PointMass\n"
        "from pgtoolkit.envs.differentiable import DifferentiableEnv\n\n"
        "class Mine(DifferentiableEnv):\n"
        "    observation_space = PointMass().observation_space\n"
        "    action_space = PointMass().action_space\n"
        "    max_episode_steps = 5\n"
        "    initial = PointMass.initial\n"
        "    transition = PointMass.transition\n"
        "    observation = PointMass.observation\n"
        "    terminal = PointMass.terminal\n"
        "    def reward(self, state, action, next_state):\n"
        "        return 1 / 0\n"
    )
    assert call(f"{file}:Mine", "--json", str(tmp_path / "found.json")) == 1
    found = [row["finding"] for row in json.loads((tmp_path / "found.json").read_text())]
    assert any("mine.py, line 13: ZeroDivisionError" in text for text in found)
    assert "Traceback" not in capsys.readouterr().out
