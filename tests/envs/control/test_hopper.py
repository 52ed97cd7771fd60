"""The physics of the hopper. What holds for every environment is in test_environment_suite.py."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.control.hopper import Hopper2D, touch_ground
from pgtoolkit.envs.vector import DifferentiableVectorEnv

BODY, FOOT, INERTIA, GRAVITY, DT = 5.0, 0.5, 0.3, 9.81, 0.04


def in_the_air(n: int) -> tuple[Tensor, Tensor]:
    """States high above the ground, and actions."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(n, 10, generator=generator).double()
    place = torch.tensor([0.0, 5.0, 0.0, 0.0, 4.5]).double() + 0.05 * random[:, :5]
    action = 1.8 * torch.rand(n, 2, generator=generator).double() - 0.9
    return torch.cat([place, random[:, 5:]], -1), action


def momenta(state: Tensor) -> tuple[Tensor, Tensor]:
    """Linear momentum ``[N, 2]``, and angular momentum about the centre of mass ``[N]``."""
    place, speed = state.chunk(2, dim=-1)
    linear = BODY * speed[:, :2] + FOOT * speed[:, 3:]
    reduced = BODY * FOOT / (BODY + FOOT)
    leg, change = place[:, :2] - place[:, 3:], speed[:, :2] - speed[:, 3:]
    orbital = reduced * (leg[:, 0] * change[:, 1] - leg[:, 1] * change[:, 0])
    return linear, orbital + INERTIA * speed[:, 2]


def test_in_the_air_only_gravity_changes_the_momenta() -> None:
    """Leg and hip forces are internal: only ``g`` changes the linear momentum."""
    state, action = in_the_air(20)
    linear, angular = momenta(state)
    after_linear, after_angular = momenta(Hopper2D().transition(state, action, None))
    impulse = torch.tensor([0.0, -(BODY + FOOT) * GRAVITY * DT], dtype=torch.float64)
    torch.testing.assert_close(after_linear, linear + impulse, rtol=0, atol=1e-11)
    torch.testing.assert_close(after_angular, angular, rtol=0, atol=1e-11)


def test_the_ground_only_pushes_and_friction_never_turns_a_slide_around() -> None:
    generator = torch.Generator().manual_seed(0)
    place, speed = torch.randn(2, 1000, 5, generator=generator).double()
    place = place * 0.02
    after = touch_ground(place, speed, 0.005)
    above = place[:, 4] >= 0
    assert 300 < int(above.sum()) < 700
    assert torch.equal(after[above], speed[above])
    assert torch.equal(after[:, :3], speed[:, :3])
    assert bool((after[:, 4] >= speed[:, 4]).all())
    assert bool((after[:, 3] * speed[:, 3] >= 0).all())
    assert bool((after[:, 3].abs() <= speed[:, 3].abs()).all())


def test_it_stands_on_its_weight_and_hops_when_dropped() -> None:
    """At rest on the spring the ground carries both masses; dropped from above, it rises again."""
    env, rest = Hopper2D(), torch.zeros(1, 2).double()
    state = torch.zeros(1, 10).double()
    state[0, 1], state[0, 4] = 0.8, 0.3
    heights = []
    for _ in range(300):
        state = env.transition(state, rest, None)
        heights.append(state[0, 1].item())
    lowest = heights.index(min(heights[:20]))
    assert max(heights[lowest : lowest + 30]) > heights[lowest] + 0.1
    # At rest, 6000 h^2 / (h + 0.005) is the weight of both, 1100 (0.5 - L) that of the body.
    weight = (BODY + FOOT) * GRAVITY
    depth = (weight + math.sqrt(weight**2 + 4 * 6000 * 0.005 * weight)) / 12_000
    assert -state[0, 4].item() == pytest.approx(depth, rel=1e-3)
    length = 0.5 - BODY * GRAVITY / 1100
    assert state[0, 1].item() - state[0, 4].item() == pytest.approx(length, rel=1e-3)


def test_the_reward_of_a_state() -> None:
    """Upright and tall it is 1 + speed, less the action's cost. At a fall the 1 becomes 0."""
    env, action = Hopper2D(), torch.tensor([[0.0, 0.0], [0.6, 2.0], [0.0, 0.0], [0.0, 0.0]])
    after = torch.zeros(4, 10)
    after[:, 1] = torch.tensor([0.55, 0.55, 0.3, 0.55])
    after[:, 2] = torch.tensor([0.0, 0.0, 0.0, -0.8])
    after[0, 5] = 1.5
    expected = torch.tensor([2.5, 1 - 0.1 * 1.36, 0.0, 0.0])
    torch.testing.assert_close(env.reward(after, action, after), expected)


@pytest.mark.parametrize(
    ("z", "pitch", "fallen"),
    [(0.5, 0.0, False), (0.29, 0.0, True), (0.5, 0.81, True), (0.5, -0.81, True)],
)
def test_a_fall_is_terminal(z: float, pitch: float, fallen: bool) -> None:
    state = torch.zeros(1, 10)
    state[0, 1], state[0, 2] = z, pitch
    assert bool(Hopper2D().terminal(state)) is fallen


def test_who_falls_leaves_the_others_their_gradient() -> None:
    """A hopper that falls inside a window continues from a new start without a graph."""
    env = DifferentiableVectorEnv(Hopper2D(), 2, dtype=torch.float64)
    env.reset(seed=0)
    position = env.get_state()
    assert isinstance(position.state, Tensor)
    state = position.state.clone()
    state[0, 2], state[0, 7] = 0.79, 3.0  # about to tip over
    env.set_state(position._replace(state=state))
    action = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    _, _, terminated, _, _ = env.step(action)
    assert terminated.tolist() == [True, False]
    rewards = [env.step(torch.zeros(2, 2))[1] for _ in range(5)]
    (gradient,) = torch.autograd.grad(torch.stack(rewards).sum(), action)
    assert gradient[0].tolist() == [0.0, 0.0]
    assert bool((gradient[1] != 0).all())
