"""Whether an environment rounds what it returns, so that differences see no slope."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.central_differences import (
    DOUBLE_STEP,
    FAR_STEP,
    SINGLE_STEP,
)
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.ordinary_play import Row, flatten
from pgtoolkit.envs.checks.random_play import Points
from pgtoolkit.envs.checks.states import FlatState, copy_state
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.gymnasium_types import AnyEnv

ROUNDING = Check("behaviour", "rounding")

EPISODES, STEPS = 4, 12

NOT_ROUNDED = "return numbers that are not rounded"

MIN_VALUES = 5
"""Numbers of fewer values are flags or categories, which have no slope anyway."""

GRID_TOLERANCE = 0.01
"""Numbers of single precision are this near to a grid, in its gaps, and others are not all."""

MAX_CELLS = 1e6
"""Numbers with a gap of less than a millionth of their range are on no grid that matters: all
floating-point numbers are multiples of some gap."""

MAX_STILL_SHARE = 0.5
"""A larger share of entries that a difference's step does not move is worth a warning."""


def check_rounding(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Observations and rewards change when all actions change by as little as a difference takes.

    The same episodes are played three times: with actions inside their bounds, with the same moved
    by the step of a difference, and by :data:`FAR_STEP`. Where the last changes an entry and the
    first does not, the entry is on a grid that is coarser than the step.
    """
    space = env.observation_space
    if not _takes_differences(env):
        return
    assert isinstance(space, spaces.Box)
    precise = SINGLE_STEP if space.dtype == np.float32 else DOUBLE_STEP
    step = max(precise, _smallest_step(env))
    if step > FAR_STEP / 4:
        yield ROUNDING.not_checked("actions of this dtype cannot be moved by little")
        return
    usual, near, far = (_episodes(env, seed, move) for move in (0.0, step, FAR_STEP))
    length = min(len(usual), len(near), len(far))
    rounded = rounded_columns(usual[:length], near[:length], far[:length])
    if not len(rounded):
        yield ROUNDING.passed("small changes of the actions are seen")
        return
    yield ROUNDING.warning(
        f"{_names(rounded, usual.shape[1])} rounded: actions moved by {step:.1g} change nothing "
        f"where actions moved by {FAR_STEP:.1g} do",
        "finite differences of such numbers are 0: pathwise agents learn nothing by an adapter; "
        "others do not mind",
        NOT_ROUNDED,
    )


@torch.no_grad()
def check_rounded_outcomes(
    env: DifferentiableEnv, points: Points, *, single: bool
) -> Iterator[Finding]:
    """Observations and rewards change when states and actions change by a difference's step.

    A fault if the environment says that its derivatives are exact.

    Args:
        env: the dynamics.
        points: ``N`` steps of random play.
        single: whether the environment computes in single precision.
    """
    check = Check("gradients", "rounding")
    step = SINGLE_STEP if single else DOUBLE_STEP
    state = FlatState(points.state, "state")
    packed = [state.pack(points.state), points.action.flatten(1)]
    generator = torch.Generator().manual_seed(0)
    direction = torch.cat([torch.rand(x.shape, generator=generator) for x in packed], 1) + 0.5

    def outcome(distance: float) -> NDArray[Any]:
        x = torch.cat(packed, 1) + distance * direction
        before = state.unpack(x[:, : packed[0].shape[1]], torch.arange(len(points)))
        action = x[:, packed[0].shape[1] :].reshape(points.action.shape)
        after = env.transition(copy_state(before), action.clone(), points.noise)
        reward = env.reward(copy_state(before), action, copy_state(after))
        whole = torch.cat([env.observation(copy_state(after)), reward[:, None]], 1)
        return whole.double().numpy()

    usual = outcome(0.0)
    rounded = rounded_columns(usual, outcome(step), outcome(FAR_STEP))
    if not len(rounded):
        yield check.passed("small changes of states and actions are seen")
        return
    text = (
        f"{_names(rounded, usual.shape[1])} rounded: states and actions moved by {step:.1g} change "
        f"nothing where a move by {FAR_STEP:.1g} does"
    )
    meaning = "their derivative is 0, without any variance, and wrong"
    exact = env.gradient.reward == env.gradient.state == "exact"
    yield (check.fault if exact else check.warning)(text, meaning, NOT_ROUNDED)


def rounded_columns(usual: NDArray[Any], near: NDArray[Any], far: NDArray[Any]) -> NDArray[Any]:
    """The columns on a grid that is coarser than a difference's step.

    Most of their entries that a far move changes are not changed by the step of a difference, and
    their values are multiples of one number, apart from the smallest.

    Args:
        usual: ``[M, D]`` numbers.
        near: ``[M, D]`` the same after a move by the step of a difference.
        far: ``[M, D]`` the same after a move by :data:`FAR_STEP`.
    """
    moved = (far != usual) & np.isfinite(far) & np.isfinite(usual)
    still = moved & (near == usual)
    share = still.sum(0) / np.maximum(moved.sum(0), 1)
    columns = np.concatenate([usual, near, far]).T
    return np.array([i for i in np.flatnonzero(share > MAX_STILL_SHARE) if _on_a_grid(columns[i])])


def _on_a_grid(column: NDArray[Any]) -> bool:
    """Whether numbers are multiples of their smallest gap, from the least one on.

    A clipped force or a contact is not: it stands still at its bounds, and varies between them.
    """
    values = np.unique(column[np.isfinite(column)])
    if len(values) < MIN_VALUES:
        return False
    multiples = (values - values[0]) / np.diff(values).min()
    if multiples[-1] > MAX_CELLS:
        return False
    return bool((np.abs(multiples - np.round(multiples)) < GRID_TOLERANCE).all())


def _names(columns: NDArray[Any], size: int) -> str:
    """Names of the columns, six at most; the last of ``size`` is the reward."""
    names = [f"observation[{i}]" if i < size - 1 else "the reward" for i in columns[:6]]
    more = ", ..." if len(columns) > 6 else ""
    return f"{', '.join(names)}{more} {'are' if len(columns) > 1 else 'is'}"


def _takes_differences(env: AnyEnv) -> bool:
    """Whether observations and actions are rows of floating-point numbers."""
    both = env.observation_space, env.action_space
    return all(
        isinstance(s, spaces.Box) and len(s.shape) == 1 and np.issubdtype(s.dtype, np.floating)
        for s in both
    )


def _episodes(env: AnyEnv, seed: int, move: float) -> NDArray[Any]:
    """``[M, O + 1]`` observations and rewards of short episodes with actions moved by ``move``."""
    low, high, width = _bounds(env)
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for episode in range(EPISODES):
        env.reset(seed=seed + episode)
        for _ in range(STEPS):
            unit = random.uniform(0.1, 0.8, low.shape) + move
            # Inside the bounds, where a clamp does not hold the moved action.
            one_sided = np.where(np.isfinite(low), low + unit, high - 1 + unit)
            open_ends = np.where(np.isfinite(low) | np.isfinite(high), one_sided, 2 * unit - 1)
            given = np.where(np.isfinite(width), low + width * unit, open_ends)
            given = given.astype(env.action_space.dtype)
            observation, reward, terminated, truncated, _ = env.step(given)
            row = flatten(env.observation_space, observation)
            rows.append(np.append(row, np.asarray(reward, dtype=np.float64).reshape(-1)[0]))
            if terminated or truncated:
                break
    return np.array(rows)


def _bounds(env: AnyEnv) -> tuple[Row, Row, Row]:
    """``[A]`` lower and upper bounds of the actions, and their distance; it may be infinite."""
    assert isinstance(env.action_space, spaces.Box)
    low, high = env.action_space.low, env.action_space.high
    low, high = low.astype(np.float64), high.astype(np.float64)
    width = high - low
    return low, high, width


def _smallest_step(env: AnyEnv) -> float:
    """A part of the range, or a distance where there is none, that moves every action.

    It is 16 units in the last place of the largest number between the bounds.
    """
    low, high, width = _bounds(env)
    epsilon = float(np.finfo(env.action_space.dtype or np.float64).eps)
    with np.errstate(invalid="ignore", divide="ignore"):
        bounds = [np.abs(x[np.isfinite(x)]).max(initial=1.0) for x in (low, high)]
        relative = np.maximum(np.abs(low), np.abs(high)) / np.where(width > 0, width, np.nan)
    largest = np.where(np.isfinite(width), np.nan_to_num(relative, nan=1.0), max(bounds))
    return 16 * epsilon * float(largest.max(initial=1.0))
