"""Compiled steps give the window and the gradients of plain ones."""

import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import gymnasium
import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.compiling import MAX_O3_OPERATIONS
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.compiled.lookahead import look_ahead
from pgtoolkit.envs.compiled.policy_step import trace_policy_step
from pgtoolkit.envs.compiled.rollout import CompiledUnroll, unroll_compiled
from pgtoolkit.envs.compiled.scan import CompiledScan
from pgtoolkit.envs.compiled.segment import CompiledStep
from pgtoolkit.envs.compiled.step_graph import StepGraph
from pgtoolkit.envs.control.cart_pole import CartPole
from pgtoolkit.envs.control.hopper import Hopper2D
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.surrogates import pathwise_surrogate, score_function_surrogate
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import RolloutState, reset, unroll
from pgtoolkit.rollouts.window import Window
from pgtoolkit.scripts.cli.registry import registered_env_ids

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
Tensors = list[Tensor]


def python_loop_scan(graph: StepGraph) -> CompiledScan:
    """A :class:`CompiledScan` whose loops run in Python, so that nothing is compiled."""
    with mock.patch("pgtoolkit.envs.compiled.scan.CompiledLoop", run_in_python):
        return CompiledScan(graph)


def run_in_python(function: Callable[..., Any], num_operations: int = 0) -> Callable[..., Any]:
    def run(*arguments: Any, free: Any) -> Any:
        with mock.patch("torch._higher_order_ops.scan.scan", python_scan):
            return function(*arguments)

    return run


def python_scan(step: Callable[..., Any], carry: Tensors, xs: Tensors | Tensor) -> Any:
    rows = []
    for x in zip(*xs, strict=True) if isinstance(xs, list) else xs:
        carry, results = step(carry, list(x) if isinstance(xs, list) else x)
        rows.append(results)
    return carry, [torch.stack(column) for column in zip(*rows, strict=True)]


def suite_env(name: str) -> DifferentiableEnv[Any]:
    env = gymnasium.make(name).unwrapped
    assert isinstance(env, NumpyEnv)
    return env.env


def make(
    env: DifferentiableEnv[Any], dtype: torch.dtype, num_envs: int = 5
) -> tuple[DifferentiableVectorEnv, Policy, RolloutState]:
    vector = DifferentiableVectorEnv(env, num_envs, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    policy = GaussianPolicy(
        env.observation_space,
        env.action_space,
        (8, 8),
        normalize_observations=True,
        generator=generator,
    ).to(dtype)
    rollout_state = reset(vector, seed=0, device=vector.device)
    # Not start states: some components have variance 0, and dividing would amplify rounding errors.
    observed = torch.randn(20, num_envs, rollout_state.obs.shape[-1], generator=generator)
    policy.normalizer.update(observed.to(dtype), torch.ones(20, num_envs, dtype=torch.bool))
    return vector, policy, rollout_state


def noise_of(policy: Policy, steps: int, num_envs: int, dtype: torch.dtype) -> Tensor:
    drawn = policy.draw_noise(steps, num_envs, generator=torch.Generator().manual_seed(1))
    return drawn.to(dtype)


def gradients(policy: Policy, window: Window) -> dict[str, Tensor]:
    """Gradients of an objective and of both surrogates, and the fields of the window."""
    assert window.action_shift is not None
    objective = (window.reward.sum(0) + window.next_obs[-1].sum(-1)).mean()
    wanted = [window.action_shift, *policy.parameters()]
    found = torch.autograd.grad(objective, wanted, retain_graph=True, allow_unused=True)
    (by_action,) = torch.autograd.grad(objective, window.action_shift)
    results = {f"objective {i}": torch.zeros(()) if g is None else g for i, g in enumerate(found)}
    plain = window.detach()
    for name, surrogate in (
        ("pathwise", pathwise_surrogate(policy, plain, by_action)),
        ("score function", score_function_surrogate(policy, plain, plain.reward)),
    ):
        parts = torch.autograd.grad(surrogate.mean(), list(policy.parameters()))
        results |= {f"{name} {i}": g for i, g in enumerate(parts)}
    fields = ("obs", "next_obs", "pre_action", "action", "log_prob", "reward")
    return results | {name: getattr(plain, name) for name in fields}


def require_alike(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    """Differences are at most ``tolerance`` times the largest entry of a gradient or field."""
    scale: dict[str, float] = {}
    for name, x in b.items():
        group = name.rstrip(" 0123456789")
        scale[group] = max(scale.get(group, 0.0), x.abs().max().item())
    for name in a:
        worst = (a[name] - b[name]).abs().max().item()
        most = tolerance * scale[name.rstrip(" 0123456789")]
        assert worst <= most, f"{name} is {worst} off, more than {most}"


def uncompiled_step(env: DifferentiableVectorEnv, policy: Policy, noise: Tensor) -> CompiledStep:
    state = env.get_state()
    process = [x[0] for x in look_ahead(env, state, 1).process_noise]
    traced = trace_policy_step(env.env, policy, state.state, noise[0], *process)
    return CompiledStep.of(traced, python_loop_scan(traced.graph), policy)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", registered_env_ids())
def test_the_traced_step_is_the_plain_one_for_every_environment(
    name: str, dtype: torch.dtype
) -> None:
    env, policy, rollout_state = make(suite_env(name), dtype)
    noise = noise_of(policy, 6, 5, dtype)
    before = env.get_state()
    step = uncompiled_step(env, policy, noise)
    found, end = unroll_compiled(step, env, rollout_state, noise)
    env.set_state(before)
    expected, expected_end = unroll(env, policy, rollout_state, noise)
    require_alike(gradients(policy, found), gradients(policy, expected), TOLERANCE[dtype])
    assert torch.allclose(end.obs, expected_end.obs, atol=1e-5)


@pytest.mark.parametrize("steps", [30, 45])
def test_ends_of_episodes_come_as_in_the_plain_rollout(steps: int) -> None:
    """CartPole's episodes end by falling; both rollouts must reset with the same random numbers."""
    env, policy, rollout_state = make(CartPole(), torch.float64, 7)
    noise = 3 * noise_of(policy, steps, 7, torch.float64)
    before = env.get_state()
    step = uncompiled_step(env, policy, noise)
    found, end = unroll_compiled(step, env, rollout_state, noise)
    after = env.get_state()
    env.set_state(before)
    expected, expected_end = unroll(env, policy, rollout_state, noise)
    assert expected.terminated.any()
    for name in ("terminated", "truncated", "episode_start", "valid"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    require_alike(gradients(policy, found), gradients(policy, expected), 1e-9)
    torch.testing.assert_close(end.obs, expected_end.obs)
    torch.testing.assert_close(after, env.get_state())


@pytest.mark.parametrize("dynamics", [Pendulum(), LQG(W=0.1, horizon=200), CartPole()])
def test_time_limits_come_as_in_the_plain_rollout(dynamics: DifferentiableEnv[Any]) -> None:
    env, policy, rollout_state = make(dynamics, torch.float64)
    state, limit = env.get_state(), dynamics.max_episode_steps
    env.set_state(state._replace(elapsed=torch.tensor([-1, -3, -10, -3, -16]) + limit))
    before, noise = env.get_state(), noise_of(policy, 16, 5, torch.float64)
    step = uncompiled_step(env, policy, noise)
    found, _ = unroll_compiled(step, env, rollout_state, noise)
    env.set_state(before)
    expected, _ = unroll(env, policy, rollout_state, noise)
    assert expected.truncated.sum() == 5
    for name in ("terminated", "truncated", "episode_start"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    require_alike(gradients(policy, found), gradients(policy, expected), 1e-10)


def test_the_current_normaliser_and_parameters_are_used() -> None:
    env, policy, rollout_state = make(Pendulum(), torch.float64)
    noise = noise_of(policy, 4, 5, torch.float64)
    before = env.get_state()
    step = uncompiled_step(env, policy, noise)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    policy.normalizer.update(rollout_state.obs.unsqueeze(0) + 1, torch.ones(1, 5, dtype=torch.bool))
    found, _ = unroll_compiled(step, env, rollout_state, noise)
    env.set_state(before)
    expected, _ = unroll(env, policy, rollout_state, noise)
    require_alike(gradients(policy, found), gradients(policy, expected), 1e-10)


def test_parameters_that_change_before_the_backward_pass_are_noticed() -> None:
    env, policy, rollout_state = make(Pendulum(), torch.float64)
    noise = noise_of(policy, 4, 5, torch.float64)
    window, _ = unroll_compiled(uncompiled_step(env, policy, noise), env, rollout_state, noise)
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(window.reward.sum(), list(policy.parameters()))


def test_a_second_derivative_is_refused() -> None:
    env, policy, rollout_state = make(Pendulum(), torch.float64)
    noise = noise_of(policy, 4, 5, torch.float64)
    window, _ = unroll_compiled(uncompiled_step(env, policy, noise), env, rollout_state, noise)
    assert window.action_shift is not None
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(window.reward.sum(), window.action_shift, create_graph=True)


def test_a_policy_with_a_layer_that_has_no_rule_gets_its_gradient() -> None:
    env, policy, rollout_state = make(Pendulum(), torch.float64)
    assert isinstance(policy.torso, nn.Sequential)
    policy.torso.append(Scale())
    policy.double()
    noise = noise_of(policy, 6, 5, torch.float64)
    before = env.get_state()
    step = uncompiled_step(env, policy, noise)
    assert not step.traced.layers_have_all_parameters
    found, _ = unroll_compiled(step, env, rollout_state, noise)
    env.set_state(before)
    expected, _ = unroll(env, policy, rollout_state, noise)
    require_alike(gradients(policy, found), gradients(policy, expected), 1e-10)


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Impure(DifferentiableEnv[Tensor]):
    """A pendulum whose gravity grows with every call of ``transition``."""

    max_episode_steps = 200

    def __init__(self) -> None:
        self.inner, self.calls = Pendulum(), 0
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return self.inner.initial(num_envs, generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.calls += 1
        self.inner.g = 10.0 + self.calls
        return self.inner.transition(state, action, noise)

    def observation(self, state: Tensor) -> Tensor:
        return self.inner.observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.inner.reward(state, action, next_state)

    def terminal(self, state: Tensor) -> Tensor:
        return self.inner.terminal(state)


class Reading(Impure):
    """A pendulum whose gravity is a number read out of the state tensor."""

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.inner.g = 10.0 + float(state[0, 0])
        return self.inner.transition(state, action, noise)


@pytest.fixture
def _python_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``CompiledUnroll`` runs its loops in Python."""
    monkeypatch.setattr("pgtoolkit.envs.compiled.rollout.CompiledScan", python_loop_scan)
    yield


@pytest.mark.usefixtures("_python_loops")
@pytest.mark.parametrize(
    ("env", "message"), [(Impure(), "differ from plain ones"), (Reading(), "are not compiled")]
)
def test_what_cannot_be_compiled_is_said_once_and_runs(
    env: DifferentiableEnv[Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    vector, policy, rollout_state = make(env, torch.float32)
    noise, roll = noise_of(policy, 4, 5, torch.float32), CompiledUnroll()
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        for _ in range(3):
            window, rollout_state = roll(vector, policy, rollout_state, noise)
    assert [message in record.message for record in caplog.records] == [True]
    assert window.differentiable


@pytest.mark.usefixtures("_python_loops")
def test_compiling_leaves_the_environment_where_it_was() -> None:
    env, policy, rollout_state = make(LQG(W=0.1), torch.float64)
    noise, before = noise_of(policy, 5, 5, torch.float64), env.get_state()
    found, _ = CompiledUnroll()(env, policy, rollout_state, noise)
    env.set_state(before)
    expected, _ = unroll(env, policy, rollout_state, noise)
    torch.testing.assert_close(found.reward, expected.reward)


def test_with_many_trajectories_a_product_for_each_step_gives_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgtoolkit.envs.compiled.segment.MIN_ENVS_FOR_STEP_PRODUCTS", 5)
    env, policy, rollout_state = make(CartPole(), torch.float64)
    noise, before = noise_of(policy, 6, 5, torch.float64), env.get_state()
    found, _ = unroll_compiled(uncompiled_step(env, policy, noise), env, rollout_state, noise)
    env.set_state(before)
    expected, _ = unroll(env, policy, rollout_state, noise)
    require_alike(gradients(policy, found), gradients(policy, expected), 1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_longest_steps_are_compiled_with_o2_in_either_precision(
    dtype: torch.dtype,
) -> None:
    """In float64 a step has fewer operations, because tanh is not replaced by polynomials."""
    env, policy, _ = make(Hopper2D(), dtype)
    traced = uncompiled_step(env, policy, noise_of(policy, 1, 5, dtype)).traced
    with mock.patch("pgtoolkit.envs.compiled.scan.CompiledLoop") as loop:
        CompiledScan(traced.graph)
    assert all(call.args[1] > MAX_O3_OPERATIONS for call in loop.call_args_list)
    assert loop.call_count == 4


# torch's compiler uses what torch itself has deprecated.


def test_the_compiled_loop_on_two_lengths_and_a_length_of_one() -> None:
    """The only test here that runs the compiler; the slow ones run it on every environment."""
    require_compiled(LQG(W=0.1), torch.float64, lengths=(6, 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", registered_env_ids())
def test_the_compiled_step_is_the_plain_one_for_every_environment(
    name: str, dtype: torch.dtype
) -> None:
    require_compiled(suite_env(name), dtype, lengths=(6,))


def require_compiled(
    env: DifferentiableEnv[Any], dtype: torch.dtype, lengths: tuple[int, ...]
) -> None:
    vector, policy, rollout_state = make(env, dtype)
    traced = uncompiled_step(vector, policy, noise_of(policy, 1, 5, dtype)).traced
    step = CompiledStep.of(traced, CompiledScan(traced.graph), policy)
    for length in lengths:
        noise, before = noise_of(policy, length, 5, dtype), vector.get_state()
        found, end = unroll_compiled(step, vector, rollout_state, noise)
        vector.set_state(before)
        expected, rollout_state = unroll(vector, policy, rollout_state, noise)
        require_alike(gradients(policy, found), gradients(policy, expected), TOLERANCE[dtype])
        torch.testing.assert_close(end.obs, rollout_state.obs)
