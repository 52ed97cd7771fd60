import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.utils.env_match import check_environments_match

import pgtoolkit.envs  # noqa: F401  # registers
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.errors import RequestError

# Gymnasium warns that a torque in [-2, 2] is not normalised.
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")


@pytest.mark.parametrize("g", [10.0, 9.81])
def test_equals_gymnasium_over_an_episode(g: float) -> None:
    rng = np.random.default_rng(0)
    reference, env = PendulumEnv(g=g), Pendulum(g=g)
    reference.reset(seed=0)
    # float64 actions keep Gymnasium in double; beyond ±2 they are clamped.
    actions = rng.uniform(-2.5, 2.5, (200, 1))
    state = torch.from_numpy(np.array(reference.state)).unsqueeze(0)
    for action in actions:
        given = torch.from_numpy(action).unsqueeze(0)
        after = env.transition(state, given, None)
        obs, reward, *_ = reference.step(action)  # type: ignore[no-untyped-call]
        assert env.reward(state, given, after).item() == pytest.approx(reward, abs=1e-10)
        np.testing.assert_allclose(after[0].numpy(), reference.state, rtol=0, atol=1e-10)
        np.testing.assert_allclose(env.observation(after)[0].numpy(), obs, rtol=0, atol=1e-6)
        state = after


def test_gymnasium_finds_no_difference() -> None:
    ours, theirs = gymnasium.make("pgtoolkit/Pendulum-v0"), gymnasium.make("Pendulum-v1")
    check_environments_match(theirs, ours, 200)


@pytest.mark.parametrize("seed", range(1, 21))
def test_gymnasium_finds_no_difference_with_other_seeds(seed: int) -> None:
    # Rewards are compared by ==: an ulp would be a difference.
    ours, theirs = gymnasium.make("pgtoolkit/Pendulum-v0"), gymnasium.make("Pendulum-v1")
    check_environments_match(theirs, ours, 200, seed=seed)


def test_the_numpy_views_reward_is_the_reward() -> None:
    env, generator = Pendulum(), torch.Generator().manual_seed(0)
    state = 5 * torch.randn(50, 2, generator=generator).double()
    action = 3 * torch.randn(50, 1, generator=generator)
    for s, a in zip(torch.split(state, 1), torch.split(action, 1), strict=True):
        plain = env.reward(s, a, s).item()
        assert env.numpy_reward(s, a, s) == pytest.approx(plain, rel=1e-6)


def test_derivatives() -> None:
    env = Pendulum()
    generator = torch.Generator().manual_seed(0)
    state = env.initial(5, generator).double().requires_grad_()
    action = torch.randn(5, 1, generator=generator).double().clamp(-1.9, 1.9).requires_grad_()

    def step(s: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_float32_agrees_with_float64() -> None:
    state = Pendulum().initial(1000, torch.Generator().manual_seed(0))
    action = torch.zeros(1000, 1)
    single = Pendulum().transition(state, action, None)
    double = Pendulum().transition(state.double(), action.double(), None)
    # A speed below 2 plus 0.75 sin: a few roundings of at most 2^-23 each.
    assert (single - double).abs().max() < 8 * 2**-23


def test_clamped_torque_and_speed_have_no_derivative() -> None:
    env = Pendulum()
    state = torch.tensor([[0.3, 1.0], [math.pi / 2, 7.9]], dtype=torch.float64)
    action = torch.tensor([[2.5], [1.9]], dtype=torch.float64, requires_grad=True)
    after = env.transition(state, action, None)
    assert after[1, 1] == 8.0
    assert torch.autograd.grad(after.sum(), action)[0].flatten().tolist() == [0.0, 0.0]


def test_start() -> None:
    state = Pendulum().initial(10_000, torch.Generator().manual_seed(0))
    assert state.shape == (10_000, 2)
    assert state[:, 0].abs().max() <= math.pi and state[:, 1].abs().max() <= 1.0
    # A uniform on [-b, b] has variance b^2/3, and its square has variance 4 b^4 / 45.
    for column, bound in ((0, math.pi), (1, 1.0)):
        error = math.sqrt(4 * bound**4 / 45 / 10_000)
        assert abs(state[:, column].square().mean() - bound**2 / 3) < 4.5 * error


@pytest.mark.parametrize("g", ["x", None, math.inf])
def test_a_gravity_that_is_no_number_is_refused(g: Any) -> None:
    with pytest.raises(RequestError, match="Pendulum's g"):
        Pendulum(g=g)
