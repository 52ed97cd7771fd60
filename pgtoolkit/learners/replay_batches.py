"""What off-policy agents do between a window and their minibatches: store, and draw."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from gymnasium.spaces import Space
from torch import Tensor

from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window

MAX_DRAWN_BYTES = 64 * 2**20
"""Most bytes of observations that are copied out of a replay buffer at a time, as float32."""


def stored_transitions(window: Window, observation_space: Space[object]) -> Transitions:
    """The valid steps of a window, as a replay buffer keeps them.

    Windows hold observations as floats. Those of a space of bytes, such as images, are stored as
    bytes, a quarter of the memory.
    """
    found = window.transitions()
    if observation_space.dtype != "uint8":
        return found
    return Transitions(
        obs=found.obs.to(torch.uint8),
        action=found.action,
        reward=found.reward,
        next_obs=found.next_obs.to(torch.uint8),
        terminated=found.terminated,
    )


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
