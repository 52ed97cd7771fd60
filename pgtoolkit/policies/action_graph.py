"""A policy's deterministic action as a function of tensors alone, for export to other programs."""

import copy
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.beta_median import beta_median
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.normalizer import exact_dtype
from pgtoolkit.networks.spaces import is_image
from pgtoolkit.policies.policy import Policy


@final
class ActionGraph(nn.Module):
    """Observations ``[N, O]`` of an environment to the actions ``[N, A]`` that it is given.

    Observations and actions are in the environment's own units and dtypes. Inside are the
    normaliser, the layers, squashing and bounds, and the choice of the best category. An action is
    the mode of the policy's distribution, in the dtype of the action space and in its bounds there.

    Observations are read in a dtype that holds every number of their space: uint8 for images,
    float64 for a space of float64 or of long integers, float32 else. So a normaliser can tell
    1.7e9 from 1.7e9 + 1.

    Args:
        policy: is copied.
        observation_space: of one environment, as the policy reads it.
        action_space: of one environment; ``[N]`` actions where it is ``Discrete``.

    Raises:
        RequestError: torch has no dtype for the actions.
    """

    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        policy: Policy,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
        self.observation_dtype = torch_dtype(observation_dtype(observation_space))
        self.policy_dtype = torch_dtype(policy.normalizer.input_dtype)
        try:
            self.action_dtype = torch_dtype(action_space.dtype)
        except TypeError as error:
            raise RequestError(
                f"the action space {single_line(action_space)} has the dtype {action_space.dtype}, "
                "which no exported file can have: give it float32, float64 or int64"
            ) from error
        low, high = dtype_bounds(action_space)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, observation: Tensor) -> Tensor:
        distribution = self.policy(observation.to(self.policy_dtype))
        action = deterministic_action(distribution).to(self.action_dtype)
        if self.low is None or self.high is None:
            return action
        return torch.minimum(torch.maximum(action, self.low), self.high)


def deterministic_action(distribution: Distribution) -> Tensor:
    """The distribution's mode in torch operations alone.

    A beta distribution's is its median, which :attr:`Beta.mode
    <pgtoolkit.distributions.beta.Beta.mode>` takes from SciPy.
    """
    if isinstance(distribution, Beta):
        median = beta_median(distribution.alpha, distribution.beta)
        return distribution.squash(median.to(distribution.alpha.dtype))
    return distribution.mode


def observation_dtype(space: spaces.Space[Any]) -> np.dtype[Any]:
    """The dtype in which an exported policy reads observations of this space."""
    assert space.dtype is not None, "a Box has a dtype"
    return np.dtype(np.uint8) if is_image(space) else exact_dtype(space.dtype)


def torch_dtype(dtype: Any) -> torch.dtype:
    """Torch's dtype for one of NumPy's.

    Raises:
        TypeError: there is none.
    """
    return torch.from_numpy(np.empty(0, dtype)).dtype


def dtype_bounds(space: spaces.Space[Any]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The bounds ``[A]`` of a ``Box`` in its dtype; None where no entry has one.

    They are those of :func:`given_action <pgtoolkit.rollouts.given_action.given_action>`.
    """
    if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).any():
        return None, None
    return torch.from_numpy(space.low.copy()), torch.from_numpy(space.high.copy())
