"""The gradient without the path through the observations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.observation_detach import ObservationDetach
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

A, B, GAIN, STEPS = 0.9, 0.5, -0.7, 6


def env() -> LQG:
    """``s' = A s + B u``, reward ``-s^2 - 0.1 u^2``, no noise but in the start."""
    return LQG(A=A, B=B, Q=1.0, R=0.1, Qf=0.0, W=0.0, horizon=100)


def window_of(each: DifferentiableEnv) -> tuple[Window, Tensor]:
    """A window under ``u = GAIN s + eps``, and ``dJ/du`` of the sum of its rewards."""
    vector = DifferentiableVectorEnv(each, 3, dtype=torch.float64)
    policy = GaussianPolicy(each.observation_space, each.action_space, hidden=()).double()
    output = policy.head.output
    assert isinstance(output, nn.Linear)
    with torch.no_grad():
        output.weight.fill_(GAIN)
        output.bias.zero_()
    noise = torch.randn(
        STEPS, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    window, _ = unroll(vector, policy, reset(vector, seed=0, device=torch.device("cpu")), noise)
    assert window.action_shift is not None
    (gradient,) = torch.autograd.grad(window.reward.sum(), window.action_shift)
    return window.detach(), gradient.squeeze(-1)


def by_hand(window: Window, loop: float, gain: float) -> Tensor:
    """``dr_t/du_t + dJ/ds_{t+1} B``, with ``dJ/ds_t = -2 s - 0.2 gain u + loop dJ/ds_{t+1}``."""
    s, u = window.obs.squeeze(-1), window.action.squeeze(-1)
    adjoint, expected = torch.zeros(3, dtype=torch.float64), []
    for t in range(STEPS - 1, -1, -1):
        expected.append(-0.2 * u[t] + B * adjoint)
        adjoint = -2 * s[t] - 0.2 * gain * u[t] + loop * adjoint
    return torch.stack(expected[::-1])


def test_the_closed_loop_becomes_the_open_one() -> None:
    """With the path through observations ``A + B K`` and the actions' cost; without, ``A``."""
    plain, through = window_of(env())
    detached, without = window_of(ObservationDetach(env()))
    torch.testing.assert_close(through, by_hand(plain, A + B * GAIN, GAIN))
    torch.testing.assert_close(without, by_hand(detached, A, 0.0))
    for name in ("obs", "next_obs", "action", "reward"):
        assert torch.equal(getattr(plain, name), getattr(detached, name))


def test_observations_carry_no_graph() -> None:
    """The last observation, which a value function would read, has none either."""
    vector = DifferentiableVectorEnv(ObservationDetach(LQG(horizon=2)), 2)
    vector.reset(seed=0)
    for _ in range(2):
        obs, reward, *_, info = vector.step(torch.ones(2, 1, requires_grad=True))
        assert not obs.requires_grad and reward.requires_grad
    assert not info["final_obs"].requires_grad


@pytest.mark.parametrize("seed", [0, 1])
def test_the_value_is_the_inner_observation(seed: int) -> None:
    state = LQG().initial(3, torch.Generator().manual_seed(seed))
    assert np.array_equal(ObservationDetach(LQG()).observation(state), LQG().observation(state))


def test_what_it_says_of_its_gradient() -> None:
    info = ObservationDetach(env()).gradient
    assert (info.action, info.state, info.reward) == ("exact", "approximate", "exact")
    assert info.method == "autograd, observations detached"
