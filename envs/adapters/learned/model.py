"""A learned model of one step: an ensemble of networks that predict next observation and reward."""

import dataclasses
import itertools
import math
from types import MappingProxyType
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.errors import RequestError
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.rollouts.transitions import Transitions


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of a learned model and of its training."""

    ensemble_size: int = 3
    """Number of networks, each with its own initial weights and minibatches."""
    hidden: tuple[int, ...] = (128, 128)
    """Sizes of each network's hidden layers. The activation is SiLU, because the derivative of a
    ReLU network has jumps."""
    learning_rate: float = 5e-3
    """Adam's learning rate at the start of the first fit, during which it falls to a twentieth.
    Later fits use that twentieth."""
    batch_size: int = 256
    """Number of transitions in a minibatch of one network."""
    initial_steps: int = 4_000
    """Number of steps with random actions that the first fit learns from."""
    initial_fit_steps: int = 2_000
    """Number of minibatches of the first fit."""
    fit_steps: int = 40
    """Number of minibatches of the fit at the start of each later window."""
    capacity: int = 100_000
    """Number of transitions that are kept for training; the oldest are overwritten."""

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
    """Predictions by each of ``E`` networks for ``N`` steps."""

    next_obs: Tensor
    """``[E, N, O]``."""
    reward: Tensor
    """``[E, N]``."""


@final
class TransitionModel(nn.Module):
    """``E`` multi-layer perceptrons, evaluated together by batched matrix products.

    Each maps the standardised ``(o, a)`` to the standardised ``(o' - o, r)``::

        (o' - o, r) = target_mean + target_std * mlp_e(((o, a) - input_mean) / input_std)

    The networks learn the change of the observation, so that they need not learn the identity,
    which dominates the derivative by ``o`` in a short step (Deisenroth and Rasmussen 2011).

    The parameters do not require a gradient except while they are fitted: agents differentiate by
    observations and actions only.

    Args:
        obs_size: ``O``.
        action_size: ``A``.
        ensemble_size: ``E``.
        hidden: sizes of the hidden layers.
        generator: draws the initial weights.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    state_minima = MappingProxyType({"input_std": 0.0, "target_std": 0.0})
    """Least values that a saved state may have."""

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
        """Each network's prediction for steps from ``[N, O]`` with ``[N, A]``, in their dtype."""
        inputs = torch.cat([observation, action], -1).to(self.input_mean)
        output = self._standardised_output(inputs.expand(self.ensemble_size, *inputs.shape))
        output = (self.target_mean + self.target_std * output).to(observation)
        return Prediction(observation + output[..., :-1], output[..., -1])

    def mean(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The networks' mean next observation ``[N, O]`` and reward ``[N]``."""
        predicted = self(observation, action)
        return predicted.next_obs.mean(0), predicted.reward.mean(0)

    def loss(self, batch: Transitions) -> Tensor:
        """Mean squared errors ``[E]`` on minibatches ``[E, B]``, in standardised units."""
        inputs = model_inputs(batch).to(self.input_mean)
        target = (model_targets(batch).to(self.input_mean) - self.target_mean) / self.target_std
        return (self._standardised_output(inputs) - target).square().mean((1, 2))

    def standardise(self, inputs: ObservationNormalizer, targets: ObservationNormalizer) -> None:
        """Sets means and standard deviations of ``(o, a)`` and ``(o' - o, r)`` to running ones.

        Components that do not vary keep the standard deviation 1, because dividing by a deviation
        that is only rounding error would amplify noise.
        """
        for name, moments in (("input", inputs), ("target", targets)):
            mean, std = moments.mean, moments.variance.sqrt()
            std = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), std, torch.ones_like(std))
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_std").copy_(std)

    def _standardised_output(self, inputs: Tensor) -> Tensor:
        """Standardised ``(o' - o, r)`` ``[E, N, O + 1]`` from ``(o, a)`` ``[E, N, O + A]``."""
        hidden = (inputs - self.input_mean) / self.input_std
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else nn.functional.silu(hidden)
        return hidden


def model_inputs(batch: Transitions) -> Tensor:
    """``(o, a)`` ``[..., O + A]``."""
    return torch.cat([batch.obs, batch.action], -1)


def model_targets(batch: Transitions) -> Tensor:
    """``(o' - o, r)`` ``[..., O + 1]``."""
    change = batch.next_obs - batch.obs
    return torch.cat([change, batch.reward.unsqueeze(-1)], -1)
