"""Which of an environment's saved numbers its steps depend on, and in which precision it computes.

Shapes: ``R`` rehearsed steps, ``S`` saved numbers.
"""

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import Rehearsed
from pgtoolkit.envs.adapters.gymnasium.state_slots import SavedNumbers
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator

# By how much a number is moved, relative and absolute, to see whether anything depends on it.
_MOVE = 1e-3

# What changes in an outcome beside slots.
_SEEN = -1

# The state as people name it: differentiated in any case.
_ALWAYS = ("state", "get_state()")

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def tangent_entries(
    simulator: Simulator, numbers: SavedNumbers, rehearsal: list[Rehearsed]
) -> NDArray[np.intp]:
    """Which of the saved numbers are differentiated ``[D]``.

    The floating-point numbers of ``state``, or of ``get_state()``. Of the other slots those on
    which observation or reward depend, at once or by way of others: what is only drawn or logged
    would cost two steps a number.
    """
    before = np.stack([step.before for step in rehearsal])
    action = np.stack([step.played.action.astype(np.float64) for step in rehearsal])
    plain = simulator.step(before, action)
    reaches: dict[int, set[int]] = {}
    for index, slot in enumerate(numbers.slots):
        if slot.name not in _ALWAYS and _floats(numbers, index).size:
            moved, place = before.copy(), _floats(numbers, index)
            moved[:, place] += _MOVE * (1 + np.abs(moved[:, place]))
            reaches[index] = _reached(numbers, plain, simulator.step(moved, action))
    chosen = {i for i, slot in enumerate(numbers.slots) if slot.name in _ALWAYS}
    matters = {_SEEN, *chosen}
    for _ in reaches:
        matters |= {index for index, reached in reaches.items() if reached & matters}
    chosen = matters - {_SEEN}
    entries = [_floats(numbers, index) for index in sorted(chosen)]
    return np.concatenate([*entries, np.zeros(0, dtype=np.intp)])


def find_precision(rehearsal: list[Rehearsed], entries: NDArray[np.intp]) -> Precision:
    """By the numbers, not by their dtypes: one that was rounded on the way stays rounded.

    Of steps with double-precision actions.
    """
    double = [step for step in rehearsal if step.played.action.dtype == _DOUBLE]
    return Precision(
        state=_precision(np.stack([step.after[entries] for step in double])),
        observation=_precision(np.stack([step.played.observation for step in double])),
        reward=_precision(np.array([[step.played.reward] for step in double])),
    )


def _floats(numbers: SavedNumbers, index: int) -> NDArray[np.intp]:
    place = numbers.values[index]
    found: NDArray[np.intp] = np.flatnonzero(numbers.are_floats[place]) + place.start
    return found


def _reached(numbers: SavedNumbers, plain: Outcome, moved: Outcome) -> set[int]:
    """The slots that differ, and whether the outcome does."""
    different = (plain.saved != moved.saved).any(0)
    reached = {i for i, place in enumerate(numbers.values) if different[place].any()}
    seen = (plain.observation != moved.observation).any() or (plain.reward != moved.reward).any()
    return reached | ({_SEEN} if seen else set())


def _precision(values: Array) -> np.dtype:
    """Single if a column's numbers are all single, and not so simple that they would be anyway."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_single = (values == values.astype(np.float32)).all(0)
        is_simple = (1024 * values == np.round(1024 * values)).all(0)
    return _SINGLE if (is_single & ~is_simple).any() else _DOUBLE
