import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.cart_pole import MAX_ANGLE, CartPole, cart_pole_accelerations
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.rendering import canvas


@pytest.mark.parametrize("seed", range(5))
def test_equals_gymnasium_to_the_bit_with_resets(seed: int) -> None:
    env, reference = NumpyEnv(CartPole(), dtype=torch.float64), CartPoleEnv()
    rng, ends = np.random.default_rng(seed), 0
    obs, _ = env.reset(seed=seed)
    expected, _ = reference.reset(seed=seed)
    np.testing.assert_array_equal(obs, expected)
    for _ in range(200):
        push = int(rng.integers(2))
        obs, reward, terminated, *_ = env.step(np.array([2 * push - 1], dtype=np.float32))
        expected, their_reward, ended, *_ = reference.step(push)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(env._state[0].numpy(), reference.state)  # type: ignore[index]
        np.testing.assert_array_equal(obs, expected)
        assert (reward, terminated) == (their_reward, ended)
        if ended:
            ends += 1
            np.testing.assert_array_equal(env.reset()[0], reference.reset()[0])
    assert ends > 2


def random_steps(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return state, 1.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.95


def lagrangian(q: Tensor, speed: Tensor) -> Tensor:
    """Kinetic less potential energy of a cart of 1 kg with a uniform rod of 0.1 kg and 1 m."""
    (_, theta), (x_dot, theta_dot) = q, speed
    centre = x_dot + 0.5 * theta_dot * theta.cos(), -0.5 * theta_dot * theta.sin()
    moving = 0.5 * x_dot**2 + 0.05 * (centre[0] ** 2 + centre[1] ** 2)
    turning = 0.5 * (0.1 * 1.0**2 / 12) * theta_dot**2
    total: Tensor = moving + turning - 0.1 * 9.8 * 0.5 * theta.cos()
    return total


def test_accelerations_solve_the_euler_lagrange_equations() -> None:
    state, action = random_steps(20)
    force = 10 * action[:, 0]
    found = torch.stack(cart_pole_accelerations(state[:, 2], state[:, 3], force), -1)
    for (x, x_dot, theta, theta_dot), push, acceleration in zip(state, force, found, strict=True):
        q, speed = torch.stack([x, theta]), torch.stack([x_dot, theta_dot])
        _, (mixed, mass) = torch.autograd.functional.hessian(lagrangian, (q, speed))  # type: ignore[no-untyped-call]
        slope, _ = torch.autograd.functional.jacobian(lagrangian, (q, speed))  # type: ignore[no-untyped-call]
        # d/dt dL/dq' - dL/dq = force
        residual = mass @ acceleration + mixed @ speed - slope
        assert residual.tolist() == pytest.approx([push.item(), 0.0], abs=1e-12)


def test_derivatives() -> None:
    env = CartPole()
    state, action = (x.requires_grad_() for x in random_steps(5))

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_the_reward_counts_steps_and_has_no_derivative() -> None:
    env = CartPole()
    state, action = (x.requires_grad_() for x in random_steps(5))
    reward = env.reward(state, action, env.transition(state, action, None))
    assert reward.tolist() == [1.0] * 5 and not reward.requires_grad
    assert env.gradient.reward == "none" and env.gradient.action == "exact"


def test_a_clamped_force_has_no_derivative() -> None:
    action = torch.tensor([[1.5], [-1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    after = CartPole().transition(torch.zeros(3, 4, dtype=torch.float64), action, None)
    (gradient,) = torch.autograd.grad(after.sum(), action)
    assert gradient[:2].flatten().tolist() == [0.0, 0.0] and gradient[2] != 0


def test_ends_beyond_the_track_and_beyond_twelve_degrees() -> None:
    edge = math.radians(12)
    assert edge == pytest.approx(MAX_ANGLE)
    rows = [[2.39, 0], [2.41, 0], [-2.41, 0], [0, edge - 0.01], [0, edge + 0.01], [0, -edge - 0.01]]
    state = torch.tensor([[x, 9.0, theta, 9.0] for x, theta in rows])
    assert CartPole().terminal(state).tolist() == [False, True, True, False, True, True]


def test_float32_agrees_with_float64() -> None:
    state, action = (x.float() for x in random_steps(1000))
    single = CartPole().transition(state, action, None)
    double = CartPole().transition(state.double(), action.double(), None)
    # Numbers up to about 5, and accelerations up to about 50 times 0.02: tens of roundings.
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 10 * 5 * 2**-24


def test_starts_uniform_near_upright() -> None:
    state = CartPole().initial(10_000, torch.Generator().manual_seed(0))
    assert state.shape == (10_000, 4) and state.abs().max() <= 0.05
    # Of a uniform on [-b, b], the square has the mean b^2/3 and the variance 4 b^4 / 45.
    error = math.sqrt(4 * 0.05**4 / 45 / 10_000)
    assert (state.square().mean(0) - 0.05**2 / 3).abs().max() < 4.5 * error


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is -?infinity.*")
def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(CartPole()), skip_render_check=True)
    sb3_check_env(NumpyEnv(CartPole(), render_mode="rgb_array"))


def test_draws_a_pole_that_leans_to_the_right() -> None:
    picture = CartPole().render(torch.tensor([[1.0, 0.0, 0.2, 0.0]]), 0)
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero((picture == canvas.BLUE).all(-1))
    assert columns.min() > 128 and columns[rows.argmin()] > columns[rows.argmax()]
