"""GradientGate: closed forms on a line, and rows whose derivative is not finite."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate, row_norm
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.surrogates import action_gradient, window_objective
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll

GROWTH = 1.5
CLIPPED, DROPPED = "environment/gate_clipped", "environment/gate_dropped"
LARGEST = "environment/gate_largest_norm"


class Line(DifferentiableEnv[Tensor]):
    """``s' = growth s + u`` from 0, reward ``s'``."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)
    max_episode_steps = 1000

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return GROWTH * state + action

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0]

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


class Broken(Line):
    """``s' = s + u + 0 sqrt(break)``, where the action's second entry is the break.

    The value is that of ``s + u``; at a break of 0 the derivative is not finite: it is 0 times
    infinity by the break, NaN, for state and action of that row.
    """

    action_space = Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, where: str = "transition") -> None:
        self.where = where

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        broken = action[:, 1:].sqrt() if self.where == "transition" else 0 * action[:, 1:]
        return state + action[:, :1] + broken * (state * 0 + 1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        broken = action[:, 1].sqrt() if self.where == "reward" else 0 * action[:, 1]
        return next_state[:, 0] + broken


def gradient_of(
    env: DifferentiableEnv, actions: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rewards ``[T, N]``, and the derivative of their weighted sum by the actions."""
    vector = DifferentiableVectorEnv(env, actions.shape[1], dtype=torch.float64)
    vector.reset(seed=0)
    leaf = actions.clone().requires_grad_()
    rewards = torch.stack([vector.step(action)[1] for action in leaf])
    weighted = rewards if weight is None else rewards * weight
    return rewards.detach(), torch.autograd.grad(weighted.sum(), leaf)[0]


@pytest.mark.parametrize("clip_norm", [None, 2.0])
@pytest.mark.parametrize("decay", [1.0, 0.7, 0.0])
def test_the_recursion_of_the_gated_adjoint(clip_norm: float | None, decay: float) -> None:
    """With ``g = decay min(lambda, clip)``: ``dJ/du_t = g_{t+1}``, ``lambda_t = 1 + growth g``."""
    steps, num_envs = 6, 3
    gate = GradientGate(Line(), clip_norm, decay)
    actions = torch.randn(steps, num_envs, 1, dtype=torch.float64)
    _, found = gradient_of(gate, actions)
    adjoint, expected, adjoints = 1.0, [], []
    for _ in range(steps):
        adjoints.append(adjoint)
        gated = decay * min(adjoint, clip_norm or math.inf)
        expected.append(gated)
        adjoint = 1 + GROWTH * gated
    by_step = torch.tensor(expected[::-1], dtype=torch.float64)
    torch.testing.assert_close(found, by_step.view(-1, 1, 1).expand_as(found), rtol=1e-12, atol=0)
    metrics = gate.metrics()
    over = [a > (clip_norm or math.inf) for a in adjoints]
    assert float(metrics[CLIPPED]) == pytest.approx(sum(over) / steps)
    assert float(metrics[LARGEST]) == pytest.approx(max(adjoints))
    assert float(metrics[DROPPED]) == 0


def test_rows_are_scaled_each_by_its_own_norm() -> None:
    """A row of weight 10 is clipped to 1, its neighbour of weight 0.5 is not touched."""
    gate = GradientGate(Line(), clip_norm=1.0)
    weight = torch.tensor([[10.0, 0.5]], dtype=torch.float64)
    _, found = gradient_of(gate, torch.zeros(1, 2, 1, dtype=torch.float64), weight)
    assert found.flatten().tolist() == [1.0, 0.5]
    assert float(gate.metrics()[CLIPPED]) == 0.5


class Pair(NamedTuple):
    position: Tensor
    heading: Tensor
    time: Tensor


class Two(Line):
    """Three numbers in two tensors, and an integer; reward ``(3, 4, 12) . s'``, of norm 13."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Any:
        time = torch.zeros(num_envs, dtype=torch.int64)
        return Pair(torch.zeros(num_envs, 2), torch.zeros(num_envs), time)

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Any:
        return Pair(state.position + action, state.heading + action[:, 0], state.time + 1)

    def observation(self, state: Any) -> Tensor:
        heading: Tensor = state.heading
        return heading.unsqueeze(-1)

    def reward(self, state: Any, action: Tensor, next_state: Any) -> Tensor:
        x, y = next_state.position.unbind(-1)
        reward: Tensor = 3 * x + 4 * y + 12 * next_state.heading
        return reward

    def terminal(self, state: Any) -> Tensor:
        over: Tensor = state.time > 99
        return over


def test_the_norm_is_over_all_tensors_of_the_state_together() -> None:
    gate = GradientGate(Two(), clip_norm=6.5)
    _, found = gradient_of(gate, torch.zeros(1, 1, 1, dtype=torch.float64))
    assert float(found) == pytest.approx(19 / 2)
    assert float(gate.metrics()[LARGEST]) == pytest.approx(13.0)


def test_a_norm_whose_square_overflows() -> None:
    tensors = torch.full((2, 3), 1e30), torch.full((2,), 1e30)
    torch.testing.assert_close(row_norm(tensors), torch.full((2,), 2e30, dtype=torch.float64))


def test_by_default_gradients_are_the_same_to_the_bit_and_measured() -> None:
    actions = torch.randn(9, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gate = GradientGate(Pendulum())
    plain, gated = gradient_of(Pendulum(), actions), gradient_of(gate, actions)
    assert all(torch.equal(a, b) for a, b in zip(plain, gated, strict=True))
    assert gate.gradient == Pendulum().gradient
    assert float(gate.metrics()[LARGEST]) > 0


def test_gradcheck_of_an_open_gate() -> None:
    """Transition, observation and reward, with all three kinds of node in the graph."""
    gate = GradientGate(Pendulum(), clip_norm=1e9, drop_nonfinite=True)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    action = torch.rand(3, 1, dtype=torch.float64, generator=generator).requires_grad_()

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        after = gate.transition(state, action, None)
        return after, gate.observation(after), gate.reward(state, action, after)

    assert torch.autograd.gradcheck(step, (state, action))


def broken_actions(steps: int, at: int) -> Tensor:
    """Three environments; the second breaks at step ``at``."""
    actions = torch.ones(steps, 3, 2, dtype=torch.float64)
    actions[at, 1, 1] = 0.0
    return actions


def test_a_broken_transition_starts_a_new_trajectory_for_the_gradient() -> None:
    """Row 1: before the break, the rewards before it; at it nothing; after it, all that follow."""
    steps, at = 6, 3
    gate = GradientGate(Broken(), drop_nonfinite=True)
    rewards, found = gradient_of(gate, broken_actions(steps, at))
    plain_rewards, plain = gradient_of(Broken(), broken_actions(steps, at))
    assert torch.equal(rewards, plain_rewards)
    assert not bool(plain[:, 1].isfinite().all())
    assert torch.equal(found[:, [0, 2]], plain[:, [0, 2]])
    expected = [float(at - t) if t <= at else float(steps - t) for t in range(steps)]
    assert found[:, 1, 0].tolist() == expected
    assert bool(found.isfinite().all())
    assert float(gate.metrics()[DROPPED]) == 1


def test_a_broken_reward_loses_its_own_derivative_alone() -> None:
    steps, at = 6, 3
    gate = GradientGate(Broken("reward"), drop_nonfinite=True)
    _, found = gradient_of(gate, broken_actions(steps, at))
    expected = [float(steps - t - (t <= at)) for t in range(steps)]
    assert found[:, 1, 0].tolist() == expected
    assert found[:, 0, 0].tolist() == [float(steps - t) for t in range(steps)]
    assert float(gate.metrics()[DROPPED]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_comes_back_broken_goes_no_further(bad: float) -> None:
    """An adjoint from outside, as of a value function, in one row."""
    gate = GradientGate(Line(), drop_nonfinite=True)
    weight = torch.ones(3, 2, dtype=torch.float64)
    weight[1, 0] = bad
    _, found = gradient_of(gate, torch.zeros(3, 2, 1, dtype=torch.float64), weight)
    whole = [1 + GROWTH + GROWTH**2, 1 + GROWTH, 1.0]
    assert found[:, 1, 0].tolist() == whole
    assert found[:, 0, 0].tolist() == [whole[0] - GROWTH, GROWTH, 1.0]


class Seen(Line):
    """Observes the square root of its state, which starts at 0, where that has no derivative."""

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + action

    def observation(self, state: Tensor) -> Tensor:
        return state.sqrt()


def test_a_broken_observation_is_dropped() -> None:
    env, gate = Seen(), GradientGate(Seen(), drop_nonfinite=True)
    found = []
    for each in (env, gate):
        action = torch.tensor([[0.0], [4.0]], requires_grad=True)
        after = each.transition(torch.zeros(2, 1), action, None)
        (gradient,) = torch.autograd.grad(each.observation(after).sum(), action)
        found.append(gradient.flatten().tolist())
    assert found == [[math.inf, 0.25], [0.0, 0.25]]


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_without_dropping_a_break_is_not_hidden(clip_norm: float | None) -> None:
    """Clipping does not hide it either: the agent must stop and say where."""
    _, found = gradient_of(GradientGate(Broken(), clip_norm), broken_actions(6, 3))
    assert not bool(found[:, 1].isfinite().all())
    assert bool(found[:, [0, 2]].isfinite().all())


def test_metrics_start_anew_after_the_call() -> None:
    gate = GradientGate(Line(), clip_norm=1.0)
    assert gate.metrics() == {}
    for weight in (100.0, 0.5):
        row = torch.full((1, 1), weight, dtype=torch.float64)
        gradient_of(gate, torch.zeros(1, 1, 1, dtype=torch.float64), row)
        metrics = gate.metrics()
        assert float(metrics[LARGEST]) == weight
        assert float(metrics[CLIPPED]) == float(weight > 1)
    assert gate.metrics() == {}


def test_no_work_without_a_graph() -> None:
    gate = GradientGate(Line(), clip_norm=1.0, drop_nonfinite=True)
    with torch.no_grad():
        gate.transition(torch.zeros(1, 1), torch.ones(1, 1, requires_grad=True), None)
    assert not gate.transition(torch.zeros(1, 1), torch.ones(1, 1), None).requires_grad


class Cut(Two):
    """Reward of a tensor that no action reaches, beside one that they do."""

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Any:
        return Pair(state.position + action, state.heading.detach(), state.time + 1)

    def reward(self, state: Any, action: Tensor, next_state: Any) -> Tensor:
        reward: Tensor = next_state.heading
        return reward


def test_a_gate_makes_no_path_where_there_is_none() -> None:
    """The missing path must still be named, and not become a gradient of 0."""
    env = GradientGate(Cut(), clip_norm=1.0, drop_nonfinite=True)
    vector = DifferentiableVectorEnv(env, 2)
    policy = GaussianPolicy(env.observation_space, env.action_space, hidden=())
    rollout_state = reset(vector, seed=0, device=torch.device("cpu"))
    window, _ = unroll(vector, policy, rollout_state, torch.zeros(3, 2, 1))
    with pytest.raises(RequestError, match="no differentiable path"):
        action_gradient(window_objective(window, torch.zeros(3, 2), 0.9), window)


class OneBad(Line):
    """``s' = 0.9 s + u``; in environment 2 the derivative is infinite, the value is not."""

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        bad = (torch.arange(state.shape[0]) == 2).unsqueeze(-1)
        nothing = torch.where(bad, action - action.detach(), torch.ones_like(action)).sqrt()
        return 0.9 * state + action + torch.where(bad, nothing, torch.zeros_like(action))


@pytest.mark.parametrize("drop_nonfinite", [True, False])
def test_one_bad_environment_and_an_agent(drop_nonfinite: bool) -> None:
    """With dropping it trains on the others; without, it stops and names the environment."""
    env = DifferentiableVectorEnv(GradientGate(OneBad(), drop_nonfinite=drop_nonfinite), 6)
    config = ShacConfig(num_envs=6, n_steps=8, hidden=(8,), diagnostics_interval=0)
    agent = Shac(config, env)
    if not drop_nonfinite:
        with pytest.raises(NonFiniteError, match="environment 2"):
            agent.update(agent.collect())
        return
    metrics = agent.update(agent.collect())
    assert float(metrics[DROPPED]) == 8
    assert all(bool(p.isfinite().all()) for p in agent.policy.parameters())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"clip_norm": 0.0}, "clip_norm is 0"),
        ({"clip_norm": math.nan}, "clip_norm is nan"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"decay": -0.1}, "decay is -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        GradientGate(Line(), **arguments)  # type: ignore[arg-type]


def test_what_it_says_of_its_gradient() -> None:
    """Clipped or decayed it is approximate; dropped only where there is none."""
    exact = Line().gradient
    assert GradientGate(Line(), drop_nonfinite=True).gradient == exact
    gated = dataclasses.replace(exact, state="approximate", method="autograd, gated")
    assert GradientGate(Line(), clip_norm=1.0).gradient == gated
    assert GradientGate(Line(), decay=0.5).gradient == gated
