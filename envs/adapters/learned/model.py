"""A model of one step, learned: an ensemble of networks that say where a step leads."""

import dataclasses
import itertools
import math
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.errors import RequestError
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.rollouts.transitions import Transitions


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of a learned model and of how it learns."""

    ensemble_size: int = 3
    """Networks, each with its own first weights and its own minibatches."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden layers of each. They are SiLU: the derivative of a ReLU network has jumps."""
    learning_rate: float = 5e-3
    """Of Adam at the start of the first fit; it falls to a twentieth there, where it stays."""
    batch_size: int = 256
    """Transitions in a minibatch of one network."""
    initial_steps: int = 4_000
    """Steps with random actions that the model learns from before the first window."""
    initial_fit_steps: int = 2_000
    """Minibatches of the first fit."""
    fit_steps: int = 40
    """Minibatches of the fit at the start of each later window."""
    capacity: int = 100_000
    """Transitions that are kept to learn from; then the oldest are overwritten."""

    def __post_init__(self) -> None:
        for name in ("initial_steps", "initial_fit_steps", "fit_steps"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("ensemble_size", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("capacity", self.capacity >= 10, "at least 10")
        self._require("hidden", all(size >= 1 for size in self.hidden), "sizes of at least 1")
        positive = math.isfinite(self.learning_rate) and self.learning_rate > 0
        self._require("learning_rate", positive, "a number above 0")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise RequestError(f"a model's {name} must be {what}, not {getattr(self, name)}")


class Prediction(NamedTuple):
    """What each of ``E`` networks says of ``N`` steps."""

    next_obs: Tensor
    """``[E, N, O]``."""
    reward: Tensor
    """``[E, N]``."""


@final
class TransitionModel(nn.Module):
    """``E`` multi-layer perceptrons, computed as one batched product.

    Each maps the standardised ``(o, a)`` to the standardised ``(o' - o, r)``::

        (o' - o, r) = target_mean + target_std * mlp_e(((o, a) - input_mean) / input_std)

    The change is learned rather than ``o'``, so that the identity, which is most of the derivative
    by ``o`` of a short step, need not be (Deisenroth and Rasmussen 2011).

    The parameters take no gradient until somebody who fits them asks for it: who acts
    differentiates by observations and actions alone.

    Args:
        obs_size: ``O``.
        action_size: ``A``.
        ensemble_size: ``E``.
        hidden: sizes of the hidden layers.
        generator: draws the weights.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        ensemble_size: int,
        hidden: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.ensemble_size = ensemble_size
        inputs, targets = obs_size + action_size, obs_size + 1
        sizes = (inputs, *hidden, targets)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            drawn = torch.randn(ensemble_size, fan_in, fan_out, generator=generator)
            self.weights.append(nn.Parameter(drawn / math.sqrt(fan_in)))
            self.biases.append(nn.Parameter(torch.zeros(ensemble_size, 1, fan_out)))
        for name, size in (("input", inputs), ("target", targets)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.requires_grad_(False)

    def forward(self, observation: Tensor, action: Tensor) -> Prediction:
        """What each network says of steps from ``[N, O]`` by ``[N, A]``, in their dtype."""
        given = torch.cat([observation, action], -1).to(self.input_mean)
        found = self._standardised(given.expand(self.ensemble_size, *given.shape))
        found = (self.target_mean + self.target_std * found).to(observation)
        return Prediction(observation + found[..., :-1], found[..., -1])

    def loss(self, batch: Transitions) -> Tensor:
        """``[E]`` mean squared errors on minibatches ``[E, B]``, in standardised units."""
        given, target = inputs_of(batch).to(self.input_mean), targets_of(batch).to(self.input_mean)
        target = (target - self.target_mean) / self.target_std
        return (self._standardised(given) - target).square().mean((1, 2))

    def standardise(self, inputs: ObservationNormalizer, targets: ObservationNormalizer) -> None:
        """Takes over running means and variances of ``(o, a)`` and of ``(o' - o, r)``.

        What never_terminal varies keeps the unit it has: dividing by its 0 would make noise of rounding.
        """
        for name, moments in (("input", inputs), ("target", targets)):
            mean, std = moments.mean, moments.variance.sqrt()
            std = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), std, torch.ones_like(std))
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_std").copy_(std)

    def _standardised(self, given: Tensor) -> Tensor:
        hidden = (given - self.input_mean) / self.input_std
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else nn.functional.silu(hidden)
        return hidden


def inputs_of(batch: Transitions) -> Tensor:
    """``(o, a)`` ``[..., O + A]``."""
    return torch.cat([batch.obs, batch.action], -1)


def targets_of(batch: Transitions) -> Tensor:
    """``(o' - o, r)`` ``[..., O + 1]``."""
    change = batch.next_obs - batch.obs
    return torch.cat([change, batch.reward.unsqueeze(-1)], -1)
