"""``unroll`` with compiled steps: the same window and gradient, faster.

Time limits are seen in advance, so the loop goes on across them. Where an episode ends by itself,
the steps after it are thrown away, it restarts as :class:`DifferentiableVectorEnv` restarts it, and
another *stretch* of compiled steps begins.
"""

import logging
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.compiled.lookahead import elapsed_at, look_ahead
from pgtoolkit.envs.compiled.policy_step import trace_policy_step
from pgtoolkit.envs.compiled.scan import CompiledScan
from pgtoolkit.envs.compiled.segment import CompiledStep, attach, take
from pgtoolkit.envs.compiled.step_graph import floats
from pgtoolkit.envs.states import State, leaves_of, rebuild_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import Cursor, require_finite_window, unroll
from pgtoolkit.rollouts.window import Window

ALIKE = 1e-3
"""How far, absolute and relative, compiled steps may be off the plain ones: rounding, no more."""

MOST_ROWS = 65_536
"""Steps times environments in one loop. Its largest buffers, a hidden layer's, then stay within
what the C library keeps for the next window, and closer to the processor."""

CHECKED = 8
"""Steps on which the two are compared: over more, chaotic dynamics would blow rounding up."""

LOG = logging.getLogger("pgtoolkit")


@final
class CompiledUnroll:
    """Called as :func:`unroll <pgtoolkit.rollouts.rollout.unroll>`; it compiles at its first call.

    The compiled code holds for one environment, one policy, one number of environments and one
    dtype; for others it compiles anew. The length of a window is free. Before it is used, the first
    steps are taken by :func:`unroll <pgtoolkit.rollouts.rollout.unroll>` too and must be like
    them. If it is not, or if the step cannot be compiled, a warning says so and the plain steps
    are taken.
    """

    def __init__(self) -> None:
        self._steps: dict[tuple[Any, ...], CompiledStep | None] = {}
        self._kept: list[Any] = []  # what the keys name by its id

    def __call__(
        self, env: DifferentiableVectorEnv, policy: Policy, cursor: Cursor, noise: Tensor
    ) -> tuple[Window, Cursor]:
        """Steps a differentiable environment ``T`` times and keeps what the gradient needs.

        Args:
            env: a differentiable vector environment.
            policy: acts on every step, by its pathwise action.
            cursor: from :func:`start <pgtoolkit.rollouts.rollout.start>` or the last call.
            noise: ``[T, N, A]`` of every action.

        Raises:
            NonFiniteError: an action, reward or observation is not finite; the earliest is named.
        """
        leaves = leaves_of(env.graph_state().state)
        like = ((x.shape, x.dtype, x.device) for x in (noise[0], *leaves))
        key = (id(env.env), id(policy), *like)
        if key not in self._steps:
            self._kept += [env.env, policy]
            self._steps[key] = compile_step(env, policy, cursor, noise)
        step = self._steps[key]
        if step is None:
            return unroll(env, policy, cursor, noise)
        return unroll_compiled(step, env, cursor, noise)


def compile_step(
    env: DifferentiableVectorEnv, policy: Policy, cursor: Cursor, noise: Tensor
) -> CompiledStep | None:
    """The compiled step, if it does what the plain one does; else None, after a warning."""
    before, noise = env.get_state(), noise[:CHECKED]
    try:
        process_noise = [x[0] for x in look_ahead(env, before, 1).noise]
        traced = trace_policy_step(env.env, policy, before.state, noise[0], *process_noise)
        step = CompiledStep.of(traced, CompiledScan(traced.graph), policy)
        found = _window_and_gradients(policy, unroll_compiled(step, env, cursor, noise)[0])
        env.set_state(before)
    except Exception as error:
        env.set_state(before)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        LOG.warning("steps are not compiled, plain ones are taken: %s", reason)
        return None
    plain = _window_and_gradients(policy, unroll(env, policy, cursor, noise)[0])
    env.set_state(before)
    pairs = zip(found, plain, strict=True)
    if all(torch.allclose(a, b, rtol=ALIKE, atol=ALIKE * float(b.abs().max())) for a, b in pairs):
        return step
    LOG.warning(
        "compiled steps differ from plain ones, which are taken instead: is a function of %s "
        "impure, or does it read numbers out of tensors?",
        type(env.env).__name__,
    )
    return None


def _window_and_gradients(policy: Policy, window: Window) -> list[Tensor]:
    """What of a window is compared: what was seen and earned, and the rewards' gradients."""
    shift = window.perturbation
    assert shift is not None
    wanted = [shift, *(p for p in policy.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(window.reward.sum(), wanted, allow_unused=True)
    filled = [
        torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True)
    ]
    return [window.obs.detach(), window.reward.detach(), window.log_prob, *filled]


def unroll_compiled(
    step: CompiledStep, env: DifferentiableVectorEnv, cursor: Cursor, noise: Tensor
) -> tuple[Window, Cursor]:
    """A window in stretches of compiled steps."""
    obs = env.detach()
    shape = (*noise.shape[:-1], step.policy.action_size)
    perturbation = noise.new_zeros(shape).requires_grad_()
    parts: list[dict[str, Tensor]] = []
    position, size, hope = 0, len(noise), len(noise)
    while position < size:
        length = min(hope, size - position, max(MOST_ROWS // env.num_envs, 1))
        rows = slice(position, position + length)
        part, obs = _stretch(step, env, noise[rows], perturbation[rows])
        taken = len(part["reward"])
        position, hope = position + taken, 2 * taken if taken == length else taken
        parts.append(part)
    joined = parts[0]
    if len(parts) > 1:
        joined = {name: torch.cat([part[name] for part in parts]) for name in joined}
    done = joined["terminated"] | joined["truncated"]
    first = torch.cat([cursor.first.unsqueeze(0), done[:-1]])
    valid = torch.ones_like(done)
    window = Window(**joined, noise=noise, valid=valid, first=first, perturbation=perturbation)
    require_finite_window(window)
    return window, Cursor(obs.detach(), cursor.needs_reset, done[-1])


def _stretch(
    step: CompiledStep, env: DifferentiableVectorEnv, noise: Tensor, shift: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Steps until an episode ends, at most as many as there is noise; and what is seen next."""
    begin = env.graph_state()
    start = leaves_of(begin.state)
    ahead = look_ahead(env, begin, len(noise))
    taken = take(step, noise, ahead, start)
    length = len(taken.limits)
    if length < len(noise):
        ahead = look_ahead(env, begin, length)
    elapsed = elapsed_at(env, begin, length - 1)
    env.set_state(begin._replace(elapsed=elapsed, generator_state=ahead.generator_state))
    graded, end = attach(taken, shift[:length], floats(start))
    after = _with_floats(begin.state, taken.end, end)
    cut = None if taken.cut is None else taken.cut[-1]
    obs, truncated, info = env.finish_step(after, taken.terminated[-1], cut)
    names = ("obs", "pre_action", "action", "reward", "next_obs")
    part = dict(zip(names, graded, strict=True))
    if "final_obs" in info:
        last: Tensor = info["final_obs"]
        part["next_obs"] = torch.cat([part["next_obs"][:-1], last.unsqueeze(0)])
    part["truncated"] = torch.cat([taken.limits[:-1], truncated.unsqueeze(0)])
    return part | {"log_prob": taken.log_prob, "terminated": taken.terminated}, obs


def _with_floats(template: State, leaves: list[Tensor], with_graph: list[Tensor]) -> State:
    """The state, its floating-point tensors replaced."""
    given = iter(with_graph)
    found = tuple(next(given) if leaf.is_floating_point() else leaf for leaf in leaves)
    return rebuild_state(template, found[0] if isinstance(template, Tensor) else found)
