"""The physics of the pusher. What holds for every environment is in test_environment_suite.py."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.control.pusher import PusherFriction, contact_force, slow_down
from pgtoolkit.errors import RequestError

GRAVITY, SUBSTEP, TOUCHING = 9.81, 0.05 / 8, 0.2


def state(**parts: tuple[float, float]) -> Tensor:
    """A state ``[1, 8]``; by default the finger is far away and everything is at rest."""
    names = {"disc": (0.0, 0.0), "velocity": (0.0, 0.0), "finger": (5.0, 5.0), "speed": (0.0, 0.0)}
    return torch.tensor([sum((names | parts).values(), ())], dtype=torch.float64)


@pytest.mark.parametrize("friction", [0.1, 0.3, 1.0])
def test_a_sliding_disc_comes_to_rest_after_v_squared_over_2_mu_g(friction: float) -> None:
    """Semi-implicit Euler falls short by up to half a substep of the first speed."""
    env, here, speed = PusherFriction(friction), state(velocity=(0.6, -0.8)), 1.0
    for _ in range(math.ceil(speed / (friction * GRAVITY) / 0.05) + 1):
        here = env.transition(here, torch.zeros(1, 2).double(), None)
    assert here[0, 2:4].tolist() == [0.0, 0.0]
    way = speed**2 / (2 * friction * GRAVITY)
    assert here[0, :2].norm().item() == pytest.approx(way, abs=SUBSTEP * speed)
    assert here[0, 0].item() / here[0, 1].item() == pytest.approx(-0.75)


def test_a_push_below_the_friction_moves_nothing_and_has_no_effect() -> None:
    """The disc's state stays 0 to the bit, and its derivative by the action is 0.

    5 a = 1 N, and twice that as the finger bounces on the contact, against mu m g = 2.9 N.
    """
    env = PusherFriction(0.3)
    here = state(finger=(-TOUCHING, 0.0))
    action = torch.tensor([[0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    for _ in range(20):
        here = env.transition(here, action, None)
    assert here[0, :4].tolist() == [0.0] * 4
    assert here[0, 4].item() > -TOUCHING  # it presses
    assert torch.autograd.grad(here[0, :4].sum(), action)[0].tolist() == [[0.0, 0.0]]


def test_a_push_above_the_friction_moves_it() -> None:
    env, here = PusherFriction(0.3), state(finger=(-TOUCHING, 0.0))
    for _ in range(20):
        here = env.transition(here, torch.tensor([[0.9, 0.0]]).double(), None)
    assert here[0, 0].item() > 0.05 and here[0, 1].item() == 0.0


def test_the_contact_acts_both_ways_along_the_line_of_centres() -> None:
    generator = torch.Generator().manual_seed(0)
    apart, speed = 0.2 * torch.randn(2, 500, 2, generator=generator).double()
    force = contact_force(apart, speed)
    assert torch.equal(contact_force(-apart, -speed), -force)
    touching = apart.square().sum(-1).sqrt() < TOUCHING
    assert 50 < int(touching.sum()) < 450
    assert bool((force[~touching] == 0).all())
    assert bool(((force * apart).sum(-1)[touching] >= 0).all())  # it pushes, and never pulls
    cross = force[:, 0] * apart[:, 1] - force[:, 1] * apart[:, 0]
    assert cross.abs().max() < 1e-12


def test_dry_friction_takes_its_loss_or_all_there_is() -> None:
    velocity = torch.tensor([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0]], dtype=torch.float64)
    velocity.requires_grad_()
    after = slow_down(velocity, 1.0)
    expected = torch.tensor([[2.4, 3.2], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(after.detach(), expected)
    (gradient,) = torch.autograd.grad(after.sum(), velocity)
    assert bool(gradient.isfinite().all()) and gradient[1:].abs().max() == 0


def test_a_turned_table_turns_the_motion() -> None:
    env, angle = PusherFriction(), 0.7
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    here = state(disc=(0.3, 0.1), velocity=(0.2, 0.5), finger=(0.3, -0.05), speed=(0.0, 1.0))
    action = torch.tensor([[0.1, 0.6]], dtype=torch.float64)

    def turned(x: Tensor) -> Tensor:
        return (x.view(-1, 2) @ turn.T).view_as(x)

    one, two = here, turned(here)
    for _ in range(10):
        one, two = env.transition(one, action, None), env.transition(two, turned(action), None)
    torch.testing.assert_close(two, turned(one), rtol=0, atol=1e-9)
    reward = env.reward(here, action, one)
    torch.testing.assert_close(env.reward(two, turned(action), two), reward, rtol=0, atol=1e-9)


@pytest.mark.parametrize("friction", [-0.1, math.nan])
def test_a_friction_that_is_none_is_refused(friction: float) -> None:
    with pytest.raises(RequestError, match="friction"):
        PusherFriction(friction)
