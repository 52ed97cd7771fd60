"""Makes the policy for given settings and spaces, and chooses its head."""

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from gymnasium import spaces

from pgtoolkit.errors import SettingError, single_line
from pgtoolkit.networks.bounds import action_bounds, finite_bounds, tanh_bounds
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.spaces import binary_size, box_size, categorical_sizes
from pgtoolkit.policies.beta import BetaHead
from pgtoolkit.policies.clipped import ClippedGaussianHead, ClippedTanhHead
from pgtoolkit.policies.discrete import (
    BernoulliHead,
    MultiCategoricalHead,
    categorical_head,
    masked,
)
from pgtoolkit.policies.flow import FlowHead
from pgtoolkit.policies.gaussian import FullGaussianHead, gaussian_head
from pgtoolkit.policies.head import Head, MakeHead, SquashedHead, UnsquashedHead
from pgtoolkit.policies.mixture import MixtureHead
from pgtoolkit.policies.policy import Policy
from pgtoolkit.policies.torso import MLP, chosen_torso
from pgtoolkit.seeding import stream

DistributionName = Literal[
    "gaussian", "clipped_gaussian", "clipped_tanh", "full_gaussian", "mixture", "beta", "flow"
]

UnsquashedName = Literal["full_gaussian", "mixture", "flow"]


class PolicySettings(Protocol):
    """The settings of an agent's configuration that :func:`make_policy` reads.

    It reads ``torso`` as well where there is one: hidden layers of the user's own
    (:func:`chosen_torso <pgtoolkit.policies.torso.chosen_torso>`).
    """

    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def layer_norm(self) -> bool: ...
    @property
    def first_bias(self) -> float: ...
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
    """Makes the categorical, multi-categorical or Bernoulli head of a discrete action space.

    Raises:
        RequestError: the space has more than one axis, or does not start at 0.
    """
    if isinstance(action_space, spaces.Discrete):
        return categorical_head(action_space)
    if isinstance(action_space, spaces.MultiBinary):
        size = binary_size(action_space)
        return lambda num_features, generator: BernoulliHead(
            num_features, size, generator=generator
        )
    nvec = categorical_sizes(action_space)
    return lambda num_features, generator: MultiCategoricalHead(
        num_features, nvec, generator=generator
    )


def beta_head(action_space: spaces.Space[np.ndarray]) -> MakeHead:
    """Makes a :class:`BetaHead <pgtoolkit.policies.beta.BetaHead>` between the action bounds.

    Raises:
        RequestError: the action space is not a one-dimensional box, or an entry has no bounds.
    """
    box_size("action", action_space)
    low, high = finite_bounds(action_space)
    return lambda num_features, generator: BetaHead(num_features, low, high, generator=generator)


def clipped_gaussian_head(
    action_space: spaces.Space[np.ndarray], *, std: Std, log_std_init: float
) -> MakeHead:
    """Makes a Gaussian head whose actions are clipped to the bounds, where there are any.

    Raises:
        RequestError: the action space is not a one-dimensional box, or an entry has bounds that no
            policy can have (:func:`action_bounds <pgtoolkit.networks.bounds.action_bounds>`).
    """
    box_size("action", action_space)
    low, high = action_bounds(action_space)
    return lambda num_features, generator: ClippedGaussianHead(
        num_features, low, high, std=std, log_std_init=log_std_init, generator=generator
    )


def clipped_tanh_head(
    action_space: spaces.Space[np.ndarray], *, std: Std, log_std_init: float
) -> MakeHead:
    """Makes a head whose mean a tanh keeps inside the bounds, with noise that is added after it.

    Raises:
        RequestError: the action space is not a one-dimensional box, or an entry has no bounds.
    """
    box_size("action", action_space)
    low, high = finite_bounds(action_space)
    return lambda num_features, generator: ClippedTanhHead(
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
    """Makes the head of an unbounded distribution, tanh-squashed if the box has bounds.

    Raises:
        RequestError: the action space is not a one-dimensional box, bounded everywhere or nowhere.
    """
    size, bounds = box_size("action", action_space), tanh_bounds(action_space)

    def make(num_features: int, generator: torch.Generator) -> Head:
        head_classes: dict[UnsquashedName, Callable[..., UnsquashedHead]] = {
            "full_gaussian": FullGaussianHead,
            "mixture": MixtureHead,
            "flow": functools.partial(FlowHead, activation=activation),
        }
        head = head_classes[name](
            num_features, size, std=std, log_std_init=log_std_init, generator=generator
        )
        return head if bounds is None else SquashedHead(head, *bounds)

    return make


def make_policy(
    settings: PolicySettings,
    observation_space: spaces.Space[np.ndarray],
    action_space: spaces.Space[np.ndarray] | spaces.Space[np.int64],
    generator: torch.Generator,
) -> Policy:
    """Makes the policy for an observation and an action space.

    For a ``Box`` of actions ``settings.distribution`` names the head. For ``Discrete`` actions it
    is one softmax, for ``MultiDiscrete`` several, for ``MultiBinary`` independent Bernoulli
    variables.

    Raises:
        RequestError: a space is not supported, or not with this distribution, or the torso is no
            module that a policy can use.
    """
    return Policy(
        observation_space,
        masked(choose_head(settings, action_space), observation_space),
        settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        first_bias=settings.first_bias,
        normalize_observations=settings.normalize_observations,
        torso=chosen_torso(getattr(settings, "torso", MLP)),
        generator=generator,
    )


def seeded_policy(
    settings: PolicySettings,
    spaces_: tuple[spaces.Space[Any], spaces.Space[Any]],
    *,
    seed: int,
    device: torch.device,
) -> Policy:
    """:func:`make_policy` for (observation, action) spaces, with the weights of a run's seed."""
    return make_policy(settings, *spaces_, stream(seed, "policy weights")).to(device)


def choose_head(settings: PolicySettings, action_space: spaces.Space[Any]) -> MakeHead:
    """Chooses the head for an action space.

    Raises:
        RequestError: the space is not supported, or not with this distribution.
    """
    name, std, log_std_init = settings.distribution, settings.std, settings.log_std_init
    if isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        if name not in ("gaussian", "clipped_gaussian"):
            raise SettingError(
                f"--distribution {name} is over Box actions, and these are "
                f"{single_line(action_space)}: leave --distribution out"
            )
        return discrete_head(action_space)
    if name == "gaussian":
        return gaussian_head(action_space, std=std, log_std_init=log_std_init)
    if name == "clipped_gaussian":
        return clipped_gaussian_head(action_space, std=std, log_std_init=log_std_init)
    if name == "clipped_tanh":
        return clipped_tanh_head(action_space, std=std, log_std_init=log_std_init)
    if name == "beta":
        return beta_head(action_space)
    return unsquashed_head(
        name,
        action_space,
        std=std,
        log_std_init=log_std_init,
        activation=settings.activation,
    )
