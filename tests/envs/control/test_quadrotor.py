import math

import torch
from torch import Tensor

from pgtoolkit.envs.control import quaternion
from pgtoolkit.envs.control.quadrotor import (
    INERTIA,
    MIXING,
    Quadrotor,
    QuadrotorState,
    angular_acceleration,
    rigid_body_step,
)

J = torch.tensor(INERTIA, dtype=torch.float64)
NO_WRENCH = torch.zeros(1, 4, dtype=torch.float64)


def random_state(count: int) -> QuadrotorState:
    generator = torch.Generator().manual_seed(0)
    position, velocity, rates = torch.randn(3, count, 3, generator=generator).double().unbind(0)
    attitude = quaternion.normalized(torch.randn(count, 4, generator=generator).double())
    return QuadrotorState(position, velocity, attitude, rates)


def resting(count: int = 1) -> QuadrotorState:
    zero = torch.zeros(count, 3, dtype=torch.float64)
    return QuadrotorState(zero, zero, torch.eye(4).double()[:1].expand(count, 4), zero)


def test_hovering_is_a_fixed_point_and_best() -> None:
    env, state, action = Quadrotor(), resting(), torch.zeros(1, 4).double()
    after = env.transition(state, action, None)
    for before, now in zip(state, after, strict=True):
        torch.testing.assert_close(now, before, rtol=0, atol=1e-15)
    assert abs(env.reward(state, action, after).item()) < 1e-15


def test_derivatives_where_nothing_turns() -> None:
    """The length of a rotation vector has no derivative at 0; the exponential has one."""

    def step(action: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        env, before = Quadrotor(), QuadrotorState(*state)
        after = env.transition(before, action, None)
        return *after, env.observation(after), env.reward(before, action, after)

    inputs = [torch.zeros(1, 4).double(), *resting()]
    assert torch.autograd.gradcheck(step, [x.clone().requires_grad_() for x in inputs])


def test_the_quaternion_stays_of_unit_norm() -> None:
    env, generator = Quadrotor(), torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float32, 4 * 2**-23), (torch.float64, 4 * 2**-52)):
        state = QuadrotorState(*(leaf.to(dtype) for leaf in env.initial(20, generator)))
        for _ in range(200):
            action = (2 * torch.rand(20, 4, generator=generator) - 1).to(dtype)
            state = env.transition(state, action, None)
            assert (state.attitude.norm(dim=-1) - 1).abs().max() <= tolerance


def test_weak_rotors_let_it_fall_in_a_parabola() -> None:
    env, state = Quadrotor(), resting()
    state = state._replace(velocity=torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64))
    for _ in range(40):
        state = env.transition(state, torch.full((1, 4), -1.0).double(), None)
    expected = torch.tensor([[0.6, -0.4, 2.0 - 9.81 / 2 * 2.0]], dtype=torch.float64)
    torch.testing.assert_close(state.position, expected, rtol=0, atol=1e-12)


def test_alternate_rotors_turn_it_about_its_axis() -> None:
    env, state = Quadrotor(), resting()
    for _ in range(20):
        state = env.transition(state, torch.tensor([[-1.0, 1.0, -1.0, 1.0]]).double(), None)
    acceleration = 0.05 * 9.81 / 2 / 0.125
    heading = acceleration / 2
    expected = [math.cos(heading / 2), 0.0, 0.0, math.sin(heading / 2)]
    torch.testing.assert_close(state.attitude[0], torch.tensor(expected).double())
    torch.testing.assert_close(state.rates[0, 2].item(), acceleration)
    torch.testing.assert_close(state.position, torch.zeros(1, 3).double(), rtol=0, atol=1e-12)


def test_the_mixing_matrix_is_the_geometry() -> None:
    """Thrusts along ``z`` at the four corners, and a torque opposite to the sense of each rotor."""
    corners = torch.tensor([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]).double() / 4
    up = torch.tensor([0.0, 0.0, 1.0]).double().expand(4, 3)
    torque = torch.linalg.cross(corners, up)
    torque[:, 2] = torch.tensor([-0.05, 0.05, -0.05, 0.05])
    mixing = torch.tensor(MIXING).double()
    torch.testing.assert_close(mixing, torch.cat([torch.ones(1, 4).double(), torque.mT]))
    assert torch.linalg.matrix_rank(mixing) == 4


def spin_freely(state: QuadrotorState, num_steps: int) -> QuadrotorState:
    for _ in range(num_steps):
        state = rigid_body_step(state, NO_WRENCH, 1.0 / num_steps)
    return state


def test_without_torque_angular_momentum_stays_and_the_body_precesses() -> None:
    """A symmetric top, whose motion is known: ``omega`` turns about the axis at a constant rate."""
    start = resting()._replace(rates=torch.tensor([[1.0, -0.5, 3.0]]).double())
    precession = (INERTIA[2] - INERTIA[0]) / INERTIA[0] * 3.0
    c, s = math.cos(precession), math.sin(precession)
    rates = torch.tensor([[c + 0.5 * s, s - 0.5 * c, 3.0]]).double()
    errors = []
    for num_steps in (40, 80):
        end = spin_freely(start, num_steps)
        momentum = (quaternion.rotation_matrix(end.attitude) @ (J * end.rates).mT).mT
        lost = (momentum - J * start.rates).abs().max().item()
        errors.append((lost, (end.rates - rates).abs().max().item()))
    # Halving the step divides an error of second order by 4, up to terms of the next order.
    for coarse, fine in zip(*errors, strict=True):
        assert 3.5 < coarse / fine < 4.5 and fine < 5e-3


def test_euler_s_equation_keeps_energy_and_momentum() -> None:
    rates = random_state(10).rates
    change = J * angular_acceleration(rates, torch.zeros_like(rates))
    for conserved in ((rates * change).sum(-1), (J * rates * change).sum(-1)):
        torch.testing.assert_close(conserved, torch.zeros(10).double(), rtol=0, atol=1e-14)


def test_both_quaternions_of_an_attitude_look_the_same() -> None:
    env, state = Quadrotor(), random_state(5)
    other = state._replace(attitude=-state.attitude)
    action = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(env.observation(state), env.observation(other))
    after, after_other = (env.transition(s, action, None) for s in (state, other))
    assert torch.equal(env.observation(after), env.observation(after_other))
    assert torch.equal(env.reward(state, action, after), env.reward(other, action, after_other))


def turned(state: QuadrotorState, heading: Tensor) -> QuadrotorState:
    """Rotates the whole state about the vertical axis."""
    turn = quaternion.exponential(torch.tensor([0.0, 0.0, 1.0]).double() * heading[:, None])
    matrix = quaternion.rotation_matrix(turn)
    position, velocity = ((matrix @ v[..., None]).squeeze(-1) for v in state[:2])
    attitude = quaternion.product(turn, state.attitude)
    return QuadrotorState(position, velocity, attitude, state.rates)


def test_the_compass_does_not_matter() -> None:
    env, state = Quadrotor(), random_state(5)
    heading = torch.linspace(0.5, 6.0, 5).double()
    action = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).double()
    after = env.transition(state, action, None)
    after_turned = env.transition(turned(state, heading), action, None)
    for one, two in zip(turned(after, heading), after_turned, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        env.reward(state, action, after), env.reward(turned(state, heading), action, after_turned)
    )


def test_the_observation_is_the_state_shortened() -> None:
    state = random_state(3)
    seen = Quadrotor().observation(state)
    away, matrix = seen[:, :3], seen[:, 6:15].view(3, 3, 3)
    length = state.position.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(away, -state.position / torch.sqrt(1 + length**2 / 9))
    torch.testing.assert_close(matrix, quaternion.rotation_matrix(state.attitude))


def test_starts() -> None:
    count = 10_000
    state = Quadrotor().initial(count, torch.Generator().manual_seed(0))
    assert state.position.abs().max() <= 1.0
    assert (state.attitude.norm(dim=-1) - 1).abs().max() < 1e-6
    # Variances: 1/3 of the uniform, whose square has variance 4/45; of a normal, 2 sigma^4.
    error = math.sqrt(4 / 45 / count)
    assert bool(((state.position.square().mean(0) - 1 / 3).abs() < 4.5 * error).all())
    for normal in (state.velocity, state.rates):
        spread = math.sqrt(2 * 0.5**4 / count)
        assert bool(((normal.square().mean(0) - 0.25).abs() < 4.5 * spread).all())
    assert not bool(Quadrotor().terminal(state).any())
