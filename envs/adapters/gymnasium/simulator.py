"""Any Gymnasium environment whose state can be saved and restored, as a simulator."""

from collections.abc import Callable
from typing import final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import (
    play_episodes,
    record_steps,
    require_float_state,
    verify_steps,
)
from pgtoolkit.envs.adapters.gymnasium.state_slots import find_slots
from pgtoolkit.envs.adapters.gymnasium.tangent import find_precision, tangent_entries
from pgtoolkit.envs.adapters.requirements import (
    find_time_limit,
    require_flat_box,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.envs.registry.ordinary import CHECKING_WRAPPERS
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv


@final
class GymnasiumSimulator(Simulator):
    """A Gymnasium environment as a pure function of its saved state.

    **Saved state.** If the environment has ``get_state()`` and ``set_state(state)``, what they
    return and take: an array, or a tuple of arrays and numbers. Otherwise all its attributes, and
    those of its wrappers, that are numbers or arrays, tuples and lists of numbers, and that change
    while it is played. Types are saved too, so that integers, booleans and None are restored.

    **Tangent space.** Euclidean: the floating-point numbers of ``get_state()``; otherwise those of
    the attribute ``state`` and of every other saved attribute on which the outcome of a step
    depends.

    **Check.** The constructor plays a few episodes and repeats each step from its saved state,
    after steps of other episodes. The results must be equal to the bit, so an environment with
    hidden state or with random steps is refused instead of being differentiated wrongly.

    Wrappers are kept, except for ``TimeLimit``, whose limit is taken over, and the wrappers by
    which Gymnasium only checks calls.

    Args:
        make: makes the environment; called once.
        max_episode_steps: the time limit; None takes that of the environment's ``TimeLimit``. If it
            is given, truncations by the environment itself are ignored.

    Raises:
        RequestError: a space is not a one-dimensional Box, there is no time limit, the environment
            truncates by itself, or its state cannot be saved and restored.
    """

    def __init__(self, make: Callable[[], AnyEnv], *, max_episode_steps: int | None = None) -> None:
        made = make()
        if not isinstance(made, gymnasium.Env):
            raise RequestError(f"{type(made).__name__} is not a gymnasium.Env")
        self.observation_space = require_flat_box(
            made,
            "observation_space",
            "flatten it with gymnasium.wrappers.FlattenObservation",
        )
        self.action_space = require_flat_box(
            made,
            "action_space",
            "finite differences need continuous actions [A]; a score-function agent (reinforce) "
            "needs no gradient of the environment",
            floating=True,
        )
        self.max_episode_steps = find_time_limit(made, max_episode_steps)
        self._ignores_truncation = max_episode_steps is not None
        self.env = _without_limits_and_checks(made)
        self.name = type(self.env.unwrapped).__name__
        self._slots = find_slots(
            self.env,
            lambda observe: play_episodes(self.env, self.action_space, lambda _: observe()),
        )
        self.saved_size = self._slots.size
        require_float_state(self.env, self._slots)
        recorded = record_steps(self.env, self.action_space, self._slots)
        verify_steps(self, self.env, recorded)
        self._tangent_entries = tangent_entries(self, self._slots, recorded)
        self.tangent_size = len(self._tangent_entries)
        self.precision = find_precision(recorded, self._tangent_entries)

    def reset(self, seed: int) -> tuple[Array, Array]:
        observation, _ = self.env.reset(seed=seed)
        # Copies, because the environment may write to its array later.
        return np.array(self._slots.capture()), np.array(observation, dtype=np.float64)

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        """See :meth:`Simulator.step`.

        Raises:
            RequestError: the environment truncates by itself, or a state changes its shape.
        """
        count, size = len(saved), self.observation_space.shape[0]
        after = Outcome(
            np.empty((count, self.saved_size)),
            np.empty((count, size)),
            np.empty(count),
            np.empty(count, dtype=np.bool_),
        )
        # A copy, because an environment may clip its action in place.
        rows = zip(saved.tolist(), action.copy(), strict=True)
        for index, (numbers, given) in enumerate(rows):
            self._slots.restore(numbers)
            observation, reward, terminated, truncated, _ = self.env.step(given)
            if truncated and not self._ignores_truncation:
                raise RequestError(
                    f"{self.name} truncates episodes by itself (truncated=True from its own step): "
                    "give its limit as max_episode_steps, or leave it to "
                    "gymnasium.wrappers.TimeLimit"
                )
            after.saved[index] = self._slots.capture()
            after.observation[index], after.reward[index] = observation, reward
            after.terminated[index] = terminated
        return after

    def perturb(self, saved: Array, tangent: Array) -> Array:
        moved = saved.copy()
        moved[:, self._tangent_entries] += tangent
        return moved

    def displacement(self, saved: Array, origin: Array) -> Array:
        entries = self._tangent_entries
        difference: Array = saved[:, entries] - origin[:, entries]
        return difference


def _without_limits_and_checks(env: AnyEnv) -> AnyEnv:
    """Removes the wrappers that limit time or check calls, wherever in the stack they are."""
    while isinstance(env, CHECKING_WRAPPERS):
        env = env.env
    if isinstance(env, gymnasium.Wrapper):
        env.env = _without_limits_and_checks(env.env)
    return env
