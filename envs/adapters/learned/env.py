"""Real trajectories of an ordinary environment, with the gradient of a learned model."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium.wrappers import TimeLimit
from torch import Tensor

from pgtoolkit.envs.adapters.learned.imagined import Imagined, never_terminal
from pgtoolkit.envs.adapters.learned.learner import (
    HELD_OUT_INTERVAL,
    TransitionLearner,
    random_transitions,
)
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.adapters.learned.running_envs import (
    EPISODE_START,
    RunningEnvs,
)
from pgtoolkit.envs.adapters.requirements import (
    find_time_limit,
    require_action_box,
    require_flat_box,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.states import where_state
from pgtoolkit.estimators.value_gradient import on_real_step
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.state import anything, at, entries, integer, optional, require

MIN_EXPLORATION_EPISODES = 20
"""The steps with random actions are divided into at least this many episodes."""

OBSERVATION_ADVICE = "a learned model needs flat vectors: use gymnasium.wrappers.FlattenObservation"


class RunningState(NamedTuple):
    """The present states of the real environments, as far as they are observed."""

    observation: Tensor
    """``[N, O]``."""
    reward: Tensor
    """``[N]``: reward of the step that led here; 0 at a start."""
    terminated: Tensor
    """``[N]`` bool."""
    truncated: Tensor
    """``[N]`` bool: the environment itself truncated the episode."""
    seed: Tensor
    """``[N]`` int64: seed of the episode."""
    step_token: Tensor
    """``[N]`` int64: number of the step that led here, by which an old state is noticed; 0 at a
    start."""


@final
class LearnedModel(DifferentiableEnv[RunningState]):
    """An environment that steps the real one and differentiates a learned model of it: SVG(inf).

    With ``m`` and ``rho`` the model's mean next observation and reward, and ``sg`` the
    stop-gradient operator, a step returns::

        o' = m(o, a) + xi,    xi  = sg(o'_real - m(o, a))
        r  = rho(o, a) + eta, eta = sg(r_real - rho(o, a))

    The noise ``xi`` and ``eta`` is inferred so that the model reproduces the real step. Values
    equal those of the plain environment to the bit. Derivatives are the model's, evaluated at real
    states, so model errors do not accumulate along the trajectory. The gradient is biased by the
    error of the model's derivative, of which ``environment/model_error`` is an indication but no
    bound. The end of an episode has no gradient.

    The model is fitted at the start of each window (:meth:`begin_window`), to the steps taken so
    far; the first fit also uses steps with random actions in a separate environment. One episode in
    ten is held out.

    **Only the latest state can be stepped from.** Other environments compute a step from any state;
    this one holds real environments, which only go forward. A step from a fresh start can be
    repeated; a step from another state than the latest raises. Therefore only one vector
    environment at a time can use this object, and gradient checkpointing or several futures from
    one state are not possible. To evaluate a policy, use the plain environment: the returns are the
    same, and the model does not learn from them.

    Source: Heess et al. 2015, "Learning continuous control policies by stochastic value gradients",
    section 4 and algorithm 1.

    Args:
        make: makes one Gymnasium environment whose spaces are one-dimensional Boxes. Its
            ``reset(seed=...)`` must determine all that is random in the episode.
        config: settings of the model; None takes the defaults.
        seed: determines the model's weights, minibatches and random actions.
        max_episode_steps: the time limit; None takes the environment's own.

    Raises:
        RequestError: a space is not a one-dimensional Box, the actions' is not of floating-point
            numbers, or there is no time limit.
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
        self.observation_space = require_flat_box(probe, "observation_space", OBSERVATION_ADVICE)
        self.action_space = require_action_box(probe)
        self.max_episode_steps = find_time_limit(probe, max_episode_steps)
        probe.close()
        self.config, self.seed, self._make = config or ModelConfig(), seed, make
        sizes = self.observation_space.shape[0], self.action_space.shape[0]
        self.learner = TransitionLearner(self.config, *sizes, seed=seed)
        self._running = RunningEnvs(make)
        self._fitted_at: int | None = None

    def plain_maker(self) -> Callable[[], AnyEnv]:
        """Makes real environments with the time limit of this one."""
        return lambda: TimeLimit(self._make(), self.max_episode_steps)

    def initial(self, num_envs: int, generator: torch.Generator) -> RunningState:
        return self._starts(torch.ones(num_envs, dtype=torch.bool), generator)

    def reset_where(
        self, state: RunningState, mask: Tensor, generator: torch.Generator
    ) -> RunningState:
        fresh = self._starts(mask, generator)
        like = (new.to(old) for new, old in zip(fresh, state, strict=True))
        return where_state(mask, RunningState(*like), state)

    def transition(self, state: RunningState, action: Tensor, noise: Tensor | None) -> RunningState:
        """Steps the real environments; the class describes the gradient of a step.

        Raises:
            RequestError: the state is not the latest, or its episode has ended.
        """
        before = state.observation.detach()
        given = (state.seed, state.step_token, before, action.detach())
        real = self._running.step(*(leaf.cpu().numpy() for leaf in given))
        after, reward = (torch.from_numpy(x).to(before) for x in (real.observation, real.reward))
        held_out = torch.from_numpy(real.episode % HELD_OUT_INTERVAL == 0)
        steps = Transitions(
            obs=before.cpu(),
            action=action.detach().cpu(),
            reward=reward.cpu(),
            next_obs=after.cpu(),
            terminated=torch.from_numpy(real.terminated),
        )
        self.learner.add(steps, held_out)
        if torch.is_grad_enabled() and (action.requires_grad or state.observation.requires_grad):
            self.prepare()
            predicted = self.learner.model.mean(state.observation, action)
            after, reward = on_real_step(predicted, after, reward)
        terminated, truncated, step_token = (
            torch.from_numpy(x).to(before.device)
            for x in (real.terminated, real.truncated, real.step_token)
        )
        return RunningState(after, reward, terminated, truncated, state.seed, step_token)

    def observation(self, state: RunningState) -> Tensor:
        return state.observation

    def reward(self, state: RunningState, action: Tensor, next_state: RunningState) -> Tensor:
        return next_state.reward

    def terminal(self, state: RunningState) -> Tensor:
        return state.terminated

    def truncated(self, state: RunningState) -> Tensor:
        """``[N]`` bool: the environment itself truncates the episode here."""
        return state.truncated

    def prepare(self) -> None:
        """Takes the steps with random actions and does the first fit, unless it is done already."""
        if self._fitted_at is not None:
            return
        if self.config.initial_steps > 0:
            found, episode = random_transitions(
                self._make,
                self.config.initial_steps,
                num_episodes=MIN_EXPLORATION_EPISODES,
                seed=self.seed,
            )
            self.learner.add(found, episode % HELD_OUT_INTERVAL == 0)
        if self.learner.num_steps > 0:  # else the first fit waits for the first steps
            self.learner.fit_first()
            self._fitted_at = self.learner.num_steps

    def begin_window(self) -> None:
        """Fits the model further if there were steps since the last fit."""
        self.prepare()
        if self._fitted_at not in (None, self.learner.num_steps):
            self.learner.fit()
            self._fitted_at = self.learner.num_steps

    def metrics(self) -> dict[str, Tensor]:
        """The model's errors on held-out steps, and the number of real steps so far.

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
        terminal: Callable[[Tensor], Tensor] = never_terminal,
    ) -> Imagined:
        """The model alone as an environment that starts from observed states.

        Args:
            max_episode_steps: the time limit of an episode; errors grow with every step.
            starts: ``[K, O]``: observations to start from; None takes those in the training buffer.
            terminal: maps observations ``[N, O]`` to terminations ``[N]`` bool. The model does not
                predict terminations.
        """
        self.prepare()
        if starts is None:
            starts = self.learner.training.newest(self.config.capacity).obs
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
            "running_envs": self._running.state_dict(),
            "fitted_at": self._fitted_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the model and the episodes under way.

        Raises:
            RequestError: repeating an episode's actions led to another state.
        """
        fitted_at = optional(integer())
        require(
            state, entries({"learner": anything, "running_envs": anything, "fitted_at": fitted_at})
        )
        with at("learner"):
            self.learner.load_state_dict(state["learner"])
        with at("running_envs"):
            self._running.load_state_dict(state["running_envs"])
        self._fitted_at = state["fitted_at"]

    def _starts(self, mask: Tensor, generator: torch.Generator) -> RunningState:
        """Fresh starts in the rows of the mask; the other rows have no meaning."""
        device, count = generator.device, len(mask)
        seed = torch.randint(2**31, (count,), generator=generator, device=device)
        observation = np.zeros((count, *self.observation_space.shape))
        for index in mask.nonzero().flatten().tolist():
            observation[index] = self._running.first_observation(int(seed[index]))
        false = torch.zeros(count, dtype=torch.bool, device=device)
        first = torch.from_numpy(observation).to(device)
        step_token = torch.full_like(seed, EPISODE_START)
        return RunningState(first, first.new_zeros(count), false, false, seed, step_token)
