"""Finds the places in an environment that hold its state, and saves and restores them as an array.

A slot is one such place: an attribute, or the pair ``get_state()`` and ``set_state()``. ``S`` is
the size of the array.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_numbers import (
    ABSENT,
    Numbers,
    are_floats,
    flatten,
    unflatten,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

IGNORED_ATTRIBUTES = ("_np_random_seed",)
"""Attributes that are not saved: Gymnasium notes the last seed there, and no step depends on it."""


@final
@dataclasses.dataclass(frozen=True)
class StateSlot:
    """A place in an environment that holds a tree of numbers."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None]


@final
class StateSlots:
    """Slots as one array ``[S]``: first their values, then the codes of their types and shapes.

    Args:
        slots: the places to save.
        samples: for each slot, the contents that were observed while the environment was played;
            the array has room for the largest.
    """

    def __init__(self, slots: list[StateSlot], samples: list[list[Numbers]]) -> None:
        self.slots = slots
        value_sizes = [max(len(n.values) for n in of_slot) for of_slot in samples]
        code_sizes = [max(len(n.codes) for n in of_slot) for of_slot in samples]
        ends = np.cumsum([0, *value_sizes, *code_sizes]).tolist()
        slices = [slice(a, b) for a, b in pairwise(ends)]
        code_ends = np.cumsum(code_sizes).tolist()
        self._ends = list(zip(slots, ends[1 : len(slots) + 1], code_ends, strict=True))
        self.size: int = ends[-1]
        """``S``, the number of entries of the array."""
        self.value_slices, self._code_slices = slices[: len(slots)], slices[len(slots) :]
        """For each slot, the array's slice with its values and the slice with its codes."""
        floats = [_are_ever_floats(s, n) for s, n in zip(samples, value_sizes, strict=True)]
        self.are_floats: NDArray[np.bool_] = np.concatenate([*floats, np.zeros(0, dtype=bool)])
        """For each value of all slots, whether it was ever observed as a floating-point number."""

    def capture(self) -> list[float]:
        """The numbers ``[S]`` of the environment's present state.

        Raises:
            RequestError: a slot has outgrown its room in the array, or is no tree of numbers now.
        """
        values: list[float] = []
        codes: list[float] = []
        for slot, value_end, code_end in self._ends:
            numbers = flatten(slot.read())
            if numbers is None:
                raise RequestError(_shape_error(slot))
            values += numbers.values
            codes += numbers.codes
            if len(values) != value_end or len(codes) != code_end:
                _pad(slot, values, value_end)
                _pad(slot, codes, code_end)
        return values + codes

    def restore(self, saved: list[float]) -> None:
        """Writes captured numbers ``[S]`` back into the environment."""
        for slot, values, codes in zip(
            self.slots, self.value_slices, self._code_slices, strict=True
        ):
            slot.write(unflatten(tuple(saved[codes]), saved[values]))


def find_slots(env: AnyEnv, play: Callable[[Callable[[], None]], None]) -> StateSlots:
    """Finds the slots that hold an environment's state.

    An environment with ``get_state()`` and ``set_state(state)`` has one slot, which these two read
    and write. Otherwise the slots are the attributes of the environment and of its wrappers that
    are trees of numbers and that change while it is played.

    Args:
        env: the environment.
        play: plays a few episodes, and calls its argument after each reset and step.
    """
    base: Any = env.unwrapped
    if _has_get_and_set_state(base):
        slots = [StateSlot("get_state()", base.get_state, base.set_state)]
        samples: list[list[Numbers]] = [[]]
        play(lambda: samples[0].append(_state_of(base)))
        return StateSlots(slots, samples)
    layers, rows = list(_layers(env)), list[dict[tuple[int, str], Numbers | None]]()
    play(lambda: rows.append(_attributes(layers)))
    # The attribute `state` comes first.
    names = sorted({name for row in rows for name in row}, key=lambda n: (n[1] != "state", n))
    changing = []
    for index, name in names:
        found = [row.get((index, name), flatten(ABSENT)) for row in rows]
        numbers = [n for n in found if n is not None]
        if len(numbers) == len(found) and _changes_in_one_shape(numbers):
            changing.append((_attribute_slot(layers[index], name), numbers))
    return StateSlots([slot for slot, _ in changing], [numbers for _, numbers in changing])


def _has_get_and_set_state(base: Any) -> bool:
    """Both are needed: ``MujocoEnv`` has only a ``set_state(qpos, qvel)``."""
    return callable(getattr(base, "get_state", None)) and callable(getattr(base, "set_state", None))


def _state_of(base: Any) -> Numbers:
    state = base.get_state()
    numbers = flatten(state)
    if numbers is None:
        raise RequestError(
            f"{type(base).__name__}.get_state() returned {type(state).__name__}: it must return "
            "an array of numbers, or a tuple of arrays and numbers"
        )
    return numbers


def _layers(env: AnyEnv) -> list[AnyEnv]:
    """The environment and the wrappers around it, the innermost first."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers[::-1]


def _attributes(layers: list[AnyEnv]) -> dict[tuple[int, str], Numbers | None]:
    """All attributes, flattened, by index of the layer and name."""
    return {
        (index, name): flatten(value)
        for index, layer in enumerate(layers)
        for name, value in vars(layer).items()
        if name not in IGNORED_ATTRIBUTES
    }


def _changes_in_one_shape(samples: list[Numbers]) -> bool:
    """Whether the numbers change but not their count: a list that grows is a log, not state."""
    sizes = {len(numbers.values) for numbers in samples} - {0}
    return len(sizes) <= 1 and any(numbers != samples[0] for numbers in samples)


def _attribute_slot(layer: AnyEnv, name: str) -> StateSlot:
    attributes = vars(layer)

    def write(value: Any) -> None:
        if value is ABSENT:
            attributes.pop(name, None)
        else:
            attributes[name] = value

    return StateSlot(name, partial(attributes.get, name, ABSENT), write)


def _pad(slot: StateSlot, numbers: list[float], end: int) -> None:
    """Appends zeros up to ``end``."""
    if len(numbers) > end:
        raise RequestError(_shape_error(slot))
    numbers += [0.0] * (end - len(numbers))


def _shape_error(slot: StateSlot) -> str:
    return (
        f"{slot.name} has become {type(slot.read()).__name__} of another shape than at first, so "
        "the state cannot be saved as an array: keep its shape"
    )


def _are_ever_floats(samples: list[Numbers], size: int) -> NDArray[np.bool_]:
    """``[size]``: for each value of a slot, whether any sample has a float there."""
    found = np.zeros(size, dtype=bool)
    for codes in {numbers.codes for numbers in samples}:
        marks = np.array(are_floats(codes), dtype=bool)
        found[: len(marks)] |= marks
    return found
