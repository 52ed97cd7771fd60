"""Checks of how episodes end: by themselves (termination) or by a time limit (truncation)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Finding, fault, passed, warned
from pgtoolkit.envs.checks.purity import (
    EXPLICIT,
    changes_with,
    copied,
    named_calls,
    same,
    touched_by,
    varies,
)
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    Play,
    Points,
    copy,
    fresh,
    leaves,
    take,
)
from pgtoolkit.envs.registry.construct import accepted_arguments
from pgtoolkit.envs.states import State, map_state, rebuild_state


class Episode(NamedTuple):
    length: int
    terminated: bool
    """By itself, not by a time limit."""


def check_ends(env: AnyDifferentiable, played: Play) -> Iterator[Finding]:
    """The ends of a differentiable environment's episodes."""
    at_start = env.terminal(copy(played.starts))
    if bool(at_start.any()):
        yield fault(
            "behaviour",
            "termination",
            f"terminal is true at the start: in {int(at_start.sum())} of {len(at_start)} start "
            "states",
            "such episodes are over before the first action",
            "start elsewhere, or correct terminal",
        )
    clock = find_clock(env, played)
    limit = _clock_limit(env, played, clock) if clock is not None else _common_length(played)
    if limit is not None and limit > 1 and not _is_finite_horizon(env, played, clock, limit):
        yield fault(
            "behaviour",
            "termination",
            f"a time limit is reported as termination: terminal is true after {limit} steps, "
            "whatever start and actions (max_episode_steps is "
            f"{env.max_episode_steps})",
            TIMED,
            "leave it to max_episode_steps, which truncates. If the task itself ends then, let the "
            "policy see the time, or name the length `horizon`",
        )
    elif not bool(at_start.any()):
        yield passed("behaviour", "termination", _usual_end(env, played, limit))


def _usual_end(env: AnyDifferentiable, played: Play, limit: int | None) -> str:
    if limit is not None:
        steps = "step" if limit == 1 else "steps"
        return f"after {limit} {steps}, which is part of the task (finite horizon)"
    ends = played.terminal.sum()
    if not int(ends):
        seen = int(played.elapsed.max())
        return f"none in random play of up to {seen} steps; truncated at {env.max_episode_steps}"
    typical = float(played.elapsed[played.terminal].double().median())
    return f"by themselves, after {typical:.0f} steps of random play (median)"


def _common_length(played: Play) -> int | None:
    """The length of each row's first episode, if all terminate alike."""
    if not bool(played.terminal.any(0).all()):
        return None
    first = played.terminal.int().argmax(0)
    alike = bool((first == first[0]).all())
    alike = alike and bool((played.elapsed[first[0]] == first[0] + 1).all())
    return int(first[0]) + 1 if alike else None


def find_clock(env: AnyDifferentiable, played: Play) -> tuple[int, int] | None:
    """The leaf and the column of the state that count time, if one does.

    It moves by the same amount in every row at every step, whatever the actions.
    """
    points = played.points
    for i, (before, after) in enumerate(
        zip(leaves(points.state), leaves(points.next_state), strict=True)
    ):
        moves = (after.double() - before.double()).reshape(before.shape[0], -1)
        for column in range(moves.shape[1]):
            move = moves[:, column]
            first = float(move[0])
            if first != 0 and bool(((move - first).abs() < 1e-9 * abs(first)).all()):
                return i, column
    return None


def _clock_limit(env: AnyDifferentiable, played: Play, clock: tuple[int, int]) -> int | None:
    """After how many steps ``terminal`` is true in every state, and not before in some."""
    state, ticks = _some_states(played), range(1, min(env.max_episode_steps, LONGEST) + 2)
    start, tick = _tick(played, clock)
    alive = ~env.terminal(set_clock(state, clock, start))
    if not bool(alive.any()):
        return None
    low, high = 0, ticks[-1]
    if not bool(env.terminal(set_clock(state, clock, start + high * tick)).all()):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        over = bool(env.terminal(set_clock(state, clock, start + middle * tick)).all())
        low, high = (low, middle) if over else (middle, high)
    return high


def _tick(played: Play, clock: tuple[int, int]) -> tuple[float, float]:
    """What the clock shows at a start, and by how much it moves."""
    leaf, column = clock
    read = [
        leaves(s)[leaf].reshape(leaves(s)[leaf].shape[0], -1)[:, column].double()
        for s in (
            played.starts,
            played.points.state,
            played.points.next_state,
        )
    ]
    return float(read[0][0]), float((read[2] - read[1])[0])


def set_clock(state: State, clock: tuple[int, int], value: float) -> State:
    """The state at another time."""
    index, column = clock
    found = list(leaves(copy(state)))
    flat = found[index].reshape(found[index].shape[0], -1).clone()
    flat[:, column] = value
    found[index] = flat.reshape(found[index].shape)
    return rebuild_state(state, found[0] if isinstance(state, Tensor) else tuple(found))


def _some_states(played: Play) -> State:
    return map_state(lambda leaf: leaf[-64:], played.points.state)


def _is_finite_horizon(
    env: AnyDifferentiable, played: Play, clock: tuple[int, int] | None, limit: int
) -> bool:
    """Whether the length belongs to the task: it says so, pays by the clock, or shows the clock."""
    if names_its_horizon(env, limit):
        return True
    if clock is None:
        return False
    start, tick = _tick(played, clock)
    points: Points = played.points.rows(torch.arange(min(len(played.points), 64)))

    def seen(steps: int) -> list[Tensor]:
        before = set_clock(points.state, clock, start + (steps - 1) * tick)
        after = set_clock(points.next_state, clock, start + steps * tick)
        return [env.reward(before, points.action.clone(), after), env.observation(after)]

    return any(bool((a != b).any()) for a, b in zip(seen(1), seen(limit), strict=True))


def names_its_horizon(env: object, limit: int) -> bool:
    """Whether it has an attribute ``horizon`` of this length, or takes it as an argument."""
    if getattr(env, "horizon", None) == limit:
        return True
    return "horizon" in (accepted_arguments(type(env)) or ())


def common_length(episodes: Sequence[Episode]) -> int | None:
    """The length at which all of several episodes terminate, if it is one."""
    lengths = {e.length for e in episodes}
    alike = len(episodes) > 1 and len(lengths) == 1 and all(e.terminated for e in episodes)
    return lengths.pop() if alike else None


LONGEST = 10**6

TIMED = (
    "the value after the last step is taken for 0, so the policy is taught that time itself is the "
    "end of all reward"
)


def check_seeding(env: AnyDifferentiable, starts: State, seed: int) -> Iterator[Finding]:
    """``initial`` draws from its generator, and from nothing else."""

    def start(seed: int) -> State:
        return fresh(env, 8, torch.Generator().manual_seed(seed))

    libraries = changes_with(lambda: start(seed), same)
    touched = touched_by(lambda: start(seed))
    once, again, other = start(seed), start(seed), start(seed + 1)
    if libraries or touched:
        text = f"initial draws from, or seeds, {named_calls(libraries or touched)}"
        yield fault("behaviour", "seeding", f"global randomness: {text}", UNSEEDED, EXPLICIT)
    elif not same(once, again):
        text = "the same seed gives different starts: initial has randomness of its own"
        yield fault("behaviour", "seeding", text, UNSEEDED, EXPLICIT)
    elif same(once, other) and varies(starts):
        text = "the seed is ignored: two seeds give the same starts"
        yield fault("behaviour", "seeding", text, UNSEEDED, EXPLICIT)
    elif not varies(starts):
        yield passed("behaviour", "seeding", "every episode starts in the same state")
    else:
        yield passed("behaviour", "seeding", "same seed, same starts; another seed, others")


def check_restart(env: AnyDifferentiable, points: Points, seed: int) -> Iterator[Finding]:
    """``reset_where`` leaves the other rows alone, whoever overrides it."""
    state = copy(points.state)
    mask = torch.arange(len(points)) % 2 == 0
    after = env.reset_where(copied(state), mask, torch.Generator().manual_seed(seed))
    if not same(take(state, ~mask), take(after, ~mask)):
        yield fault(
            "behaviour",
            "restart",
            "reset_where changes environments that it should leave alone",
            "episodes that go on jump to another state when others end",
            "choose row by row with where_state(mask, fresh, state)",
        )
    if varies(points.state) and same(take(state, mask), take(after, mask)):
        yield warned(
            "behaviour",
            "restart",
            "reset_where leaves the chosen environments where they were",
            "an episode goes on after its end",
            "draw new starts where mask is true",
        )


UNSEEDED = "equal seeds do not give equal runs, or different seeds are one experiment"
