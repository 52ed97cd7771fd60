"""What off-policy agents do between a window and their minibatches: store, and draw."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from torch import Tensor

from pgtoolkit.learners.policy_learner import describe
from pgtoolkit.memory import FLOAT_BYTES, available_memory, replay_bytes, require_memory
from pgtoolkit.networks.normalizer import exact_dtype
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window

Spaces = tuple[Space[Any], Space[Any]]
"""Observation and action space of one environment."""

MAX_DRAWN_BYTES = 64 * 2**20
"""Most bytes of observations that are copied out of a replay buffer at a time, as float32."""


def make_replay(
    capacity: int, spaces: Spaces, device: torch.device, *, extra_numbers: int = 0
) -> ReplayBuffer:
    """The buffer of so many transitions, empty.

    Args:
        capacity: number of transitions, the setting ``buffer_size``.
        spaces: observation and action space of one environment.
        device: where they are stored.
        extra_numbers: float32 numbers of a transition beyond its five fields.

    Raises:
        RequestError: once full it would not fit into memory; says how large it would be.
    """
    if device.type == "cpu":
        size = float(capacity * bytes_of_transition(spaces, extra_numbers))
        needs = {f"a full replay buffer (--buffer-size {capacity})": size}
        require_memory(needs, available_memory(), "--buffer-size")
    return ReplayBuffer(capacity, device=device)


def replay_sentence(capacity: int, spaces: Spaces, extra_numbers: int = 0) -> str:
    """How much memory a replay buffer takes, for the start of a run."""
    one = bytes_of_transition(spaces, extra_numbers)
    return (
        f"replay buffer: up to {capacity * one / 1e6:,.1f} MB of memory, taken as it fills "
        f"({capacity:,} transitions of {one:,} bytes)"
    )


def bytes_of_transition(spaces: Spaces, extra_numbers: int = 0) -> int:
    """Bytes of a transition as it is stored."""
    obs = spaces[0]
    obs_size, action_size = (math.prod(space.shape or (1,)) for space in spaces)
    obs_bytes = 1 if obs.dtype == np.uint8 else exact_dtype(obs.dtype or np.float32).itemsize
    return replay_bytes(obs_size, action_size, obs_bytes) + FLOAT_BYTES * extra_numbers


def stored_transitions(
    window: Window, observation_space: Space[object], *extras: str
) -> Transitions:
    """The valid steps of a window, as a replay buffer keeps them.

    Windows hold observations as floats. Those of a space of bytes, such as images, are stored as
    bytes, a quarter of the memory; the policy's normaliser reads both.

    Args:
        window: collected steps.
        observation_space: of one environment.
        extras: names of further tensors of the window to store.
    """
    found = window.transitions(*extras)
    return with_observations(found, torch.uint8) if observation_space.dtype == "uint8" else found


def with_observations(transitions: Transitions, dtype: torch.dtype) -> Transitions:
    """The transitions with both observations in this dtype."""
    observations = {name: getattr(transitions, name).to(dtype) for name in ("obs", "next_obs")}
    return dataclasses.replace(transitions, **observations)


def draw_minibatches(
    buffer: ReplayBuffer, count: int, batch_size: int, generator: torch.Generator
) -> Iterator[Transitions]:
    """Draws ``count`` minibatches ``[k, batch_size]``, as many at a time as fit into memory.

    Args:
        buffer: has stored something.
        count: number of minibatches in all.
        batch_size: transitions in each, drawn uniformly with replacement.
        generator: draws the places.
    """
    one = buffer.newest(1)
    size = 2 * 4 * batch_size * one.obs[0].numel()
    most = max(1, MAX_DRAWN_BYTES // max(size, 1))
    for first in range(0, count, most):
        yield buffer.draw((min(most, count - first), batch_size), generator)


def mean_reports(
    reports: Sequence[Mapping[str, Tensor]], tags: Mapping[str, str]
) -> dict[str, Tensor]:
    """The mean over all minibatches of what they report ``[K]``, by TensorBoard tag.

    Args:
        reports: of each draw; a name may be absent in some.
        tags: name to tag.
    """
    found: dict[str, Tensor] = {}
    for name, tag in tags.items():
        parts = [report[name] for report in reports if name in report]
        if parts:
            found[tag] = torch.cat(parts).mean()
    return found


def describe_acting(policy: Policy, window: Window) -> dict[str, Tensor]:
    """:func:`describe <pgtoolkit.learners.policy_learner.describe>` of a policy that is off-policy.

    How far it has moved since it acted is left out, because no step depends on it.
    """
    found = describe(policy(window.obs), window)
    del found["train/approx_kl"]
    return found
