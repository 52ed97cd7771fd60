"""What the environments with an open-loop policy share: a clock, a line, and nothing to see.

Their observation is always 0, so that whatever the network, the policy is one Gaussian ``u = mean +
sigma eps`` at every step. That is the policy for which their closed forms hold.
"""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor


class BlindState(NamedTuple):
    position: Tensor
    """``[N, 1]``."""
    time: Tensor
    """``[N]`` steps since the start, an integer."""


def nothing_to_see() -> Box:
    """The space of an observation ``[1]`` that is always 0; its bounds are for those who ask."""
    return Box(-1.0, 1.0, (1,), np.float32)


def unbounded_action() -> Box:
    """One dimension without bounds, so that actions are not squashed."""
    return Box(-np.inf, np.inf, (1,), np.float32)


def start_at(position: float, num_envs: int, generator: torch.Generator) -> BlindState:
    """Every environment at one place, at time 0, on the generator's device."""
    at = torch.full((num_envs, 1), position, device=generator.device)
    return BlindState(at, torch.zeros(num_envs, dtype=torch.int64, device=generator.device))


def indicator(x: Tensor) -> Tensor:
    """``1[x > 0]``, with a graph along which the derivative is exactly 0.

    A comparison alone would have no graph at all, and a pathwise estimator would refuse it.
    """
    return torch.sign(x.clamp(min=0))
