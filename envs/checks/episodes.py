"""Checks of how episodes start and end: seeding, restarts, termination and time limits."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.purity import (
    USE_GIVEN_RANDOMNESS,
    changes_with,
    example_calls,
    same_state,
    touched_by,
)
from pgtoolkit.envs.checks.random_play import Points, RandomPlay
from pgtoolkit.envs.checks.states import (
    copy_state,
    equal_entries,
    start_states,
    take_rows,
    varies,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.construct import accepted_arguments
from pgtoolkit.envs.states import State, leaves_of, map_state, rebuild_state

MAX_TIME_LIMIT = 10**6
"""Time limits beyond so many steps are not searched for."""

NOT_REPRODUCIBLE = "equal seeds do not give equal runs, or different seeds are one experiment"
"""Meaning of a fault in seeding."""

TIME_AS_TERMINATION = (
    "the value after the last step is taken as 0, so the policy learns that no reward follows the "
    "time limit"
)
"""Meaning of the fault that a time limit is reported as termination."""


class Episode(NamedTuple):
    """How an episode of random play ended."""

    length: int
    terminated: bool
    """True if it terminated, false if it was truncated."""


class Clock(NamedTuple):
    """An entry of the state that counts steps."""

    leaf: int
    """Index of the state's tensor."""
    column: int
    """Index into the flattened entries of that tensor."""
    start: float
    """Value at the start of an episode."""
    tick: float
    """Change at every step."""


def check_seeding(env: DifferentiableEnv, starts: State, seed: int) -> Iterator[Finding]:
    """``initial`` draws from the generator it is given, and from no other."""
    check = Check("behaviour", "seeding")
    consequences = NOT_REPRODUCIBLE, USE_GIVEN_RANDOMNESS

    def start(seed: int) -> State:
        return start_states(env, 8, torch.Generator().manual_seed(seed))

    libraries = changes_with(lambda: start(seed), same_state)
    touched = touched_by(lambda: start(seed))
    once, again, other = start(seed), start(seed), start(seed + 1)
    if libraries or touched:
        calls = example_calls(libraries or touched)
        text = f"global randomness: initial draws from, or seeds, {calls}"
        yield check.fault(text, *consequences)
    elif not same_state(once, again):
        text = "the same seed gives different starts: initial has randomness of its own"
        yield check.fault(text, *consequences)
    elif same_state(once, other) and varies(starts):
        yield check.fault("the seed is ignored: two seeds give the same starts", *consequences)
    elif not varies(starts):
        yield check.passed("every episode starts in the same state")
    else:
        yield check.passed("same seed, same starts; another seed, others")


def check_restart(env: DifferentiableEnv, points: Points, seed: int) -> Iterator[Finding]:
    """``reset_where`` changes the rows of its mask, and no other."""
    check = Check("behaviour", "restart")
    state = copy_state(points.state)
    mask = torch.arange(len(points)) % 2 == 0
    after = env.reset_where(copy_state(state), mask, torch.Generator().manual_seed(seed))
    if not same_state(take_rows(state, ~mask), take_rows(after, ~mask)):
        yield check.fault(
            "reset_where changes environments that it should leave alone",
            "episodes that go on jump to another state when others end",
            "choose row by row with where_state(mask, fresh, state)",
        )
    if varies(points.state) and same_state(take_rows(state, mask), take_rows(after, mask)):
        yield check.warning(
            "reset_where leaves the chosen environments where they were",
            "an episode goes on after its end",
            "draw new starts where mask is true",
        )


def check_termination(env: DifferentiableEnv, played: RandomPlay) -> Iterator[Finding]:
    """No episode is over at its start, and ``terminal`` does not implement a time limit."""
    check = Check("behaviour", "termination")
    at_start = env.terminal(copy_state(played.starts))
    if bool(at_start.any()):
        yield check.fault(
            f"terminal is true at the start: in {int(at_start.sum())} of {len(at_start)} start "
            "states",
            "such episodes are over before the first action",
            "start elsewhere, or correct terminal",
        )
    clock = find_clock(played)
    limit = _clock_limit(env, played, clock) if clock is not None else _play_limit(played)
    if limit is not None and limit > 1 and not _is_finite_horizon(env, played, clock, limit):
        yield check.fault(
            f"a time limit is reported as termination: terminal is true after {limit} steps, "
            "whatever start and actions (max_episode_steps is "
            f"{env.max_episode_steps})",
            TIME_AS_TERMINATION,
            "leave it to max_episode_steps, which truncates. If the task itself ends then, let the "
            "policy see the time, or name the length `horizon`",
        )
    elif not bool(at_start.any()):
        yield check.passed(_describe_ends(env, played, limit))


def _describe_ends(env: DifferentiableEnv, played: RandomPlay, limit: int | None) -> str:
    if limit is not None:
        steps = "step" if limit == 1 else "steps"
        return f"after {limit} {steps}, which is part of the task (finite horizon)"
    if not bool(played.terminal.any()):
        longest = int(played.elapsed.max())
        return f"none in random play of up to {longest} steps; truncated at {env.max_episode_steps}"
    lengths = played.elapsed[played.terminal]
    over = played.terminal | (played.elapsed >= env.max_episode_steps)
    episodes = int(over.sum()) + int((~over[-1]).sum())  # the last ones are still under way
    return (
        f"{len(lengths):,} of {episodes:,} episodes of random play by themselves, after "
        f"{int(lengths.min())} to {int(lengths.max())} steps"
    )


def find_clock(played: RandomPlay) -> Clock | None:
    """The first entry of the state that changes by one amount, not 0, in every row and step."""
    before, after = played.points.state, played.points.next_state
    for i, (old, new) in enumerate(zip(leaves_of(before), leaves_of(after), strict=True)):
        changes = (new.double() - old.double()).reshape(old.shape[0], -1)
        for column in range(changes.shape[1]):
            change = changes[:, column]
            first = float(change[0])
            if first != 0 and bool(((change - first).abs() < 1e-9 * abs(first)).all()):
                return Clock(i, column, _first_value(played.starts, i, column), first)
    return None


def _first_value(state: State, leaf: int, column: int) -> float:
    return float(leaves_of(state)[leaf][0].reshape(-1)[column])


def set_clock(state: State, clock: Clock, steps: int) -> State:
    """A copy of the state whose clock says that ``steps`` steps have passed."""
    leaves = leaves_of(copy_state(state))
    shape = leaves[clock.leaf].shape
    flat = leaves[clock.leaf].reshape(shape[0], -1).clone()
    flat[:, clock.column] = clock.start + steps * clock.tick
    leaves[clock.leaf] = flat.reshape(shape)
    return rebuild_state(state, leaves[0] if isinstance(state, Tensor) else tuple(leaves))


def _clock_limit(env: DifferentiableEnv, played: RandomPlay, clock: Clock) -> int | None:
    """The number of steps from which on ``terminal`` is true in every state of a sample.

    None if it is true in all of them at the start, or not in all after ``max_episode_steps + 1``.
    """
    state = map_state(lambda leaf: leaf[-64:], played.points.state)

    def all_over(steps: int) -> bool:
        return bool(env.terminal(set_clock(state, clock, steps)).all())

    low, high = 0, min(env.max_episode_steps, MAX_TIME_LIMIT) + 1
    if all_over(low) or not all_over(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if all_over(middle) else (middle, high)
    return high


def _play_limit(played: RandomPlay) -> int | None:
    """The length of each row's first episode, if all terminate at the same step."""
    if not bool(played.terminal.any(0).all()):
        return None
    first = played.terminal.int().argmax(0)
    alike = bool((first == first[0]).all())
    alike = alike and bool((played.elapsed[first[0]] == first[0] + 1).all())
    return int(first[0]) + 1 if alike else None


def _is_finite_horizon(
    env: DifferentiableEnv, played: RandomPlay, clock: Clock | None, limit: int
) -> bool:
    """Whether an end after ``limit`` steps belongs to the task.

    It does if the environment names its horizon, or if reward or observation depend on the clock.
    """
    if names_its_horizon(env, limit):
        return True
    if clock is None:
        return False
    points = played.points.rows(torch.arange(min(len(played.points), 64)))

    def outputs(steps: int) -> list[Tensor]:
        before = set_clock(points.state, clock, steps - 1)
        after = set_clock(points.next_state, clock, steps)
        return [env.reward(before, points.action.clone(), after), env.observation(after)]

    return any(not equal_entries(a, b) for a, b in zip(outputs(1), outputs(limit), strict=True))


def names_its_horizon(env: object, limit: int) -> bool:
    """Whether ``env.horizon`` is ``limit``, or the constructor takes an argument ``horizon``."""
    if getattr(env, "horizon", None) == limit:
        return True
    return "horizon" in (accepted_arguments(type(env)) or ())


def common_length(episodes: Sequence[Episode]) -> int | None:
    """The length of several episodes, if all terminate after the same number of steps."""
    lengths = {e.length for e in episodes}
    alike = len(episodes) > 1 and len(lengths) == 1 and all(e.terminated for e in episodes)
    return lengths.pop() if alike else None
