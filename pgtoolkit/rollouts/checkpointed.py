"""Rollouts that keep a few states of the graph and compute the rest again: gradient checkpointing.

``unroll`` keeps what every one of ``T`` steps computed until the backward pass has used it.
``unroll_in_segments`` keeps the states between segments of ``K`` steps. The backward pass goes
through the segments from the last to the first, takes each one's steps once more, now with their
graph, and frees it before the next: memory of ``T / K`` states and of ``K`` steps, about the root
of ``T`` for ``K = sqrt(T)``, for one more forward pass. The window is the same to the bit, and its
gradient but for rounding.

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
from pgtoolkit.rollouts.recompute import Repeatable, Segment, attach, floats_of, without_graph
from pgtoolkit.rollouts.rollout import Cursor, unroll
from pgtoolkit.rollouts.window import Window, concatenate

Unroll = Callable[[Any, Policy, Cursor, Tensor], tuple[Window, Cursor]]


def choose_unroll(segment_length: int) -> Unroll:
    """:func:`unroll_in_segments` with segments of this length; for 0 the plain ``unroll``."""
    if segment_length == 0:
        return unroll
    return functools.partial(unroll_in_segments, segment_length=segment_length)


def unroll_in_segments(
    env: Repeatable,
    policy: Policy,
    cursor: Cursor,
    noise: Tensor,
    segment_length: int | None = None,
) -> tuple[Window, Cursor]:
    """As :func:`unroll <pgtoolkit.rollouts.rollout.unroll>`, in less memory: steps are taken twice.

    Process noise and starts come again from the generator's state at the segment's start; the live
    environment stays where it is, and the graph ends with the window. The policy's parameters get
    their gradient by way of the pre-squash actions, as in :func:`pathwise_surrogate
    <pgtoolkit.estimators.surrogates.pathwise_surrogate>`, and only if it is asked for.

    Until the backward pass the policy, its normaliser and what the environment has learned must
    stay as they are. What counts an environment's steps counts those that are taken again.

    Args:
        env: a differentiable vector environment.
        policy: acts on every step, by its pathwise action.
        cursor: from :func:`start <pgtoolkit.rollouts.rollout.start>` or the last call.
        noise: ``[T, N, A]`` of every action.
        segment_length: ``K``; the last segment may be shorter. None is the root of ``T``, rounded.

    Raises:
        NonFiniteError: an action, reward or observation is not finite; the earliest is named.
        RequestError: ``K`` is less than 1. In backward: the environment does not repeat itself.
    """
    length = round(math.sqrt(noise.shape[0])) if segment_length is None else segment_length
    if length < 1:
        raise RequestError(f"segment_length is {length}: a segment has at least 1 step")
    start = env.detach(), *floats_of(env)
    shape = (*noise.shape[:-1], policy.action_size)
    perturbation = noise.new_zeros(shape).requires_grad_()
    parts: list[Window] = []
    segments: list[Segment] = []
    for begin in range(0, noise.shape[0], length):
        rows = slice(begin, begin + length)
        segment = Segment(env, policy, cursor, noise[rows], begin, without_graph(env))
        part, cursor, start = attach(segment, perturbation[rows], start)
        parts.append(part)
        segments.append(segment)
    window = dataclasses.replace(concatenate(parts), perturbation=perturbation)
    for segment in segments:
        segment.obs = window.obs[segment.begin : segment.begin + length].detach()
    return window, cursor
