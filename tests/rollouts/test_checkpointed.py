"""Gradient checkpointing: same window and gradient, memory grows as the root of the horizon."""

import dataclasses
import functools
import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.envs.wrappers.smoothing_bundle import SmoothingBundle
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.surrogates import action_gradient, pathwise_surrogate, window_objective
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.checkpointed import choose_unroll, unroll_in_segments
from pgtoolkit.rollouts.rollout import RolloutState, reset, unroll
from pgtoolkit.rollouts.window import Window

NUM_ENVS, STEPS = 4, 19
CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


class Parts(NamedTuple):
    position: Tensor
    mass: Tensor
    time: Tensor


class Drift(DifferentiableEnv[Any]):
    """A state of three tensors: one that moves, one that never changes, and an integer.

    Terminal beyond 1.5, so that episodes end inside segments and on their borders.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 6
    noise_shape = (1,)

    def initial(self, num_envs: int, generator: torch.Generator) -> Parts:
        mass = 1 + torch.rand(num_envs, generator=generator)
        position = torch.randn(num_envs, 1, generator=generator) / 4
        return Parts(position, mass, torch.zeros(num_envs, dtype=torch.int64))

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Parts:
        assert noise is not None
        push = action / state.mass.unsqueeze(-1) + 0.2 * noise
        return Parts(state.position + torch.sin(state.position) + push, state.mass, state.time + 1)

    def observation(self, state: Any) -> Tensor:
        return torch.cat([state.position, state.position.cos()], -1)

    def reward(self, state: Any, action: Tensor, next_state: Any) -> Tensor:
        reward: Tensor = -next_state.position.square().sum(-1) - next_state.time / 7
        return reward

    def terminal(self, state: Any) -> Tensor:
        over: Tensor = state.position[:, 0].abs() > 1.5
        return over


ENVS: dict[str, Callable[[], DifferentiableEnv]] = {
    "noise and ends": lambda: LQG(horizon=5),
    "observation is the angle's": Pendulum,
    "three tensors": Drift,
    "gated": lambda: GradientGate(Drift(), clip_norm=0.5, decay=0.9),
    "bundle": lambda: SmoothingBundle(Pendulum(), 2, 0.1),
    "repeat": lambda: ActionRepeat(Drift(), 2),
}

RolledWindow = tuple[Window, RolloutState, tuple[Tensor, ...], Any]


def policy_for(env: DifferentiableEnv, dtype: torch.dtype) -> Policy:
    return GaussianPolicy(env.observation_space, env.action_space, hidden=(8,)).to(dtype)


def noise_of(steps: int, dtype: torch.dtype, num_envs: int = NUM_ENVS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(steps, num_envs, 1, generator=generator, dtype=dtype)


def rolled(
    env: DifferentiableEnv, roll: Callable[..., Any], dtype: torch.dtype, windows: int = 2
) -> RolledWindow:
    """Rolls some windows.

    Returns:
        The last window, the rollout state after it, the gradient of an objective of all its fields
        with respect to actions and parameters, and the environment's state.
    """
    vector, policy = DifferentiableVectorEnv(env, NUM_ENVS, dtype=dtype), policy_for(env, dtype)
    rollout_state, noise = reset(vector, seed=0, device=CPU), noise_of(STEPS, dtype)
    for _ in range(windows):
        window, rollout_state = roll(vector, policy, rollout_state, noise)
    assert window.action_shift is not None
    value = torch.tanh(window.next_obs).sum(-1)
    objective = window_objective(window, value, 0.9) + window.action.square().sum((0, 2))
    # The objective also depends on the observations directly, not only through the actions.
    objective = objective + 0.1 * window.obs.sum((0, 2))
    leaves = [window.action_shift, *policy.parameters()]
    gradients = torch.autograd.grad(objective.sum(), leaves)
    return window, rollout_state, gradients, vector.get_state()


def in_segments(length: int | None) -> Callable[..., Any]:
    return functools.partial(unroll_in_segments, segment_length=length)


def leaves_of(state: Any) -> list[Tensor]:
    inner = [state.state] if isinstance(state.state, Tensor) else list(state.state)
    return [*inner, state.elapsed, state.generator_state]


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize(
    ("length", "dtype"),
    [(None, torch.float32), (None, torch.float64), (1, torch.float64), (100, torch.float64)],
)
def test_window_and_gradient_are_those_of_unroll(
    name: str, dtype: torch.dtype, length: int | None
) -> None:
    """The window to the bit; the gradient by the actions and by every parameter up to rounding.

    Episodes end within segments and on their borders, and the last segment is shorter.
    """
    window, rollout_state, expected, end = rolled(ENVS[name](), unroll, dtype)
    again, other, found, final = rolled(ENVS[name](), in_segments(length), dtype)
    for field in dataclasses.fields(Window):
        a, b = getattr(window, field.name), getattr(again, field.name)
        if a is not None or b is not None:
            assert torch.equal(a, b) and a.requires_grad == b.requires_grad, field.name
    assert torch.equal(rollout_state.obs, other.obs) and torch.equal(
        rollout_state.episode_start, other.episode_start
    )
    assert all(torch.equal(a, b) for a, b in zip(leaves_of(end), leaves_of(final), strict=True))
    if name in ("noise and ends", "three tensors", "gated"):
        assert 4 < int(window.done.sum()) < STEPS * NUM_ENVS / 2
    for a, b in zip(expected, found, strict=True):
        error = float((a - b).abs().max()) / float(a.abs().max())
        assert error < TOLERANCE[dtype]


def test_the_gate_counts_each_adjoint_once() -> None:
    """Recomputed steps are not counted again: each step is differentiated once."""
    plain, again = (GradientGate(Drift(), clip_norm=0.5) for _ in range(2))
    rolled(plain, unroll, torch.float64)
    rolled(again, in_segments(None), torch.float64)
    expected, found = plain.metrics(), again.metrics()
    assert plain._rows_seen == again._rows_seen
    for tag, value in expected.items():
        torch.testing.assert_close(found[tag], value)


class Saved:
    """A tensor that is kept for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class Bytes:
    """Bytes saved for the backward pass, now and at the peak; each storage counts once.

    The storages of the tensors passed to the constructor do not count.
    """

    def __init__(self, *given: Tensor) -> None:
        self.uses = {tensor.untyped_storage().data_ptr(): 1 for tensor in given}
        self.now = self.peak = 0

    def counting(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self.keep, lambda saved: saved.tensor)

    def keep(self, tensor: Tensor) -> Saved:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 1:
            self.now += size
            self.peak = max(self.peak, self.now)
        saved = Saved(tensor)
        weakref.finalize(saved, self.release, key, size)
        return saved

    def release(self, key: int, size: int) -> None:
        self.uses[key] -= 1
        if self.uses[key] == 0:
            self.now -= size


def peak_bytes(roll: Callable[..., Any], steps: int) -> int:
    """The most bytes that a window and its action gradient save at any time."""
    env, noise = LQG(horizon=9), noise_of(steps, torch.float32, 64)
    vector, policy = DifferentiableVectorEnv(env, 64), policy_for(env, torch.float32)
    rollout_state, count = reset(vector, seed=0, device=CPU), Bytes(noise, *policy.parameters())
    with count.counting():
        window, _ = roll(vector, policy, rollout_state, noise)
    objective = window_objective(window, torch.zeros(steps, 64), 0.99)
    del vector
    with count.counting():
        action_gradient(objective, window)
    del window, objective
    assert count.now == 0
    return count.peak


def test_memory_grows_as_the_root_of_the_horizon() -> None:
    """Four times the steps: four times the memory with the whole graph, twice in segments.

    Of 64 steps in segments of 8, 8 states and 8 steps are kept; of 256, 16 and 16.
    """
    plain = [peak_bytes(unroll, steps) for steps in (64, 256)]
    segments = [peak_bytes(unroll_in_segments, steps) for steps in (64, 256)]
    assert 3.99 < plain[1] / plain[0] < 4.01
    assert 1.99 < segments[1] / segments[0] < 2.01
    # An eighth and a sixteenth of the steps, plus the states at the segments' starts.
    assert segments[0] < plain[0] / 7 and segments[1] < plain[1] / 14


def test_the_live_environment_stays_where_it_is() -> None:
    """The backward pass of a window after the next one was rolled gives the same gradient."""
    expected = rolled(Drift(), unroll, torch.float64, windows=1)
    env = DifferentiableVectorEnv(Drift(), NUM_ENVS, dtype=torch.float64)
    policy, noise = policy_for(Drift(), torch.float64), noise_of(STEPS, torch.float64)
    window, rollout_state = unroll_in_segments(env, policy, reset(env, seed=0, device=CPU), noise)
    unroll_in_segments(env, policy, rollout_state, noise)
    before = env.get_state()
    assert window.action_shift is not None
    total = window.reward.sum()
    (found,) = torch.autograd.grad(total, window.action_shift)
    assert all(
        torch.equal(a, b)
        for a, b in zip(leaves_of(before), leaves_of(env.get_state()), strict=True)
    )
    assert expected[0].action_shift is not None
    plain = DifferentiableVectorEnv(Drift(), NUM_ENVS, dtype=torch.float64)
    other, _ = unroll(plain, policy, reset(plain, seed=0, device=CPU), noise)
    assert other.action_shift is not None
    assert torch.equal(torch.autograd.grad(other.reward.sum(), other.action_shift)[0], found)


def test_parameters_are_not_differentiated_unless_asked() -> None:
    """The policy is run on a whole segment ``[K, N, O]`` only for the parameters' gradient."""
    env, policy = (
        DifferentiableVectorEnv(Pendulum(), NUM_ENVS),
        policy_for(Pendulum(), torch.float32),
    )
    seen: list[int] = []
    policy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dim()))
    rollout_state, noise = reset(env, seed=0, device=CPU), noise_of(9, torch.float32)
    window, _ = unroll_in_segments(env, policy, rollout_state, noise)
    assert window.action_shift is not None
    total = window.reward.sum()
    torch.autograd.grad(total, window.action_shift, retain_graph=True)
    assert seen == [2] * 18
    torch.autograd.grad(total, list(policy.parameters()))
    assert seen[18:].count(3) == 3


def test_a_recorder_sees_the_surrogate_and_nothing_else() -> None:
    """Per-trajectory gradients of the policy are measured on such a window as on any other."""
    found = []
    for roll in (unroll, unroll_in_segments):
        env, policy = (
            DifferentiableVectorEnv(Pendulum(), NUM_ENVS),
            policy_for(Pendulum(), torch.float32),
        )
        recorder = GradientRecorder(policy)
        window, _ = roll(env, policy, reset(env, seed=0, device=CPU), noise_of(9, torch.float32))
        weight = action_gradient(window_objective(window, torch.zeros(9, NUM_ENVS), 0.9), window)
        with recorder.recording():
            surrogate = pathwise_surrogate(policy, window.detach(), weight)
        found.append(recorder.per_trajectory(surrogate))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


class Cut(Drift):
    """A Drift whose dynamics have no gradient by the action."""

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Parts:
        return super().transition(state, action.detach(), noise)


def test_a_missing_path_is_named_as_with_the_whole_graph() -> None:
    env = DifferentiableVectorEnv(Cut(), NUM_ENVS)
    policy, noise = policy_for(Cut(), torch.float32), noise_of(STEPS, torch.float32)
    window, _ = unroll_in_segments(env, policy, reset(env, seed=0, device=CPU), noise)
    assert not window.reward.requires_grad and window.action.requires_grad
    with pytest.raises(RequestError, match="no differentiable path"):
        action_gradient(window_objective(window, torch.zeros(STEPS, NUM_ENVS), 0.9), window)


class Breaks(Drift):
    """A Drift whose reward is NaN at the sixth step in environment 2."""

    def reward(self, state: Any, action: Tensor, next_state: Any) -> Tensor:
        here = (next_state.time == 6) & (torch.arange(len(action)) == 2)
        return torch.where(here, math.nan, super().reward(state, action, next_state))

    def terminal(self, state: Any) -> Tensor:
        return torch.zeros_like(state.time, dtype=torch.bool)


@pytest.mark.parametrize("roll", [unroll, unroll_in_segments])
def test_what_is_not_finite_is_named_by_its_step_in_the_window(roll: Callable[..., Any]) -> None:
    env, policy = DifferentiableVectorEnv(Breaks(), NUM_ENVS), policy_for(Breaks(), torch.float32)
    rollout_state, noise = reset(env, seed=0, device=CPU), noise_of(STEPS, torch.float32)
    with pytest.raises(NonFiniteError) as caught:
        roll(env, policy, rollout_state, noise)
    error = caught.value
    assert (error.tensor, error.step, error.env_index) == ("reward", 5, 2)


class Hidden(Drift):
    """A Drift whose transition differs at every call, by a counter that is no state."""

    def __init__(self) -> None:
        self.calls = 0

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Parts:
        self.calls += 1
        return super().transition(state, action + 0.01 * self.calls, noise)


def test_an_environment_that_does_not_repeat_itself_is_refused() -> None:
    """The gradient would be of another trajectory. The environment's state is restored."""
    env, policy = DifferentiableVectorEnv(Hidden(), NUM_ENVS), policy_for(Drift(), torch.float32)
    rollout_state, noise = reset(env, seed=0, device=CPU), noise_of(STEPS, torch.float32)
    window, _ = unroll_in_segments(env, policy, rollout_state, noise)
    before = leaves_of(env.get_state())
    with pytest.raises(RequestError, match="does not repeat itself"):
        window.reward.sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(a, b) for a, b in zip(before, leaves_of(env.get_state()), strict=True))


def test_parameters_that_change_before_the_backward_pass_are_noticed() -> None:
    env, policy = DifferentiableVectorEnv(Drift(), NUM_ENVS), policy_for(Drift(), torch.float32)
    rollout_state, noise = reset(env, seed=0, device=CPU), noise_of(STEPS, torch.float32)
    window, _ = unroll_in_segments(env, policy, rollout_state, noise)
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        window.reward.sum().backward()  # type: ignore[no-untyped-call]


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    rolled(Drift(), unroll_in_segments, torch.float32)
    assert torch.equal(before, torch.get_rng_state())


def test_a_segment_has_a_step() -> None:
    env, policy = DifferentiableVectorEnv(Drift(), NUM_ENVS), policy_for(Drift(), torch.float32)
    rollout_state = reset(env, seed=0, device=CPU)
    with pytest.raises(RequestError, match="segment_length is 0"):
        unroll_in_segments(env, policy, rollout_state, noise_of(4, torch.float32), 0)


def test_choosing() -> None:
    """0 keeps the whole graph; a number is a segment's length."""
    assert choose_unroll(0) is unroll
    expected = rolled(Drift(), in_segments(5), torch.float32)
    found = rolled(Drift(), choose_unroll(5), torch.float32)
    assert torch.equal(expected[0].reward, found[0].reward)
    assert all(torch.equal(a, b) for a, b in zip(expected[2], found[2], strict=True))


def test_a_second_derivative_is_refused() -> None:
    """A second derivative would be wrong, because the graph of the window's steps is not kept."""
    env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS)
    policy = GaussianPolicy(Pendulum().observation_space, Pendulum().action_space, (4,))
    noise = policy.draw_noise(6, NUM_ENVS, generator=torch.Generator().manual_seed(0))
    window, _ = unroll_in_segments(env, policy, reset(env, seed=0, device=CPU), noise, 3)
    assert window.action_shift is not None
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(window.reward.sum(), window.action_shift, create_graph=True)
