import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from pgtoolkit.envs.control.planar_quadrotor import (
    PlanarQuadrotor,
    PlanarQuadrotorState,
    planar_flight,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.errors import RequestError

CORNERS = ((0.0, 0.0), (1.0, 0.5), (-1.0, 0.5))


def fly(body: Tensor, action: Tensor, num_steps: int, dt: float) -> Tensor:
    for _ in range(num_steps):
        body = planar_flight(body, action, dt)
    return body


def state_at(body: Tensor, time: int = 0) -> PlanarQuadrotorState:
    return PlanarQuadrotorState(body, torch.full((len(body),), time))


def test_hovering_is_a_fixed_point_and_best() -> None:
    env = PlanarQuadrotor([(0.3, -0.2)])
    body = torch.tensor([[0.3, -0.2, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    state, action = state_at(body), torch.zeros(1, 2, dtype=torch.float64)
    after = env.transition(state, action, None)
    assert torch.equal(after.body, body) and env.reward(state, action, after).item() == 0.0
    assert env.observation(state).tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


def test_weak_rotors_let_it_fall_in_a_parabola() -> None:
    body = torch.tensor([[1.0, 2.0, 0.0, 0.4, 1.5, 0.0]], dtype=torch.float64)
    x, z, _, _, speed, _ = fly(body, torch.full((1, 2), -1.0).double(), 40, 0.05)[0].tolist()
    # Half the weight is held.
    assert x == pytest.approx(1.0 + 0.4 * 2.0, abs=1e-12)
    assert z == pytest.approx(2.0 + 1.5 * 2.0 - 9.81 / 2 * 2.0**2 / 2, abs=1e-12)
    assert speed == pytest.approx(1.5 - 9.81 / 2 * 2.0, abs=1e-12)


def test_unequal_rotors_turn_it_at_a_constant_acceleration() -> None:
    action = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    _, _, phi, _, _, omega = fly(torch.zeros(1, 6).double(), action, 20, 0.05)[0].tolist()
    acceleration = 0.3 * 9.81 / 2 / 0.09
    assert omega == pytest.approx(acceleration) and phi == pytest.approx(acceleration / 2)


def equations(_: float, s: Any, right: float, left: float) -> list[float]:
    """The equations of motion as Tedrake writes them."""
    both = right + left
    x, z = -both * math.sin(s[2]), both * math.cos(s[2]) - 9.81
    return [s[3], s[4], s[5], x, z, 0.3 * (right - left) / 0.09]


def test_the_steps_are_of_second_order() -> None:
    action = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    start = torch.tensor([[0.1, -0.2, 0.3, 0.5, 0.4, -0.6]], dtype=torch.float64)
    thrusts = 9.81 / 2 * 1.25, 9.81 / 2 * 0.85
    exact = solve_ivp(equations, (0, 1), start[0].numpy(), args=thrusts, rtol=1e-11, atol=1e-11)
    errors = [
        float(np.abs(fly(start, action, n, 1 / n)[0].numpy() - exact.y[:, -1]).max())
        for n in (20, 40)
    ]
    # Halving the step divides the error by 4, up to terms of the next order.
    assert errors[0] < 0.02 and 3.5 < errors[0] / errors[1] < 4.5


def test_left_and_right_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    body = torch.randn(5, 6, generator=generator).double()
    action = (2 * torch.rand(5, 2, generator=generator) - 1).double()
    mirror = torch.tensor([-1.0, 1.0, -1.0, -1.0, 1.0, -1.0]).double()
    mirrored = planar_flight(mirror * body, action.flip(-1), 0.05)
    torch.testing.assert_close(mirrored, mirror * planar_flight(body, action, 0.05))


def test_the_place_of_the_target_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    body = torch.randn(5, 6, generator=generator).double()
    action, shift = torch.randn(5, 2, generator=generator).double(), (2.0, -3.0)
    moved = torch.cat([body[:, :2] + torch.tensor(shift).double(), body[:, 2:]], -1)
    here, there = PlanarQuadrotor(), PlanarQuadrotor([shift])
    seen = [env.observation(state_at(b)) for env, b in ((here, body), (there, moved))]
    torch.testing.assert_close(*seen)
    paid = [
        env.reward(state_at(b), action, state_at(b, 1)) for env, b in ((here, body), (there, moved))
    ]
    torch.testing.assert_close(*paid)


def test_a_whole_turn_does_not_matter() -> None:
    env, body = PlanarQuadrotor(), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    turn, action = torch.tensor([0, 0, 2 * math.pi, 0, 0, 0]), torch.zeros(5, 2)
    one, two = state_at(body), state_at(body + turn)
    torch.testing.assert_close(env.observation(one), env.observation(two), rtol=0, atol=1e-5)
    torch.testing.assert_close(env.reward(one, action, one), env.reward(two, action, two))


def test_waypoints_follow_one_another() -> None:
    env = PlanarQuadrotor(CORNERS)
    assert env.max_episode_steps == 300 and env.observation_space.shape == (9,)
    body, action = torch.zeros(1, 6).double(), torch.zeros(1, 2).double()
    assert env.observation(state_at(body, 99))[0, :2].tolist() == [0.0, 0.0]
    way = env.observation(state_at(body, 100))[0, :2] * math.sqrt(1 + 1.25 / 9)
    assert way.tolist() == pytest.approx([1.0, 0.5])
    # The step with number 99 is still paid by the first way-point, and number 100 by the second.
    costs = [env.reward(state_at(body, t), action, state_at(body, t + 1)).item() for t in (99, 100)]
    assert costs == pytest.approx([0.0, 1 - math.sqrt(2.25)])


def test_the_next_waypoint_comes_into_view() -> None:
    env, body = PlanarQuadrotor(CORNERS), torch.zeros(1, 6).double()
    ahead = [env.observation(state_at(body, t))[0, 7:].tolist() for t in (0, 50, 100, 150, 250)]
    assert ahead[0] == [0.0, 0.0] and ahead[2] == [0.0, 0.0]
    assert ahead[1] == pytest.approx([0.5 / math.sqrt(1 + 0.3125 / 9), 0.25 / 1.0172137], rel=1e-4)
    assert ahead[3] == pytest.approx([-1 / math.sqrt(1 + 1 / 9), 0.0])
    assert ahead[4] == [0.0, 0.0]  # after the last there is none


def test_the_time_counts_steps() -> None:
    env: DifferentiableEnv[PlanarQuadrotorState] = PlanarQuadrotor()
    state = env.initial(3, torch.Generator().manual_seed(0))
    after = env.transition(env.transition(state, torch.zeros(3, 2), None), torch.zeros(3, 2), None)
    assert after.time.tolist() == [2, 2, 2] and env.terminal(after).tolist() == [False] * 3


def test_starts_near_the_first_waypoint() -> None:
    state = PlanarQuadrotor([(5.0, -4.0), (0.0, 0.0)]).initial(
        10_000, torch.Generator().manual_seed(0)
    )
    away = state.body[:, :2] - torch.tensor([5.0, -4.0])
    assert away.abs().max() <= 1.0 + 1e-6 and bool((state.body[:, 2:] == 0).all())
    # A uniform on [-1, 1] has variance 1/3, and its square has variance 4/45.
    error = math.sqrt(4 / 45 / 10_000)
    assert bool(((away.square().mean(0) - 1 / 3).abs() < 4.5 * error).all())


@pytest.mark.parametrize("waypoints", [3, [1, 2], [(1, 2, 3)], [("a", 1)], None])
def test_waypoints_that_are_no_pairs_are_refused(waypoints: Any) -> None:
    with pytest.raises(RequestError, match=r"give a list of pairs \[x, z\]"):
        PlanarQuadrotor(waypoints)


def test_no_waypoint_or_an_infinite_one_is_refused() -> None:
    with pytest.raises(RequestError, match="at least one pair"):
        PlanarQuadrotor([])
    with pytest.raises(RequestError, match="PlanarQuadrotor's waypoint_z is inf"):
        PlanarQuadrotor([(0.0, math.inf)])
