"""``unroll`` with compiled steps: the same window and gradient, faster.

A window is run in segments. Time limits are computed in advance, so a segment continues across
them. If an episode ends otherwise, the steps after that end are discarded, the environment is reset
as :class:`DifferentiableVectorEnv` resets it, and the next segment begins.
"""

import logging
from typing import Any, Self, final

import torch
from torch import Tensor

from pgtoolkit.envs.compiled.lookahead import elapsed_after, look_ahead
from pgtoolkit.envs.compiled.policy_step import state_from_leaves, trace_policy_step
from pgtoolkit.envs.compiled.scan import CompiledScan
from pgtoolkit.envs.compiled.segment import CompiledStep, attach, run_segment
from pgtoolkit.envs.compiled.step_graph import floats
from pgtoolkit.envs.states import State, leaves_of
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import RolloutState, require_finite_window, unroll
from pgtoolkit.rollouts.window import Window

COMPARE_TOLERANCE = 1e-3
"""Tolerance between compiled and plain steps: relative, and absolute in units of the largest entry
of a tensor."""

COMPARED_STEPS = 8
"""Number of steps that are compared. Over more, chaotic dynamics would amplify rounding errors."""

MAX_SAMPLES_PER_LOOP = 65_536
"""Most steps times environments in one loop. The largest buffers, those of a hidden layer, then
stay within what the C library keeps for the next window, and fit the processor's caches better."""

LOG = logging.getLogger("pgtoolkit")


@final
class CompiledUnroll:
    """Called as :func:`unroll <pgtoolkit.rollouts.rollout.unroll>`; it compiles at its first call.

    The compiled code is for one environment, policy, number of environments and dtype; another
    combination is compiled anew. The length of a window is free. Before the code is used, its first
    steps are compared with those of ``unroll``. If they differ, or if the step cannot be compiled,
    a warning says so once, and ``unroll`` is used instead.
    """

    def __init__(self) -> None:
        self._steps: dict[tuple[Any, ...], CompiledStep | None] = {}
        self._alive: list[Any] = []  # environments and policies whose id is in a key

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A new one: the code belongs to the environment and the policy it was compiled for."""
        return type(self)()

    def __call__(
        self,
        env: DifferentiableVectorEnv,
        policy: Policy,
        rollout_state: RolloutState,
        noise: Tensor,
    ) -> tuple[Window, RolloutState]:
        """Steps a differentiable environment ``T`` times and keeps what the gradient needs.

        Args:
            env: a differentiable vector environment.
            policy: acts on every step, by its pathwise action.
            rollout_state: a result of :func:`reset <pgtoolkit.rollouts.rollout.reset>` or of the
                last call.
            noise: the noise ``[T, N, A]`` of every action.

        Raises:
            NonFiniteError: an action, reward or observation is not finite; the earliest is named.
        """
        leaves = leaves_of(env.graph_state().state)
        tensors = ((x.shape, x.dtype, x.device) for x in (noise[0], *leaves))
        key = (id(env.env), id(policy), *tensors)
        if key not in self._steps:
            self._alive += [env.env, policy]
            self._steps[key] = compile_step(env, policy, rollout_state, noise)
        step = self._steps[key]
        if step is None:
            return unroll(env, policy, rollout_state, noise)
        return unroll_compiled(step, env, rollout_state, noise)


def compile_step(
    env: DifferentiableVectorEnv, policy: Policy, rollout_state: RolloutState, noise: Tensor
) -> CompiledStep | None:
    """The compiled step; None, after a warning, if it cannot be compiled or computes otherwise."""
    before, noise = env.get_state(), noise[:COMPARED_STEPS]
    try:
        process_noise = [x[0] for x in look_ahead(env, before, 1).process_noise]
        traced = trace_policy_step(env.env, policy, before.state, noise[0], *process_noise)
        step = CompiledStep.of(traced, CompiledScan(traced.graph), policy)
        compiled = _results_and_gradients(
            policy, unroll_compiled(step, env, rollout_state, noise)[0]
        )
        env.set_state(before)
    except Exception as error:
        env.set_state(before)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        LOG.warning("steps are not compiled, plain ones are taken: %s", reason)
        return None
    plain = _results_and_gradients(policy, unroll(env, policy, rollout_state, noise)[0])
    env.set_state(before)
    if all(_is_close(a, b) for a, b in zip(compiled, plain, strict=True)):
        return step
    LOG.warning(
        "compiled steps differ from plain ones, which are taken instead: is a function of %s "
        "impure, or does it read numbers out of tensors?",
        type(env.env).__name__,
    )
    return None


def _results_and_gradients(policy: Policy, window: Window) -> list[Tensor]:
    """The tensors that are compared: observations, rewards, log-densities, and the gradients.

    The gradients are those of the sum of rewards, with respect to the actions and the parameters.
    """
    shift = window.action_shift
    assert shift is not None
    wanted = [shift, *(p for p in policy.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(window.reward.sum(), wanted, allow_unused=True)
    pairs = zip(wanted, gradients, strict=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in pairs]
    return [window.obs.detach(), window.reward.detach(), window.log_prob, *filled]


def _is_close(compiled: Tensor, plain: Tensor) -> bool:
    absolute = COMPARE_TOLERANCE * float(plain.abs().max())
    return torch.allclose(compiled, plain, rtol=COMPARE_TOLERANCE, atol=absolute)


def unroll_compiled(
    step: CompiledStep, env: DifferentiableVectorEnv, rollout_state: RolloutState, noise: Tensor
) -> tuple[Window, RolloutState]:
    """:func:`unroll <pgtoolkit.rollouts.rollout.unroll>` with a compiled step.

    Args:
        step: compiled for this environment; its policy acts.
        env: a differentiable vector environment.
        rollout_state: a result of :func:`reset <pgtoolkit.rollouts.rollout.reset>` or of the last
            call.
        noise: the noise ``[T, N, A]`` of every action.

    Raises:
        NonFiniteError: an action, reward or observation is not finite; the earliest is named.
    """
    obs = env.detach()
    shape = (*noise.shape[:-1], step.policy.action_size)
    action_shift = noise.new_zeros(shape).requires_grad_()
    parts: list[dict[str, Tensor]] = []
    first_step, num_steps, next_length = 0, len(noise), len(noise)
    while first_step < num_steps:
        length = min(
            next_length, num_steps - first_step, max(MAX_SAMPLES_PER_LOOP // env.num_envs, 1)
        )
        rows = slice(first_step, first_step + length)
        part, obs = _unroll_segment(step, env, noise[rows], action_shift[rows])
        steps_run = len(part["reward"])
        first_step += steps_run
        next_length = 2 * steps_run if steps_run == length else steps_run
        parts.append(part)
    joined = parts[0]
    if len(parts) > 1:
        joined = {name: torch.cat([part[name] for part in parts]) for name in joined}
    done = joined["terminated"] | joined["truncated"]
    episode_start = torch.cat([rollout_state.episode_start.unsqueeze(0), done[:-1]])
    valid = torch.ones_like(done)
    window = Window(
        **joined, noise=noise, valid=valid, episode_start=episode_start, action_shift=action_shift
    )
    require_finite_window(window)
    return window, RolloutState(obs.detach(), rollout_state.needs_reset, done[-1])


def _unroll_segment(
    step: CompiledStep, env: DifferentiableVectorEnv, noise: Tensor, shift: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Runs steps until an episode ends otherwise than by the time limit, at most ``len(noise)``.

    Returns:
        Fields of a window, and the next observation ``[N, O]``.
    """
    before = env.graph_state()
    start = leaves_of(before.state)
    lookahead = look_ahead(env, before, len(noise))
    outputs = run_segment(step, noise, lookahead, start)
    length = len(outputs.time_limit)
    if length < len(noise):
        lookahead = look_ahead(env, before, length)
    elapsed = elapsed_after(env, before, length - 1)
    env.set_state(before._replace(elapsed=elapsed, generator_state=lookahead.generator_state))
    differentiable, end_floats = attach(outputs, shift[:length], floats(start))
    after = _replace_floats(before.state, outputs.end, end_floats)
    env_truncated = None if outputs.truncated is None else outputs.truncated[-1]
    obs, truncated, info = env.finish_step(after, outputs.terminated[-1], env_truncated)
    names = ("obs", "pre_action", "action", "reward", "next_obs")
    part = dict(zip(names, differentiable, strict=True))
    if "final_obs" in info:
        last: Tensor = info["final_obs"]
        part["next_obs"] = torch.cat([part["next_obs"][:-1], last.unsqueeze(0)])
    part["truncated"] = torch.cat([outputs.time_limit[:-1], truncated.unsqueeze(0)])
    return part | {"log_prob": outputs.log_prob, "terminated": outputs.terminated}, obs


def _replace_floats(template: State, leaves: list[Tensor], floats: list[Tensor]) -> State:
    """A state of the template's type with these tensors, the floating-point ones replaced."""
    given = iter(floats)
    replaced = [next(given) if leaf.is_floating_point() else leaf for leaf in leaves]
    return state_from_leaves(template, replaced)
