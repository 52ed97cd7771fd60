"""ActionRepeat, compared with the same inner steps taken one by one."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.errors import RequestError


class Root(DifferentiableEnv[Tensor]):
    """``s' = s - u``, reward ``sqrt(s')``, from 1; terminal at 0, where nothing has a derivative.

    A step that starts beyond the end would take the root of a negative number: NaN.
    """

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)
    max_episode_steps = 100

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.ones(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state - action + 0 * (state * action).sqrt()

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0] - state[:, 0] + state[:, 0].sqrt()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0] <= 0


def started(env: DifferentiableEnv, num_envs: int) -> DifferentiableVectorEnv:
    vector = DifferentiableVectorEnv(env, num_envs, dtype=torch.float64)
    vector.reset(seed=0)
    return vector


def random_actions(steps: int, num_envs: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(steps, num_envs, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("repeat", [1, 3])
def test_values_and_gradients_are_those_of_the_steps_one_by_one(repeat: int) -> None:
    """Pendulum, four actions; the reward is the sum, and so is its derivative."""
    actions = random_actions(4, 5)
    repeated, unrolled = started(ActionRepeat(Pendulum(), repeat), 5), started(Pendulum(), 5)
    ours, theirs = actions.clone().requires_grad_(), actions.clone().requires_grad_()
    rewards, expected, observations = [], [], []
    for mine, its in zip(ours, theirs, strict=True):
        obs, reward, *_ = repeated.step(mine)
        steps = [unrolled.step(its) for _ in range(repeat)]
        rewards.append(reward)
        expected.append(torch.stack([step[1] for step in steps]).sum(0))
        observations.append((obs, steps[-1][0]))
    assert all(torch.equal(a, b) for a, b in observations)
    torch.testing.assert_close(torch.stack(rewards), torch.stack(expected), rtol=1e-14, atol=0)
    weight = torch.arange(1.0, 5.0).double().unsqueeze(-1)
    found = torch.autograd.grad((weight * torch.stack(rewards)).sum(), ours)
    wanted = torch.autograd.grad((weight * torch.stack(expected)).sum(), theirs)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_gradcheck() -> None:
    env = ActionRepeat(Pendulum(), 3)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    action = torch.rand(3, 1, dtype=torch.float64, generator=generator).requires_grad_()

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        before: Any = (state, torch.zeros(3, dtype=torch.float64))
        after = env.transition(before, action, None)
        return env.observation(after), env.reward(before, action, after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_each_inner_step_has_noise_of_its_own() -> None:
    inner = LQG(W=0.5)
    env = ActionRepeat(inner, 3)
    assert env.noise_shape == (3, 1)
    state = env.initial(4, torch.Generator().manual_seed(0))
    action, noise = torch.ones(4, 1), torch.randn(4, 3, 1)
    after = env.transition(state, action, noise)
    expected: Any = inner.initial(4, torch.Generator().manual_seed(0))
    total = torch.zeros(4)
    for index in range(3):
        following = inner.transition(expected, action, noise[:, index])
        total = total + inner.reward(expected, action, following)
        expected = following
    assert torch.equal(after[0], expected.position) and torch.equal(after[1], expected.time)
    assert torch.equal(env.reward(state, action, after), total)


def test_a_terminal_state_within_stops_the_repetition() -> None:
    """Row 0 ends at its second step of three; its reward and derivative are of two steps."""
    env = ActionRepeat(Root(), 3)
    vector = started(env, 2)
    action = torch.tensor([[0.5], [0.1]], dtype=torch.float64, requires_grad=True)
    _, reward, terminated, truncated, info = vector.step(action)
    assert terminated.tolist() == [True, False] and not bool(truncated.any())
    assert info["final_obs"].flatten().tolist() == pytest.approx([0.0, 0.7])
    roots = [1 + math.sqrt(0.5), 1 + math.sqrt(0.9) + math.sqrt(0.8)]
    assert reward.tolist() == pytest.approx([roots[0] - 1.0, roots[1] - 0.3])
    (gradient,) = torch.autograd.grad(reward.sum(), action)
    expected = [
        -2 - 0.5 / math.sqrt(0.5),
        -3 - 0.5 / math.sqrt(0.9) - 2 * 0.5 / math.sqrt(0.8),
    ]
    assert gradient.flatten().tolist() == pytest.approx(expected)


class Cut(Root):
    """The environment itself truncates the episode below 0.5."""

    def truncated(self, state: Tensor) -> Tensor:
        return state[:, 0] < 0.5


def test_a_state_at_which_the_inner_environment_truncates_stops_the_repetition() -> None:
    """Row 0 is cut off at its second step of three, at 0.4; row 1 takes all three."""
    vector = started(ActionRepeat(Cut(), 3), 2)
    action = torch.tensor([[0.3], [0.1]], dtype=torch.float64)
    _, reward, terminated, truncated, info = vector.step(action)
    assert truncated.tolist() == [True, False] and not bool(terminated.any())
    assert info["final_obs"].flatten().tolist() == pytest.approx([0.4, 0.7])
    expected = 1 + math.sqrt(0.7) - 0.6
    assert float(reward[0]) == pytest.approx(expected)


def test_the_reward_of_a_new_episode_starts_at_zero() -> None:
    """After a reset a row's accumulated reward is 0; the row that goes on keeps its own."""
    vector = started(ActionRepeat(Root(), 3), 2)
    vector.step(torch.tensor([[0.5], [0.1]], dtype=torch.float64))
    state = vector.get_state().state
    assert state[0].flatten().tolist() == pytest.approx([1.0, 0.7])
    assert float(state[-1][0]) == 0.0 and float(state[-1][1]) != 0.0


@pytest.mark.parametrize(("limit", "repeat", "expected"), [(200, 4, 50), (200, 3, 67), (7, 10, 1)])
def test_the_time_limit_is_divided_and_rounded_up(limit: int, repeat: int, expected: int) -> None:
    inner = Pendulum()
    inner.max_episode_steps = limit
    assert ActionRepeat(inner, repeat).max_episode_steps == expected


def test_the_numpy_view() -> None:
    repeated, plain = NumpyEnv(ActionRepeat(Pendulum(), 4)), NumpyEnv(Pendulum())
    assert np.array_equal(repeated.reset(seed=3)[0], plain.reset(seed=3)[0])
    action = np.array([0.7], np.float32)
    obs, reward, *_ = repeated.step(action)
    steps = [plain.step(action) for _ in range(4)]
    assert np.array_equal(obs, steps[-1][0])
    assert reward == pytest.approx(sum(step[1] for step in steps), rel=1e-6)


def test_a_gate_within_acts_on_every_inner_step() -> None:
    gate = GradientGate(Pendulum())
    vector = started(ActionRepeat(gate, 3), 2)
    action = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    reward = vector.step(action)[1].sum() + vector.step(action)[1].sum()
    reward.backward()  # type: ignore[no-untyped-call]
    # The last inner step's state has no effect on any reward, so nothing comes back to it.
    assert gate._rows_seen == 5 * 2


def test_repeat_below_one_is_refused() -> None:
    with pytest.raises(RequestError, match="repeat is 0"):
        ActionRepeat(Pendulum(), 0)
