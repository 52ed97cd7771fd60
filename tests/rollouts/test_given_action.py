"""Actions that environments are given are members of their action spaces, of whatever dtype."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.agents.reinforce import ReinforceConfig
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.rollouts.numpy_rollout import MAX_NUMPY_BATCH
from pgtoolkit.rollouts.rollout import collect, reset

OBS = Box(-np.inf, np.inf, (2,), np.float32)
INF = np.inf
CPU = torch.device("cpu")


class Strict(gymnasium.Env[np.ndarray, Any]):
    """Keeps its actions, and then writes to them, as an environment may that clips in place."""

    observation_space = OBS

    def __init__(self, action_space: Space[Any]) -> None:
        self.action_space: Space[Any] = action_space
        self.actions: list[Any] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(np.array(action))
        if isinstance(self.action_space, Box):
            action[...] = 77
        return np.ones(2, np.float32), 0.0, False, False, {}


def random_box(rng: np.random.Generator, dtype: Any) -> Box:
    """Widths from 1e-3 to 1e3, centres up to 1e2; some entries lack a bound, some any width."""
    size = int(rng.integers(1, 4))
    centre = rng.uniform(-100, 100, size)
    half = 10 ** rng.uniform(-3, 3, size) * (rng.random(size) < 0.9)
    low = np.where(rng.random(size) < 0.9, centre - half, -INF).astype(dtype)
    high = np.where(rng.random(size) < 0.9, centre + half, INF).astype(dtype)
    return Box(np.minimum(low, high), np.maximum(low, high), dtype=dtype)


def special_boxes(dtype: Any) -> list[Box]:
    """Bounds that float32 rounds outwards, at zero, tiny, offset, without width, huge."""
    pairs = [
        (-0.1, 0.1),
        (0.0, 0.1),
        (1 / 3, 0.7),
        (-1e-3, 1e-4),
        (10.0, 20.0),
        (-7.7, -7.1),
        (0.3, 0.3),
        (0.1, INF),
        (-INF, -0.7),
        (-INF, INF),
        (-float(np.finfo(dtype).max), float(np.finfo(dtype).max)),
    ]
    low, high = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    return [Box(low[i : i + 1], high[i : i + 1], dtype=dtype) for i in range(len(pairs))] + [
        Box(low, high, dtype=dtype)
    ]


@pytest.mark.parametrize("num_envs", [2, MAX_NUMPY_BATCH + 1], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_action_of_a_rollout_is_in_the_space(dtype: Any, num_envs: int) -> None:
    """With noise of up to 20 standard deviations, of the clipped and of the squashed Gaussian."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    boxes = special_boxes(dtype) + [random_box(rng, dtype) for _ in range(60 // num_envs + 8)]
    for space in boxes:
        two_sided = np.isfinite(space.low) & np.isfinite(space.high)
        largest = np.abs([space.low, space.high]).max(0) == np.finfo(dtype).max
        configs: list[Any] = [PpoConfig()]
        if (two_sided & ~largest).all():
            configs.append(ReinforceConfig())
        for config in configs:
            envs = [Strict(space) for _ in range(num_envs)]
            vector: Any = SyncVectorEnv(
                [lambda env=env: env for env in envs],  # type: ignore[misc]
                autoreset_mode=AutoresetMode.SAME_STEP,
            )
            policy = make_policy(config, OBS, space, generator)
            noise = 7 * torch.randn(6, num_envs, policy.noise_size, generator=generator)
            window, _ = collect(vector, policy, reset(vector, seed=0, device=CPU), noise)
            given = [action for env in envs for action in env.actions]
            assert len(given) == 6 * num_envs and all(action.dtype == dtype for action in given)
            assert all(space.contains(action) for action in given), space
            assert not bool((window.action == 77).any() | (window.pre_action == 77).any())


def test_a_bound_of_float64_is_met_exactly() -> None:
    give = given_action(Box(-0.1, 0.1, (2,), np.float64))
    found = give(np.array([[-0.1, 0.1], [0.05, -3.0]], np.float32))
    assert found.dtype == np.float64
    assert found.tolist() == [[-0.1, 0.1], [float(np.float32(0.05)), -0.1]]


def test_without_bounds_actions_are_only_cast() -> None:
    action = np.array([[-3e4, 7.0]], np.float32)
    found = given_action(Box(-INF, INF, (2,), np.float16))(action)
    assert found.dtype == np.float16 and found.tolist() == [[-3e4, 7.0]]


def test_an_environment_gets_a_copy() -> None:
    action = np.zeros((1, 2), np.float32)
    for space in (Box(-1, 1, (2,)), Box(-INF, INF, (2,))):
        given_action(space)(action)[:] = 5
    assert action.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "space",
    [MultiDiscrete([3, 2], dtype=np.int32), MultiBinary(3), Discrete(4)],
    ids=["multi-discrete", "multi-binary", "discrete"],
)
def test_discrete_actions_are_in_their_space(space: Space[Any]) -> None:
    policy = make_policy(PpoConfig(), OBS, space, torch.Generator().manual_seed(0))
    envs = [Strict(space) for _ in range(3)]
    vector: Any = SyncVectorEnv(
        [lambda env=env: env for env in envs],  # type: ignore[misc]
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    noise = policy.draw_noise(5, 3, generator=torch.Generator().manual_seed(1))
    collect(vector, policy, reset(vector, seed=0, device=CPU), noise)
    given = [action for env in envs for action in env.actions]
    assert len(given) == 15
    assert all(action.dtype == space.dtype and space.contains(action[()]) for action in given)
