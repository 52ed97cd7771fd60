"""Finds which saved numbers of an environment to differentiate, and the precision of its steps.

Shapes: ``S`` saved numbers, ``D`` of them differentiated.
"""

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_codes import UNSAVED
from pgtoolkit.envs.adapters.gymnasium.pytree_floats import first_are_floats
from pgtoolkit.envs.adapters.gymnasium.replay_check import RecordedStep
from pgtoolkit.envs.adapters.gymnasium.state_slots import StateSlots, stack_rows
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator

PERTURBATION = 1e-3
"""A number is moved by this, relative and absolute, to see whether anything depends on it."""

MAX_RESTORED = 40_000
"""So many numbers are restored for each slot to see whether anything depends on it."""

OUTCOME = -1
"""Stands for observation and reward among the indices of slots."""

STATE_SLOT_NAMES = ("state", "get_state()")
"""Slots that are always differentiated."""

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def tangent_entries(
    simulator: Simulator, slots: StateSlots, recorded: list[RecordedStep], offset: int = 0
) -> NDArray[np.intp]:
    """Indices ``[D]`` of the saved numbers to differentiate.

    Args:
        simulator: saves and steps the environment.
        slots: the slots of the environment.
        recorded: steps of the environment.
        offset: the number of saved numbers before those of the slots; they belong to a physics
            engine, and each of them matters.

    These are the floating-point numbers of ``state`` or ``get_state()``, and those of every other
    slot on which an observation or a reward depends, directly or through other slots. A slot that
    is only logged or drawn is left out, because each number costs two steps.
    """
    # Fewer steps of environments with a large state, each of which takes long to restore.
    stride = max(1, len(recorded) * slots.size // MAX_RESTORED)
    recorded = recorded[::stride]
    width = max(len(step.before) for step in recorded)
    before = stack_rows([step.before for step in recorded], width)
    action = np.stack([step.result.action.astype(np.float64) for step in recorded])
    unmoved = simulator.step(before, action)
    before = np.hstack([before[:, :offset], slots.complete(before[:, offset:])])
    affects: dict[int, set[int]] = {}
    # Taken before the steps, because these may find further slots.
    names = [slot.name for slot in slots.slots]
    floats = [slots.layout.float_entries(index) + offset for index in range(len(names))]
    for index, entries in enumerate(floats):
        if names[index] not in STATE_SLOT_NAMES and entries.size:
            moved = before.copy()
            moved[:, entries] += PERTURBATION * (1 + np.abs(moved[:, entries]))
            affects[index] = _affected(slots, unmoved, simulator.step(moved, action), offset)
    always = {i for i, slot in enumerate(slots.slots) if slot.name in STATE_SLOT_NAMES}
    relevant = {OUTCOME} | always | set(range(len(names), len(slots.slots)))
    for _ in affects:
        relevant |= {index for index, affected in affects.items() if affected & relevant}
    # Of a slot that never held a float in these steps nothing is known, so it is differentiated.
    relevant |= {index for index in affects if not _holds_floats(slots, index, before[:, offset:])}
    slots.layout.end_proof(irrelevant=set(affects) - relevant)
    chosen = [slots.layout.float_entries(index) + offset for index in sorted(relevant - {OUTCOME})]
    return np.concatenate([*chosen, np.zeros(0, dtype=np.intp)])


def find_precision(
    slots: StateSlots, recorded: list[RecordedStep], entries: NDArray[np.intp]
) -> Precision:
    """The precision in which steps with double-precision actions compute each part.

    It is found from the values, because a number that was rounded to single precision on the way
    may well be returned as a float64.
    """
    double = [step for step in recorded if step.result.action.dtype == DOUBLE]
    return Precision(
        state=_precision(
            slots.complete(stack_rows([step.after for step in double], slots.size))[:, entries]
        ),
        observation=_precision(np.stack([step.result.observation for step in double])),
        reward=_precision(np.array([[step.result.reward] for step in double])),
    )


def _holds_floats(slots: StateSlots, index: int, saved: Array) -> bool:
    """Whether any of the states ``[K, S]`` has a floating-point number in the slot."""
    for segment in (s for s in slots.layout.segments if s.slot == index):
        for codes in np.unique(saved[:, segment.codes], axis=0):
            if codes.size and codes[0] != UNSAVED and any(first_are_floats(codes)):
                return True
    return False


def _affected(slots: StateSlots, unmoved: Outcome, moved: Outcome, offset: int) -> set[int]:
    """The slots whose values differ, with ``OUTCOME`` if observation, reward or physics differ."""
    size = min(unmoved.saved.shape[1], moved.saved.shape[1])
    different = (unmoved.saved[:, :size] != moved.saved[:, :size]).any(0)
    physics, different = different[:offset], different[offset:]
    affected = {s.slot for s in slots.layout.segments if different[s.values].any()}
    outcome_differs = (
        physics.any()
        or (unmoved.observation != moved.observation).any()
        or (unmoved.reward != moved.reward).any()
    )
    return affected | ({OUTCOME} if outcome_differs else set())


def _precision(values: Array) -> np.dtype:
    """Single if any column's numbers are all single, unless they are multiples of 1/1024.

    Such simple numbers are exact in single precision whatever the computation was.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        is_single = (values == values.astype(np.float32)).all(0)
        is_simple = (1024 * values == np.round(1024 * values)).all(0)
    return SINGLE if (is_single & ~is_simple).any() else DOUBLE
