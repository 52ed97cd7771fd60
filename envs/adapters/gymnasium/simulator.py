"""Any Gymnasium environment whose state can be saved and restored, as a simulator."""

from collections.abc import Callable
from typing import final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import play, prove, rehearse, require_numbers
from pgtoolkit.envs.adapters.gymnasium.state_slots import find_slots
from pgtoolkit.envs.adapters.gymnasium.tangent import find_precision, tangent_entries
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.envs.registry.ordinary import CHECKING_WRAPPERS, require_flat_box, time_limit
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

FLATTEN = "flatten it with gymnasium.wrappers.FlattenObservation"
CONTINUOUS = (
    "finite differences need continuous actions [A]; a score-function agent (reinforce) needs no "
    "gradient of the environment"
)


@final
class GymnasiumSimulator(Simulator):
    """One environment, moved from state to state.

    **Saved** is what ``get_state()`` returns and ``set_state(state)`` takes, if the environment has
    them: an array, or a tuple of arrays and numbers. Otherwise all its attributes, and those of its
    wrappers, that are numbers or arrays, tuples and lists of numbers, and that change while it is
    played. Types are saved too, and integers, booleans and None survive.

    **The tangent space** is Euclidean: the floating-point numbers of ``get_state()``; otherwise
    those of the attribute ``state``, and of all others on which the outcome of a step depends.

    **Proof.** On construction some episodes are played. Each of their steps is then repeated from
    its saved state, after other episodes and steps, and must give the same bits. So an environment
    with a hidden state, or with random steps, is refused rather than differentiated wrongly.

    Wrappers stay, but for ``TimeLimit``, whose limit is taken over, and those that only check.

    Args:
        make: makes the environment; called once.
        max_episode_steps: the time limit; None takes that of the environment's ``TimeLimit``. If
            given, a truncation by the environment itself is ignored.

    Raises:
        RequestError: a space is no one-dimensional Box, there is no time limit, the environment
            truncates by itself, or its state cannot be saved and restored. Says what to do.
    """

    def __init__(self, make: Callable[[], AnyEnv], *, max_episode_steps: int | None = None) -> None:
        made = make()
        limit = time_limit(made)
        self.env = _without_checking_wrappers(made)
        self.name = type(self.env.unwrapped).__name__
        self.observation_space = require_flat_box(
            self.name, "observation_space", self.env.observation_space, FLATTEN
        )
        self.action_space = require_flat_box(
            self.name, "action_space", self.env.action_space, CONTINUOUS, floating=True
        )
        self.max_episode_steps = _time_limit(self.name, limit, max_episode_steps)
        self._truncates = max_episode_steps is not None
        self._numbers = find_slots(
            self.env, lambda observe: play(self.env, self.action_space, lambda _: observe())
        )
        self.saved_size = self._numbers.size
        require_numbers(self.env, self._numbers)
        rehearsal = rehearse(self.env, self.action_space, self._numbers)
        prove(self, self.env, rehearsal)
        self._tangent = tangent_entries(self, self._numbers, rehearsal)
        self.tangent_size = len(self._tangent)
        self.precision = find_precision(rehearsal, self._tangent)

    def reset(self, seed: int) -> tuple[Array, Array]:
        observation, _ = self.env.reset(seed=seed)
        # A copy: the environment may go on writing to its array.
        return np.array(self._numbers.capture()), np.array(observation, dtype=np.float64)

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
        # An environment may clip its action in place.
        rows = zip(saved.tolist(), action.copy(), strict=True)
        for index, (numbers, given) in enumerate(rows):
            self._numbers.restore(numbers)
            observation, reward, terminated, truncated, _ = self.env.step(given)
            if truncated and not self._truncates:
                raise RequestError(_truncation(self.name))
            after.saved[index] = self._numbers.capture()
            after.observation[index], after.reward[index] = observation, reward
            after.terminated[index] = terminated
        return after

    def perturb(self, saved: Array, tangent: Array) -> Array:
        moved = saved.copy()
        moved[:, self._tangent] += tangent
        return moved

    def displacement(self, saved: Array, origin: Array) -> Array:
        difference: Array = saved[:, self._tangent] - origin[:, self._tangent]
        return difference


def _without_checking_wrappers(env: AnyEnv) -> AnyEnv:
    """The environment without the wrappers that limit and check, also inside other wrappers."""
    if not isinstance(env, gymnasium.Env):
        raise RequestError(f"{type(env).__name__} is not a gymnasium.Env")
    while isinstance(env, CHECKING_WRAPPERS):
        env = env.env
    if isinstance(env, gymnasium.Wrapper):
        env.env = _without_checking_wrappers(env.env)
    return env


def _time_limit(name: str, found: int | None, given: int | None) -> int:
    limit = found if given is None else given
    if limit is None:
        raise RequestError(
            f"{name} has no time limit: give max_episode_steps, or wrap it in "
            "gymnasium.wrappers.TimeLimit"
        )
    if limit < 1:
        raise RequestError(f"max_episode_steps must be at least 1, not {limit}")
    return limit


def _truncation(name: str) -> str:
    return (
        f"{name} truncates episodes by itself (truncated=True from its own step): give its limit "
        "as max_episode_steps, or leave it to gymnasium.wrappers.TimeLimit"
    )
