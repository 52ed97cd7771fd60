"""A learned model as an environment of its own, without the real environment."""

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.adapters.learned.model import TransitionModel
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.errors import RequestError
from pgtoolkit.shapes import check_shape


class ImaginedState(NamedTuple):
    """States that a model has predicted."""

    observation: Tensor
    """``[N, O]``."""
    reward: Tensor
    """``[N]``: reward of the step that led here; 0 at a start."""


def never_terminal(observation: Tensor) -> Tensor:
    """``[N]`` false: no episode terminates before its time limit."""
    return torch.zeros_like(observation[:, 0], dtype=torch.bool)


@final
class Imagined(DifferentiableEnv[ImaginedState]):
    """An environment whose steps are predictions of a learned model.

    For each step one network of the ensemble is drawn (TS1, Chua et al. 2018). With ``w ~ N(0,
    1)`` and the normal distribution function ``Phi``, every network is equally likely::

        e = floor(E Phi(w))
        (o', r) = model_e(o, a)

    The derivative is exact for these dynamics; their error against the real environment is that of
    the model. Short horizons from observed states keep it small (Janner et al. 2019).

    Args:
        model: the learned model. Its parameters may change between windows, but not within one.
        observation_space: the observation space of the modelled environment.
        action_space: the action space of the modelled environment.
        starts: ``[K, O]``: observations, one of which is drawn uniformly as an episode's start.
        terminal: maps observations ``[N, O]`` to terminations ``[N]`` bool.
        max_episode_steps: the time limit of an episode.

    Raises:
        RequestError: there are no starts.
        ValueError: the starts have another shape.
    """

    noise_shape = (1,)
    gradient = GradientInfo(method="autograd of a learned model")

    def __init__(
        self,
        model: TransitionModel,
        observation_space: Box,
        action_space: Box,
        *,
        starts: Tensor,
        max_episode_steps: int,
        terminal: Callable[[Tensor], Tensor] = never_terminal,
    ) -> None:
        check_shape("starts", starts, None, observation_space.shape[0])
        if len(starts) == 0:
            raise RequestError("a model cannot imagine from nowhere: give it a start")
        self.model, self._starts, self._terminal = model, starts, terminal
        self.observation_space, self.action_space = observation_space, action_space
        self.max_episode_steps = max_episode_steps

    def initial(self, num_envs: int, generator: torch.Generator) -> ImaginedState:
        device = generator.device
        index = torch.randint(len(self._starts), (num_envs,), generator=generator, device=device)
        observation = self._starts[index.to(self._starts.device)].to(device)
        return ImaginedState(observation, observation.new_zeros(num_envs))

    def transition(
        self, state: ImaginedState, action: Tensor, noise: Tensor | None
    ) -> ImaginedState:
        assert noise is not None, "noise_shape says that there is some"
        members = self.model.ensemble_size
        uniform = torch.special.ndtr(noise[:, 0].double())
        chosen = (members * uniform).long().clamp(max=members - 1)
        predicted = self.model(state.observation, action)
        row = torch.arange(len(chosen), device=chosen.device)
        return ImaginedState(predicted.next_obs[chosen, row], predicted.reward[chosen, row])

    def observation(self, state: ImaginedState) -> Tensor:
        return state.observation

    def reward(self, state: ImaginedState, action: Tensor, next_state: ImaginedState) -> Tensor:
        return next_state.reward

    def terminal(self, state: ImaginedState) -> Tensor:
        return self._terminal(state.observation)
