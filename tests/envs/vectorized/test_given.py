"""An agent's environments, from whatever names or makes one."""

from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
import torch

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.envs.vectorized.given import as_vector_env
from pgtoolkit.errors import RequestError

SHAC = ShacConfig(num_envs=6, n_steps=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pendulum(),
        lambda: Pendulum,
        lambda: "pgtoolkit/Pendulum-v0",
        lambda: gymnasium.make("pgtoolkit/Pendulum-v0"),
        lambda: DifferentiableVectorEnv(Pendulum(), 6),
    ],
)
def test_an_agent_takes_one_environment_in_any_form(make: Callable[[], Any]) -> None:
    """The number of environments is said once, and the window is the same to the bit."""
    agent, again = Shac(SHAC, make()), Shac(SHAC, DifferentiableVectorEnv(Pendulum(), 6))
    assert torch.equal(agent.collect().reward, again.collect().reward)


def test_an_ordinary_environment_is_copied_and_not_stepped() -> None:
    env = gymnasium.make("CartPole-v1")
    agent = Ppo(PpoConfig(num_envs=3, n_steps=8, batch_size=8, compile="never"), env)
    assert agent.collect().reward.shape == (8, 3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_a_vector_environment_is_the_one_that_is_given() -> None:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    assert as_vector_env(env, 6, gradient=True) is env


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulumm-v1", "there is no environment Pendulumm-v1"),
        (None, "None is not an environment"),
        (lambda: 3, "makes no environment: 3"),
        ("CartPole-v1", "no adapter can give it one"),
        (DifferentiableVectorEnv(Pendulum(), 4), "has 4 environments, the agent's num_envs is 6"),
        ("<Pendulum>", "an object in Python, which cannot be made again"),
    ],
)
def test_what_an_agent_cannot_use_is_refused_without_flags(env: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        Shac(SHAC, env)
    assert "--" not in str(caught.value)


def test_a_function_of_one_object_makes_copies_of_it() -> None:
    """Copies with the same state would be one environment."""
    env = gymnasium.make("Pendulum-v1")
    vector = as_vector_env(lambda: env, 2, gradient=False)
    obs, _ = vector.reset(seed=0)
    assert (obs[0] != obs[1]).any()
