"""Which head fits an action space."""

import functools
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
from gymnasium import spaces

from pgtoolkit.clipped_gaussian import ClippedGaussianHead
from pgtoolkit.discrete_heads import BernoulliHead, MultiCategoricalHead
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.flow_head import FlowHead
from pgtoolkit.head_policy import MakeHead
from pgtoolkit.heads import (
    BetaHead,
    FullGaussianHead,
    Head,
    MixtureHead,
    SquashedHead,
    UnsquashedHead,
)
from pgtoolkit.networks import Activation, Std
from pgtoolkit.spaces import box_size, is_bounded, number_of_switches, numbers_of_choices

DistributionName = Literal[
    "gaussian", "clipped_gaussian", "full_gaussian", "mixture", "beta", "flow"
]
UnsquashedName = Literal["full_gaussian", "mixture", "flow"]


class PolicySettings(Protocol):
    """What :func:`make_policy` reads of an agent's configuration."""

    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def layer_norm(self) -> bool: ...
    @property
    def distribution(self) -> DistributionName: ...
    @property
    def std(self) -> Std: ...
    @property
    def log_std_init(self) -> float: ...
    @property
    def normalize_observations(self) -> bool: ...


def discrete_head(action_space: spaces.MultiDiscrete | spaces.MultiBinary) -> MakeHead:
    """Independent choices, or independent switches.

    Raises:
        RequestError: they are not in one row.
    """
    if isinstance(action_space, spaces.MultiBinary):
        size = number_of_switches(action_space)
        return lambda num_features, generator: BernoulliHead(
            num_features, size, generator=generator
        )
    nvec = numbers_of_choices(action_space)
    return lambda num_features, generator: MultiCategoricalHead(
        num_features, nvec, generator=generator
    )


def beta_head(action_space: spaces.Space[np.ndarray]) -> MakeHead:
    """A beta distribution on the bounds.

    Raises:
        RequestError: there are none.
    """
    box_size("action", action_space)
    if not is_bounded(action_space):
        raise RequestError(
            f"a beta distribution needs bounds, and the action space {one_line(action_space)} has "
            "none: use --distribution gaussian, full_gaussian, mixture or flow, or bound the "
            "actions (gymnasium.wrappers.RescaleAction)"
        )
    low, high = bounds(action_space)
    return lambda num_features, generator: BetaHead(num_features, low, high, generator=generator)


def clipped_gaussian_head(
    action_space: spaces.Space[np.ndarray], *, std: Std, log_std_init: float
) -> MakeHead:
    """A Gaussian, clipped to whatever bounds there are.

    Raises:
        RequestError: the action space is not a one-dimensional box.
    """
    box_size("action", action_space)
    low, high = bounds(action_space)
    return lambda num_features, generator: ClippedGaussianHead(
        num_features, low, high, std=std, log_std_init=log_std_init, generator=generator
    )


def unsquashed_head(
    name: UnsquashedName,
    action_space: spaces.Space[np.ndarray],
    *,
    std: Std,
    log_std_init: float,
    activation: Activation,
) -> MakeHead:
    """A distribution without bounds, tanh-squashed if the box has some.

    Raises:
        RequestError: the action space is not a one-dimensional box, bounded everywhere or nowhere.
    """
    size, bounded = box_size("action", action_space), is_bounded(action_space)

    def make(num_features: int, generator: torch.Generator) -> Head:
        head_classes: dict[UnsquashedName, Callable[..., UnsquashedHead]] = {
            "full_gaussian": FullGaussianHead,
            "mixture": MixtureHead,
            "flow": functools.partial(FlowHead, activation=activation),
        }
        head = head_classes[name](
            num_features, size, std=std, log_std_init=log_std_init, generator=generator
        )
        return SquashedHead(head, *bounds(action_space)) if bounded else head

    return make


def bounds(action_space: spaces.Space[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper bounds of a box, each ``[A]``."""
    assert isinstance(action_space, spaces.Box)
    low, high = action_space.low, action_space.high
    return torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
