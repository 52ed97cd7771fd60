"""Compiled steps equal the vector environment's, with start states drawn before the loop."""

import pytest
import torch

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.compiled.steps import CompiledSteps
from pgtoolkit.envs.control.cart_pole import CartPole
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv


@pytest.mark.parametrize("dynamics", [CartPole(), LQG(W=0.0, horizon=7)])
def test_they_agree_with_single_steps_until_an_episode_ends(dynamics: DifferentiableEnv) -> None:
    env = DifferentiableVectorEnv(dynamics, 6, dtype=torch.float64)
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(1)
    shape = (40, 6, *dynamics.action_space.shape)
    actions = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    before = env.get_state()
    found = CompiledSteps(env)(actions)
    env.set_state(before)
    alive = torch.ones(6, dtype=torch.bool)
    for t, action in enumerate(actions):
        obs, reward, terminated, truncated, _ = env.step(action)
        torch.testing.assert_close(found.reward[t][alive], reward[alive])
        assert torch.equal(found.terminated[t][alive], terminated[alive])
        assert torch.equal(found.truncated[t][alive], truncated[alive])
        alive = alive & ~(terminated | truncated)
        torch.testing.assert_close(found.obs[t][alive], obs[alive])
    assert (found.terminated | found.truncated).sum() >= 3


def test_starts_are_drawn_until_there_are_enough() -> None:
    """The result does not depend on how many start states are drawn at first.

    CartPole falls about six times in 60 pushes to one side.
    """
    found = []
    for num_starts in (2, 20):
        env = DifferentiableVectorEnv(CartPole(), 5)
        env.reset(seed=0)
        steps = CompiledSteps(env)
        steps._num_starts = num_starts
        found.append(steps(torch.ones(60, 5, 1)))
        assert steps._num_starts >= int(found[-1].terminated.sum(0).max()) > 4
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_it_continues_from_its_last_state_and_resets_ended_episodes() -> None:
    env = DifferentiableVectorEnv(CartPole(), 50)
    env.reset(seed=0)
    steps = CompiledSteps(env)
    actions = torch.ones(60, 50, 1)
    first = steps(actions)
    after = env.get_state()
    done = (first.terminated | first.truncated)[:-1]
    starts = first.obs[:-1][done]
    assert done.any() and starts.abs().max() <= 0.05  # CartPole starts within 0.05 of 0
    second = steps(actions[:20])
    env.set_state(after)
    obs = env.step(actions[0])[0]
    same = ~second.terminated[0]
    torch.testing.assert_close(second.obs[0][same], obs[same])
    assert int(env.get_state().elapsed.max()) > 0
