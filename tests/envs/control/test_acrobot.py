import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.acrobot import AcrobotEnv, wrap
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.acrobot import Acrobot, acrobot_derivative, acrobot_step, tip_height
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.rendering import canvas


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pumps", [False, True])
def test_equals_gymnasium_with_resets(seed: int, pumps: bool) -> None:
    env, reference = NumpyEnv(Acrobot(), dtype=torch.float64), AcrobotEnv()
    rng, ends = np.random.default_rng(seed), 0
    obs, _ = env.reset(seed=seed)
    expected, _ = reference.reset(seed=seed)
    np.testing.assert_allclose(obs, expected, rtol=0, atol=1e-7)
    for _ in range(200):
        assert reference.state is not None
        # Pushing the way the elbow moves brings the tip up; at random it stays below.
        torque = int(np.sign(reference.state[3])) if pumps else int(rng.integers(-1, 2))
        obs, reward, terminated, *_ = env.step(np.array([torque], dtype=np.float32))
        expected, their_reward, ended, *_ = reference.step(torque + 1)
        # Equal to the bit, but for squares that NumPy takes by pow.
        ours = env._state[0].numpy()
        np.testing.assert_allclose(ours, reference.state, rtol=0, atol=1e-10)
        np.testing.assert_allclose(obs, expected, rtol=0, atol=1e-6)
        assert (reward, terminated) == (their_reward, ended)
        if ended:
            ends += 1
            np.testing.assert_allclose(env.reset()[0], reference.reset()[0], rtol=0, atol=1e-7)
    assert (ends > 0) == pumps


def random_steps(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = 1.5 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return state, 1.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.95


def energy(state: Tensor) -> Tensor:
    """The energy of two links of mass 1, length 1 and moment 1 about their centres, ``[N]``."""
    theta1, theta2, omega1, omega2 = state.unbind(-1)
    both, turned = omega1 + omega2, theta1 + theta2
    centre1 = 0.25 * omega1.square()
    across = omega1 * theta1.cos() + 0.5 * both * turned.cos()
    upwards = omega1 * theta1.sin() + 0.5 * both * turned.sin()
    kinetic = centre1 + across.square() + upwards.square() + omega1.square() + both.square()
    return 0.5 * kinetic - 9.8 * (1.5 * theta1.cos() + 0.5 * turned.cos())


def test_the_elbow_s_power_is_all_that_changes_the_energy() -> None:
    state, action = random_steps(50)
    derivative = acrobot_derivative(state, action[:, 0])
    (slope,) = torch.autograd.grad(energy(state.requires_grad_()).sum(), state)
    change = (slope * derivative).sum(-1).detach()
    torch.testing.assert_close(change, action[:, 0] * state[:, 3].detach(), rtol=0, atol=1e-11)


def test_derivatives() -> None:
    env = Acrobot()
    state, action = random_steps(30)
    after = env.transition(state, action, None)
    # Away from where an angle is wrapped: differences would straddle the jump.
    inner = (after[:, :2].abs() < math.pi - 1e-3).all(-1)
    assert inner.sum() > 10

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    inputs = state[inner].requires_grad_(), action[inner].requires_grad_()
    assert torch.autograd.gradcheck(step, inputs)


def test_the_reward_is_an_event_without_a_derivative() -> None:
    env = Acrobot()
    state = torch.tensor([[math.pi, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    action = torch.zeros(2, 1, requires_grad=True)
    after = env.transition(state, action, None)
    reward = env.reward(state, action, after)
    assert reward.tolist() == [0.0, -1.0] and env.terminal(after).tolist() == [True, False]
    assert not reward.requires_grad and env.gradient.reward == "none"


def test_clamped_torque_and_speeds_have_no_derivative() -> None:
    env = Acrobot()
    state = torch.tensor([[0.3, 0.2, 0.0, 0.0], [0.1, 0.5, 12.4, -28.0]], dtype=torch.float64)
    action = torch.tensor([[1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    fast = torch.tensor([[0.0, 0.0, 40.0, -90.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(env.transition(state, action, None)[0].sum(), action)
    assert gradient.flatten().tolist()[0] == 0.0
    after = acrobot_step(fast, torch.zeros(1, dtype=torch.float64))
    clamped = after[:, 2:].abs() == torch.tensor([4 * math.pi, 9 * math.pi], dtype=torch.float64)
    assert clamped.any()
    (gradient,) = torch.autograd.grad(after[:, 2:][clamped].sum(), fast)
    assert gradient.abs().max() == 0.0


def test_angles_are_wrapped_as_gymnasium_s_are_with_derivative_1() -> None:
    # Fast links turn by more than a whole turn in a step: a torque of 0 leaves that to gravity.
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    state = state * torch.tensor([2.0, 2.0, 10.0, 20.0])
    after = acrobot_step(state, torch.zeros(200, dtype=torch.float64))
    assert after[:, :2].abs().max() <= math.pi
    reference = AcrobotEnv()
    turned = 0
    for row, found in zip(state, after, strict=True):
        reference.state = row.numpy()
        reference.step(1)  # type: ignore[no-untyped-call]
        assert reference.state is not None
        np.testing.assert_allclose(found.numpy(), reference.state, rtol=0, atol=1e-10)
        turned += wrap(row[0].item(), -math.pi, math.pi) != row[0].item()
    assert turned > 0


def test_the_tip_s_height() -> None:
    state = torch.tensor(
        [[0.0, 0.0], [math.pi, 0.0], [math.pi / 2, math.pi / 2], [math.pi, -math.pi]]
    )
    found = tip_height(torch.cat([state, torch.zeros(4, 2)], -1))
    assert found.tolist() == pytest.approx([-2.0, 2.0, 1.0, 0.0], abs=1e-6)


def test_float32_agrees_with_float64() -> None:
    state, action = (x.float() for x in random_steps(1000))
    single = Acrobot().observation(Acrobot().transition(state, action, None))
    double = Acrobot().transition(state.double(), action.double(), None)
    # Numbers up to about 20, four evaluations, and a step of 0.2 that multiplies errors little.
    error = (single - Acrobot().observation(double)).abs().max()
    assert single.dtype == torch.float32 and error < 100 * 20 * 2**-24


def test_starts_hanging() -> None:
    state = Acrobot().initial(10_000, torch.Generator().manual_seed(0))
    assert state.shape == (10_000, 4) and state.abs().max() <= 0.1
    # Of a uniform on [-b, b], the square has the mean b^2/3 and the variance 4 b^4 / 45.
    error = math.sqrt(4 * 0.1**4 / 45 / 10_000)
    assert (state.square().mean(0) - 0.1**2 / 3).abs().max() < 4.5 * error


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box")
def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(Acrobot()), skip_render_check=True)
    sb3_check_env(NumpyEnv(Acrobot(), render_mode="rgb_array"))


def test_draws_the_links_to_the_right_of_a_positive_angle() -> None:
    picture = Acrobot().render(torch.tensor([[math.pi / 2, math.pi / 2, 0.0, 0.0]]), 0)
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero((picture == canvas.RED).all(-1))
    # The tip one to the right and one up, on the line.
    assert abs(columns.mean() - 127.5 - 128 / 2.3) < 1 and abs(127.5 - rows.mean() - 128 / 2.3) < 1
