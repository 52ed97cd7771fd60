"""Fitting a transition model to what happens, and judging it by what it was never_terminal shown."""

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.learned.model import (
    ModelConfig,
    TransitionModel,
    inputs_of,
    targets_of,
)
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.gradient_clip import set_learning_rate
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.seeding import stream, stream_seed

HELD_OUT_INTERVAL = 10
"""One episode in so many is never_terminal learned from."""

FINAL_LEARNING_RATE_SCALE = 0.05
"""Share of the learning rate that the first fit ends with and later fits go on with: the noise of
large steps is in the derivative long before it shows in the error."""

NUM_ERROR_SAMPLES = 2_000
"""Of the held-out transitions, the newest so many tell the error: those of the present policy."""

STATE_PARTS = ("model", "optimizer", "training", "held_out", "inputs", "targets")
"""What has a state of its own."""


@final
class TransitionLearner:
    """A model, its optimiser and its two buffers: one to learn from, one held out.

    Args:
        config: settings.
        obs_size: ``O``.
        action_size: ``A``.
        seed: of weights and minibatches.
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
        # Kept apart from the model, which must not change while it is differentiated.
        self.inputs = ObservationNormalizer(obs_size + action_size)
        self.targets = ObservationNormalizer(obs_size + 1)
        self.generator = stream(seed, "transition minibatches")
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.learning_rate, fused=True)

    @property
    def num_steps(self) -> int:
        """Transitions that came, held-out ones included."""
        return self.training.added + self.held_out.added

    def add(self, batch: Transitions, held_out: Tensor) -> None:
        """Files transitions ``[N]`` where they belong by ``held_out`` ``[N]`` bool."""
        shown, hidden = batch.rows(~held_out), batch.rows(held_out)
        self.training.add(shown.map(_to_float32))
        self.held_out.add(hidden.map(_to_float32))
        for moments, rows in ((self.inputs, inputs_of(shown)), (self.targets, targets_of(shown))):
            moments.update(rows, torch.ones(len(rows), dtype=torch.bool))

    def fit_first(self) -> None:
        """The first fit, by ``initial_fit_steps`` minibatches; the learning rate falls linearly."""
        count, rate = self.config.initial_fit_steps, self.config.learning_rate
        last = FINAL_LEARNING_RATE_SCALE * rate
        self._fit([rate + (last - rate) * step / count for step in range(count)])

    def fit(self) -> None:
        """A later fit, by ``fit_steps`` minibatches, from where the last one ended."""
        self._fit([FINAL_LEARNING_RATE_SCALE * self.config.learning_rate] * self.config.fit_steps)

    def _fit(self, learning_rates: list[float]) -> None:
        """Adam steps on the networks' mean squared errors, each step with its learning rate.

        No graph through the model may be waiting for its backward pass: the weights change.

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
        """What the model's mean is wrong by on held-out steps, and what its networks differ by.

        ``model_error`` is ``mean_d(MSE_d / Var_d)`` over the ``O`` components of the change of
        observation: 0 is perfect, 1 is no better than always predicting the mean change.
        ``model_reward_error`` is the same of the reward, and ``ensemble_spread`` is the networks'
        variance about their mean in the units of ``model_error``. Components that do not vary are
        left out. Empty before anything was held out.
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
        parts = {name: getattr(self, name).state_dict() for name in STATE_PARTS}
        return parts | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE_PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())


def _empty_transitions(obs_size: int, action_size: int) -> Transitions:
    """No transitions, in the shapes and dtypes that the buffers store."""
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
    varies = variance > 1e-12
    return (error[varies] / variance[varies]).mean() if bool(varies.any()) else error.new_zeros(())


def random_transitions(
    make: Callable[[], gymnasium.Env[Any, Any]], num_steps: int, *, num_episodes: int, seed: int
) -> tuple[Transitions, Tensor]:
    """``num_steps`` steps with actions drawn from the action space, in an environment of its own.

    An episode is left after ``num_steps / num_episodes`` steps if it has not ended, so that the
    starts are many.

    Returns:
        The transitions ``[num_steps]``, and each one's episode ``[num_steps]``, counted from 0.
    """
    env = make()
    env.action_space.seed(stream_seed(seed, "exploration actions"))
    rng = np.random.default_rng(stream_seed(seed, "exploration starts"))
    longest = max(num_steps // num_episodes, 1)
    rows: list[tuple[Any, ...]] = []
    episode, age = -1, longest
    for _ in range(num_steps):
        if age == longest:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            episode, age = episode + 1, 0
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        # Copies: an environment may write into the array that it returned.
        rows.append((np.array(observation), action, np.array(after), reward, terminated, episode))
        observation, age = after, longest if terminated or truncated else age + 1
    env.close()
    columns = [torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)]
    obs, action, next_obs, reward = (column.float() for column in columns[:4])
    found = Transitions(
        obs=obs, action=action, reward=reward, next_obs=next_obs, terminated=columns[4]
    )
    return found, columns[5]
