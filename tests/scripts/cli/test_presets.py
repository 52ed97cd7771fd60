"""Presets: settings of an agent that suit an environment."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import pgtoolkit
from pgtoolkit.agents.a2c import A2cConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import train
from pgtoolkit.scripts.cli.experiment import default_settings, settings_from_file
from pgtoolkit.scripts.cli.presets import FOLDER, find_preset, preset_files
from pgtoolkit.scripts.cli.registry import AGENTS

CARTPOLE = ["a2c", "--env", "CartPole-v1"]
SHORT = ["--total-steps", "80", "--eval-episodes", "1", "--run-dir"]
SECTIONS = [
    (env, agent)
    for env, file in preset_files().items()
    for agent in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("env, agent", SECTIONS)
def test_every_preset_is_of_an_agent_and_changes_settings_that_it_has(env: str, agent: str) -> None:
    assert agent in AGENTS
    preset = find_preset("auto", agent, env)
    assert preset is not None
    settings = settings_from_file(
        {"agent": agent, "env": env, **preset.settings}, [], command="train"
    )
    found, defaults = settings.as_dict(), default_settings(agent)
    for name, value in preset.settings.items():
        assert found[name] == value
        assert value != defaults[name], f"{name} is the default: leave it out"


def test_an_environment_without_a_file_has_none() -> None:
    assert find_preset("auto", "reppo", "Pendulum-v99") is None
    assert find_preset("auto", "shac", "Pendulum-v1") is None
    assert find_preset("auto", "reppo", "../presets/Pendulum-v1") is None
    assert find_preset("none", "reppo", "Pendulum-v1") is None


def test_the_wheel_has_the_files() -> None:
    project = tomllib.loads((FOLDER.resolve().parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["pgtoolkit.scripts"]
    shipped = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert shipped == set(preset_files().values())


def config_of(folder: Path) -> dict[str, object]:
    return dict(yaml.safe_load((folder / "config.yaml").read_text()))


def test_train_starts_from_the_preset_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.run([*CARTPOLE, *SHORT, str(tmp_path / "run")])
    assert config_of(tmp_path / "run")["n_steps"] == 16
    said = "preset of a2c on CartPole-v1: n_steps 16, learning_rate 0.003, normalize_observations "
    said += "False (defaults: --preset none)"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--n-steps", "8"], ["--preset", "none"]])
def test_flags_win_over_the_preset(flags: list[str], tmp_path: Path) -> None:
    train.run([*CARTPOLE, *flags, *SHORT, str(tmp_path / "run")])
    assert config_of(tmp_path / "run")["n_steps"] == 8


def test_a_file_of_settings_stands_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text("env: CartPole-v1\n")
    train.run(["a2c", "--config", str(file), *SHORT, str(tmp_path / "run")])
    assert config_of(tmp_path / "run")["n_steps"] == 8


def test_python_starts_from_the_preset_of_a_name_and_an_id(tmp_path: Path) -> None:
    short: dict[str, Any] = {"total_steps": 80, "eval_episodes": 1, "quiet": True}
    named = pgtoolkit.train("a2c", "CartPole-v1", **short, run_dir=tmp_path / "a")
    assert named.settings.agent.n_steps == 16
    given = pgtoolkit.train("a2c", "CartPole-v1", n_steps=4, **short, run_dir=tmp_path / "b")
    assert given.settings.agent.n_steps == 4
    plain = pgtoolkit.train("a2c", "CartPole-v1", preset="none", **short, run_dir=tmp_path / "c")
    assert plain.settings.agent.n_steps == 8
    whole = pgtoolkit.train(A2cConfig(), "CartPole-v1", **short, run_dir=tmp_path / "d")
    assert whole.settings.agent.n_steps == 8


def test_python_names_the_choices() -> None:
    with pytest.raises(RequestError, match="preset must be"):
        pgtoolkit.train("a2c", "CartPole-v1", preset="best")  # type: ignore[arg-type]
