"""Trains a transition model on real steps and measures its error on held-out episodes."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.learned.model import (
    ModelConfig,
    TransitionModel,
    model_inputs,
    model_targets,
)
from pgtoolkit.envs.registry.ordinary import seeded_copy
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.learners.step_rules.adam import set_learning_rate
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.state import load_state_of, state_of

HELD_OUT_INTERVAL = 10
"""One episode in ten is held out: the model is never trained on it."""

FINAL_LEARNING_RATE_SCALE = 0.05
"""Fraction of the learning rate that the first fit ends with and later fits use. The noise of large
gradient steps harms the model's derivative long before it shows in the error."""

NUM_ERROR_SAMPLES = 2_000
"""The errors are measured on this many of the newest held-out transitions, because these come from
the present policy."""

STATE = ("model", "optimizer", "training", "held_out", "inputs", "targets", "generator")
"""Attributes of a learner that are saved in its state."""


@final
class TransitionLearner:
    """A transition model with its optimiser, training buffer and held-out buffer.

    Args:
        config: settings of model and training.
        obs_size: ``O``.
        action_size: ``A``.
        seed: determines the initial weights and the minibatches.
    """

    def __init__(self, config: ModelConfig, obs_size: int, action_size: int, *, seed: int) -> None:
        self.config = config
        self.model = TransitionModel(
            obs_size,
            action_size,
            ensemble_size=config.ensemble_size,
            hidden=config.hidden,
            generator=stream(seed, "transition model weights"),
        )
        example = _empty_transitions(obs_size, action_size)
        self.training = ReplayBuffer(config.capacity, example)
        self.held_out = ReplayBuffer(config.capacity // HELD_OUT_INTERVAL, example)
        # The running moments are not the model's own, which must not change within a window.
        self.inputs = ObservationNormalizer(obs_size + action_size)
        self.targets = ObservationNormalizer(obs_size + 1)
        self.generator = stream(seed, "transition minibatches")
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.learning_rate, fused=True)

    @property
    def num_steps(self) -> int:
        """Number of transitions added so far, including held-out ones."""
        return self.training.added + self.held_out.added

    def add(self, batch: Transitions, held_out: Tensor) -> None:
        """Adds transitions to the held-out or the training buffer.

        Args:
            batch: transitions ``[N]``.
            held_out: ``[N]`` bool: which of them are held out.
        """
        training = batch.rows((~held_out).nonzero().flatten())
        self.training.add(training.map(_to_float32))
        self.held_out.add(batch.rows(held_out.nonzero().flatten()).map(_to_float32))
        for moments, rows in (
            (self.inputs, model_inputs(training)),
            (self.targets, model_targets(training)),
        ):
            moments.update(rows, torch.ones(len(rows), dtype=torch.bool))

    def fit_first(self) -> None:
        """Trains on ``initial_fit_steps`` minibatches with a linearly falling learning rate."""
        count, rate = self.config.initial_fit_steps, self.config.learning_rate
        last = FINAL_LEARNING_RATE_SCALE * rate
        self._fit([rate + (last - rate) * step / count for step in range(count)])

    def fit(self) -> None:
        """Trains on ``fit_steps`` further minibatches."""
        self._fit([FINAL_LEARNING_RATE_SCALE * self.config.learning_rate] * self.config.fit_steps)

    def _fit(self, learning_rates: list[float]) -> None:
        """Takes one Adam step on the networks' mean squared errors for each learning rate.

        The weights change in place, so no graph through the model may still need its backward pass.

        Raises:
            NonFiniteError: the loss is not finite.
        """
        if len(self.training) == 0 or not learning_rates:
            return
        self.model.standardise(self.inputs, self.targets)
        shape = (self.config.ensemble_size, self.config.batch_size)
        self.model.requires_grad_(True)
        for learning_rate in learning_rates:
            set_learning_rate(self.optimizer, learning_rate)
            with torch.enable_grad():
                loss = self.model.loss(self.training.draw(shape, self.generator)).sum()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.requires_grad_(False)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError("loss of the transition model")

    @torch.no_grad()
    def errors(self) -> dict[str, Tensor]:
        """Errors of the mean prediction on held-out steps, and the variance among the networks.

        ``model_error`` is ``mean_d(MSE_d / Var_d)`` over the ``O`` components of the change of
        observation: 0 is perfect, 1 is no better than always predicting the mean change.
        ``model_reward_error`` is the same for the reward. ``ensemble_spread`` is the variance of
        the networks about their mean, in the units of ``model_error``. Components that do not vary
        are left out. Empty while fewer than two steps are held out.
        """
        held_out = self.held_out.newest(NUM_ERROR_SAMPLES)
        if len(held_out.reward) < 2:
            return {}
        predicted = self.model(held_out.obs, held_out.action)
        change = held_out.next_obs - held_out.obs
        error = (predicted.next_obs.mean(0) - held_out.next_obs).square().mean(0)
        spread = predicted.next_obs.var(0, unbiased=False).mean(0)
        reward_error = (predicted.reward.mean(0) - held_out.reward).square().mean()
        return {
            "model_error": _relative(error, change.var(0, unbiased=False)),
            "model_reward_error": _relative(reward_error, held_out.reward.var(unbiased=False)),
            "ensemble_spread": _relative(spread, change.var(0, unbiased=False)),
        }

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def _empty_transitions(obs_size: int, action_size: int) -> Transitions:
    """Zero transitions, as an example of the shapes and dtypes that the buffers store."""
    return Transitions(
        obs=torch.zeros(0, obs_size),
        action=torch.zeros(0, action_size),
        reward=torch.zeros(0),
        next_obs=torch.zeros(0, obs_size),
        terminated=torch.zeros(0, dtype=torch.bool),
    )


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.bool else tensor.float()


def _relative(error: Tensor, variance: Tensor) -> Tensor:
    """The mean of ``error / variance`` over components with a positive variance."""
    varies = variance > 1e-12
    return (error[varies] / variance[varies]).mean() if bool(varies.any()) else error.new_zeros(())


def random_transitions(
    make: Callable[[], AnyEnv], num_steps: int, *, num_episodes: int, seed: int
) -> tuple[Transitions, Tensor]:
    """Takes ``num_steps`` steps with random actions in a new environment.

    An episode that has not ended after ``num_steps / num_episodes`` steps is left, so that there
    are at least ``num_episodes`` starts.

    Returns:
        The transitions ``[num_steps]``, and the number of each one's episode ``[num_steps]``.
    """
    env = make()
    actions = seeded_copy(env.action_space, stream_seed(seed, "exploration actions"))
    rng = np.random.default_rng(stream_seed(seed, "exploration starts"))
    longest = max(num_steps // num_episodes, 1)
    rows: list[tuple[Any, ...]] = []
    episode, age = -1, longest
    for _ in range(num_steps):
        if age == longest:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            episode, age = episode + 1, 0
        # Copies, because an environment may write to its arrays, in this step or later.
        before, action = np.array(observation), np.array(actions.sample())
        after, reward, terminated, truncated, _ = env.step(action.copy())
        rows.append((before, action, np.array(after), reward, terminated, episode))
        observation, age = after, longest if terminated or truncated else age + 1
    env.close()
    columns = [torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)]
    obs, taken, next_obs, reward = (column.float() for column in columns[:4])
    found = Transitions(
        obs=obs, action=taken, reward=reward, next_obs=next_obs, terminated=columns[4]
    )
    return found, columns[5]
