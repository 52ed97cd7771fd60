"""A gradient for environments that have none: that of a learned model, along real trajectories."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.envs.adapters.learned.imagined import Imagined, never
from pgtoolkit.envs.adapters.learned.learner import (
    HELD_OUT_SHARE,
    TransitionLearner,
    random_transitions,
)
from pgtoolkit.envs.adapters.learned.model import ModelConfig, Transitions
from pgtoolkit.envs.adapters.learned.running_envs import FRESH, LiveEpisodes
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.registry.ordinary import require_flat_box, time_limit
from pgtoolkit.envs.states import where_state
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

EXPLORED_EPISODES = 20
"""Into so many the steps with random actions are divided at the least."""

NEEDS_FLAT_BOXES = (
    "a model can be learned of a Box of one axis only. Flatten it "
    "(gymnasium.wrappers.FlattenObservation), or train with `reinforce`, which needs no gradient"
)


class LiveState(NamedTuple):
    """What the real environments showed last, and what is needed to go on with them."""

    observation: Tensor
    """``[N, O]``."""
    reward: Tensor
    """``[N]`` of the step that led here; 0 at a start."""
    terminated: Tensor
    """``[N]`` bool."""
    truncated: Tensor
    """``[N]`` bool: the environment itself ended the episode, but not for good."""
    seed: Tensor
    """``[N]`` int64 of the episode."""
    stamp: Tensor
    """``[N]`` int64: changes with every step; 0 at a start."""


@final
class LearnedModel(DifferentiableEnv[LiveState]):
    """Steps the real environment, and differentiates a learned model of it: SVG(inf).

    With ``m`` and ``rho`` the model's mean next observation and reward, and ``sg`` the stop of the
    gradient, a step returns::

        o' = m(o, a) + xi,    xi  = sg(o'_real - m(o, a))
        r  = rho(o, a) + eta, eta = sg(r_real - rho(o, a))

    The noise is inferred again so that the model reproduces what happened. Values are those of the
    plain environment to the bit; derivatives are the model's, taken at real states, so its errors
    do not build up in the trajectory. They are biased by the error of its derivative, which
    ``environment/model_error`` hints at and does not bound. An end of an episode has no gradient.

    The model sees every step. It is fitted where the graph is cut (:meth:`begin_window`), first to
    steps with random actions in an environment of its own. One episode in ten is held out.

    **This environment is live.** Unlike other environments it does not compute from the state that
    it is given: the state is what the real environments show, and they only go forward. A step from
    a fresh start can be repeated. A step from any other state than the latest raises. So one vector
    environment at a time can use this object, and what branches or recomputes (gradient
    checkpointing, several futures from one state) cannot. To evaluate a policy, use the plain
    environment: it gives the same returns, and the model does not learn from them.

    Source: Heess et al. 2015, "Learning continuous control policies by stochastic value gradients",
    section 4 and algorithm 1.

    Args:
        make: makes one Gymnasium environment with 1-D Boxes of observations and actions. Its
            ``reset(seed=...)`` must fix all that is random in the episode.
        config: of the model.
        seed: of the model's weights, minibatches and exploration.
        max_episode_steps: the time limit; None takes the environment's own.

    Raises:
        RequestError: the spaces are others, or there is no time limit.
    """

    gradient = GradientInfo(
        action="approximate", state="approximate", reward="approximate", method="learned model"
    )

    def __init__(
        self,
        make: Callable[[], AnyEnv],
        config: ModelConfig | None = None,
        *,
        seed: int = 0,
        max_episode_steps: int | None = None,
    ) -> None:
        probe = make()
        name = type(probe.unwrapped).__name__
        self.observation_space = require_flat_box(
            name, "observation_space", probe.observation_space, NEEDS_FLAT_BOXES
        )
        self.action_space = require_flat_box(
            name, "action_space", probe.action_space, NEEDS_FLAT_BOXES
        )
        limit = max_episode_steps or time_limit(probe)
        if limit is None:
            raise RequestError(f"{name} has no time limit: give max_episode_steps")
        self.max_episode_steps = limit
        probe.close()
        self.config, self.seed, self._make = config or ModelConfig(), seed, make
        sizes = self.observation_space.shape[0], self.action_space.shape[0]
        self.learner = TransitionLearner(self.config, *sizes, seed=seed)
        self._live = LiveEpisodes(make)
        self._fitted_at: int | None = None

    def initial(self, num_envs: int, generator: torch.Generator) -> LiveState:
        return self._starts(torch.ones(num_envs, dtype=torch.bool), generator)

    def reset_where(self, state: LiveState, mask: Tensor, generator: torch.Generator) -> LiveState:
        fresh = self._starts(mask, generator)
        like = (new.to(old) for new, old in zip(fresh, state, strict=True))
        return where_state(mask, LiveState(*like), state)

    def transition(self, state: LiveState, action: Tensor, noise: Tensor | None) -> LiveState:
        """Steps the real environments; see the class for what the step's gradient is.

        Raises:
            RequestError: the state is not the latest, or its episode has ended.
        """
        before = state.observation.detach()
        given = (state.seed, state.stamp, before, action.detach())
        real = self._live.step(*(leaf.cpu().numpy() for leaf in given))
        after, reward = (torch.from_numpy(x).to(before) for x in (real.observation, real.reward))
        held_out = torch.from_numpy(real.episode % HELD_OUT_SHARE == 0)
        happened = (before, action.detach(), after, reward)
        self.learner.add(Transitions(*(leaf.cpu() for leaf in happened)), held_out)
        if torch.is_grad_enabled() and (action.requires_grad or state.observation.requires_grad):
            self.prepare()
            predicted = self.learner.model(state.observation, action)
            after = with_gradient_of(after, predicted.next_observation.mean(0))
            reward = with_gradient_of(reward, predicted.reward.mean(0))
        terminated, truncated, stamp = (
            torch.from_numpy(x).to(before.device)
            for x in (real.terminated, real.truncated, real.stamp)
        )
        return LiveState(after, reward, terminated, truncated, state.seed, stamp)

    def observation(self, state: LiveState) -> Tensor:
        return state.observation

    def reward(self, state: LiveState, action: Tensor, next_state: LiveState) -> Tensor:
        return next_state.reward

    def terminal(self, state: LiveState) -> Tensor:
        return state.terminated

    def truncated(self, state: LiveState) -> Tensor:
        """``[N]`` bool: the environment itself says that the episode is cut short here."""
        return state.truncated

    def prepare(self) -> None:
        """The first fit, to random actions. Does nothing if it is done."""
        if self._fitted_at is not None:
            return
        if self.config.initial_steps > 0:
            found, episode = random_transitions(
                self._make,
                self.config.initial_steps,
                num_episodes=EXPLORED_EPISODES,
                seed=self.seed,
            )
            self.learner.add(found, episode % HELD_OUT_SHARE == 0)
        self.learner.fit_first()
        self._fitted_at = self.learner.num_steps

    def begin_window(self) -> None:
        """Fits the model to what has happened since the last window."""
        self.prepare()
        if self._fitted_at != self.learner.num_steps:
            self.learner.fit()
            self._fitted_at = self.learner.num_steps

    def metrics(self) -> dict[str, Tensor]:
        """The model's errors on held-out steps, and the real steps that it has been given.

        ``model_error``, ``model_reward_error`` and ``ensemble_spread`` are relative to the variance
        of what is predicted, see :meth:`TransitionLearner.errors
        <pgtoolkit.envs.adapters.learned.learner.TransitionLearner.errors>`.
        """
        found = self.learner.errors() | {"model_steps": torch.tensor(self.learner.num_steps)}
        return {f"environment/{name}": value for name, value in found.items()}

    def imagined(
        self,
        *,
        max_episode_steps: int,
        starts: Tensor | None = None,
        terminal: Callable[[Tensor], Tensor] = never,
    ) -> Imagined:
        """The model alone as an environment, from states that were observed.

        Args:
            max_episode_steps: how far it imagines; errors grow with every step.
            starts: ``[K, O]`` observations to start from; None takes those it has learned from.
            terminal: ``[N, O]`` to ``[N]`` bool; the model does not learn where episodes end.
        """
        self.prepare()
        if starts is None:
            starts = self.learner.training.newest(self.config.capacity).observation
        spaces = self.observation_space, self.action_space
        return Imagined(
            self.learner.model,
            *spaces,
            starts=starts,
            terminal=terminal,
            max_episode_steps=max_episode_steps,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "live": self._live.state_dict(),
            "fitted_at": self._fitted_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`state_dict` left off, the episodes under way included.

        Raises:
            RequestError: the environment cannot be brought back to where it stood.
        """
        self.learner.load_state_dict(state["learner"])
        self._live.load_state_dict(state["live"])
        self._fitted_at = state["fitted_at"]

    def _starts(self, mask: Tensor, generator: torch.Generator) -> LiveState:
        """Fresh starts where the mask is true, and nothing of use elsewhere."""
        device, count = generator.device, len(mask)
        seed = torch.randint(2**31, (count,), generator=generator, device=device)
        observation = np.zeros((count, *self.observation_space.shape))
        for index in mask.nonzero().flatten().tolist():
            observation[index] = self._live.start(int(seed[index]))
        nowhere = torch.zeros(count, dtype=torch.bool, device=device)
        shown = torch.from_numpy(observation).to(device)
        stamp = torch.full_like(seed, FRESH)
        return LiveState(shown, shown.new_zeros(count), nowhere, nowhere, seed, stamp)
