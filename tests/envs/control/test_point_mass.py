import pytest
import torch

from pgtoolkit.envs.control.point_mass import PointMass


def test_one_step_by_hand() -> None:
    env = PointMass()
    state = torch.tensor([[1.0, -2.0, 0.5, 0.0]], dtype=torch.float64)
    action = torch.tensor([[0.4, -3.0]], dtype=torch.float64)
    after = env.transition(state, action, None)
    velocity = [0.5 + 0.1 * (0.4 - 0.05), -0.1]
    position = [1.0 + 0.1 * velocity[0], -2.0 + 0.1 * velocity[1]]
    assert after[0].tolist() == pytest.approx(position + velocity)
    cost = sum(p * p for p in position) + 0.1 * sum(v * v for v in velocity) + 0.01 * (0.16 + 1)
    assert env.reward(state, action, after).item() == pytest.approx(-0.1 * cost)
    assert env.terminal(after).tolist() == [False]


def test_derivatives() -> None:
    env = PointMass()
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(4, 4, generator=generator).double().requires_grad_()
    action = (2 * torch.rand(4, 2, generator=generator) - 1).double().requires_grad_()

    def step(s: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    assert torch.autograd.gradcheck(step, (state, action))


def test_starts_at_rest_within_the_square() -> None:
    state = PointMass().initial(1000, torch.Generator().manual_seed(0))
    assert state.shape == (1000, 4) and bool((state[:, 2:] == 0).all())
    assert 0.99 < state[:, :2].abs().max() <= 1.0


def test_pushing_towards_the_origin_pays() -> None:
    env = PointMass()
    state = env.initial(50, torch.Generator().manual_seed(0))
    returns = []
    for gain in (0.0, 1.0):
        s, total = state, torch.zeros(50)
        for _ in range(env.max_episode_steps):
            action = -gain * (s[:, :2] + 1.5 * s[:, 2:])
            after = env.transition(s, action, None)
            total, s = total + env.reward(s, action, after), after
        returns.append(total)
    assert bool((returns[1] > returns[0]).all())
