"""The physics of the arm. What holds for every environment is in test_environment_suite.py."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.control.reacher import ReacherTwoLink, fingertip, joint_acceleration

LENGTH, MASS, DAMPING = 0.5, 1.0, 0.2


def kinetic_energy(angles: Tensor, speeds: Tensor) -> Tensor:
    """Kinetic energy of two uniform rods, from their centres' velocities; inputs ``[2]`` each."""
    first, both = angles[0], angles[0] + angles[1]
    turn = torch.stack([speeds[0], speeds[0] + speeds[1]])
    elbow = LENGTH * turn[0] * torch.stack([-first.sin(), first.cos()])
    centre_one = elbow / 2
    centre_two = elbow + LENGTH / 2 * turn[1] * torch.stack([-both.sin(), both.cos()])
    moving = MASS / 2 * (centre_one.square().sum() + centre_two.square().sum())
    return moving + MASS * LENGTH**2 / 12 / 2 * turn.square().sum()


def random_rows(n: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    angles, speeds, torque = 2 * torch.randn(3, n, 2, generator=generator).double()
    return angles, speeds, torque


def test_accelerations_solve_the_euler_lagrange_equations() -> None:
    angles, speeds, torque = random_rows(20)
    found = joint_acceleration(angles, speeds, torque)
    for q, speed, push, acceleration in zip(angles, speeds, torque, found, strict=True):
        _, (mixed, mass) = torch.autograd.functional.hessian(kinetic_energy, (q, speed))  # type: ignore[no-untyped-call]
        slope, _ = torch.autograd.functional.jacobian(kinetic_energy, (q, speed))  # type: ignore[no-untyped-call]
        # d/dt dT/dq' - dT/dq = tau - c q'
        residual = mass @ acceleration + mixed @ speed - slope - push + DAMPING * speed
        assert residual.tolist() == pytest.approx([0.0, 0.0], abs=1e-11)


def test_damping_takes_energy_at_the_rate_of_its_power() -> None:
    """``dT/dt = tau . q' - c |q'|^2``, at random points."""
    angles, speeds, torque = random_rows(20)
    acceleration = joint_acceleration(angles, speeds, torque)
    for q, v, a, tau in zip(angles, speeds, acceleration, torque, strict=True):
        _, rate = torch.autograd.functional.jvp(kinetic_energy, (q, v), (v, a))  # type: ignore[no-untyped-call]
        power = (tau * v).sum() - DAMPING * v.square().sum()
        assert rate.item() == pytest.approx(power.item(), abs=1e-10)


@pytest.mark.parametrize(
    ("angles", "tip"),
    [((0.0, 0.0), (1.0, 0.0)), ((math.pi / 2, 0.0), (0.0, 1.0)), ((0.0, math.pi / 2), (0.5, 0.5))],
)
def test_the_fingertip(angles: tuple[float, float], tip: tuple[float, float]) -> None:
    assert fingertip(torch.tensor([angles]).double())[0].tolist() == pytest.approx(tip, abs=1e-7)


def test_targets_are_uniform_over_their_ring_and_stay() -> None:
    env = ReacherTwoLink()
    state = env.initial(10_000, torch.Generator().manual_seed(0)).double()
    square = state[:, 4:].square().sum(-1)
    low, high = 0.2**2, 0.95**2
    assert square.min() >= low - 1e-6 and square.max() <= high + 1e-6
    # Uniform over the area, the square of the radius is uniform.
    error = (high - low) / math.sqrt(12 * 10_000)
    assert abs(square.mean().item() - (low + high) / 2) < 4.5 * error
    assert bool((state[:, 2:4] == 0).all())
    after = env.transition(state, torch.ones(10_000, 2).double(), None)
    assert torch.equal(after[:, 4:], state[:, 4:])


def test_the_reward_on_the_target_and_off_it() -> None:
    env = ReacherTwoLink()
    state = torch.tensor([[0.0, 0, 0, 0, 1.0, 0.0], [0.0, 0, 0, 0, 0.4, 0.8]]).double()
    state.requires_grad_()
    action = torch.tensor([[0.5, -3.0], [0.0, 0.0]]).double()
    reward = env.reward(state, action, state)
    expected = [-0.01 * 1.25, -(math.sqrt(0.36 + 0.64 + 0.05**2) - 0.05)]
    assert reward.tolist() == pytest.approx(expected, abs=1e-7)
    assert bool(torch.autograd.grad(reward.sum(), state)[0].isfinite().all())
