"""Value functions: ``V(obs)``, an ensemble of ``Q(obs, action)``, and a copy that lags behind."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from pgtoolkit.networks.mlp import Activation, mlp
from pgtoolkit.state import require, schema_of

CriticLoss = Literal["mse", "hl_gauss"]
"""Names of the value heads."""
PolicyValue = Literal["least", "first"]
"""What a policy climbs where there are several Q functions: the least of them, or the first."""

ROUNDINGS_OF_A_CONSTANT = 16
"""Standard deviation, in units of rounding of the largest entry, up to which returns count as
constant. A return is a sum of many rounded terms, so it is off by several units."""

START_LOGIT = 40.0
"""Logit of a bin with all probability in a fresh :class:`HLGauss`; that of the bin around 0 is half
of it."""
OUTPUT_WEIGHT_SHARE = 0.01
"""Share of the output layer's initial weights that a fresh :class:`HLGauss` keeps."""


class ValueHead(nn.Module, ABC):
    """Maps a network's outputs to a value, and has the loss that fits the value to a target."""

    num_outputs: int
    """Number of outputs ``K`` of the network."""

    @abstractmethod
    def value(self, output: Tensor) -> Tensor:
        """The value ``[...]`` of outputs ``[..., K]``."""

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """What the loss compares outputs with, ``[..., E]``, from targets ``[...]``.

        It depends on no parameter, so that targets of many passes are encoded once.
        """

    @abstractmethod
    def loss_of_encoded(self, output: Tensor, encoded: Tensor) -> Tensor:
        """The loss ``[...]`` of outputs ``[..., K]`` for encoded targets ``[..., E]``."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss ``[...]`` of outputs ``[..., K]`` for targets ``[...]``, unreduced."""
        return self.loss_of_encoded(output, self.encode(target))

    def start_near_zero(self, layer: nn.Linear) -> None:
        """Changes a fresh output layer so that values start near 0, if they would not."""


@final
class SquaredError(ValueHead):
    """The output is the value; the loss is ``(V - target)^2``."""

    num_outputs = 1

    def value(self, output: Tensor) -> Tensor:
        return output.squeeze(-1)

    def encode(self, target: Tensor) -> Tensor:
        return target.unsqueeze(-1)

    def loss_of_encoded(self, output: Tensor, encoded: Tensor) -> Tensor:
        return (self.value(output) - encoded.squeeze(-1)).square()


@final
class HLGauss(ValueHead):
    """The outputs are logits of bins; the loss is a cross entropy to a Gaussian histogram.

    The value is ``sum_k softmax(output)_k c_k`` with bin centres ``c_k``. The target histogram has
    ``p_k`` proportional to ``Phi((e_{k+1} - y) / sigma) - Phi((e_k - y) / sigma)`` with bin edges
    ``e`` and ``sigma = 0.75`` bin widths (Farebrother et al. 2024, "Stop Regressing"). Targets are
    clipped to the range.

    Args:
        low: the lowest value that can be represented.
        high: the highest.
        num_bins: ``K``.

    Raises:
        ValueError: ``low`` is not below ``high``, or there are fewer than two bins.
    """

    edges: Tensor
    centres: Tensor

    def __init__(self, low: float, high: float, num_bins: int = 101) -> None:
        super().__init__()
        if not low < high or num_bins < 2:
            raise ValueError(f"HLGauss needs low < high and 2 bins, not {low}, {high}, {num_bins}")
        self.low, self.high, self.num_outputs = low, high, num_bins
        edges = torch.linspace(low, high, num_bins + 1)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", 0.5 * (edges[1:] + edges[:-1]), persistent=False)

    def value(self, output: Tensor) -> Tensor:
        return torch.softmax(output, -1) @ self.centres

    def encode(self, target: Tensor) -> Tensor:
        return self.histogram(target)

    def loss_of_encoded(self, output: Tensor, encoded: Tensor) -> Tensor:
        return -(encoded * torch.log_softmax(output, -1)).sum(-1)

    @torch.no_grad()
    def start_near_zero(self, layer: nn.Linear) -> None:
        """Gives nearly all probability to the bins around 0, in every state.

        Equal logits would be a value near 0 too, but with random weights they are not: each value
        would be off by a few hundredths of the range, which is as much as returns vary.
        """
        layer.weight.mul_(OUTPUT_WEIGHT_SHARE)
        layer.bias.copy_(START_LOGIT * self.histogram(torch.zeros_like(self.edges[0])))

    def histogram(self, target: Tensor) -> Tensor:
        """The probabilities ``[..., K]`` of the bins for targets ``[...]``."""
        sigma = 0.75 * (self.high - self.low) / self.num_outputs
        distance = self.edges - target.clamp(self.low, self.high).unsqueeze(-1)
        rank = torch.erf(distance / (math.sqrt(2) * sigma))
        mass = rank[..., 1:] - rank[..., :-1]
        return mass / mass.sum(-1, keepdim=True)


@final
class ValueFunction(nn.Module):
    """``V(obs)`` ``[...]`` from normalised observations ``[..., O]``.

    Args:
        num_features: ``O``, or the number of the encoder's outputs.
        hidden: sizes of the hidden layers.
        activation: activation of the hidden layers.
        layer_norm: whether a LayerNorm follows each hidden activation.
        generator: draws the initial weights.
        encoder: layers that come first.
        head: the kind of output and of loss; squared error by default.
    """

    def __init__(
        self,
        num_features: int,
        hidden: tuple[int, ...],
        *,
        activation: Activation,
        layer_norm: bool,
        generator: torch.Generator,
        encoder: Sequence[nn.Module] = (),
        head: ValueHead | None = None,
    ) -> None:
        super().__init__()
        self.head = head or SquaredError()
        layers = mlp(
            num_features,
            hidden,
            self.head.num_outputs,
            activation=activation,
            layer_norm=layer_norm,
            output_gain=1.0,
            generator=generator,
        )
        self.network = nn.Sequential(*encoder, *layers)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head.value(self.network(obs))

    def loss(self, obs: Tensor, target: Tensor) -> Tensor:
        """The head's loss ``[M]`` at observations ``[M, O]`` for targets ``[M]``."""
        return self.head.loss(self.network(obs), target)


@final
class ValueEnsemble(nn.Module):
    """Independent functions ``V_j(obs)``, ``[n, ...]`` in all, each with its loss.

    Args:
        members: the ``n`` functions.
    """

    def __init__(self, members: Sequence[ValueFunction]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def functions(self) -> list[ValueFunction]:
        """The members, with their type."""
        return [member for member in self.members if isinstance(member, ValueFunction)]

    def forward(self, obs: Tensor) -> Tensor:
        return torch.stack([member(obs) for member in self.members])

    def loss(self, obs: Tensor, target: Tensor) -> Tensor:
        """The members' losses added up ``[M]``, at observations ``[M, O]`` for targets ``[M]``."""
        return torch.stack([member.loss(obs, target) for member in self.functions]).sum(0)


@final
class ActionUnits(nn.Module):
    """Actions in units of their box, ``(action - centre) / scale``: [-1, 1] between two bounds.

    A network whose input has another size in every environment would need other weights and another
    learning rate in each. See :func:`unit_box <pgtoolkit.distributions.clipped.unit_box>`.

    Args:
        centre: ``[A]``.
        scale: ``[A]``, positive.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, action: Tensor) -> Tensor:
        return (action - self.centre) / self.scale


@final
class QFunction(nn.Module):
    """``Q(obs, action)`` ``[...]``; the action joins the observation after the encoder.

    Args:
        num_features: number of the encoder's outputs, or ``O``.
        action_size: ``A``.
        hidden: sizes of the hidden layers.
        activation: activation of the hidden layers.
        layer_norm: whether a LayerNorm follows each hidden activation.
        generator: draws the initial weights.
        encoder: layers that read the observation first.
        head: the kind of output and of loss; squared error by default.
        units: maps the environment's actions to what the network reads; nothing by default.
    """

    def __init__(
        self,
        num_features: int,
        action_size: int,
        hidden: tuple[int, ...],
        *,
        activation: Activation,
        layer_norm: bool,
        generator: torch.Generator,
        encoder: Sequence[nn.Module] = (),
        head: ValueHead | None = None,
        units: ActionUnits | None = None,
    ) -> None:
        super().__init__()
        self.head, self.units = head or SquaredError(), units or nn.Identity()
        self.encoder = nn.Sequential(*encoder)
        self.network = mlp(
            num_features + action_size,
            hidden,
            self.head.num_outputs,
            activation=activation,
            layer_norm=layer_norm,
            output_gain=1.0,
            generator=generator,
        )
        output = self.network[-1]
        assert isinstance(output, nn.Linear)
        self.head.start_near_zero(output)

    def output(self, obs: Tensor, action: Tensor) -> Tensor:
        """The network's outputs ``[..., K]``, which the head reads."""
        found: Tensor = self.network(torch.cat([self.encoder(obs), self.units(action)], -1))
        return found

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.head.value(self.output(obs, action))

    def loss(self, obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """The head's loss ``[M]`` for targets ``[M]``."""
        return self.head.loss(self.output(obs, action), target)

    def loss_of_encoded(self, obs: Tensor, action: Tensor, encoded: Tensor) -> Tensor:
        """The head's loss ``[M]`` for targets that its ``encode`` has encoded, ``[M, E]``."""
        return self.head.loss_of_encoded(self.output(obs, action), encoded)


@final
class QEnsemble(nn.Module):
    """Independent functions ``Q_j(obs, action)``, ``[n, ...]`` in all.

    Args:
        members: the ``n`` functions; two for clipped double Q-learning.
        policy_value: the number that a policy climbs.
    """

    def __init__(
        self, members: Sequence[QFunction], *, policy_value: PolicyValue = "least"
    ) -> None:
        super().__init__()
        self.choice, self.members = policy_value, nn.ModuleList(members)

    @property
    def functions(self) -> list[QFunction]:
        """The members, with their type."""
        return [member for member in self.members if isinstance(member, QFunction)]

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.stack([member(obs, action) for member in self.members])

    def policy_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """The value ``[...]`` that a policy climbs: of the least member, or of the first."""
        if self.choice == "first" or len(self.members) == 1:
            first: Tensor = self.members[0](obs, action)
            return first
        least: Tensor = self(obs, action).amin(0)
        return least

    def loss(self, obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """The members' losses added up ``[M]``, for targets ``[M]``."""
        return self.loss_of_encoded(obs, action, self.encode(target))

    def encode(self, target: Tensor) -> Tensor:
        """Targets ``[..., E]`` as the members' losses read them; all members have one head."""
        return self.functions[0].head.encode(target)

    def loss_of_encoded(self, obs: Tensor, action: Tensor, encoded: Tensor) -> Tensor:
        """The members' losses added up ``[M]``, for encoded targets ``[M, E]``."""
        losses = [m.loss_of_encoded(obs, action, encoded) for m in self.functions]
        return torch.stack(losses).sum(0)


@final
class Lagged:
    """A copy of a module that follows it slowly: a target network.

    Its parameters are constants; gradients pass through it to its inputs.

    Args:
        module: the module that is followed.
        tau: the share of the module's parameters in each update; 1 copies them.

    Attributes:
        copy: the lagging module.
    """

    def __init__(self, module: nn.Module, tau: float) -> None:
        self.module, self.tau = module, tau
        self.copy = copy.deepcopy(module).requires_grad_(False)

    def __call__(self, *inputs: Tensor) -> Tensor:
        found: Tensor = self.copy(*inputs)
        return found

    def update(self) -> None:
        """``copy <- (1 - tau) copy + tau module``, in place."""
        polyak_update(self.copy, self.module, self.tau)

    def state_dict(self) -> dict[str, Any]:
        """The state of the copy."""
        return self.copy.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the state of the copy.

        Raises:
            StateError: it does not fit.
        """
        require(state, schema_of(self.copy))
        self.copy.load_state_dict(state)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """``1 - Var(target - prediction) / Var(target)``; 1 is perfect, 0 is as good as a constant.

    NaN for a target that is constant up to rounding, or has no entries: there is nothing to
    explain, and the quotient would be that of two rounding errors.

    Args:
        prediction: ``[M]``.
        target: ``[M]``. It counts as constant if its standard deviation is at most
            :data:`ROUNDINGS_OF_A_CONSTANT` units of rounding of its largest entry.
    """
    if len(target) == 0:
        return target.new_tensor(torch.nan)
    exact = target.double()
    variance = exact.var(unbiased=False)
    rounding = ROUNDINGS_OF_A_CONSTANT * torch.finfo(target.dtype).eps * exact.abs().max()
    ratio = (exact - prediction.double()).var(unbiased=False) / variance
    return torch.where(variance.sqrt() <= rounding, torch.nan, 1 - ratio).to(target.dtype)


def explained_variance_metric(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """``{"train/explained_variance": ...}``; empty for a constant target."""
    explained = explained_variance(prediction, target)
    return {} if bool(explained.isnan()) else {"train/explained_variance": explained}


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """``target <- (1 - tau) target + tau source``, in place."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, tau)
