import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

import pgtoolkit.envs
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.errors import RequestError

IDS = ["pgtoolkit/LQG-v0", "pgtoolkit/Pendulum-v0", "pgtoolkit/PointMass-v0"]


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is -?infinity.*")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space.*")
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_accepts_it(env_id: str) -> None:
    check_env(gymnasium.make(env_id).unwrapped)


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box")
@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines3_accepts_it(env_id: str) -> None:
    sb3_check_env(gymnasium.make(env_id, render_mode="rgb_array"))


@pytest.mark.parametrize("env_id", IDS)
def test_the_differentiable_environment_is_inside(env_id: str) -> None:
    env = gymnasium.make(env_id).unwrapped
    assert isinstance(env, NumpyEnv)
    assert type(env.env).__name__ == env_id.removeprefix("pgtoolkit/").removesuffix("-v0")


def test_arguments_reach_the_environment() -> None:
    env = gymnasium.make("pgtoolkit/Pendulum-v0", g=3.0).unwrapped
    assert isinstance(env, NumpyEnv) and isinstance(env.env, Pendulum) and env.env.g == 3.0
    with pytest.raises(RequestError, match="Pendulum does not take the argument 'gravity'"):
        gymnasium.make("pgtoolkit/Pendulum-v0", gravity=3.0)


def test_equals_the_functions() -> None:
    env, dynamics = NumpyEnv(PointMass(), dtype=torch.float64), PointMass()
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32 and obs.shape == (4,)
    state = dynamics.numpy_initial(np.random.default_rng(0)).double()
    np.testing.assert_array_equal(obs, state[0].numpy().astype(np.float32))
    for t in range(dynamics.max_episode_steps):
        action = np.array([np.sin(t), 0.3])
        given = torch.tensor(action).unsqueeze(0)
        after = dynamics.transition(state, given, None)
        obs, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(obs, after[0].numpy().astype(np.float32))
        assert reward == dynamics.reward(state, given, after).item() and info == {}
        assert not terminated and truncated == (t == dynamics.max_episode_steps - 1)
        state = after


def test_termination() -> None:
    env = NumpyEnv(LQG(horizon=3))
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2] for _ in range(3)]
    assert ends == [False, False, True]


def rewards(env: NumpyEnv, seed: int | None) -> list[float]:
    env.reset(seed=seed)
    return [env.step(np.zeros(1, np.float32))[1] for _ in range(5)]


def test_all_randomness_is_its_own() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    env = NumpyEnv(LQG())
    first = rewards(env, 1)
    assert first == rewards(NumpyEnv(LQG()), 1) == rewards(env, 1)
    assert first != rewards(env, 2) and first != rewards(env, None)
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]


def test_unbounded_actions_are_shown_with_bounds_and_not_clipped() -> None:
    env = NumpyEnv(LQG(W=0.0, P0=0.0), finite_action_bound=3.0)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    assert env.action_space.low.tolist() == [-3.0] and env.action_space.high.tolist() == [3.0]
    assert np.isinf(env.env.action_space.high).all()
    env.reset(seed=0)
    obs, *_ = env.step(np.array([100.0], np.float32))
    assert obs.item() == pytest.approx(0.9 + 50.0)


def test_no_graph() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    seen = []

    class Learned(DifferentiableEnv):
        observation_space, action_space = Pendulum().observation_space, Pendulum().action_space
        max_episode_steps = 3

        def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
            return torch.zeros(num_envs, 3)

        def transition(self, state: Tensor, action: Tensor, noise: Any) -> Tensor:
            seen.append(state + scale * action)
            return seen[-1]

        def observation(self, state: Tensor) -> Tensor:
            return state

        def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
            return state[:, 0]

        def terminal(self, state: Tensor) -> Tensor:
            return state[:, 0] > 9

    env = NumpyEnv(Learned())
    env.reset()
    env.step(np.ones(1, np.float32))
    assert seen and not seen[0].requires_grad
    assert env.metadata["render_modes"] == [] and env.render() is None
    with pytest.raises(RequestError, match="Learned cannot render in mode 'rgb_array'"):
        NumpyEnv(Learned(), render_mode="rgb_array")


def test_requests_that_are_wrong() -> None:
    env = NumpyEnv(Pendulum())
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(1, np.float32))
    env.reset()
    with pytest.raises(ValueError, match=r"must have shape \[1\], not \[1, 1\]"):
        env.step(np.zeros((1, 1), np.float32))
    with pytest.raises(RequestError, match="cannot render in mode 'human': it has 'rgb_array'"):
        NumpyEnv(Pendulum(), render_mode="human")


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, gymnasium, pgtoolkit.envs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_public_names_arrive() -> None:
    assert pgtoolkit.envs.LQG is LQG
    for name in set(dir(pgtoolkit.envs)) - set(vars(pgtoolkit.envs)):
        assert getattr(pgtoolkit.envs, name) is not None
    with pytest.raises(AttributeError, match="Nothing"):
        getattr(pgtoolkit.envs, "Nothing")  # noqa: B009


def test_stable_baselines_ppo_trains_on_it_unchanged() -> None:
    """A few updates of SB3's PPO change its policy."""
    env = gymnasium.make("pgtoolkit/Pendulum-v0")
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(128)
    changed = zip(before, model.policy.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in changed)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps is 0: it must be an int of at least 1"),
        ({"initial": lambda *_: None}, "initial returned a NoneType: .* a tensor"),
        ({"transition": lambda *_: [0.0]}, "transition returned a list: .* a tensor"),
        ({"transition": lambda state, action, noise: state + noise}, "sets no noise_shape"),
        ({"observation": lambda state: state[:, 0]}, r"observation returned .* must return \[1, "),
        ({"reward": lambda *_: 0.0}, r"reward returned a float: .* a tensor \[1\]"),
        ({"reward": lambda state, *_: state[:, :1]}, r"shape \[1, 1\] for 1 environment: it must"),
        ({"terminal": lambda *_: False}, r"terminal returned a bool: .* a tensor \[1\]"),
        ({"terminal": lambda state: state[:, 0]}, "terminal returned torch.float32: .* booleans"),
        ({"truncated": lambda *_: False}, r"truncated returned a bool: .* a tensor \[1\]"),
    ],
)
def test_a_plain_mistake_of_an_environment_is_a_sentence(
    attributes: dict[str, Any], message: str
) -> None:
    """The same as of a batch of tensors, where NumPy would raise or broadcast."""
    mass = PointMass()
    vars(mass).update(attributes)
    with pytest.raises(RequestError, match=f"PointMass.*{message}"):
        env = NumpyEnv(mass)
        env.reset(seed=0)
        env.step(env.action_space.sample())
