"""Policies: a Gaussian over a box, a softmax over choices; and which policy fits a space."""

from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distributions import Categorical, DiagonalGaussian, TanhGaussian
from pgtoolkit.encoder import make_encoder, make_normalizer
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.head_choice import DistributionName as DistributionName
from pgtoolkit.head_choice import PolicySettings as PolicySettings
from pgtoolkit.head_choice import (
    beta_head,
    bounds,
    clipped_gaussian_head,
    discrete_head,
    unsquashed_head,
)
from pgtoolkit.head_policy import HeadPolicy, MakeHead
from pgtoolkit.networks import Activation as Activation
from pgtoolkit.networks import StateIndependentStd, limited_log_std, mlp, raw_log_std
from pgtoolkit.networks import Std as Std
from pgtoolkit.policy import Policy
from pgtoolkit.spaces import box_size, is_bounded


@final
class GaussianPolicy(Policy):
    """A diagonal Gaussian over a ``Box``, tanh-squashed to its bounds where it has bounds.

    Args:
        observation_space: a one-dimensional ``Box``, or images, which two convolutions read.
        action_space: a one-dimensional ``Box``, bounded on all sides or on none.
        hidden: sizes of the hidden layers; ``()`` is a linear policy.
        activation: of the hidden layers.
        layer_norm: LayerNorm after each hidden activation.
        std: one log-sigma per dimension, or a second output of the network (Haarnoja et al. 2018),
            then kept in [-5, 2] by a tanh.
        log_std_init: where log-sigma starts.
        normalize_observations: with a running normaliser that only ``normalizer.update`` changes.
        generator: for the initial weights; None is a fresh one seeded with 0.

    Raises:
        RequestError: a space of another kind.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[np.ndarray],
        action_space: spaces.Space[np.ndarray],
        hidden: tuple[int, ...] = (64, 64),
        *,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        std: Std = "state_independent",
        log_std_init: float = 0.0,
        normalize_observations: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.noise_size = self.action_size = size = box_size("action", action_space)
        self.bounded = is_bounded(action_space)
        if self.bounded:
            low, high = bounds(action_space)
            self.register_buffer("low", low)
            self.register_buffer("high", high)
        generator = generator or torch.Generator().manual_seed(0)
        self.normalizer = make_normalizer(observation_space, normalize_observations)
        encoder, num_features = make_encoder(observation_space, generator)
        layers = mlp(
            num_features,
            hidden,
            size if std == "state_independent" else 2 * size,
            activation=activation,
            layer_norm=layer_norm,
            output_gain=0.01,
            generator=generator,
        )
        self.network = nn.Sequential(*encoder, *layers)
        self.std = StateIndependentStd(size, log_std_init) if std == "state_independent" else None
        if self.std is None:
            # The bias that puts tanh-limited log-sigma at its initial value in every state.
            last = self.network[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(last.bias[size:], raw_log_std(log_std_init))

    def forward(self, obs: Tensor) -> DiagonalGaussian | TanhGaussian:
        output = self.network(self.normalizer(obs))
        if self.std is not None:
            mean, log_std = output, self.std(output)
        else:
            mean, raw = output.chunk(2, dim=-1)
            log_std = limited_log_std(raw)
        if self.bounded:
            return TanhGaussian(mean, log_std, self.low, self.high)
        return DiagonalGaussian(mean, log_std)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*batch, self.noise_size, generator=generator, device=generator.device)

    def pathwise_action(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self(obs).rsample(noise)


@final
class CategoricalPolicy(Policy):
    """A softmax over a ``Discrete`` action space. It has the score-function loss only.

    Args: as :class:`GaussianPolicy`, with a ``Discrete`` action space.

    Raises:
        RequestError: a space of another kind.
    """

    def __init__(
        self,
        observation_space: spaces.Space[np.ndarray],
        action_space: spaces.Space[np.int64],
        hidden: tuple[int, ...] = (64, 64),
        *,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        normalize_observations: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
            raise RequestError(
                "a categorical policy needs Discrete actions that start at 0, not "
                f"{one_line(action_space)}"
            )
        self.noise_size, self.action_size = int(action_space.n), 1
        generator = generator or torch.Generator().manual_seed(0)
        self.normalizer = make_normalizer(observation_space, normalize_observations)
        encoder, num_features = make_encoder(observation_space, generator)
        layers = mlp(
            num_features,
            hidden,
            self.noise_size,
            activation=activation,
            layer_norm=layer_norm,
            output_gain=0.01,
            generator=generator,
        )
        self.network = nn.Sequential(*encoder, *layers)

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(self.network(self.normalizer(obs)))

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        shape = torch.empty(*batch, self.noise_size, device=generator.device)
        return Categorical(shape).draw_noise(generator)

    def pathwise_action(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self(obs).rsample(noise)


def make_policy(
    settings: PolicySettings,
    observation_space: spaces.Space[np.ndarray],
    action_space: spaces.Space[np.ndarray] | spaces.Space[np.int64],
    generator: torch.Generator,
) -> Policy:
    """The policy that fits the action space.

    For ``Box`` what ``settings.distribution`` says; for ``Discrete`` a softmax, for
    ``MultiDiscrete`` several, for ``MultiBinary`` independent switches.

    Raises:
        RequestError: no policy fits these spaces, or not with this distribution.
    """
    make_head = choose_head(settings, action_space)
    if make_head is not None:
        return HeadPolicy(
            observation_space,
            make_head,
            settings.hidden,
            activation=settings.activation,
            layer_norm=settings.layer_norm,
            normalize_observations=settings.normalize_observations,
            generator=generator,
        )
    if isinstance(action_space, spaces.Discrete):
        return CategoricalPolicy(
            observation_space,
            action_space,
            settings.hidden,
            activation=settings.activation,
            layer_norm=settings.layer_norm,
            normalize_observations=settings.normalize_observations,
            generator=generator,
        )
    return GaussianPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]  # its kind is checked there
        settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        std=settings.std,
        log_std_init=settings.log_std_init,
        normalize_observations=settings.normalize_observations,
        generator=generator,
    )


def choose_head(settings: PolicySettings, action_space: spaces.Space[Any]) -> MakeHead | None:
    """The head of a :class:`HeadPolicy`; None where a policy class of its own serves."""
    name = settings.distribution
    discrete = isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    if discrete and name not in ("gaussian", "clipped_gaussian"):
        raise RequestError(
            f"--distribution {name} is over Box actions, and these are {one_line(action_space)}: "
            "leave --distribution out"
        )
    if isinstance(action_space, spaces.MultiDiscrete | spaces.MultiBinary):
        return discrete_head(action_space)
    if name == "gaussian" or discrete:
        return None
    if name == "clipped_gaussian":
        return clipped_gaussian_head(
            action_space, std=settings.std, log_std_init=settings.log_std_init
        )
    if name == "beta":
        return beta_head(action_space)
    return unsquashed_head(
        name,
        action_space,
        std=settings.std,
        log_std_init=settings.log_std_init,
        activation=settings.activation,
    )
