"""Simulators as differentiable environments, by finite differences."""

import gc
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.adapters.gymnasium.adapter import finite_difference
from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference, SimulatedState
from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.states import map_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

Step = tuple[NDArray[Any], float, bool, bool, dict[str, Any]]


class Slide(gymnasium.Env[NDArray[Any], NDArray[Any]]):
    """``x' = x + 0.1 a``; reward ``|x'|`` or ``x'^2``; ends beyond ``bound``."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, kink: bool = False, bound: float = np.inf) -> None:
        self.kink, self.bound = kink, bound

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.1, 0.1, 1)
        return self.state, {}

    def step(self, action: NDArray[Any]) -> Step:
        self.state = self.state + 0.1 * action
        x = float(self.state[0])
        return self.state, abs(x) if self.kink else x * x, abs(x) > self.bound, False, {}


def pendulum() -> FiniteDifference:
    return finite_difference(lambda: gymnasium.make("Pendulum-v1"))


def slide(limit: int = 50, **kwargs: Any) -> FiniteDifference:
    return finite_difference(lambda: Slide(**kwargs), max_episode_steps=limit)


def pendulum_pair(num_envs: int) -> tuple[FiniteDifference, SimulatedState, Tensor]:
    """The adapter, its state, and the same state ``[N, 2]`` for the analytic environment."""
    env = pendulum()
    state = env.initial(num_envs, torch.Generator().manual_seed(0))
    analytic = state.saved.view(torch.float64)[:, :2].clone()
    return env, state, analytic


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def test_one_step_s_gradients_against_the_analytic_pendulum() -> None:
    env, state, analytic = pendulum_pair(20)
    generator = torch.Generator().manual_seed(1)
    given = 4 * torch.rand(20, 1, generator=generator, dtype=torch.float64) - 2
    action = given.clone().requires_grad_()
    state = state._replace(tangent=state.tangent.requires_grad_())
    theirs_state, theirs = analytic.requires_grad_(), given.clone().requires_grad_()
    after, exact = env.transition(state, action, None), Pendulum()
    exact_after = exact.transition(theirs_state, theirs, None)
    observed = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    moved = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    pairs = [
        (after.reward.sum(), exact.reward(theirs_state, theirs, exact_after).sum(), 1e-6),
        ((moved * after.tangent).sum(), (moved * exact_after).sum(), 1e-6),
        (
            (observed * after.observation).sum(),
            (observed * exact.observation(exact_after)).sum(),
            1e-3,
        ),
    ]
    for found, truth, tolerance in pairs:
        ours = torch.autograd.grad(
            found, (state.tangent, action), retain_graph=True, allow_unused=True
        )
        other = torch.autograd.grad(truth, (theirs_state, theirs), retain_graph=True)
        for a, b in zip(ours, other, strict=True):
            assert a is not None and relative(a, b) < tolerance


@pytest.mark.parametrize("horizon", [8, 32])
def test_the_gradient_of_a_return_against_the_analytic_pendulum(horizon: int) -> None:
    env, state, analytic = pendulum_pair(6)
    exact = Pendulum()
    generator = torch.Generator().manual_seed(1)
    given = torch.rand(horizon, 6, 1, generator=generator, dtype=torch.float64) - 0.5
    actions, theirs = given.clone().requires_grad_(), given.clone().requires_grad_()
    returns, exact_returns = torch.zeros(6).double(), torch.zeros(6).double()
    for step in range(horizon):
        after = env.transition(state, actions[step], None)
        returns = returns + env.reward(state, actions[step], after)
        exact_after = exact.transition(analytic, theirs[step], None)
        exact_returns = exact_returns + exact.reward(analytic, theirs[step], exact_after)
        state, analytic = after, exact_after
    assert torch.allclose(returns, exact_returns, atol=1e-9)
    (found,) = torch.autograd.grad(returns.sum(), actions)
    (truth,) = torch.autograd.grad(exact_returns.sum(), theirs)
    assert relative(found, truth) < 1e-6
    assert env.metrics()["environment/flagged_steps"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_trajectory_is_the_plain_environment_s_to_the_bit(dtype: torch.dtype) -> None:
    venv = DifferentiableVectorEnv(pendulum(), 2, dtype=dtype)
    observation, _ = venv.reset(seed=3)
    seeds = torch.randint(2**31 - 1, (2,), generator=torch.Generator().manual_seed(3)).tolist()
    plain = [gymnasium.make("Pendulum-v1", disable_env_checker=True) for _ in seeds]
    for env, seed, row in zip(plain, seeds, observation, strict=True):
        assert torch.equal(torch.from_numpy(env.reset(seed=seed)[0]).to(dtype), row)
    generator = torch.Generator().manual_seed(0)
    for _ in range(199):
        actions = 5 * torch.rand(2, 1, generator=generator, dtype=dtype) - 2.5
        observation, reward, *_ = venv.step(actions.clone().requires_grad_())
        for row, env in enumerate(plain):
            obs, gained, *_ = env.step(actions[row].numpy().copy())
            assert torch.equal(observation[row].detach(), torch.from_numpy(obs).to(dtype))
            assert reward[row].item() == torch.tensor(gained, dtype=dtype).item()
    *_, truncated, _ = venv.step(torch.zeros(2, 1))
    assert truncated.all()


def test_a_second_backward_pass_gives_the_same_and_a_second_derivative_is_refused() -> None:
    env = pendulum()
    state = env.initial(3, torch.Generator().manual_seed(0))
    action = torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True)
    first = env.transition(state, action, None)
    loss = env.transition(first, action, None).reward.sum()
    a, b = (torch.autograd.grad(loss, action, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(a, b)
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, action, create_graph=True)


class Counting:
    """Central differences that record the number of rows of each call."""

    def __init__(self, env: FiniteDifference) -> None:
        self.inner, self.rows = CentralDifferences(env.simulator), list[int]()

    def __call__(self, saved: Array, action: Array) -> Linearization:
        self.rows.append(len(saved))
        return self.inner(saved, action)


def test_nothing_is_differenced_where_no_gradient_arrives() -> None:
    plain = slide()
    counting = Counting(plain)
    env = FiniteDifference(plain.simulator, counting)
    state = env.initial(4, torch.Generator().manual_seed(0))
    action = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        assert not env.transition(state, action, None).tangent.requires_grad
    after = env.transition(state, action, None)
    assert counting.rows == [] and env.metrics() == {}
    assert not after.saved.requires_grad and not after.terminated.requires_grad
    weight = torch.tensor([0.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weight * after.reward).sum(), action)
    assert counting.rows == [2]
    truth = weight * 2 * state.observation[:, 0] * 0.1
    assert torch.allclose(gradient[:, 0], truth, atol=1e-9)


def test_a_token_moves_the_state() -> None:
    env = slide()
    state = env.initial(2, torch.Generator().manual_seed(0))
    action = torch.zeros(2, 1, dtype=torch.float64)
    tangent = torch.tensor([[0.25], [0.0]], dtype=torch.float64)
    moved = env.transition(state._replace(tangent=tangent), action, None)
    assert torch.equal(moved.observation, state.observation + tangent)


def test_a_kink_is_flagged_and_a_smooth_step_is_not() -> None:
    for kink in (False, True):
        env = slide(kink=kink)
        state = env.initial(2, torch.Generator().manual_seed(0))
        saved = state.saved.view(torch.float64).clone()
        saved[:, 0] = torch.tensor([0.0, 0.5])
        action = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
        after = env.transition(state._replace(saved=saved.view(torch.int64)), action, None)
        after.reward.sum().backward()  # type: ignore[no-untyped-call]
        found = env.metrics()
        assert found["environment/flagged_steps"] == (0.5 if kink else 0.0)
        assert (found["environment/worst_disagreement"] > 0.1) == kink
        assert env.metrics() == {}


def test_a_derivative_that_is_not_known_to_1e_5_is_flagged() -> None:
    """Although it does not disagree with a longer step."""
    env = slide()
    saved = np.stack([env.simulator.reset(seed)[0] for seed in range(2)])

    def linearize(saved: Array, action: Array) -> Linearization:
        found = CentralDifferences(env.simulator)(saved, action)
        return found._replace(error=np.array([2e-5, 0.9e-5]))

    env.linearize = linearize
    env.jacobians(saved, np.zeros((2, 1)))
    found = env.metrics()
    assert found["environment/flagged_steps"] == 0.5
    assert found["environment/worst_error"] == pytest.approx(2e-5)
    assert found["environment/worst_disagreement"] < 0.05


def test_survivors_keep_their_gradient_when_others_start_anew() -> None:
    venv = DifferentiableVectorEnv(slide(bound=0.3), 3, dtype=torch.float64)
    start, _ = venv.reset(seed=0)
    actions = torch.tensor([[0.1], [9.0], [0.2]], dtype=torch.float64).requires_grad_()
    observation, reward, terminated, _, info = venv.step(actions)
    assert terminated.tolist() == [False, True, False]
    assert abs(observation[1]) <= 0.1 and abs(info["final_obs"][1]) > 0.3
    _, second, *_ = venv.step(torch.zeros(3, 1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(second.sum(), actions, retain_graph=True)
    truth = 2 * (start + 0.1 * actions.detach()) * 0.1
    assert torch.allclose(gradient[[0, 2]], truth[[0, 2]], atol=1e-8)
    assert gradient[1] == 0
    # The reward of the step that ended it still has its own.
    (last,) = torch.autograd.grad(reward.sum(), actions)
    assert torch.allclose(last, truth, atol=1e-8)


def test_reset_draws_new_starts_for_its_rows_only() -> None:
    env = slide()
    state = env.initial(4, torch.Generator().manual_seed(0))
    mask = torch.tensor([True, False, True, True])
    fresh = env.reset_where(state, mask, torch.Generator().manual_seed(1))
    kept = zip(fresh, state, strict=True)
    assert all(torch.equal(a[~mask], b[~mask]) for a, b in kept)
    starts = torch.cat([fresh.observation[mask], state.observation]).flatten().tolist()
    assert len(set(starts)) == 7
    assert torch.equal(fresh.saved.view(torch.float64)[:, :1], fresh.observation)


def test_a_vector_environment_resumes_to_the_bit() -> None:
    one, other = (DifferentiableVectorEnv(slide(bound=0.15), 4) for _ in range(2))
    one.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(40, 4, 1, generator=generator)
    for action in actions[:20]:
        one.step(action)
    other.set_state(tuple(one.get_state()))
    ends = 0
    for action in actions[20:]:
        a, b = one.step(action), other.step(action)
        assert all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
        ends += int(a[2].sum())
    assert ends > 0


def test_an_agent_trains_in_single_precision() -> None:
    env = pendulum()
    agent = Shac(ShacConfig(num_envs=8, n_steps=8), DifferentiableVectorEnv(env, 8))
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    for _ in range(2):
        agent.update(agent.collect())
    after = list(agent.policy.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert env.gradient.action == "approximate" and env.gradient.method == "finite differences"


def test_memory_is_flat_over_windows() -> None:
    venv = DifferentiableVectorEnv(slide(limit=3), 1)
    venv.reset(seed=0)

    def windows(count: int) -> tuple[int, int]:
        for _ in range(count):
            venv.detach()
            action = torch.zeros(1, 1, requires_grad=True)
            torch.autograd.grad(venv.step(action)[1].sum(), action)
        gc.collect()
        return sys.getallocatedblocks(), len(gc.get_objects())

    (blocks, objects), (blocks_after, objects_after) = windows(100), windows(1000)
    # A step that stayed would be two objects of the graph and several blocks of memory at the
    # least; pools of freed objects still fill up a little.
    assert blocks_after - blocks < 2000
    assert objects_after - objects < 1000


def test_states_keep_what_a_cast_would_round() -> None:
    env = pendulum()
    state = env.initial(2, torch.Generator().manual_seed(0))
    single = map_state(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, state)
    assert single.tangent.dtype == torch.float32
    a = env.transition(state, torch.zeros(2, 1, dtype=torch.float64), None)
    b = env.transition(single, torch.zeros(2, 1, dtype=torch.float64), None)
    assert torch.equal(a.saved, b.saved) and b.reward.dtype == torch.float32


def test_the_step_can_be_chosen_and_must_be_positive() -> None:
    env = finite_difference(lambda: Slide(), max_episode_steps=5, step=1e-4)
    assert isinstance(env.linearize, CentralDifferences)
    assert env.linearize.steps.reward == env.linearize.steps.state == 1e-4
    with pytest.raises(RequestError, match="positive"):
        finite_difference(lambda: Slide(), max_episode_steps=5, step=0.0)


def test_a_simulator_of_ones_own() -> None:
    simulator = GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1"))
    env = FiniteDifference(simulator, tolerance=0.5)
    assert env.max_episode_steps == 200 and env.action_space == simulator.action_space
