import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RescaleAction

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.ordinary import time_limit
from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import RequestError

USER_FILE = """
import dataclasses
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

from pgtoolkit.envs import DifferentiableEnv, Pendulum


@dataclasses.dataclass
class Settings:
    scale: "float" = 1.0


class Where(NamedTuple):
    x: torch.Tensor


class Slide(DifferentiableEnv):
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 7

    def __init__(self, scale=1.0):
        self.settings = Settings(scale)
        if scale < 0:
            raise ValueError("scale is negative")

    def initial(self, num_envs, generator):
        return Where(torch.ones(num_envs, 1, device=generator.device))

    def transition(self, state, action, noise):
        return Where(state.x + self.settings.scale * action)

    def observation(self, state):
        return state.x

    def reward(self, state, action, next_state):
        return -next_state.x.square().sum(-1)

    def terminal(self, state):
        return state.x[:, 0] > 100


class Unspaced(Slide):
    def __init__(self):
        pass

    observation_space = property()
    max_episode_steps = property()


class Half(DifferentiableEnv):
    def initial(self, num_envs, generator):
        return None


class Ordinary(gymnasium.Env):
    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, size=3, *, render_mode=None):
        self.size, self.render_mode = size, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


class NeedsPackage(Ordinary):
    def __init__(self):
        import a_package_that_nobody_has


class Neither:
    pass
"""


@pytest.fixture
def user_file(tmp_path: Path) -> str:
    # Named like a module that exists, which must not matter.
    file = tmp_path / "random.py"
    file.write_text(USER_FILE)
    return str(file)


def test_a_registered_id_of_ours_is_differentiable() -> None:
    source = find_env("pgtoolkit/Pendulum-v0", {"g": 3.0})
    assert source.name == "Pendulum-v0"
    assert isinstance(source.differentiable, Pendulum) and source.differentiable.g == 3.0
    assert isinstance(source.make().unwrapped, NumpyEnv)


def test_any_registered_id_is_ordinary_and_keeps_its_time_limit() -> None:
    source = find_env("Pendulum-v1")
    assert source.name == "Pendulum-v1" and source.differentiable is None
    env = make_vector_env(source, 2)
    assert isinstance(env, OrdinaryVectorEnv) and env.num_envs == 2
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert time_limit(env.envs[0]) == 200


def test_an_id_with_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pgtoolkit_test_plugin.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('PluginTest-v0', 'gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        source = find_env("pgtoolkit_test_plugin:PluginTest-v0")
        assert source.name == "PluginTest-v0"
        assert make_vector_env(source, 1).single_action_space.shape == (1,)  # no time limit: fine
    finally:
        gymnasium.registry.pop("PluginTest-v0", None)
        sys.modules.pop("pgtoolkit_test_plugin", None)


def test_a_time_limit_given_with_the_id_is_taken_over() -> None:
    source = find_env("pgtoolkit/Pendulum-v0", {"max_episode_steps": 3})
    assert source.differentiable is not None and source.differentiable.max_episode_steps == 3
    env = make_vector_env(source, 1)
    env.reset(seed=0)
    assert [bool(env.step(torch.zeros(1, 1))[3]) for _ in range(3)] == [False, False, True]


def test_a_differentiable_class_in_a_file(user_file: str) -> None:
    source = find_env(f"{user_file}:Slide", {"scale": 2.0})
    assert source.name == "Slide" and source.differentiable is not None
    env = make_vector_env(source, 3)
    assert isinstance(env, DifferentiableVectorEnv)
    env.reset(seed=0)
    assert env.step(torch.ones(3, 1))[0].flatten().tolist() == [3.0] * 3
    view = source.make()
    assert isinstance(view, NumpyEnv) and view.reset(seed=0)[0].tolist() == [1.0]


def test_an_ordinary_class_in_a_file(user_file: str) -> None:
    source = find_env(f"{user_file}:Ordinary", {"size": 5})
    assert source.name == "Ordinary" and source.differentiable is None
    assert source.make().unwrapped.size == 5  # type: ignore[attr-defined]
    assert source.make(render_mode="rgb_array").render_mode == "rgb_array"
    assert make_vector_env(source, 2).reset(seed=0)[0].shape == (2, 1)


def test_a_differentiable_object() -> None:
    env = LQG(horizon=3)
    source = find_env(env)
    assert source.name == "LQG" and source.differentiable is env
    ordinary = make_vector_env(source, 2, differentiate="none")
    assert isinstance(ordinary, OrdinaryVectorEnv)
    assert isinstance(ordinary.envs[0].unwrapped, NumpyEnv)


def test_an_ordinary_object_is_copied_with_generators_of_its_own() -> None:
    given = gymnasium.make("Pendulum-v1")
    given.reset(seed=0)
    source = find_env(given)
    assert source.name == "Pendulum-v1" and source.differentiable is None
    first, second = (source.make() for _ in range(2))
    assert first is not given and first.unwrapped is not second.unwrapped
    assert not np.array_equal(first.reset()[0], second.reset()[0])
    with pytest.raises(RequestError, match="made with render_mode=None and cannot change it"):
        source.make(render_mode="rgb_array")


def test_an_object_of_ours_is_differentiable_unless_a_wrapper_changes_it() -> None:
    plain = gymnasium.make("pgtoolkit/Pendulum-v0")
    assert isinstance(find_env(plain).differentiable, Pendulum)
    wrapped = RescaleAction(plain, np.float32(-1.0), np.float32(1.0))
    assert find_env(wrapped).differentiable is None


def test_rendering() -> None:
    for name in ("pgtoolkit/PointMass-v0", "pgtoolkit/LQG-v0"):
        env = find_env(name).make(render_mode="rgb_array")
        env.reset(seed=0)
        frame: Any = env.render()
        assert frame.shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("env", "kwargs", "message"),
    [
        ("Pendulm-v1", {}, "no environment Pendulm-v1. Did you mean Pendulum-v1"),
        ("Qqqqqqq-v1", {}, "no environment Qqqqqqq-v1"),
        ("Nobody/Pong-v5", {}, "Namespace Nobody not found"),
        ("what is this?", {}, "Malformed environment ID"),
        ("no_such_module:X-v0", {}, "Python finds no module no_such_module"),
        ("Pendulum-v1", {"gravity": 1}, "does not take the argument 'gravity': it takes .*g"),
        ("pgtoolkit/Pendulum-v0", {"x": 1}, "Pendulum does not take the argument 'x': it takes g"),
        ("pgtoolkit/LQG-v0", {"Q": -1}, "Q is not positive semidefinite"),
        ("CliffWalking-v1", {"is_slippery": [], "desc": 1}, "does not take the argument 'desc'"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "cannot be made with .*KeyError"),
        ("nowhere/to/be/found.py:Env", {}, "there is no file nowhere/to/be/found.py"),
        (lambda size, mass=1: LQG(), {"mass": 2}, r"needs the argument 'size' .*: give it with"),
        (3, {}, "3 is not an environment"),
        (LQG(), {"A": 1}, "LQG is an object already"),
    ],
)
def test_wrong_requests(env: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        find_env(env, kwargs)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("hover:Hover", "Python finds no module hover.* as hover.py:Hover; for an id,"),
        ("parts.hover:Hover", "as parts/hover.py:Hover;"),
        ("parts/hover:Hover", "as parts/hover.py:Hover;"),
        ("hover:Hover-v0", "as hover.py:Class;"),
        ("hover.Hover", "as hover.py:Hover, and"),
        ("hover", "as hover.py:Class, and"),
        ("nowhere:Hover", "as path/to/file.py:Hover;"),
        (
            "pgtoolkit.envs:Hover",
            "pgtoolkit.envs registers no Hover. .*envs/__init__.py:Hover, and",
        ),
        ("Hover", "as path/to/file.py:Class, and"),
    ],
)
def test_a_class_that_is_named_like_an_id(
    env: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the name that finds the class in its file."""
    (tmp_path / "parts").mkdir()
    for name in ("hover.py", "parts/hover.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        find_env(env)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (":Slid", {}, "has no Slid: it defines Slide"),
        (":", {}, "say which class"),
        ("", {}, "say which class, as in .*:Class; it defines .*Slide"),
        (":Neither", {}, "neither a DifferentiableEnv nor a gymnasium.Env class: it defines"),
        (":Settings", {}, "neither a DifferentiableEnv nor"),
        (":Half", {}, "not complete: it still has to define observation, reward, terminal, trans"),
        (":Unspaced", {}, "Unspaced has no observation_space and no max_episode_steps"),
        (":Slide", {"size": 1}, "Slide does not take the argument 'size': it takes scale"),
        (":Slide", {"scale": -1.0}, r"random.py, line \d+: ValueError: scale is negative"),
        (":Ordinary", {"scale": 1}, "does not take the argument 'scale': it takes size"),
        (":NeedsPackage", {}, "NeedsPackage cannot be made: .*a_package_that_nobody_has"),
    ],
)
def test_wrong_requests_of_a_file(
    user_file: str, name: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        find_env(user_file + name, kwargs)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import math\n\nx = 1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("import a_package_that_nobody_has\n", "line 1: ModuleNotFoundError: No module named"),
        ("", "broken.py has no Env: it defines no environment"),
    ],
)
def test_an_error_in_the_file_is_named_with_its_line(
    tmp_path: Path, code: str, message: str
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(code)
    with pytest.raises(RequestError, match=message):
        find_env(f"{file}:Env")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            DependencyNotInstalled("MuJoCo is not installed, run `pip install ...`"),
            r"gymnasium\[mujoco\]",
        ),
        (ModuleNotFoundError("No module named 'mujoco'", name="mujoco"), r"gymnasium\[mujoco\]"),
        (
            DependencyNotInstalled("pygame is not installed, run ..."),
            r"gymnasium\[classic-control\]",
        ),
        (DependencyNotInstalled("Box2D is not installed, do this"), r"gymnasium\[box2d\]"),
        (ImportError("mujoco v2 and v3 have moved"), "X cannot be made: mujoco v2 and v3"),
    ],
)
def test_missing_packages(error: ImportError | DependencyNotInstalled, advice: str) -> None:
    with pytest.raises(RequestError, match=advice):
        raise missing_package("X", error)


def test_a_mujoco_environment_without_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*args: object, **kwargs: object) -> None:
        raise DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium"`')

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(RequestError, match=r'pip install "gymnasium\[mujoco\]"'):
        find_env("Ant-v5")


def test_every_form_gives_the_same_protocol(user_file: str) -> None:
    for env in ("pgtoolkit/LQG-v0", f"{user_file}:Slide", Pendulum()):
        source = find_env(env)
        assert isinstance(source.differentiable, DifferentiableEnv)
        vector = make_vector_env(source, 2)
        assert isinstance(vector, DifferentiableVectorEnv)
        vector.reset(seed=0)
        assert vector.step(torch.zeros(2, 1))[1].shape == (2,)


class SpacesInReset(gymnasium.Env[Any, Any]):
    """Its observation space is missing until the first reset."""

    action_space = Discrete(2)


class OldSpace(SpacesInReset):
    observation_space: Any = "Box(2,)"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (SpacesInReset, "SpacesInReset has no observation_space: make a space of gymnasium.spaces"),
        (OldSpace, r"OldSpace has Box\(2,\) \(builtins\) as its observation_space"),
    ],
)
def test_an_environment_without_spaces_of_gymnasium_is_refused(kind: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        find_env(kind())
