"""Tests of environments that installed packages register as plug-ins."""

import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry import plugins
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.errors import RequestError

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "rocket-package"
version = "1.0"

[project.entry-points."pgtoolkit.envs"]
"Rocket-v0" = "rocket_package:Rocket"
"rockets/Coin-v0" = "rocket_package:Coin"
"""
SOURCE = """
import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from pgtoolkit.envs import DifferentiableEnv


class Rocket(DifferentiableEnv):
    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 5

    def initial(self, num_envs, generator):
        return torch.rand(num_envs, 1, generator=generator, device=generator.device)

    def transition(self, state, action, noise):
        return state + action

    def observation(self, state):
        return state

    def reward(self, state, action, next_state):
        return -next_state[:, 0] ** 2

    def terminal(self, state):
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


class Coin(gymnasium.Env):
    observation_space = Box(0.0, 1.0, (1,))
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action), True, False, {}
"""
QUICK = ["--total-steps", "60", "--num-envs", "3", "--n-steps", "5", "--hidden", "4"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment, in which the package is installed beside ours."""
    root = tmp_path_factory.mktemp("plugin")
    source = root / "source"
    (source / "rocket_package").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "rocket_package" / "__init__.py").write_text(textwrap.dedent(SOURCE))
    venv.create(root / "venv", with_pip=False)
    interpreter = root / "venv" / "bin" / "python"
    site = next((root / "venv" / "lib").glob("python*/site-packages"))
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--no-build-isolation", str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return interpreter


def call(python: Path, where: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pgtoolkit.scripts.cli", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_s_environments_are_listed(python: Path, tmp_path: Path) -> None:
    listed = call(python, tmp_path, "list", "envs")
    assert "Rocket-v0" in listed and "rockets/Coin-v0" in listed
    assert "of the package rocket-package" in listed


@pytest.mark.parametrize(
    ("agent", "env"), [("shac", "Rocket-v0"), ("reinforce", "rockets/Coin-v0")]
)
def test_and_train(python: Path, tmp_path: Path, agent: str, env: str) -> None:
    out = call(python, tmp_path, "train", agent, "--env", env, "--run-dir", "run", *QUICK)
    assert "return:         " in out
    assert "episodes:    3 deterministic" in call(
        python, tmp_path, "evaluate", "run", "--episodes", "3"
    )


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Announces entry points without a package; forgets their registrations afterwards."""
    before = dict(gymnasium.registry)

    def announce(**points: str) -> None:
        found = [
            EntryPoint(k.replace("_", "-"), v, plugins.ENTRY_POINT_GROUP) for k, v in points.items()
        ]
        monkeypatch.setattr(plugins, "entry_points", lambda group: found)

    yield announce
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def test_nothing_is_imported_before_it_is_made(announced: Any) -> None:
    announced(Nowhere_v0="no_such_module:Env")
    assert plugins.register_plugins() == {"Nowhere-v0": "an unnamed package"}
    with pytest.raises(RequestError, match=r"no_such_module:Env cannot be imported \(Module"):
        find_env("Nowhere-v0")


def test_a_differentiable_plugin_keeps_its_gradient_and_its_arguments(announced: Any) -> None:
    announced(Swing_v0="pgtoolkit.envs.control.pendulum:Pendulum")
    source = find_env("Swing-v0", {"g": 3.0})
    assert isinstance(source.differentiable, Pendulum) and source.differentiable.g == 3.0
    assert isinstance(source.make().unwrapped, NumpyEnv)
    with pytest.raises(RequestError, match="does not take the argument 'h'"):
        find_env("Swing-v0", {"h": 3.0})


def test_an_id_that_exists_is_left_alone(announced: Any) -> None:
    announced(CartPole_v1="pgtoolkit.envs.control.pendulum:Pendulum")
    assert "CartPole-v1" in plugins.register_plugins()
    assert find_env("CartPole-v1").differentiable is None


@pytest.mark.parametrize(
    ("target", "complaint"),
    [("math:pi", "neither a class nor a function"), ("fractions:Fraction", "made Fraction, which")],
)
def test_what_is_no_environment_is_refused(announced: Any, target: str, complaint: str) -> None:
    announced(Thing_v0=target)
    with pytest.raises(RequestError, match=complaint):
        find_env("Thing-v0")


def test_an_id_that_gymnasium_cannot_register_is_named(announced: Any) -> None:
    announced(**{"no id": "pgtoolkit.envs.control.pendulum:Pendulum"})
    with pytest.raises(RequestError, match="announces the environment 'no id'"):
        plugins.register_plugins()
