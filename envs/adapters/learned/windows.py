"""A transition model for an agent that steps its environments itself and learns from windows."""

import math
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.envs.adapters.learned.learner import HELD_OUT_INTERVAL, TransitionLearner
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.memory import FLOAT_BYTES, replay_bytes
from pgtoolkit.networks.spaces import box_size
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("learner", "episodes", "fitted")


@final
class WindowModel:
    """Predicts the next observation and the reward from the windows that it was given.

    Every tenth episode of all environments, counted in turn, is held out; the errors are measured
    on those.

    Args:
        config: settings of model and training; ``initial_steps`` and the time of the first fit are
            the caller's here.
        spaces_: observation and action space of one environment.
        num_envs: ``N``.
        seed: determines the model's weights and minibatches.

    Raises:
        RequestError: the observations are not flat vectors.
    """

    def __init__(
        self,
        config: ModelConfig,
        spaces_: tuple[spaces.Space[Any], spaces.Space[Any]],
        num_envs: int,
        *,
        seed: int,
    ) -> None:
        sizes = flat_size(spaces_[0]), box_size("action", spaces_[1])
        self.learner = TransitionLearner(config, *sizes, seed=seed)
        one = replay_bytes(*sizes, FLOAT_BYTES) * (1 + 1 / HELD_OUT_INTERVAL)
        self.numbers_of_transition = math.ceil(one / FLOAT_BYTES)
        """float32 numbers that its two buffers take for each transition of their capacity."""
        self.episodes = torch.zeros(num_envs, dtype=torch.long)
        """``[N]``: the number of episodes that each environment has ended."""
        self.fitted = False

    def __call__(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The ensemble's mean next observation ``[N, O]`` and reward ``[N]``."""
        return self.learner.model.mean(observation, action)

    def add(self, window: Window) -> None:
        """Adds the steps of a window, whose rewards are those that the model is to predict."""
        ended = window.done.cpu().long().cumsum(0)
        before = self.episodes + ended - window.done.cpu().long()
        number = before * window.num_envs + torch.arange(window.num_envs)
        # From the last of ten, so that a short run, too, trains on its first episodes.
        held_out = number % HELD_OUT_INTERVAL == HELD_OUT_INTERVAL - 1
        steps = window.detach().transitions().to("cpu")
        self.learner.add(steps, held_out[window.valid.cpu()])
        self.episodes = self.episodes + ended[-1]

    def fit(self) -> dict[str, Tensor]:
        """The first fit, or a further one; returns the errors, as ``environment/...``."""
        if self.fitted:
            self.learner.fit()
        else:
            self.learner.fit_first()
            self.fitted = True
        return {f"environment/{name}": value for name, value in self.learner.errors().items()}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def flat_size(observation_space: spaces.Space[Any]) -> int:
    """The number ``O`` of entries of an observation.

    Raises:
        RequestError: observations are not flat vectors of numbers.
    """
    shape = observation_space.shape
    if not isinstance(observation_space, spaces.Box) or shape is None or len(shape) != 1:
        raise RequestError(
            f"a learned model needs flat vectors, and observations are "
            f"{single_line(observation_space)}: flatten them "
            "(gymnasium.wrappers.FlattenObservation), or use `svg --horizon 0`, which needs no "
            "model"
        )
    return shape[0]
