"""Gradient checkpointing: rollouts that keep a few states and recompute the rest of the graph.

``unroll`` keeps what each of ``T`` steps computed until the backward pass has used it.
``unroll_in_segments`` keeps only the states between segments of ``K`` steps. The backward pass goes
through the segments from the last to the first, runs each one's steps once more, now with their
graph, and frees that graph before the next. Memory is that of ``T / K`` states and ``K`` steps,
which for ``K = sqrt(T)`` grows as the square root of ``T``; the cost is one more forward pass. The
window is equal to the bit, and its gradient up to rounding.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.recompute import (
    RecomputableEnv,
    Segment,
    detached_state,
    run_and_attach,
    state_floats,
)
from pgtoolkit.rollouts.rollout import RolloutState, unroll
from pgtoolkit.rollouts.window import Window, concatenate

Unroll = Callable[[Any, Policy, RolloutState, Tensor], tuple[Window, RolloutState]]


def choose_unroll(segment_length: int) -> Unroll:
    """:func:`unroll_in_segments` with segments of this length; for 0 the plain ``unroll``."""
    if segment_length == 0:
        return unroll
    return functools.partial(unroll_in_segments, segment_length=segment_length)


def unroll_in_segments(
    env: RecomputableEnv,
    policy: Policy,
    rollout_state: RolloutState,
    noise: Tensor,
    segment_length: int | None = None,
) -> tuple[Window, RolloutState]:
    """:func:`unroll <pgtoolkit.rollouts.rollout.unroll>` in less memory: each step is run twice.

    Process noise and start states are drawn again from the generator's state at the segment's
    start. The backward pass leaves the environment in its current state, also if more windows have
    been collected since. The policy's parameters get their gradient through the pre-squash actions,
    as in :func:`pathwise_surrogate <pgtoolkit.estimators.surrogates.pathwise_surrogate>`, and it is
    computed only if it is asked for.

    Until the backward pass, the policy, its normaliser and whatever the environment has learned
    must not change. Counters of an environment's steps also count the recomputed ones.

    Args:
        env: a differentiable vector environment.
        policy: acts on every step, by its pathwise action.
        rollout_state: a result of :func:`reset <pgtoolkit.rollouts.rollout.reset>` or of the last
            call.
        noise: the noise ``[T, N, A]`` of every action.
        segment_length: ``K``; the last segment may be shorter. None is ``sqrt(T)``, rounded.

    Raises:
        NonFiniteError: an action, reward or observation is not finite; the earliest is named.
        RequestError: ``K`` is less than 1. In backward: the environment does not repeat itself, or
            a second derivative was asked for.
    """
    length = round(math.sqrt(noise.shape[0])) if segment_length is None else segment_length
    if length < 1:
        raise RequestError(f"segment_length is {length}: a segment has at least 1 step")
    start = env.detach(), *state_floats(env)
    shape = (*noise.shape[:-1], policy.action_size)
    action_shift = noise.new_zeros(shape).requires_grad_()
    parts: list[Window] = []
    segments: list[Segment] = []
    for first_step in range(0, noise.shape[0], length):
        rows = slice(first_step, first_step + length)
        segment = Segment(env, policy, rollout_state, noise[rows], first_step, detached_state(env))
        part, rollout_state, start = run_and_attach(segment, action_shift[rows], start)
        parts.append(part)
        segments.append(segment)
    window = dataclasses.replace(concatenate(parts), action_shift=action_shift)
    for segment in segments:
        segment.obs = window.obs[segment.first_step : segment.first_step + length].detach()
    return window, rollout_state
