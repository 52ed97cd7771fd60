"""Rollouts: a policy acts in vector environments, which gives a window.

``collect`` steps any Gymnasium vector environment, without a graph and under any autoreset mode.
``unroll`` steps a differentiable one and keeps the graph. Both take the noise of every action and
the :class:`RolloutState` at which the last window ended, and return the window and the next rollout
state. Neither draws random numbers of its own, so a window can be repeated.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, final, runtime_checkable

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.finite import require_finite_rows, require_finite_steps
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.numpy_rollout import collect_arrays, exact_observations
from pgtoolkit.rollouts.window import Window


@final
@dataclasses.dataclass(frozen=True, eq=False)
class RolloutState:
    """The state that :func:`collect` and :func:`unroll` carry from one window to the next.

    Attributes:
        obs: ``[N, O]`` the observation to act on, without a graph. That of an environment on NumPy
            arrays is float64 if its dtype has more digits than float32.
        needs_reset: ``[N]`` bool: the episode ended at the last step, and the next step only resets
            the environment (Gymnasium's NEXT_STEP autoreset).
        episode_start: ``[N]`` bool: the next step is the first of an episode.
    """

    obs: Tensor
    needs_reset: Tensor
    episode_start: Tensor


@runtime_checkable
class TensorVectorEnv(Protocol):
    """A vector environment on tensors, as :func:`unroll` requires it; its step has a gradient."""

    num_envs: int

    def detach(self) -> Tensor:
        """Cuts the graph at the current state; returns its observation ``[N, O]``."""

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Steps all environments as Gymnasium's vector environments do, autoreset SAME_STEP."""


def autoreset_mode(env: AnyVectorEnv) -> AutoresetMode:
    """The environment's autoreset mode, from its metadata.

    Raises:
        RequestError: the metadata has no valid mode, so it is unknown at which step an episode
            ends.
    """
    mode = env.metadata.get("autoreset_mode")
    try:
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
    except ValueError as error:
        raise RequestError(
            f"the vector environment's metadata['autoreset_mode'] is {mode!r}: set it to one of "
            "gymnasium.vector.AutoresetMode, so that ends of episodes can be told from resets"
        ) from error


def reset(env: AnyVectorEnv, *, seed: int | None, device: torch.device) -> RolloutState:
    """Resets every environment and returns the first rollout state.

    Args:
        env: the vector environment.
        seed: the seed for ``env.reset``; None lets the environments' generators continue.
        device: the device of the rollout state.

    Raises:
        NonFiniteError: an observation is not finite.
    """
    obs = _to_tensor(env.reset(seed=seed)[0], device)
    require_finite_rows({"observation after a reset": obs}, 0)
    false = torch.zeros(env.num_envs, dtype=torch.bool, device=device)
    return RolloutState(obs, needs_reset=false, episode_start=~false)


@torch.no_grad()
def collect(
    env: AnyVectorEnv, policy: Policy, rollout_state: RolloutState, noise: Tensor
) -> tuple[Window, RolloutState]:
    """Steps any Gymnasium vector environment ``T`` times, without a graph.

    In all three autoreset modes ``next_obs`` is the observation before a reset, and a step that
    only resets an environment (NEXT_STEP) is not ``valid``.

    Args:
        env: the vector environment, sync, async or natively vectorised.
        policy: acts on every step.
        rollout_state: a result of :func:`reset` or of the last call.
        noise: the noise ``[T, N, A]`` of every action; zeros give the mode of the action.

    Raises:
        NonFiniteError: an action, a reward or an observation, also one after a reset, is not
            finite.
        RequestError: the environment's metadata has no valid autoreset mode.
    """
    mode, device = autoreset_mode(env), noise.device
    if isinstance(env, TensorVectorEnv):
        return _collect_tensors(env, policy, rollout_state, noise)
    flags = (rollout_state.needs_reset.cpu().numpy(), rollout_state.episode_start.cpu().numpy())
    obs = rollout_state.obs.cpu().numpy()
    window, obs, *flags_after = collect_arrays(env, policy, noise, mode, obs, *flags)
    needs_reset, episode_start = (torch.from_numpy(x).to(device) for x in flags_after)
    return window, RolloutState(torch.from_numpy(obs).to(device), needs_reset, episode_start)


def _collect_tensors(
    env: TensorVectorEnv, policy: Policy, rollout_state: RolloutState, noise: Tensor
) -> tuple[Window, RolloutState]:
    """:func:`collect` in an environment on tensors."""
    no_shift = [None] * len(noise)
    return _run_steps(env, policy, rollout_state, rollout_state.obs, noise, no_shift)


def unroll(
    env: TensorVectorEnv, policy: Policy, rollout_state: RolloutState, noise: Tensor
) -> tuple[Window, RolloutState]:
    """Steps a differentiable environment ``T`` times and keeps the graph.

    The state is detached first, so no gradient reaches an earlier window. The graph runs through
    actions, dynamics, rewards and observations. A reset inside the window cuts the graph of that
    environment alone.

    Args:
        env: a differentiable vector environment.
        policy: acts on every step, by its pathwise action.
        rollout_state: a result of :func:`reset` or of the last call.
        noise: the noise ``[T, N, A]`` of every action.

    Raises:
        NonFiniteError: an action, reward or observation is not finite; the earliest is named.
    """
    obs = env.detach()
    shape = (*noise.shape[:-1], policy.action_size)
    action_shift = noise.new_zeros(shape).requires_grad_()
    window, after = _run_steps(env, policy, rollout_state, obs, noise, action_shift.unbind(0))
    return dataclasses.replace(window, action_shift=action_shift), after


def _run_steps(
    env: TensorVectorEnv,
    policy: Policy,
    rollout_state: RolloutState,
    obs: Tensor,
    noise: Tensor,
    shifts: Sequence[Tensor | None],
) -> tuple[Window, RolloutState]:
    """Steps an environment on tensors; keeps the graph unless gradients are disabled.

    Args:
        env: the environment.
        policy: acts on every step.
        rollout_state: the environments' rollout state before the first step.
        obs: ``[N, O]`` the observation to act on first.
        noise: the noise ``[T, N, A]`` of every action.
        shifts: ``T`` tensors ``[N, A]`` to add to the pre-squash actions, or None.

    Raises:
        NonFiniteError: an action, reward or observation is not finite; the earliest is named.
    """
    episode_start = rollout_state.episode_start
    steps: list[dict[str, Tensor]] = []
    for eps, shift in zip(noise.unbind(0), shifts, strict=True):
        acted = _act(policy, obs, eps, shift)
        after, reward, terminated, truncated, info = env.step(acted["action"])
        next_obs = info.get("final_obs", after)
        steps.append(
            {"obs": obs, "next_obs": next_obs, "noise": eps, "reward": reward, **acted}
            | {"terminated": terminated, "truncated": truncated}
            | {"valid": torch.ones_like(terminated), "episode_start": episode_start}
        )
        obs, episode_start = after, terminated | truncated
    window = _stack(steps)
    require_finite_window(window)
    return window, RolloutState(obs.detach(), rollout_state.needs_reset, episode_start)


def require_finite_window(window: Window) -> None:
    """Raises on the earliest action, reward or observation that is not finite.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    require_finite_steps(
        {
            "observation after a reset": window.obs,
            "action": window.action,
            "reward": window.reward,
            "observation": window.next_obs,
        }
    )


def _act(policy: Policy, obs: Tensor, noise: Tensor, shift: Tensor | None) -> dict[str, Tensor]:
    """Pre-squash action, action and log density of one step, as fields of a window."""
    distribution = policy(obs)
    pre_action = distribution.pre_action(noise)
    if shift is not None:
        pre_action = pre_action + shift
    with torch.no_grad():
        log_prob = distribution.log_prob_of_pre_action(pre_action)
    return {
        "pre_action": pre_action,
        "action": distribution.squash(pre_action),
        "log_prob": log_prob,
    }


def _stack(steps: list[dict[str, Tensor]]) -> Window:
    """A window of steps, each a field's name to its rows ``[N, ...]``."""
    return Window(**{name: torch.stack([step[name] for step in steps]) for name in steps[0]})


def _to_tensor(array: Any, device: torch.device) -> Tensor:
    """A copy of the array on the device, in float32 or float64; a tensor keeps its dtype."""
    if isinstance(array, Tensor):
        return array.to(device)
    return torch.from_numpy(exact_observations(array)).to(device)
