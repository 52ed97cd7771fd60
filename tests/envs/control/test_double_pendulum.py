import math

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.double_pendulum import DoublePendulum, double_pendulum_derivative
from pgtoolkit.envs.control.integrators import rk4
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.rendering import canvas


def energies(q: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Kinetic and potential, of a cart of 1 kg and two uniform rods of 0.1 kg and 0.5 m."""
    (x_dot, omega1, omega2), (_, theta1, theta2) = speed, q
    kinetic, potential = 0.5 * x_dot**2, torch.zeros_like(x_dot)
    across, upwards, height = x_dot, torch.zeros_like(x_dot), torch.zeros_like(x_dot)
    for theta, omega in ((theta1, omega1), (theta2, omega2)):
        half_across, half_up = 0.25 * omega * theta.cos(), -0.25 * omega * theta.sin()
        centre = (across + half_across) ** 2 + (upwards + half_up) ** 2
        kinetic = kinetic + 0.05 * centre + 0.5 * (0.1 * 0.5**2 / 12) * omega**2
        potential = potential + 0.1 * 9.8 * (height + 0.25 * theta.cos())
        across, upwards = across + 2 * half_across, upwards + 2 * half_up
        height = height + 0.5 * theta.cos()
    return kinetic, potential


def total_energy(state: Tensor) -> Tensor:
    kinetic, potential = energies(state[:, :3].T, state[:, 3:].T)
    return kinetic + potential


def lagrangian(q: Tensor, speed: Tensor) -> Tensor:
    kinetic, potential = energies(q, speed)
    return kinetic - potential


def random_steps(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = 2 * torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return state, 1.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.95


def test_accelerations_solve_the_euler_lagrange_equations() -> None:
    state, action = random_steps(20)
    force = 10 * action[:, 0]
    derivative = double_pendulum_derivative(state, force)
    assert torch.equal(derivative[:, :3], state[:, 3:])
    for row, push, acceleration in zip(state, force, derivative[:, 3:], strict=True):
        q, speed = row[:3], row[3:]
        _, (mixed, mass) = torch.autograd.functional.hessian(lagrangian, (q, speed))  # type: ignore[no-untyped-call]
        slope, _ = torch.autograd.functional.jacobian(lagrangian, (q, speed))  # type: ignore[no-untyped-call]
        # d/dt dL/dq' - dL/dq = force
        residual = mass @ acceleration + mixed @ speed - slope
        assert residual.tolist() == pytest.approx([push.item(), 0.0, 0.0], abs=1e-11)


def test_energy_and_momentum_are_kept_without_a_force() -> None:
    start = DoublePendulum().initial(10, torch.Generator().manual_seed(0)).double()

    def conserved(s: Tensor) -> Tensor:
        q, speed = s[:, :3].T, s[:, 3:].T.requires_grad_()
        kinetic, potential = energies(q, speed)
        (momentum,) = torch.autograd.grad(kinetic.sum(), speed)
        return torch.stack([(kinetic + potential).detach(), momentum[0]])

    def lost(steps: int) -> Tensor:
        state = start
        for _ in range(steps):
            state = rk4(lambda s: double_pendulum_derivative(s, torch.zeros(10)), state, 1 / steps)
        # Within the second the rods fall and turn much potential energy into motion.
        assert state[:, 1:3].abs().max() > math.pi / 2
        return (conserved(state) - conserved(start)).abs().amax(-1)

    coarse, fine = lost(500), lost(1000)
    assert bool((fine < 1e-6).all())
    # What is lost is the step's: of order dt^4 at least, a sixteenth at half of it.
    assert bool((coarse / fine > 12).all())


def test_an_episode_s_own_steps_keep_the_energy_until_it_ends() -> None:
    env = DoublePendulum()
    state = env.initial(20, torch.Generator().manual_seed(0)).double()
    start, alive, worst = total_energy(state), torch.ones(20) > 0, 0.0
    while alive.any():
        worst = max(worst, (total_energy(state) - start)[alive].abs().max().item())
        state = env.transition(state, torch.zeros(20, 1, dtype=torch.float64), None)
        alive &= ~env.terminal(state)
    # Of about a joule, with fast modes that turn by some tenths in a step: a ten-thousandth.
    assert worst < 1e-4


def test_derivatives() -> None:
    env = DoublePendulum()
    state, action = (x.requires_grad_() for x in random_steps(5))

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_balances_where_it_stands_or_hangs() -> None:
    env = DoublePendulum()
    angles = [(a, b) for a in (0.0, math.pi) for b in (0.0, math.pi)]
    rest = torch.tensor([[0.3, a, b, 0.0, 0.0, 0.0] for a, b in angles], dtype=torch.float64)
    after = env.transition(rest, torch.zeros(4, 1, dtype=torch.float64), None)
    torch.testing.assert_close(after, rest, rtol=0, atol=1e-12)


def test_left_and_right_are_alike() -> None:
    env = DoublePendulum()
    state, action = random_steps(20)
    after = env.transition(state, action, None)
    torch.testing.assert_close(env.transition(-state, -action, None), -after, rtol=0, atol=1e-12)


def test_the_reward_by_hand() -> None:
    env = DoublePendulum()
    after = torch.tensor([[2.0, math.pi / 2, math.pi, 1.0, 2.0, -3.0], [0.0] * 6])
    reward = env.reward(after, after[:, :1], after)
    assert reward.tolist() == pytest.approx([1 - (1 + 2 + 0.2 + 0.14), 1.0], abs=1e-6)


def test_ends_when_the_tip_is_below_six_tenths_of_its_height() -> None:
    angle = math.acos(0.6)
    rows = [[angle - 0.01] * 2, [angle + 0.01] * 2, [-angle - 0.01, angle + 0.01], [0.0, 1.3]]
    state = torch.tensor([[9.0, a, b, 0.0, 0.0, 0.0] for a, b in rows])
    assert DoublePendulum().terminal(state).tolist() == [False, True, True, False]


def test_a_clamped_force_has_no_derivative() -> None:
    action = torch.tensor([[1.5], [-1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    after = DoublePendulum().transition(torch.zeros(3, 6, dtype=torch.float64), action, None)
    (gradient,) = torch.autograd.grad(after[:, 0].sum(), action)
    assert gradient[:2].flatten().tolist() == [0.0, 0.0] and gradient[2] > 0


def test_float32_agrees_with_float64() -> None:
    state, action = (x.float() for x in random_steps(1000))
    single = DoublePendulum().transition(state, action, None)
    double = DoublePendulum().transition(state.double(), action.double(), None)
    # Accelerations up to some hundreds times 0.02, relative to numbers up to about 10.
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 100 * 10 * 2**-24


def test_starts_near_upright() -> None:
    state = DoublePendulum().initial(10_000, torch.Generator().manual_seed(0))
    assert state.shape == (10_000, 6) and state.abs().max() <= 0.1
    # Of a uniform on [-b, b], the square has the mean b^2/3 and the variance 4 b^4 / 45.
    error = math.sqrt(4 * 0.1**4 / 45 / 10_000)
    assert (state.square().mean(0) - 0.1**2 / 3).abs().max() < 4.5 * error


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is -?infinity.*")
def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(DoublePendulum()), skip_render_check=True)
    sb3_check_env(NumpyEnv(DoublePendulum(), render_mode="rgb_array"))


def test_draws_both_rods() -> None:
    upright, leaning = (
        DoublePendulum().render(torch.tensor([[0.0, angle, -angle, 0.0, 0.0, 0.0]]), 0)
        for angle in (0.0, 0.8)
    )
    assert upright.shape == (256, 256, 3) and upright.dtype == np.uint8
    rows = [np.nonzero((p == canvas.BLUE).all(-1))[0] for p in (upright, leaning)]
    # A metre of rods is 85 pixels; at an angle it is less high.
    assert 75 < np.ptp(rows[0]) < 95 and np.ptp(rows[1]) < np.ptp(rows[0]) - 8
