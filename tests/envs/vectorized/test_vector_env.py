"""The vector environment against Gymnasium's, step for step, in this process and in workers."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.registry.ordinary import time_limit_of
from pgtoolkit.envs.registry.resolve import EnvSpec, find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.envs.vectorized.stepping import OnFault, Stepping, Vectorization
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import RequestError

MODES: tuple[Vectorization, ...] = ("sync", "async")


def ours(source: EnvSpec, num_envs: int, mode: Vectorization, **kwargs: Any) -> OrdinaryVectorEnv:
    stepping = Stepping(vectorization=mode, **kwargs)
    env = make_vector_env(source, num_envs, differentiate="none", stepping=stepping)
    assert isinstance(env, OrdinaryVectorEnv)
    return env


def require_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sorted(found) == sorted(wanted)
    for key, value in wanted.items():
        for one, other in zip(found[key], value, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_fault", ["stop", "restart"])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {"max_episode_steps": 7}),
        ("FrozenLake-v1", {}),
        ("InvertedPendulum-v5", {}),
    ],
)
def test_every_step_equals_that_of_gymnasiums(
    name: str, kwargs: dict[str, Any], mode: Vectorization, on_fault: OnFault
) -> None:
    """100 steps of random actions, with ends of episodes at different steps."""
    source = find_env(name, kwargs)
    theirs = SyncVectorEnv([source.make_guarded] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    env = ours(source, 3, mode, on_fault=on_fault)
    assert env.observation_space == theirs.observation_space
    assert env.action_space == theirs.action_space
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    np.testing.assert_array_equal(env.reset(seed=5)[0], theirs.reset(seed=5)[0])
    env.action_space.seed(0)
    ends = 0
    for _ in range(100):
        action = env.action_space.sample()
        (*found, info), (*wanted, final) = env.step(action), theirs.step(action)
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        require_equal(info, final)
        ends += int((found[2] | found[3]).sum())
    assert ends > 3
    np.testing.assert_array_equal(env.reset()[0], theirs.reset()[0])
    env.close()
    theirs.close()


def test_an_agent_learns_the_same_in_workers() -> None:
    def learned(mode: Vectorization) -> torch.Tensor:
        env = ours(find_env("CartPole-v1"), 2, mode)
        agent = Ppo(PpoConfig(num_envs=2, n_steps=64, compile="never"), env, seed=1)
        for _ in range(2):
            agent.update(agent.collect())
        env.close()
        return torch.nn.utils.parameters_to_vector(agent.policy.parameters())

    assert torch.equal(learned("sync"), learned("async"))


class ClipsItsAction(gymnasium.Env[Any, Any]):
    """Sets its action to 0 in place, and its observation is the sum of the actions before."""

    observation_space = Box(-99, 99, (1,), np.float64)
    action_space = Box(-1, 1, (2,), np.float32)
    total = 0.0

    def reset(self, **kwargs: Any) -> Any:
        super().reset(seed=kwargs.get("seed"))
        return np.array([self.total]), {}

    def step(self, action: Any) -> Any:
        self.total += float(action.sum())
        action[:] = 0
        return np.array([self.total]), 0.0, False, False, {}


@pytest.mark.parametrize("mode", MODES)
def test_results_are_copies(mode: Vectorization) -> None:
    """What the caller does to a result changes no later one."""
    env = ours(find_env(ClipsItsAction()), 2, mode)
    first, _ = env.reset(seed=0)
    first[:] = 7
    second = env.step(np.ones((2, 2), np.float32))[0]
    second[:] = 7
    assert env.step(np.ones((2, 2), np.float32))[0].tolist() == [[4.0], [4.0]]
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_time_limits_and_attributes_can_be_read(mode: Vectorization) -> None:
    env = ours(find_env("Pendulum-v1", {"g": 3.0}), 2, mode)
    assert time_limit_of(env) == 200
    assert env.get_attr("g") == (3.0, 3.0)
    assert env.resume == ["state"] * 2
    assert len(env.envs) == (2 if mode == "sync" else 0)
    env.close()


def test_a_mask_says_which_environments_are_reset() -> None:
    env = ours(find_env("CartPole-v1"), 2, "sync")
    before, _ = env.reset(seed=0)
    after, _ = env.reset(seed=9, options={"reset_mask": np.array([False, True])})
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


class OtherSpaces(gymnasium.Env[Any, Any]):
    action_space = Discrete(2)
    made = 0

    def __init__(self) -> None:
        OtherSpaces.made += 1
        self.observation_space = Box(0, 1, (OtherSpaces.made,), np.float32)


def test_copies_with_other_spaces_are_refused() -> None:
    with pytest.raises(RequestError, match="copy 1 has other spaces than copy 0"):
        OrdinaryVectorEnv(OtherSpaces, 2, name="OtherSpaces")


def test_one_batch_of_tensors_has_no_fault_of_one_environment() -> None:
    source = find_env("pgtoolkit/Pendulum-v0")
    for stepping in (Stepping(on_fault="drop"), Stepping(on_fault="restart")):
        with pytest.raises(RequestError, match=r"rows of one computation.*--differentiate none"):
            make_vector_env(source, 2, stepping=stepping)
    with pytest.raises(RequestError, match="--step-timeout"):
        make_vector_env(source, 2, stepping=Stepping(step_timeout=1.0))
    made = make_vector_env(source, 2, stepping=Stepping(vectorization="async"))
    assert isinstance(made, DifferentiableVectorEnv)


def test_environments_in_workers_are_not_copied() -> None:
    env = ours(find_env("CartPole-v1"), 1, "async")
    with pytest.raises(RequestError, match="cannot be copied"):
        copy.deepcopy(env)
    env.close()
