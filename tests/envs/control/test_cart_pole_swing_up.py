import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.cart_pole import CartPoleSwingUp
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.rendering import canvas


def random_steps(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = 2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return state, 1.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.95


def test_equals_gymnasium_s_semi_implicit_cart_pole_to_the_bit() -> None:
    env, reference = CartPoleSwingUp(), CartPoleEnv()
    reference.kinematics_integrator, reference.tau = "semi-implicit euler", 1 / 60
    reference.reset(seed=0)
    # Gymnasium's goes on for as long as it is stepped, but says that one should not.
    reference.x_threshold, reference.theta_threshold_radians = math.inf, math.inf
    state = env.initial(1, torch.Generator().manual_seed(0)).double()
    reference.state = state[0].numpy()
    for push in np.random.default_rng(0).integers(2, size=240).tolist():
        state = env.transition(state, torch.tensor([[2.0 * push - 1]], dtype=torch.float64), None)
        reference.step(push)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(state[0].numpy(), reference.state)


def test_derivatives() -> None:
    env = CartPoleSwingUp()
    state, action = (x.requires_grad_() for x in random_steps(8))

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_the_reward_by_hand() -> None:
    env = CartPoleSwingUp()
    # Twice round and a quarter, to the right: a quarter to go.
    after = torch.tensor([[0.5, -2.0, 4.5 * math.pi, 3.0]], dtype=torch.float64)
    expected = -(math.pi**2 / 4 + 0.1 * 9 + 0.05 * 0.25 + 0.1 * 4)
    assert env.reward(after, after[:, :1], after).item() == pytest.approx(expected)
    assert env.reward(after, after[:, :1], torch.zeros(1, 4)).item() == 0.0
    assert not env.terminal(100 * after).any()


def test_the_shorter_way_up_changes_sides_where_the_pole_hangs() -> None:
    theta = torch.tensor([math.pi - 0.01, math.pi + 0.01], requires_grad=True)
    zero = torch.zeros(2)
    state = torch.stack([zero, zero, theta, zero], -1)
    env = CartPoleSwingUp()
    (slope,) = torch.autograd.grad(env.reward(state, state[:, :1], state).sum(), theta)
    assert slope.tolist() == pytest.approx([-2 * (math.pi - 0.01), 2 * (math.pi - 0.01)], rel=1e-5)


def test_an_action_moves_the_same_step_unless_it_is_clamped() -> None:
    action = torch.tensor([[1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    after = CartPoleSwingUp().transition(torch.zeros(2, 4, dtype=torch.float64), action, None)
    (gradient,) = torch.autograd.grad(after[:, 0].sum(), action)
    # x' = dt^2 F / (M + m) / (1 - 3/4 m / (M + m)) upright: the rod hangs back.
    moved = 10 / 60**2 / 1.1 / (1 - 0.75 * 0.1 / 1.1)
    assert gradient.flatten().tolist() == pytest.approx([0.0, moved])


def test_float32_agrees_with_float64() -> None:
    state, action = (x.float() for x in random_steps(1000))
    single = CartPoleSwingUp().transition(state, action, None)
    double = CartPoleSwingUp().transition(state.double(), action.double(), None)
    # Numbers up to about 8, and accelerations up to about 100 times 1/60: tens of roundings.
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 10 * 8 * 2**-24


def test_starts_hanging() -> None:
    state = CartPoleSwingUp().initial(10_000, torch.Generator().manual_seed(0))
    offset = state - torch.tensor([0.0, 0.0, math.pi, 0.0])
    assert state.shape == (10_000, 4) and offset.abs().max() < 0.1 + 1e-6
    # Of a uniform on [-b, b], the square has the mean b^2/3 and the variance 4 b^4 / 45.
    error = math.sqrt(4 * 0.1**4 / 45 / 10_000)
    assert (offset.square().mean(0) - 0.1**2 / 3).abs().max() < 4.5 * error


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is -?infinity.*")
def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(CartPoleSwingUp()), skip_render_check=True)
    sb3_check_env(NumpyEnv(CartPoleSwingUp(), render_mode="rgb_array"))


def test_draws_a_pole_that_hangs() -> None:
    picture = CartPoleSwingUp().render(torch.tensor([[0.0, 0.0, math.pi, 0.0]]), 0)
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero((picture == canvas.BLUE).all(-1))
    assert rows.min() > 120 and abs(columns.mean() - 127.5) < 0.1
