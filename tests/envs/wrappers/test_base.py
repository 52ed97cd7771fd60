"""Wrappers in general: delegation, nesting, and training through them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.envs.wrappers.observation_detach import ObservationDetach
from pgtoolkit.envs.wrappers.smoothing_bundle import SmoothingBundle
from pgtoolkit.envs.wrappers.surrogate_cost import SurrogateCost

Make = Callable[[DifferentiableEnv], DifferentiableWrapper]


def effort(state: Any, action: Tensor, next_state: Any) -> Tensor:
    return action.square().sum(-1) + torch.sin(next_state[:, 0])


WRAPPERS: dict[str, Make] = {
    "plain": DifferentiableWrapper,
    "gate": lambda env: GradientGate(env, clip_norm=1.0, decay=0.9, drop_nonfinite=True),
    "detach": ObservationDetach,
    "bundle": lambda env: SmoothingBundle(env, branches=3, action_std=0.1, state_std=0.1),
    "repeat": lambda env: ActionRepeat(env, 2),
    "surrogate": lambda env: SurrogateCost(env, effort),
    "all": lambda env: GradientGate(
        ActionRepeat(SurrogateCost(SmoothingBundle(ObservationDetach(env), 2, 0.1), effort), 2), 5.0
    ),
}
SAME_DRAWS = ("plain", "gate", "detach", "surrogate")
"""Wrappers without noise of their own: a seed gives the inner environment's values."""


def lqg_effort(state: Any, action: Tensor, next_state: Any) -> Tensor:
    return effort(state.position, action, next_state.position)


def episode(env: DifferentiableEnv, steps: int = 12, dtype: torch.dtype = torch.float32) -> Any:
    """Rewards, observations, ends and last observations of random actions, with resets within."""
    vector = DifferentiableVectorEnv(env, 4, dtype=dtype)
    vector.reset(seed=3)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(steps):
        action = torch.randn(4, *env.action_space.shape, generator=generator).requires_grad_()
        *result, info = vector.step(action)
        found += [*result, *info.values()]
    return [x.detach() for x in found]


@pytest.mark.parametrize("name", SAME_DRAWS)
def test_values_are_the_inner_environments_to_the_bit(name: str) -> None:
    """Episodes of five steps, process noise and starts included."""
    env = LQG(horizon=5)
    wrap = WRAPPERS[name] if name != "surrogate" else lambda env: SurrogateCost(env, lqg_effort)
    plain, wrapped = episode(env), episode(wrap(env))
    assert len(plain) == len(wrapped)
    assert all(torch.equal(a, b) for a, b in zip(plain, wrapped, strict=True))


@pytest.mark.parametrize("order", list(itertools.permutations(("gate", "detach", "surrogate"))))
def test_values_are_the_same_in_any_composition(order: tuple[str, ...]) -> None:
    env: DifferentiableEnv = Pendulum()
    for name in order:
        env = WRAPPERS[name](env)
    pairs = zip(episode(Pendulum()), episode(env), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", SAME_DRAWS)
def test_the_numpy_view_is_the_inner_environments_to_the_bit(name: str) -> None:
    """A wrapper passes on Pendulum's own NumPy start, action and reward."""
    views = [NumpyEnv(env, dtype=torch.float64) for env in (Pendulum(), WRAPPERS[name](Pendulum()))]
    starts = [view.reset(seed=5)[0] for view in views]
    assert np.array_equal(starts[0], starts[1])
    for action in np.random.default_rng(0).uniform(-3, 3, (50, 1)).astype(np.float32):
        one, other = (view.step(action) for view in views)
        assert np.array_equal(one[0], other[0]) and one[1:] == other[1:]


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "plain"])
def test_an_agent_trains_through_it(name: str) -> None:
    """Two updates of SHAC: finite metrics, changed parameters, and the wrapper's own curves."""
    env = DifferentiableVectorEnv(WRAPPERS[name](Pendulum()), 6)
    agent = Shac(ShacConfig(num_envs=6, n_steps=8, hidden=(8,), diagnostics_interval=0), env)
    before = [p.detach().clone() for p in agent.policy.parameters()]
    metrics: dict[str, Tensor] = {}
    for _ in range(2):
        metrics = agent.update(agent.collect())
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    after = agent.policy.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    if name in ("gate", "all"):
        assert float(metrics["environment/gate_largest_norm"]) > 0
    if name in ("surrogate", "all"):
        assert -1 <= float(metrics["environment/surrogate_correlation"]) <= 1


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_environment_goes_on_from_a_saved_state(name: str) -> None:
    """The state may be plain tuples, as from a checkpoint; noise, starts and limits agree too."""
    env = WRAPPERS[name](Pendulum())
    env.max_episode_steps = 3
    actions = torch.randn(8, 4, 1, generator=torch.Generator().manual_seed(1))
    source, other = DifferentiableVectorEnv(env, 4), DifferentiableVectorEnv(env, 4)
    source.reset(seed=0)
    source.step(actions[0])
    state, *clock = source.get_state()
    other.set_state((state if isinstance(state, Tensor) else tuple(state), *clock))
    for action in actions:
        one, two = source.step(action), other.step(action)
        assert all(torch.equal(a, b) for a, b in zip(one[:4], two[:4], strict=True))


class Hooks(DifferentiableEnv[Tensor]):
    """An environment that records which methods are called."""

    observation_space, action_space = Pendulum().observation_space, Pendulum().action_space
    max_episode_steps = 7

    def __init__(self) -> None:
        self.called: list[str] = []

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 3)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + action

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state.sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0] > 100

    def reset_where(self, state: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        self.called.append("reset_where")
        return torch.where(mask.unsqueeze(-1), 9.0, state)

    def begin_window(self) -> None:
        self.called.append("begin_window")

    def metrics(self) -> dict[str, Tensor]:
        return {"environment/hooks": torch.tensor(float(len(self.called)))}

    def state_dict(self) -> dict[str, Any]:
        return {"learned": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.called.append(f"load {state['learned']}")


@pytest.mark.parametrize("name", WRAPPERS)
def test_hooks_reach_the_inner_environment(name: str) -> None:
    inner = Hooks()
    env = WRAPPERS[name](inner)
    vector = DifferentiableVectorEnv(env, 2)
    vector.reset(seed=0)
    vector.detach()
    after, _ = vector.reset(options={"reset_mask": np.array([True, False])})
    assert after.tolist() == [[9.0] * 3, [0.0] * 3]
    env.load_state_dict(env.state_dict())
    assert inner.called == ["begin_window", "reset_where", "load 3"]
    assert env.metrics()["environment/hooks"] == 3
    assert env.unwrapped is inner


@pytest.mark.parametrize("name", WRAPPERS)
def test_it_draws_what_the_inner_environment_draws(name: str) -> None:
    env = WRAPPERS[name](Pendulum())
    (picture,) = _started(env).render()
    (expected,) = _started(Pendulum()).render()
    assert np.array_equal(picture, expected)


def _started(env: DifferentiableEnv) -> DifferentiableVectorEnv:
    vector = DifferentiableVectorEnv(env, 1)
    vector.reset(seed=0)
    return vector
