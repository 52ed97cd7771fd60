"""Any Gymnasium environment whose state can be saved and restored, as a simulator."""

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import (
    play_at_bounds,
    play_episodes,
    record_steps,
    require_float_state,
    verify_episodes,
    verify_steps,
)
from pgtoolkit.envs.adapters.gymnasium.state_slots import StateSlots, stack_rows
from pgtoolkit.envs.adapters.gymnasium.tangent import find_precision, tangent_entries
from pgtoolkit.envs.adapters.requirements import (
    find_time_limit,
    require_action_box,
    require_flat_box,
    truncates_itself,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.envs.registry.ordinary import CHECKING_WRAPPERS
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv


@final
class GymnasiumSimulator(Simulator):
    """A Gymnasium environment as a pure function of its saved state.

    **Saved state.** All that the environment, its wrappers and the Python objects that they hold
    keep in attributes, lists, dictionaries, arrays, random generators and variables of functions,
    if it differs between states. What is constant is shared by all states and watched at every
    step; it becomes state when it first changes, and the states that were saved before keep the
    constant. See :mod:`~pgtoolkit.envs.adapters.gymnasium.state_slots`. If the environment has
    ``get_state()`` and ``set_state(state)``, what they return and take is saved too: an array, or a
    tuple of arrays and numbers. They give access to state outside of Python.

    **Refused.** An environment that changes what cannot be saved: variables of its class or module,
    which all environments share, positions of generators and files, objects of C libraries, new
    functions with variables of their own; or an array of more than 64 kB after the first steps. The
    state inside a C library cannot be seen. If it matters, the check finds it as far as it goes.

    **Tangent space.** Euclidean: the floating-point numbers of ``get_state()``; otherwise those of
    the attribute ``state`` and of every other slot on which the outcome of a step depends. It grows
    if a float becomes state later.

    **Check.** The constructor plays a few episodes and repeats each step from its saved state,
    after steps of other episodes. Then it plays five whole episodes, with actions held at the upper
    bound, at the lower one, changing between the two at every step and every 20 steps, and random
    ones held for 8 steps: at most 200 steps of each, and for at most one second. They are repeated
    from saved states, all five in turns, for at most another second. Results must be equal to the
    bit.

    **Cost.** Saving, restoring and watching take about 15 microseconds a step more than the step
    itself for a few attributes, and more with the size of the state.

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
        self.action_space = require_action_box(made)
        self.max_episode_steps = find_time_limit(made, max_episode_steps)
        self._ignores_truncation = max_episode_steps is not None
        self.env = _without_limits_and_checks(made)
        self.name = type(self.env.unwrapped).__name__
        self._slots = StateSlots(self.env)
        play_episodes(self.env, self.action_space, lambda _: self._slots.observe())
        play_at_bounds(self.env, self.action_space, self._slots)
        self._slots.settle()
        self.saved_size = self._slots.size
        require_float_state(self.env, self._slots)
        recorded = record_steps(self.env, self.action_space, self._slots)
        verify_steps(self, self.env, self._slots, recorded)
        later = verify_episodes(self, self.env, self._slots)
        self._tangent_entries = tangent_entries(self, self._slots, [*recorded, *later])
        self.tangent_size = len(self._tangent_entries)
        self.precision = find_precision(self._slots, recorded, self._tangent_entries)

    def reset(self, seed: int) -> tuple[Array, Array]:
        self._slots.restore_first()
        return self._reset(seed)

    def reset_again(self, saved: Array, seed: int) -> tuple[Array, Array]:
        self._slots.restore(saved.tolist())
        return self._reset(seed)

    def _reset(self, seed: int) -> tuple[Array, Array]:
        observation, _ = self.env.reset(seed=seed)
        # Copies, because the environment may write to its array later.
        row, first = np.array(self._slots.capture()), np.array(observation, dtype=np.float64)
        self.saved_size = self._slots.size
        return row, first

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        """See :meth:`Simulator.step`.

        Raises:
            RequestError: the environment truncates by itself, or something changed that cannot be
                saved.
        """
        count, size = len(saved), self.observation_space.shape[0]
        observations, rewards = np.empty((count, size)), np.empty(count)
        ends = np.empty(count, dtype=np.bool_)
        after: list[list[float]] = []
        # A copy, because an environment may clip its action in place.
        rows = zip(saved.tolist(), action.copy(), strict=True)
        for index, (numbers, given) in enumerate(rows):
            self._slots.restore(numbers)
            observation, reward, terminated, truncated, _ = self.env.step(given)
            if truncated and not self._ignores_truncation:
                raise RequestError(truncates_itself(self.name))
            after.append(self._slots.capture())
            observations[index], rewards[index], ends[index] = observation, reward, terminated
        found = stack_rows(after, self._slots.size)
        if self._slots.size > self.saved_size:
            found = self._slots.complete(found)
        self._take_late()
        return Outcome(found, observations, rewards, ends)

    def begin_window(self) -> None:
        self._slots.require_constants()

    def state_dict(self) -> dict[str, Any]:
        return self._slots.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._slots.load_state_dict(state)
        first = self._tangent_entries < self._slots.layout.first_size
        self._tangent_entries = self._tangent_entries[first]
        self.tangent_size = len(self._tangent_entries)
        self._take_late()

    def require_states(self, saved: Array, path: str) -> None:
        self._slots.require_readable(saved, path)

    def _take_late(self) -> None:
        """Notes the present sizes; differentiates numbers that became state after the check."""
        self.saved_size = self._slots.size
        if self._slots.layout.late_floats:
            late = np.array(self._slots.layout.late_floats, dtype=np.intp)
            new = late[~np.isin(late, self._tangent_entries)]
            self._tangent_entries = np.concatenate([self._tangent_entries, new])
            self.tangent_size = len(self._tangent_entries)
            self._slots.layout.late_floats.clear()

    def perturb(self, saved: Array, tangent: Array) -> Array:
        moved = self._slots.complete(saved)
        entries = self._tangent_entries[: tangent.shape[1]]
        moved[:, entries] += tangent[:, : len(entries)]
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
