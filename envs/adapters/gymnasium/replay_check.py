"""Checks that an environment can be saved and restored: plays it, then repeats what it did.

Shapes: ``S`` saved numbers, ``A`` action and ``O`` observation dimensions.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.state_slots import StateSlots
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

NUM_EPISODES, MAX_STEPS = 3, 16
"""Recorded episodes, and the most steps recorded in each."""

INTERVENING_STEPS = 3
"""Steps of another episode that are taken before a recorded step is repeated."""

INFINITE_BOUND = 1e6
"""Bounds of an action space at least this large are treated as infinite."""

MAX_EPISODE_LENGTH, MAX_SECONDS = 200, 1.0
"""Of each of the whole episodes at most so many steps are played, and of all of them together at
most so many seconds, once plainly and once restored."""

SAMPLE_INTERVAL = 25
"""Of the steps of the whole episodes one in so many is used to find what to differentiate."""

STATE_ADVICE = (
    "Give the class get_state(self), which returns all that its future depends on as an array or "
    "a tuple of arrays and numbers (return np.array([self.position, self.velocity])), and "
    "set_state(self, state), which puts it back (self.position, self.velocity = state); or let a "
    "learned model give the gradient: --differentiate model (MuJoCo: --differentiate mujoco)"
)


class StepResult(NamedTuple):
    """One step of an episode."""

    action: NDArray[np.floating]
    """``[A]``, float32 or float64."""
    observation: Array
    """``[O]``: the observation after the step."""
    reward: float
    terminated: bool


class RecordedStep(NamedTuple):
    """A step with the states that were saved before and after it."""

    before: Array
    """``[S]``."""
    result: StepResult
    after: Array
    """``[S]``."""


def play_episodes(
    env: AnyEnv, action_space: Box, observe: Callable[[StepResult | None], None]
) -> None:
    """Plays a few episodes with random actions, alternately in double and single precision.

    Args:
        env: reset with the seeds 0, 1, ... and stepped.
        action_space: the action space of the environment.
        observe: called with None after each reset, and with the result after each step.

    Raises:
        RequestError: a step raises an exception.
    """
    rng = np.random.default_rng(0)
    for seed in range(NUM_EPISODES):
        actions = (_random_action(action_space, rng) for _ in range(MAX_STEPS))
        play_episode(env, seed, actions, observe)


def play_at_bounds(env: AnyEnv, action_space: Box, slots: StateSlots) -> None:
    """Plays a few steps with each of the actions that are held, and looks for places that change.

    Raises:
        RequestError: a step raises an exception.
    """
    for seed, actions in enumerate(held_actions(action_space)):
        slots.restore_first()
        first = (action for action, _ in zip(actions, range(MAX_STEPS), strict=False))
        play_episode(env, seed, first, lambda _: slots.observe())


def play_episode(
    env: AnyEnv,
    seed: int,
    actions: Iterator[Array],
    observe: Callable[[StepResult | None], None],
) -> None:
    """Plays one episode until it ends or there are no more actions; see :func:`play_episodes`."""
    try:
        env.reset(seed=seed)
    except Exception as error:
        raise RequestError(
            f"reset(seed={seed}) of {type(env.unwrapped).__name__} raises {type(error).__name__}: "
            f"{single_line(error)}. `pgtoolkit check-env` says more"
        ) from error
    observe(None)
    for number, action in enumerate(actions):
        given = action if number % 2 == 0 else action.astype(np.float32)
        observation, reward, terminated, truncated = _step(env, given)
        copied = np.array(observation, dtype=np.float64)
        observe(StepResult(given, copied, reward, bool(terminated)))
        if terminated or truncated:
            break


def held_actions(space: Box) -> list[Iterator[Array]]:
    """Endless actions: at the upper bound, at the lower one, at both in turns, random and held."""
    lowest, highest = _bounds(space)
    rng = np.random.default_rng(2)

    def alternating(held: int, actions: Callable[[int], Array]) -> Iterator[Array]:
        number = 0
        while True:
            action = actions(number)
            number += 1
            for _ in range(held):
                yield action.copy()

    return [
        alternating(1, lambda _: highest),
        alternating(1, lambda _: lowest),
        alternating(1, lambda number: lowest if number % 2 else highest),
        alternating(20, lambda number: lowest if number % 2 else highest),
        alternating(8, lambda _: rng.uniform(lowest, highest)),
    ]


def verify_episodes(simulator: Simulator, env: AnyEnv, slots: StateSlots) -> list[RecordedStep]:
    """Plays whole episodes plainly, then all of them at once from saved states.

    The actions are those of :func:`held_actions`. Observations, rewards and ends must be equal to
    the bit. The bounds are :data:`MAX_EPISODE_LENGTH` steps and :data:`MAX_SECONDS`.

    Returns:
        Some of the steps, from all parts of the episodes.

    Raises:
        RequestError: something differs.
    """
    length = min(simulator.max_episode_steps, MAX_EPISODE_LENGTH)
    policies = held_actions(simulator.action_space)
    episodes: list[list[StepResult]] = []
    ends_at = time.monotonic() + MAX_SECONDS
    for number, actions in enumerate(policies):
        share = time.monotonic() + (ends_at - time.monotonic()) / (len(policies) - number)
        episodes.append(_record_episode(env, slots, number, actions, length, share))
    found: list[RecordedStep] = []
    saved = [simulator.reset(number)[0] for number in range(len(episodes))]
    ends_at = time.monotonic() + MAX_SECONDS
    for step in range(length):
        for number, episode in enumerate(episodes):
            if step < len(episode) and time.monotonic() < ends_at:
                repeated = simulator.step(saved[number][None], episode[step].action[None])
                if step % SAMPLE_INTERVAL == 0:
                    found.append(RecordedStep(saved[number], episode[step], repeated.saved[0]))
                saved[number] = repeated.saved[0]
                different = _differences(episode[step], repeated)
                if different:
                    raise RequestError(replay_error(env, slots, different))
    slots.require_constants()
    return found


def _record_episode(
    env: AnyEnv,
    slots: StateSlots,
    seed: int,
    actions: Iterator[Array],
    length: int,
    ends_at: float,
) -> list[StepResult]:
    """The steps of one plain episode, up to the end of the time."""
    found: list[StepResult] = []

    def in_time() -> Iterator[Array]:
        for action, _ in zip(actions, range(length), strict=False):
            if time.monotonic() > ends_at:
                return
            yield action

    def observe(result: StepResult | None) -> None:
        slots.capture()
        if result is not None:
            found.append(result)

    slots.restore_first()
    play_episode(env, seed, in_time(), observe)
    return found


def record_steps(env: AnyEnv, action_space: Box, slots: StateSlots) -> list[RecordedStep]:
    """Plays a few episodes and saves the environment's state before and after each step."""
    found: list[RecordedStep] = []
    saved = [np.zeros(slots.size)]

    def observe(result: StepResult | None) -> None:
        saved.append(np.array(slots.capture()))
        if result is not None:
            found.append(RecordedStep(saved[-2], result, saved[-1]))

    play_episodes(env, action_space, observe)
    return found


def verify_steps(
    simulator: Simulator, env: AnyEnv, slots: StateSlots, recorded: list[RecordedStep]
) -> None:
    """Repeats each recorded step from its saved state and compares the results bit by bit.

    Before each repetition the environment takes steps of another episode, so that state which is
    not restored shows.

    Args:
        simulator: restores and steps the environment.
        env: the environment of the simulator.
        slots: the slots of the environment.
        recorded: steps of the same environment.

    Raises:
        RequestError: a repetition differs.
    """
    rng = np.random.default_rng(1)
    for seed, step in enumerate(recorded, start=NUM_EPISODES):
        env.reset(seed=seed)
        for _ in range(INTERVENING_STEPS):
            *_, terminated, truncated = _step(env, _random_action(simulator.action_space, rng))
            if terminated or truncated:
                break
        repeated = simulator.step(step.before[None], step.result.action[None])
        different = _differences(step.result, repeated)
        if different:
            raise RequestError(replay_error(env, slots, different))


def require_float_state(env: AnyEnv, slots: StateSlots) -> None:
    """Raises if no slot of the environment holds a floating-point number.

    Raises:
        RequestError: says how to give access to the state.
    """
    if slots.layout.are_floats.any():
        return
    name = type(env.unwrapped).__name__
    raise RequestError(
        f"the state of {name} cannot be saved and restored: it has no get_state() and set_state(), "
        "and no attribute that changes is a floating-point number or an array of them. "
        f"{STATE_ADVICE}"
    )


def _differences(result: StepResult, repeated: Outcome) -> list[str]:
    """Names of the parts that are not equal to the bit."""
    pairs = {
        "observation": (result.observation, repeated.observation[0]),
        "reward": (result.reward, repeated.reward[0]),
        "terminated": (result.terminated, repeated.terminated[0]),
    }
    return [
        name
        for name, (first, again) in pairs.items()
        if np.asarray(first).tobytes() != np.asarray(again).tobytes()
    ]


def replay_error(env: AnyEnv, slots: StateSlots, different: list[str]) -> str:
    """A message about a step that was repeated with another result."""
    left_out = ", ".join(f"{name} ({kind})" for name, kind in slots.unheld.items())
    hint = f" Attributes that were not saved: {left_out}." if left_out else ""
    return (
        f"a step of {type(env.unwrapped).__name__} that is repeated from the state that was saved "
        f"before it gives another {' and '.join(different)}: either what was saved is not its "
        "whole state, or it draws random numbers from elsewhere than self.np_random, which cannot "
        f"be put back.{hint} {STATE_ADVICE}"
    )


def _random_action(space: Box, rng: np.random.Generator) -> Array:
    """A uniform action between :func:`_bounds`."""
    action: Array = rng.uniform(*_bounds(space))
    return action


def _bounds(space: Box) -> tuple[Array, Array]:
    """Finite bounds. An infinite one is replaced by one at least 2 from the other."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded_below, bounded_above = low > -INFINITE_BOUND, high < INFINITE_BOUND
    lowest = np.where(bounded_below, low, np.where(bounded_above, high - 2, -1.0))
    return lowest, np.where(bounded_above, high, np.maximum(lowest + 2, 1.0))


def _step(env: AnyEnv, action: NDArray[np.floating]) -> tuple[Any, float, Any, Any]:
    """Steps with a copy of the action; the info is dropped."""
    try:
        observation, reward, terminated, truncated, _ = env.step(action.copy())
        reward = float(reward)
    except Exception as error:
        raise RequestError(
            f"a step of {type(env.unwrapped).__name__} with the {action.dtype} action "
            f"{single_line(action)} raises {type(error).__name__}: {single_line(error)}. "
            "Differences need steps at any finite action, in double precision as well: clip it, do "
            "not refuse"
        ) from error
    return observation, reward, terminated, truncated
