"""Saving an environment as an array: what changes in it, and how it is read and put back."""

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

# Gymnasium notes the seed of the last reset, on which no step depends.
_NOT_STATE = ("_np_random_seed",)


@final
@dataclasses.dataclass(frozen=True)
class Slot:
    """A place in an environment that holds numbers."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None]


@final
class SavedNumbers:
    """Slots as one array ``[S]``: first their values, then the codes of their types and shapes.

    Args:
        slots: what to save.
        seen: of each slot, what it held so far; room is made for the largest.
    """

    def __init__(self, slots: list[Slot], seen: list[list[Numbers]]) -> None:
        self.slots = slots
        value_sizes = [max(len(n.values) for n in of_slot) for of_slot in seen]
        code_sizes = [max(len(n.codes) for n in of_slot) for of_slot in seen]
        ends = np.cumsum([0, *value_sizes, *code_sizes]).tolist()
        places = [slice(a, b) for a, b in pairwise(ends)]
        code_ends = np.cumsum(code_sizes).tolist()
        self._ends = list(zip(slots, ends[1 : len(slots) + 1], code_ends, strict=True))
        self.size: int = ends[-1]
        self.values, self._codes = places[: len(slots)], places[len(slots) :]
        """Of each slot, where its values are, and where its codes."""
        floats = [_any_float(s, n) for s, n in zip(seen, value_sizes, strict=True)]
        self.are_floats: NDArray[np.bool_] = np.concatenate([*floats, np.zeros(0, dtype=bool)])
        """Of all values, which are floating-point numbers, at least at times."""

    def capture(self) -> list[float]:
        """The array's numbers, of the environment as it is.

        Raises:
            RequestError: a slot holds more numbers than it ever did, or something else.
        """
        values: list[float] = []
        codes: list[float] = []
        for slot, value_end, code_end in self._ends:
            numbers = flatten(slot.read())
            if numbers is None:
                raise RequestError(_changed(slot))
            values += numbers.values
            codes += numbers.codes
            if len(values) != value_end or len(codes) != code_end:
                _pad(slot, values, value_end)
                _pad(slot, codes, code_end)
        return values + codes

    def restore(self, saved: list[float]) -> None:
        """Makes the environment the one that was captured."""
        for slot, values, codes in zip(self.slots, self.values, self._codes, strict=True):
            slot.write(unflatten(tuple(saved[codes]), saved[values]))


def find_slots(
    env: gymnasium.Env[Any, Any], play: Callable[[Callable[[], None]], None]
) -> SavedNumbers:
    """What must be saved of an environment.

    With ``get_state()`` and ``set_state(state)``, what they exchange. Otherwise all attributes, of
    the environment and of its wrappers, that are numbers or trees of numbers, and that change.

    Args:
        env: the environment.
        play: plays some episodes, and calls its argument after each reset and step.
    """
    base: Any = env.unwrapped
    if _exchanges_its_state(base):
        slots = [Slot("get_state()", base.get_state, base.set_state)]
        seen: list[list[Numbers]] = [[]]
        play(lambda: seen[0].append(_state_of(base)))
        return SavedNumbers(slots, seen)
    layers, rows = list(_layers(env)), list[dict[tuple[int, str], Numbers | None]]()
    play(lambda: rows.append(_attributes(layers)))
    names = sorted({name for row in rows for name in row}, key=lambda n: (n[1] != "state", n))
    changing = []
    for index, name in names:
        found = [row.get((index, name), flatten(ABSENT)) for row in rows]
        numbers = [n for n in found if n is not None]
        if len(numbers) == len(found) and _changes(numbers):
            changing.append((_attribute_slot(layers[index], name), numbers))
    return SavedNumbers([slot for slot, _ in changing], [seen for _, seen in changing])


def _exchanges_its_state(base: Any) -> bool:
    """MuJoCo's ``set_state(qpos, qvel)`` has no such counterpart."""
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


def _layers(env: gymnasium.Env[Any, Any]) -> list[gymnasium.Env[Any, Any]]:
    """The environment itself, and the wrappers around it."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers[::-1]


def _attributes(layers: list[gymnasium.Env[Any, Any]]) -> dict[tuple[int, str], Numbers | None]:
    return {
        (index, name): flatten(value)
        for index, layer in enumerate(layers)
        for name, value in vars(layer).items()
        if name not in _NOT_STATE
    }


def _changes(seen: list[Numbers]) -> bool:
    """Whether the numbers do, in one shape: a list that grows is a log, and has no room."""
    sizes = {len(numbers.values) for numbers in seen} - {0}
    return len(sizes) <= 1 and any(numbers != seen[0] for numbers in seen)


def _attribute_slot(layer: gymnasium.Env[Any, Any], name: str) -> Slot:
    attributes = vars(layer)

    def write(value: Any) -> None:
        if value is ABSENT:
            attributes.pop(name, None)
        else:
            attributes[name] = value

    return Slot(name, partial(attributes.get, name, ABSENT), write)


def _pad(slot: Slot, numbers: list[float], end: int) -> None:
    if len(numbers) > end:
        raise RequestError(_changed(slot))
    numbers += [0.0] * (end - len(numbers))


def _changed(slot: Slot) -> str:
    return (
        f"{slot.name} has become {type(slot.read()).__name__} of another shape than at first, so "
        "the state cannot be saved as an array: keep its shape"
    )


def _any_float(seen: list[Numbers], size: int) -> NDArray[np.bool_]:
    found = np.zeros(size, dtype=bool)
    for codes in {numbers.codes for numbers in seen}:
        marks = np.array(are_floats(codes), dtype=bool)
        found[: len(marks)] |= marks
    return found
