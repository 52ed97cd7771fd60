"""The policy: an observation normaliser, hidden layers (the torso) and a head."""

import copy
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.noise import draw_noise
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.encoder import Pixels, make_encoder, make_normalizer
from pgtoolkit.networks.mlp import Activation, hidden_layers
from pgtoolkit.networks.normalizer import NoNormalizer, ObservationNormalizer
from pgtoolkit.networks.parts import ACTION_MASK, mask_part, policy_space, select_parts
from pgtoolkit.policies.head import MakeHead
from pgtoolkit.policies.torso import MakeTorso, Torso


@final
class Policy(nn.Module):
    """``pi(action | obs) = head(torso(normalizer(obs)))``, with any head.

    The normaliser is a part of the policy, so a saved policy is complete.

    Args:
        observation_space: a one-dimensional ``Box``, or images, which two convolutions read. Of a
            :class:`RowWithParts <pgtoolkit.networks.parts.RowWithParts>` the hidden layers read
            what is neither privileged nor an action mask.
        make_head: makes the head from the number of features and a generator; the head fits the
            action space.
        hidden: sizes of the hidden layers; with ``()`` the head reads the observation itself.
        activation: activation of the hidden layers.
        layer_norm: whether a LayerNorm follows each hidden activation.
        first_bias: half-width of the uniform distribution of the first layer's initial biases.
        normalize_observations: whether observations are normalised by their running mean and
            variance. Only ``normalizer.update`` changes these.
        torso: makes the hidden layers in the place of those that ``hidden``, ``activation``,
            ``layer_norm`` and ``first_bias`` describe, and of the convolutions.
        generator: draws the initial weights; None means a new generator with seed 0.

    Raises:
        RequestError: the observation space is of another kind, or its action mask does not fit the
            actions.
    """

    normalizer: ObservationNormalizer | NoNormalizer | Pixels

    def __init__(
        self,
        observation_space: spaces.Space[np.ndarray],
        make_head: MakeHead,
        hidden: tuple[int, ...] = (64, 64),
        *,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        first_bias: float = 0.0,
        normalize_observations: bool = False,
        torso: MakeTorso | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.normalizer = make_normalizer(observation_space, normalize_observations)
        make = torso or described_torso(hidden, activation, layer_norm, first_bias)
        layers, num_features = make(policy_space(observation_space), generator)
        self.torso = select_parts(layers, observation_space)
        self.head = make_head(num_features, generator)
        if mask_part(observation_space) is not None and not self.head.mask_size:
            raise RequestError(
                f"the observation has a part {ACTION_MASK!r}, which only Discrete, "
                "MultiDiscrete and MultiBinary actions can follow: give the part another name, "
                "or take it out"
            )
        self.noise, self.action_size = self.head.noise, self.head.action_size

    @property
    def noise_size(self) -> int:
        """Number of entries of the standard noise of one action."""
        return sum(part.size for part in self.noise)

    def forward(self, obs: Tensor) -> Distribution:
        """The distribution over actions at ``obs`` ``[..., O]``."""
        return self.head(self.torso(self.normalizer(obs)))

    if TYPE_CHECKING:  # the result's type; a real method would be one more call on every step

        def __call__(self, obs: Tensor) -> Distribution: ...

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        """Standard noise ``[*batch, noise_size]`` of actions, on the generator's device."""
        return draw_noise(self.noise, batch, generator)

    def pathwise_action(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The action ``a(obs, noise)``, squashed to the action space; it carries the graph.

        Its derivative with respect to the parameters is the pathwise (reparameterisation) gradient,
        ``d/dtheta E[J(a)] = E[dJ/da da(theta, eps)/dtheta]``.

        Raises:
            RequestError: the policy is discrete and has no such derivative.
        """
        return self(obs).rsample(noise)

    def log_derivative_loss(self, obs: Tensor, pre_action: Tensor, weight: Tensor) -> Tensor:
        """``-weight * log pi(action | obs)`` ``[...]``, unreduced: the score-function loss.

        Minus its gradient estimates ``d/dtheta E[J] = E[J dlog pi/dtheta]``, the score-function or
        REINFORCE gradient (Williams 1992). ``pre_action`` and ``weight`` are detached here: if a
        reparameterised action were not, the two paths through a Gaussian's mean would cancel, and
        the gradient by the mean would be exactly zero.

        Args:
            obs: ``[..., O]``.
            pre_action: ``[..., A]`` the pre-squash action, as stored in the window.
            weight: ``[...]`` a return, an advantage, or another weight that does not depend on the
                parameters.
        """
        return self(obs).log_derivative_loss(pre_action, weight)


def described_torso(
    hidden: tuple[int, ...], activation: Activation, layer_norm: bool, first_bias: float
) -> MakeTorso:
    """Makes fully connected layers, behind two convolutions where observations are images.

    The arguments are those of :class:`Policy`.
    """

    def make(observation_space: spaces.Space[Any], generator: torch.Generator) -> Torso:
        encoder, num_features = make_encoder(observation_space, generator)
        layers = hidden_layers(
            num_features,
            hidden,
            activation=activation,
            layer_norm=layer_norm,
            generator=generator,
            first_bias=first_bias,
        )
        return Torso(nn.Sequential(*encoder, *layers), hidden[-1] if hidden else num_features)

    return make


def without_normalizer(policy: Policy) -> Policy:
    """A shallow copy of the policy that shares its parameters and reads normalised observations.

    It serves several passes over observations that are normalised once.
    """
    bare = copy.copy(policy)
    bare.__dict__["_modules"] = policy._modules | {"normalizer": nn.Identity()}
    return bare


HeadPolicy = Policy
"""Another public name of :class:`Policy`."""
