"""Tests that every environment passes; the physics of each is tested in its own file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from pgtoolkit.envs.control.hopper import Hopper2D
from pgtoolkit.envs.control.planar_quadrotor import PlanarQuadrotor
from pgtoolkit.envs.control.pusher import PusherFriction
from pgtoolkit.envs.control.quadrotor import Quadrotor
from pgtoolkit.envs.control.reacher import ReacherTwoLink
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.states import cast_state, map_state, rebuild_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv

CREATORS: dict[str, Callable[[], DifferentiableEnv]] = {
    "hopper": Hopper2D,
    "planar quadrotor": PlanarQuadrotor,
    "way-points": lambda: PlanarQuadrotor([(0, 0), (1.0, 0.5), (-1.0, 0.5)]),
    "pusher": PusherFriction,
    "quadrotor": Quadrotor,
    "reacher": ReacherTwoLink,
}
pytestmark = pytest.mark.parametrize("name", CREATORS)
DOUBLE = torch.float64


def random_states(env: DifferentiableEnv, num_steps: int, dtype: torch.dtype = DOUBLE) -> list[Any]:
    """Batches of 4 states reached by random actions."""
    generator = torch.Generator().manual_seed(0)
    states = [cast_state(env.initial(4, generator), torch.device("cpu"), dtype)]
    for _ in range(num_steps):
        states.append(env.transition(states[-1], random_action(env, generator, dtype), None))
    return states


def random_action(env: DifferentiableEnv, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    shape = 4, *env.action_space.shape
    return (1.6 * torch.rand(shape, generator=generator) - 0.8).to(dtype)


def leaves(state: Any) -> tuple[Tensor, ...]:
    """The floating-point tensors of a state."""
    tensors = (state,) if isinstance(state, Tensor) else tuple(state)
    return tuple(leaf for leaf in tensors if leaf.is_floating_point())


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is -?infinity.*")
def test_gymnasium_accepts_it(name: str) -> None:
    check_env(NumpyEnv(CREATORS[name](), render_mode="rgb_array"), skip_render_check=True)


def test_stable_baselines3_accepts_it(name: str) -> None:
    sb3_check_env(NumpyEnv(CREATORS[name](), render_mode="rgb_array"))


def test_derivatives(name: str) -> None:
    """Gradcheck of transition, observation and reward by state and action, at three times."""
    env = CREATORS[name]()
    states = random_states(env, 20)
    for all_rows in (states[0], states[10], states[20]):
        start = map_state(lambda leaf: leaf[:2], all_rows)
        rest = () if isinstance(start, Tensor) else tuple(start)[len(leaves(start)) :]

        def step(action: Tensor, *floats: Tensor, like: Any = start, rest: Any = rest) -> Any:
            state = floats[0] if isinstance(like, Tensor) else rebuild_state(like, floats + rest)
            after = env.transition(state, action, None)
            return *leaves(after), env.observation(after), env.reward(state, action, after)

        action = random_action(env, torch.Generator().manual_seed(1), DOUBLE)[:2].requires_grad_()
        floats = (leaf.clone().requires_grad_() for leaf in leaves(start))
        assert torch.autograd.gradcheck(step, (action, *floats))


def test_float32_agrees_with_float64(name: str) -> None:
    env = CREATORS[name]()
    single = random_states(env, 10, torch.float32)[-1]
    action = random_action(env, torch.Generator().manual_seed(1), torch.float32)
    double = cast_state(single, torch.device("cpu"), DOUBLE)
    after = env.transition(single, action, None)
    exact = env.transition(double, action.double(), None)
    assert all(leaf.dtype == torch.float32 for leaf in leaves(after))
    assert all(leaf.dtype == DOUBLE for leaf in leaves(exact))
    # A rounding of a place, 2^-24, becomes one of a speed by at most stiffness / mass dt, which is
    # 6000 / 0.5 * 0.005 = 60 for the hopper's ground; 8 substeps: 500 roundings at most.
    for rounded, leaf in zip(leaves(after), leaves(exact), strict=True):
        assert bool(((rounded - leaf).abs() <= 500 * 2**-24 * (1 + leaf.abs())).all())


def test_rows_do_not_mix_and_nothing_is_changed(name: str) -> None:
    env = CREATORS[name]()
    state = random_states(env, 15)[-1]
    copy = map_state(Tensor.clone, state)
    action = random_action(env, torch.Generator().manual_seed(1), DOUBLE)
    after = env.transition(state, action, None)
    outputs = *leaves(after), env.observation(after), env.reward(state, action, after)
    for row in range(4):

        def pick(leaf: Tensor, row: int = row) -> Tensor:
            return leaf[row : row + 1]

        alone, act = map_state(pick, state), pick(action)
        then = env.transition(alone, act, None)
        single = *leaves(then), env.observation(then), env.reward(alone, act, then)
        for whole, part in zip(outputs, single, strict=True):
            torch.testing.assert_close(pick(whole), part, rtol=0, atol=1e-12)
    for before, now in zip(leaves(copy), leaves(state), strict=True):
        assert torch.equal(before, now)


def test_observations_are_in_their_space(name: str) -> None:
    env = CREATORS[name]()
    space = env.observation_space
    for state in random_states(env, env.max_episode_steps, torch.float32):
        for observation in env.observation(state).numpy():
            assert observation.shape == space.shape
            assert bool((np.abs(observation) <= space.high * (1 + 1e-6)).all())


def test_gradients_stay_finite_through_a_whole_episode(name: str) -> None:
    """Every action has a finite, nonzero gradient of the rewards of its own and later steps."""
    env = CREATORS[name]()
    vector = DifferentiableVectorEnv(env, 4)
    vector.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    actions = [random_action(env, generator, torch.float32).requires_grad_() for _ in range(100)]
    rewards = [vector.step(action)[1] for action in actions]
    gradient = torch.stack(torch.autograd.grad(torch.stack(rewards).sum(), actions))
    assert bool(gradient.isfinite().all()) and bool((gradient.norm(dim=-1) > 0).all())


def test_equal_seeds_give_equal_starts(name: str) -> None:
    env = CREATORS[name]()
    one, two, three = (leaves(env.initial(5, torch.Generator().manual_seed(s))) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_a_picture(name: str) -> None:
    env = CREATORS[name]()
    states = random_states(env, 10)
    first, later = env.render(states[0], 1), env.render(states[-1], 1)
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8
    assert bool((first != later).any()) and bool((first != env.render(states[0], 2)).any())
