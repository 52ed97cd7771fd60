"""The reward's value with a surrogate's gradient, and how well the two agree."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.envs.wrappers.surrogate_cost import SurrogateCost
from pgtoolkit.errors import RequestError

REWARD, COST = "environment/reward", "environment/surrogate_cost"
CORRELATION = "environment/surrogate_correlation"


def square(state: Any, action: Tensor, next_state: Any) -> Tensor:
    return (action - 2).square().sum(-1)


def stepped(env: DifferentiableEnv, action: Tensor) -> Tensor:
    vector = DifferentiableVectorEnv(env, action.shape[0])
    vector.reset(seed=0)
    return vector.step(action)[1]


def test_value_of_the_reward_and_derivative_of_minus_the_cost() -> None:
    """Step's reward jumps, and is flat elsewhere; the cost has its minimum at an action of 2."""
    action = torch.tensor([[-1.0], [0.5], [3.0]], requires_grad=True)
    reward = stepped(SurrogateCost(Step(), square), action)
    assert reward.tolist() == [0.0, 1.0, 1.0]
    (gradient,) = torch.autograd.grad(reward.sum(), action)
    assert gradient.flatten().tolist() == [6.0, 3.0, -2.0]


def test_the_surrogate_is_given_both_states_and_the_gradient_reaches_them() -> None:
    """``cost = s . s'`` of Pendulum: its derivative by ``s`` has a part by way of ``s'``."""

    def product(state: Any, action: Tensor, next_state: Any) -> Tensor:
        found: Tensor = (state * next_state).sum(-1)
        return found

    env, plain = SurrogateCost(Pendulum(), product), Pendulum()
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(4, 2, dtype=torch.float64, generator=generator).requires_grad_()
    action = torch.rand(4, 1, dtype=torch.float64, generator=generator).requires_grad_()
    after = env.transition(state, action, None)
    found = torch.autograd.grad(env.reward(state, action, after).sum(), (state, action))
    cost = product(state, action, plain.transition(state, action, None)).sum()
    expected = torch.autograd.grad(-cost, (state, action))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_both_are_logged_with_their_correlation() -> None:
    """Means and correlation over three calls equal those of all their steps together."""
    env = SurrogateCost(Pendulum(), square)
    generator = torch.Generator().manual_seed(0)
    rewards, costs = [], []
    for count in (3, 5, 1):
        state = torch.randn(count, 2, generator=generator)
        action = 3 * torch.rand(count, 1, generator=generator)
        after = env.transition(state, action, None)
        rewards.append(env.reward(state, action, after))
        costs.append(square(state, action, after))
    reward, cost = torch.cat(rewards).double(), torch.cat(costs).double()
    metrics = env.metrics()
    torch.testing.assert_close(metrics[REWARD], reward.mean())
    torch.testing.assert_close(metrics[COST], cost.mean())
    expected = torch.corrcoef(torch.stack([reward, -cost]))[0, 1]
    torch.testing.assert_close(metrics[CORRELATION], expected)
    assert env.metrics() == {}


def test_the_steps_of_an_evaluation_are_not_counted_in_the_next_window() -> None:
    env = SurrogateCost(Step(), square)
    vector = DifferentiableVectorEnv(env, 4)
    vector.reset(seed=0)
    for _ in range(3):
        vector.step(torch.full((4, 1), -1.0))
    env.begin_window()
    vector.step(torch.full((4, 1), 1.0))
    assert env.metrics()[COST] == 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_surrogate_correlates_by_one_and_a_reversed_one_by_minus_one(
    sign: float,
) -> None:
    env = SurrogateCost(Pendulum(), lambda s, a, n: -sign * Pendulum().reward(s, a, n) + 5)
    state = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    env.reward(state, torch.zeros(50, 1), state)
    assert float(env.metrics()[CORRELATION]) == pytest.approx(sign, abs=1e-6)


def test_a_constant_has_no_correlation() -> None:
    env = SurrogateCost(Pendulum(), lambda s, a, n: torch.ones(a.shape[0]))
    state = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    reward = env.reward(state, torch.zeros(5, 1, requires_grad=True), state)
    assert not reward.requires_grad
    assert CORRELATION not in env.metrics()


def test_the_numpy_view_counts_for_nothing() -> None:
    """Evaluation must not change the metrics of training."""
    env = SurrogateCost(Pendulum(), square)
    state = env.initial(1, torch.Generator().manual_seed(0))
    assert env.numpy_reward(state, torch.zeros(1, 1), state) < 0
    assert env.metrics() == {}


def test_metrics_of_wrappers_join() -> None:
    env = SurrogateCost(GradientGate(Pendulum()), square)
    action = torch.ones(2, 1, requires_grad=True)
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    vector.step(action)
    vector.step(action)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert {REWARD, COST, "environment/gate_largest_norm"} <= env.metrics().keys()


def test_a_surrogate_in_a_file(tmp_path: Path) -> None:
    """A surrogate can be given as ``path/to/file.py:function``; wrong names are refused."""
    file = tmp_path / "costs.py"
    file.write_text("def cost(state, action, next_state):\n    return 3 * action[:, 0]\n")
    action = torch.ones(2, 1, requires_grad=True)
    reward = stepped(SurrogateCost(Step(), f"{file}:cost"), action)
    assert torch.autograd.grad(reward.sum(), action)[0].flatten().tolist() == [-3.0, -3.0]
    for where in (f"{file}:other", f"{tmp_path}/none.py:cost", "cost"):
        with pytest.raises(RequestError, match="SurrogateCost"):
            SurrogateCost(Step(), where)


def test_what_is_no_function_or_returns_another_shape_is_refused() -> None:
    with pytest.raises(RequestError, match="give a function"):
        SurrogateCost(Step(), 3.0)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"SurrogateCost.surrogate returned .* \[2, 1\]"):
        stepped(SurrogateCost(Step(), lambda s, a, n: a), torch.ones(2, 1))


def test_what_it_says_of_its_gradient() -> None:
    info = SurrogateCost(Pendulum(), square).gradient
    assert (info.action, info.state, info.reward) == ("exact", "exact", "approximate")
    assert info.method == "autograd, surrogate cost"
