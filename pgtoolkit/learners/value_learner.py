"""A value function with its step rule and its lagged copy."""

from collections.abc import Callable, Sequence
from typing import Any, Self, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.config import NetworkSettings
from pgtoolkit.errors import NonFiniteError, SettingError
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.learners.step_rules.adam import Adam, Progress
from pgtoolkit.learners.step_rules.base import StepRule
from pgtoolkit.networks.encoder import make_encoder
from pgtoolkit.networks.value import (
    Lagged,
    ValueEnsemble,
    ValueFunction,
    explained_variance_metric,
)
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

CONVERGED_PASSES = 5
"""Passes over the data whose losses are compared to tell whether a fit has converged."""
STATE = ("module", "lagged", "rule", "generator")


@final
class ValueLearner:
    """Fits a value function to targets and then updates its lagged copy (target network).

    Args:
        module: the value function, or an ensemble ``[n, ...]`` of them; ``module.loss(*inputs,
            target)`` gives a loss ``[M]``.
        rule: makes the optimiser's steps.
        tau: share of the new parameters in each update of the lagged copy; 1 means no lag.
        n_epochs: passes over the data of a fit, each in a new random order.
        n_minibatches: minibatches in each pass.
        generator: draws the random orders.
        tolerance: mean relative change of a pass's loss over the last five passes at which a fit
            ends early; 0 makes all passes.

    Attributes:
        lagged: the copy. Gradients pass through it to its inputs, but not to its parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: StepRule,
        *,
        tau: float = 1.0,
        n_epochs: int = 1,
        n_minibatches: int = 1,
        generator: torch.Generator,
        tolerance: float = 0.0,
    ) -> None:
        self.module, self.rule, self.generator = module, rule, generator
        self.lagged = Lagged(module, tau)
        self.n_epochs, self.n_minibatches = n_epochs, n_minibatches
        self.tolerance = tolerance

    @classmethod
    def of(
        cls,
        config: Any,
        observation_space: spaces.Space[Any],
        progress: Progress,
        *,
        seed: int,
        device: torch.device,
        module: nn.Module | None = None,
        tolerance: float = 0.0,
    ) -> Self:
        """A learner of ``V`` on normalised observations, from an agent's settings.

        Args:
            config: an agent's configuration with the Adam, policy and value groups of settings.
            observation_space: observation space of one environment.
            progress: returns the completed share of the run, for the learning-rate schedule.
            seed: determines the initial weights and the order of the data.
            device: where the value function lives.
            module: what is fitted; one value function by default.
            tolerance: at which a fit ends early; 0 makes all passes.
        """
        value = module or make_value_function(config, observation_space, seed=seed)
        value = value.to(device)
        return cls(
            value,
            Adam.of(config, value, progress, learning_rate=config.vf_learning_rate),
            tau=1 - config.vf_target_keep,
            n_epochs=config.vf_epochs,
            n_minibatches=config.vf_minibatches,
            generator=stream(seed, "minibatches", device),
            tolerance=tolerance,
        )

    def fit(
        self, inputs: tuple[Tensor, ...], target: Tensor, places: Tensor | None = None
    ) -> Metrics:
        """Fits the value function to a target, then updates the lagged copy.

        Args:
            inputs: arguments of the value function, ``[M, ...]`` each.
            target: ``[M]``.
            places: ``[M, 2]`` step and environment of each sample, for errors.

        Returns:
            The mean loss of the minibatches, and the explained variance before the fit unless the
            target is constant.

        Raises:
            NonFiniteError: a minibatch's loss is not finite; no step is made with it. It names
                the sample's step and environment if ``places`` are given.
            RequestError: there are no samples.
        """
        if target.shape[0] == 0:
            raise SettingError("the window has no valid step: use a longer one (--n-steps)")
        with torch.no_grad():
            prediction = self.module(*inputs).reshape(-1, len(target)).mean(0)
            explained = explained_variance_metric(prediction, target)
        losses = []
        for _ in range(self.n_epochs):
            order = torch.randperm(len(target), generator=self.generator, device=target.device)
            steps = []
            for rows in order.chunk(self.n_minibatches):
                at = None if places is None else places[rows]
                steps.append(self._step(tuple(x[rows] for x in inputs), target[rows], at))
            losses.append(torch.stack(steps))
            if self.tolerance > 0 and has_converged(losses, self.tolerance):
                break
        self.lagged.update()
        return {"train/value_loss": torch.cat(losses).mean()} | explained | self._passes(losses)

    def _passes(self, losses: list[Tensor]) -> Metrics:
        """The number of passes, where it is not always the same."""
        return {"train/value_epochs": torch.tensor(float(len(losses)))} if self.tolerance else {}

    def fit_window(self, window: Window, features: Tensor, target: Tensor) -> Metrics:
        """:meth:`fit` of ``V`` on the valid steps of a window.

        Args:
            window: gives the mask of valid steps.
            features: ``[T, N, F]`` normalised observations.
            target: ``[T, N]`` returns.

        Raises:
            NonFiniteError: a target is not finite (names the step and the environment), or a loss.
            RequestError: the window has no valid step.
        """
        require_finite_steps({"value target": torch.where(window.valid, target, 0.0)})
        valid = window.valid
        return self.fit((features[valid],), target[valid], valid.nonzero())

    def _step(self, inputs: tuple[Tensor, ...], target: Tensor, places: Tensor | None) -> Tensor:
        """One step on a minibatch; returns its loss before the step, a scalar."""
        loss_of: Callable[..., Tensor] = self.module.loss  # type: ignore[assignment]
        losses = loss_of(*inputs, target)
        loss = losses.mean()
        if not bool(torch.isfinite(loss)):
            raise loss_error(losses.detach(), places)
        self.module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.rule.step(self.module)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def has_converged(losses: Sequence[Tensor], tolerance: float) -> bool:
    """Whether the passes' mean loss has stopped changing.

    Args:
        losses: of the minibatches of each pass, in order.
        tolerance: of the mean absolute change between the last five passes, relative to the loss.
    """
    if len(losses) < CONVERGED_PASSES:
        return False
    last = torch.stack([x.mean() for x in losses[-CONVERGED_PASSES:]])
    return bool(last.diff().abs().mean() <= tolerance * last.mean())


def loss_error(losses: Tensor, places: Tensor | None) -> NonFiniteError:
    """The error that names the first loss ``[M, ...]`` that is not finite, or the largest one.

    Losses that are finite may have a sum that is not.

    Args:
        losses: of the samples of a minibatch.
        places: ``[M, 2]`` step and environment of each; None if unknown.
    """
    if places is None or len(places) != len(losses):
        return NonFiniteError("value loss")
    size = losses.abs().nan_to_num(torch.inf).reshape(len(losses), -1).amax(1)
    step, env_index = (int(i) for i in places[size.argmax()])
    return NonFiniteError("value loss", step, env_index)


def make_value_function(
    config: NetworkSettings, observation_space: spaces.Space[Any], *, seed: int
) -> ValueFunction:
    """``V`` with hidden layers and image encoder like the policy's.

    Args:
        config: the settings of the layers.
        observation_space: observation space of one environment.
        seed: determines the initial weights.
    """
    return draw_value_function(config, observation_space, stream(seed, "value weights"))


def make_value_ensemble(
    config: Any, observation_space: spaces.Space[Any], *, seed: int
) -> ValueEnsemble:
    """``config.num_critics`` functions as of :func:`make_value_function`, each with its weights.

    The arguments are those of :func:`make_value_function`.
    """
    weights = stream(seed, "value weights")
    members = [
        draw_value_function(config, observation_space, weights) for _ in range(config.num_critics)
    ]
    return ValueEnsemble(members)


def draw_value_function(
    config: NetworkSettings, observation_space: spaces.Space[Any], weights: torch.Generator
) -> ValueFunction:
    """One value function whose initial weights are the generator's next numbers."""
    encoder, num_features = make_encoder(observation_space, weights)
    return ValueFunction(
        num_features,
        config.hidden,
        activation=config.activation,
        layer_norm=config.layer_norm,
        generator=weights,
        encoder=encoder,
    )
