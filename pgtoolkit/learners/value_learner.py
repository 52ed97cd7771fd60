"""The half of an agent that judges: a value function, its target copy and its optimiser."""

import copy
import dataclasses
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.agent import AgentConfig, Metrics
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.learners.gradient_clip import clip_gradient, set_learning_rate
from pgtoolkit.networks.encoder import make_encoder
from pgtoolkit.networks.value import ValueFunction, explained_variance, polyak_update
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticConfig(AgentConfig):
    """Settings of agents with a learned value function."""

    gae_lambda: float = 0.95
    """Lambda of the value function's TD(lambda) targets, and of GAE where it is used."""
    vf_learning_rate: float = 3e-3
    """Of the value function; follows the same schedule as the policy's."""
    vf_epochs: int = 4
    """Passes over each window."""
    vf_minibatches: int = 4
    """Minibatches in each pass."""
    vf_target_keep: float = 0.2
    """Share of the old target value function that survives each update; 0 has no lag."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("gae_lambda", 0 <= self.gae_lambda <= 1, "between 0 and 1")
        self.require("vf_learning_rate", self.vf_learning_rate > 0, "above 0")
        self.require("vf_epochs", self.vf_epochs >= 1, "at least 1")
        self.require("vf_minibatches", self.vf_minibatches >= 1, "at least 1")
        self.require("vf_target_keep", 0 <= self.vf_target_keep < 1, "in [0, 1)")


@final
class Critic:
    """``V`` on normalised observations. Gradients pass through the target, never into it.

    Args:
        config: the agent's configuration.
        observation_space: of one environment.
        seed: of the initial weights and the shuffles.
        device: where it lives.
    """

    def __init__(
        self,
        config: CriticConfig,
        observation_space: spaces.Space[Any],
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config = config
        weights = stream(seed, "value weights")
        encoder, num_features = make_encoder(observation_space, weights)
        self.value_function = ValueFunction(
            num_features,
            config.hidden,
            activation=config.activation,
            layer_norm=config.layer_norm,
            generator=weights,
            encoder=encoder,
        ).to(device)
        self.target = copy.deepcopy(self.value_function).requires_grad_(False)
        self.generator = stream(seed, "minibatches", device)
        self.optimizer = torch.optim.Adam(
            self.value_function.parameters(),
            config.vf_learning_rate,
            betas=config.adam_betas,
            fused=True,
        )

    def value(self, normalized_obs: Tensor) -> Tensor:
        """The target's ``V`` ``[...]``; its weights are constants, its input may carry a graph."""
        value: Tensor = self.target(normalized_obs)
        return value

    def fit(self, window: Window, normalized_obs: Tensor, target: Tensor, lr: float) -> Metrics:
        """Fits ``V(obs)`` to ``target`` ``[T, N]`` on steps that happened, then moves the target.

        Raises:
            NonFiniteError: a target or the loss is not finite.
            RequestError: no step of the window happened.
        """
        require_finite_steps({"value target": torch.where(window.valid, target, 0.0)})
        obs, target = normalized_obs[window.valid], target[window.valid]
        if obs.shape[0] == 0:
            raise RequestError("the window has no valid step: use a longer one (--n-steps)")
        with torch.no_grad():
            explained = explained_variance(self.value_function(obs), target)
        set_learning_rate(self.optimizer, lr)
        loss = fit_value_function(
            self.value_function,
            self.optimizer,
            obs,
            target,
            n_epochs=self.config.vf_epochs,
            n_minibatches=self.config.vf_minibatches,
            max_grad_norm=self.config.max_grad_norm,
            generator=self.generator,
        )
        polyak_update(self.target, self.value_function, self.config.vf_target_keep)
        return {"train/value_loss": loss, "train/explained_variance": explained}

    def state_dict(self) -> dict[str, Any]:
        return {
            "value_function": self.value_function.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value_function.load_state_dict(state["value_function"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())


def fit_value_function(
    value_function: ValueFunction,
    optimizer: torch.optim.Optimizer,
    obs: Tensor,
    target: Tensor,
    *,
    n_epochs: int,
    n_minibatches: int,
    max_grad_norm: float,
    generator: torch.Generator,
) -> Tensor:
    """Fits ``V(obs)`` to ``target`` by mean squared error; returns the mean loss.

    Args:
        value_function: changed in place by the optimiser.
        optimizer: of its parameters.
        obs: ``[M, O]`` normalised observations of steps that happened.
        target: ``[M]``, constants.
        n_epochs: passes over the data, each freshly shuffled.
        n_minibatches: in each pass.
        max_grad_norm: global-norm clip.
        generator: for the shuffles.

    Raises:
        NonFiniteError: the loss is not finite; no step is taken on it.
    """
    losses = []
    for _ in range(n_epochs):
        order = torch.randperm(obs.shape[0], generator=generator, device=obs.device)
        for index in order.chunk(n_minibatches):
            loss = (value_function(obs[index]) - target[index]).square().mean()
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError("value loss")
            optimizer.zero_grad()
            loss.backward()
            clip_gradient(value_function.parameters(), max_grad_norm)
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).mean()
