import math

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.acrobot import Acrobot, AcrobotSwingUp
from pgtoolkit.envs.numpy_env import NumpyEnv


def random_steps(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return state, 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1.5


def test_all_but_the_reward_is_the_acrobot_s() -> None:
    ours, theirs = AcrobotSwingUp(), Acrobot()
    state, action = random_steps(500)
    after = ours.transition(state, action, None)
    assert torch.equal(after, theirs.transition(state, action, None))
    assert torch.equal(ours.observation(after), theirs.observation(after))
    assert torch.equal(ours.terminal(after), theirs.terminal(after)) and ours.terminal(after).any()
    starts = (env.initial(5, torch.Generator().manual_seed(3)) for env in (ours, theirs))
    assert torch.equal(*starts) and ours.max_episode_steps == theirs.max_episode_steps
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space


def test_the_reward_is_the_height() -> None:
    rows = [[0.0, 0.0], [math.pi / 2, 0.0], [math.pi / 2, math.pi / 2], [math.pi, 0.0]]
    state = torch.tensor([[*row, 5.0, 5.0] for row in rows])
    reward = AcrobotSwingUp().reward(state, state[:, :1], state)
    assert reward.tolist() == pytest.approx([-2.0, -1.0, -0.5, 0.0], abs=1e-6)


def test_derivatives() -> None:
    env = AcrobotSwingUp()
    state, action = random_steps(30)
    after = env.transition(state, action, None)
    # Away from where an angle is wrapped or a torque clamped: differences would straddle it.
    smooth = (after[:, :2].abs() < math.pi - 1e-3).all(-1) & ((action[:, 0].abs() - 1).abs() > 1e-3)
    assert smooth.sum() > 15

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    inputs = state[smooth].requires_grad_(), action[smooth].requires_grad_()
    assert torch.autograd.gradcheck(step, inputs)


def test_the_return_depends_on_the_first_action_smoothly() -> None:
    env = AcrobotSwingUp()
    state, first = random_steps(5)[0], torch.full((5, 1), 0.3, dtype=torch.float64)

    def return_(action: Tensor) -> Tensor:
        at, total = 0.1 * state, torch.zeros(5, dtype=torch.float64)
        for t in range(10):
            given = action if t == 0 else torch.zeros_like(action)
            after = env.transition(at, given, None)
            at, total = after, total + env.reward(at, given, after)
        return total

    assert torch.autograd.gradcheck(return_, first.requires_grad_())
    (gradient,) = torch.autograd.grad(return_(first).sum(), first)
    assert bool((gradient != 0).all())


def test_float32_agrees_with_float64() -> None:
    env = AcrobotSwingUp()
    state, action = (x.float() for x in random_steps(1000))
    single = env.reward(state, action, env.transition(state, action, None))
    state, action = state.double(), action.double()
    double = env.reward(state, action, env.transition(state, action, None))
    # Angles up to about 20, four evaluations, and a step of 0.2 that multiplies errors little.
    assert single.dtype == torch.float32 and (single - double).abs().max() < 100 * 20 * 2**-24


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box")
def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(AcrobotSwingUp()), skip_render_check=True)
    sb3_check_env(NumpyEnv(AcrobotSwingUp(), render_mode="rgb_array"))


def test_draws_the_acrobot() -> None:
    state = torch.tensor([[0.4, -0.9, 1.0, 2.0]])
    np.testing.assert_array_equal(AcrobotSwingUp().render(state, 0), Acrobot().render(state, 0))
