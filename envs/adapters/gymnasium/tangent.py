"""Finds which saved numbers of an environment to differentiate, and the precision of its steps.

Shapes: ``S`` saved numbers, ``D`` of them differentiated.
"""

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import RecordedStep
from pgtoolkit.envs.adapters.gymnasium.state_slots import StateSlots
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator

PERTURBATION = 1e-3
"""A number is moved by this, relative and absolute, to see whether anything depends on it."""

OUTCOME = -1
"""Stands for observation and reward among the indices of slots."""

STATE_SLOT_NAMES = ("state", "get_state()")
"""Slots that are always differentiated."""

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def tangent_entries(
    simulator: Simulator, slots: StateSlots, recorded: list[RecordedStep]
) -> NDArray[np.intp]:
    """Indices ``[D]`` of the saved numbers to differentiate.

    These are the floating-point numbers of ``state`` or ``get_state()``, and those of every other
    slot on which an observation or a reward depends, directly or through other slots. A slot that
    is only logged or drawn is left out, because each number costs two steps.
    """
    before = np.stack([step.before for step in recorded])
    action = np.stack([step.result.action.astype(np.float64) for step in recorded])
    unmoved = simulator.step(before, action)
    affects: dict[int, set[int]] = {}
    for index, slot in enumerate(slots.slots):
        if slot.name not in STATE_SLOT_NAMES and _float_entries(slots, index).size:
            moved, entries = before.copy(), _float_entries(slots, index)
            moved[:, entries] += PERTURBATION * (1 + np.abs(moved[:, entries]))
            affects[index] = _affected(slots, unmoved, simulator.step(moved, action))
    relevant = {OUTCOME}
    relevant |= {i for i, slot in enumerate(slots.slots) if slot.name in STATE_SLOT_NAMES}
    for _ in affects:
        relevant |= {index for index, affected in affects.items() if affected & relevant}
    chosen = [_float_entries(slots, index) for index in sorted(relevant - {OUTCOME})]
    return np.concatenate([*chosen, np.zeros(0, dtype=np.intp)])


def find_precision(recorded: list[RecordedStep], entries: NDArray[np.intp]) -> Precision:
    """The precision in which steps with double-precision actions compute each part.

    It is found from the values, because a number that was rounded to single precision on the way
    may well be returned as a float64.
    """
    double = [step for step in recorded if step.result.action.dtype == DOUBLE]
    return Precision(
        state=_precision(np.stack([step.after[entries] for step in double])),
        observation=_precision(np.stack([step.result.observation for step in double])),
        reward=_precision(np.array([[step.result.reward] for step in double])),
    )


def _float_entries(slots: StateSlots, index: int) -> NDArray[np.intp]:
    """Indices into the saved numbers of a slot's floating-point numbers."""
    where = slots.value_slices[index]
    found: NDArray[np.intp] = np.flatnonzero(slots.are_floats[where]) + where.start
    return found


def _affected(slots: StateSlots, unmoved: Outcome, moved: Outcome) -> set[int]:
    """The slots whose values differ, with ``OUTCOME`` if observation or reward differ."""
    different = (unmoved.saved != moved.saved).any(0)
    affected = {i for i, where in enumerate(slots.value_slices) if different[where].any()}
    outcome_differs = (unmoved.observation != moved.observation).any() or (
        unmoved.reward != moved.reward
    ).any()
    return affected | ({OUTCOME} if outcome_differs else set())


def _precision(values: Array) -> np.dtype:
    """Single if any column's numbers are all single, unless they are multiples of 1/1024.

    Such simple numbers are exact in single precision whatever the computation was.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        is_single = (values == values.astype(np.float32)).all(0)
        is_simple = (1024 * values == np.round(1024 * values)).all(0)
    return SINGLE if (is_single & ~is_simple).any() else DOUBLE
