"""From the settings and the spaces to a policy: which head fits an action space."""

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from gymnasium import spaces

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.mlp import (
    Activation,
    Std,
)
from pgtoolkit.networks.spaces import (
    action_bounds,
    box_size,
    is_bounded,
    number_of_switches,
    numbers_of_choices,
)
from pgtoolkit.policies.beta import BetaHead
from pgtoolkit.policies.discrete import BernoulliHead, MultiCategoricalHead, categorical_head
from pgtoolkit.policies.flow import FlowHead
from pgtoolkit.policies.gaussian import ClippedGaussianHead, FullGaussianHead, gaussian_head
from pgtoolkit.policies.head import Head, MakeHead, SquashedHead, UnsquashedHead
from pgtoolkit.policies.mixture import MixtureHead
from pgtoolkit.policies.policy import Policy

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


def discrete_head(
    action_space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
) -> MakeHead:
    """One choice, several independent choices, or independent yes-or-no decisions.

    Raises:
        RequestError: the choices are not in one row, or do not start at 0.
    """
    if isinstance(action_space, spaces.Discrete):
        return categorical_head(action_space)
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
            f"a beta distribution needs bounds, and the action space {single_line(action_space)} "
            "has none: use --distribution gaussian, full_gaussian, mixture or flow, or bound the "
            "actions (gymnasium.wrappers.RescaleAction)"
        )
    low, high = action_bounds(action_space)
    return lambda num_features, generator: BetaHead(num_features, low, high, generator=generator)


def clipped_gaussian_head(
    action_space: spaces.Space[np.ndarray], *, std: Std, log_std_init: float
) -> MakeHead:
    """A Gaussian, clipped to whatever bounds there are.

    Raises:
        RequestError: the action space is not a one-dimensional box.
    """
    box_size("action", action_space)
    low, high = action_bounds(action_space)
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
        return SquashedHead(head, *action_bounds(action_space)) if bounded else head

    return make


def make_policy(
    settings: PolicySettings,
    observation_space: spaces.Space[np.ndarray],
    action_space: spaces.Space[np.ndarray] | spaces.Space[np.int64],
    generator: torch.Generator,
) -> Policy:
    """The policy that fits the spaces.

    For a ``Box`` of actions ``settings.distribution`` names the head. For ``Discrete`` actions it
    is one softmax, for ``MultiDiscrete`` several, for ``MultiBinary`` independent Bernoulli
    variables.

    Raises:
        RequestError: no policy fits these spaces, or not with this distribution.
    """
    return Policy(
        observation_space,
        choose_head(settings, action_space),
        settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        normalize_observations=settings.normalize_observations,
        generator=generator,
    )


def choose_head(settings: PolicySettings, action_space: spaces.Space[Any]) -> MakeHead:
    """The head for an action space.

    Raises:
        RequestError: as :func:`make_policy`.
    """
    name, std, log_std_init = settings.distribution, settings.std, settings.log_std_init
    if isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        if name not in ("gaussian", "clipped_gaussian"):
            raise RequestError(
                f"--distribution {name} is over Box actions, and these are "
                f"{single_line(action_space)}: leave --distribution out"
            )
        return discrete_head(action_space)
    if name == "gaussian":
        return gaussian_head(action_space, std=std, log_std_init=log_std_init)
    if name == "clipped_gaussian":
        return clipped_gaussian_head(action_space, std=std, log_std_init=log_std_init)
    if name == "beta":
        return beta_head(action_space)
    return unsquashed_head(
        name,
        action_space,
        std=std,
        log_std_init=log_std_init,
        activation=settings.activation,
    )
