"""Makes the Q functions of an agent from its settings."""

from typing import Any

from gymnasium import spaces

from pgtoolkit.config import CriticSettings
from pgtoolkit.distributions.base import nonzero
from pgtoolkit.distributions.clipped import unit_box
from pgtoolkit.networks.bounds import action_bounds
from pgtoolkit.networks.encoder import make_encoder
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.networks.value import (
    ActionUnits,
    HLGauss,
    QEnsemble,
    QFunction,
    SquaredError,
    ValueHead,
)
from pgtoolkit.seeding import stream


def make_q_ensemble(
    config: Any,
    spaces_: tuple[spaces.Space[Any], spaces.Space[Any]],
    *,
    seed: int,
) -> QEnsemble:
    """``config.num_critics`` Q functions with hidden layers and image encoders like the policy's.

    Args:
        config: settings with the policy's and the critic's group.
        spaces_: observation and action space of one environment.
        seed: determines the initial weights, which differ between the members.

    Raises:
        RequestError: actions are not a one-dimensional box.
    """
    observation_space, action_space = spaces_
    action_size, weights = continuous_size(action_space), stream(seed, "Q weights")
    members = []
    for _ in range(config.num_critics):
        encoder, num_features = make_encoder(observation_space, weights)
        members.append(
            QFunction(
                num_features,
                action_size,
                config.hidden,
                activation=config.activation,
                layer_norm=config.critic_layer_norm,
                generator=weights,
                encoder=encoder,
                head=make_value_head(config),
                units=action_units(action_space),
            )
        )
    return QEnsemble(members, policy_value=config.policy_value)


def action_units(action_space: spaces.Space[Any]) -> ActionUnits:
    """The units of a box of actions, in which Q functions read them."""
    centre, scale = unit_box(*action_bounds(action_space))
    return ActionUnits(centre, nonzero(scale))


def make_value_head(config: CriticSettings) -> ValueHead:
    """The output and loss that ``config.critic`` names."""
    if config.critic == "hl_gauss":
        return HLGauss(-config.value_range, config.value_range, config.num_bins)
    return SquaredError()
