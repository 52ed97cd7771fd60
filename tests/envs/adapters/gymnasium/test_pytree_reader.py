"""Trees that were flattened are rebuilt exactly, with their types."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from pgtoolkit.envs.adapters.gymnasium.known_objects import KnownObjects
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import ABSENT
from pgtoolkit.envs.adapters.gymnasium.pytree_floats import are_floats
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import new_reading, unflatten
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import flatten


@pytest.mark.parametrize(
    "tree",
    [
        None,
        True,
        -3,
        0.1,
        ABSENT,
        np.float32(0.1),
        np.int64(-(2**53)),
        np.bool_(True),
        np.array(0.5),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([[0.1, np.nan], [np.inf, -0.0]]),
        np.zeros((0, 2), dtype=np.float32),
        (1, [None, (0.5, np.array([1, 2]))], (), np.float64(2.0)),
    ],
)
def test_trees_of_numbers_come_back_with_their_types(tree: Any) -> None:
    def describe(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value), [describe(branch) for branch in value]
        if isinstance(value, (np.ndarray, np.generic)):
            return type(value), value.dtype, value.shape, value.tobytes()
        return type(value), value

    numbers = flatten(tree)
    assert numbers is not None
    assert len(are_floats(numbers.codes)) == len(numbers.values)
    padded = (*map(float, numbers.codes), 0.0), [*map(float, numbers.values), 0.0]
    assert describe(unflatten(*padded)) == describe(tree)


class Colour(enum.Enum):
    RED, BLUE = 1, 2


class Slotted:
    __slots__ = ("late", "value")

    def __init__(self) -> None:
        self.value = 1.5


@dataclasses.dataclass
class Body:
    position: float
    parts: list[Any]


class Pair(NamedTuple):
    first: int
    second: float


TREES = {
    "text": "late",
    "bytes": b"xyz",
    "large integers": (2**127, -(2**70), np.array([2**60, -(2**62)]), np.uint64(2**64 - 1)),
    "complex": (1 + 2j, np.complex128(1 - 1j), np.array([1j])),
    "dictionary": {"a": 1, 2: [3.0], (1, 2): None},
    "sets": ({1, 2}, frozenset({"a"})),
    "deque": collections.deque([0.1, 0.2, 0.3, 0.4, 0.5], maxlen=7),
    "runs": ([0.1] * 9, list(range(9)), [1, 2.0, True, None, 3, 4]),
    "named tuple": Pair(1, 2.0),
    "enumeration": Colour.BLUE,
    "slots": Slotted(),
    "dataclass": Body(1.0, [2]),
    "texts in an array": np.array(["a", "bcd"]),
    "objects in an array": np.array([1, None, "x"], dtype=object),
    "dates": (np.datetime64("2020-01-01"), datetime.timedelta(1)),
    "other floats": (np.float16(0.1), np.longdouble(0.1)),
    "column order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "tensors": (torch.ones(2, dtype=torch.float64), torch.arange(3), torch.tensor(True)),
    "generators": (np.random.default_rng(3), random.Random(4), np.random.RandomState(5)),
    "another generator": np.random.Generator(np.random.MT19937(3)),
    "counters": (itertools.count(5), iter([1, 2, 3]), collections.Counter("aab")),
    "partial": functools.partial(int, base=2),
    "decimals": (decimal.Decimal("0.1"), fractions.Fraction(1, 3)),
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_everything_that_holds_numbers_comes_back(tree: Any) -> None:
    """What is rebuilt flattens to the same numbers and has the same type."""
    known = KnownObjects()
    numbers = flatten(tree, known)
    assert numbers is not None and len(are_floats(numbers.codes)) == len(numbers.values)
    padded = (*map(float, numbers.codes), 0.0), [*map(float, numbers.values), 0.0]
    rebuilt = unflatten(*padded, new_reading(known))
    assert (type(rebuilt) is type(tree) and rebuilt is not tree) or isinstance(
        tree, (str, bytes, Colour)
    )
    assert flatten(rebuilt, known) == numbers


def test_generators_go_on_where_they_were() -> None:
    trees: Any = (np.random.default_rng(3), random.Random(4), np.random.RandomState(5))
    known = KnownObjects()
    numbers = flatten(trees, known)
    assert numbers is not None
    rebuilt = unflatten(numbers.codes, numbers.values, new_reading(known))
    for one, other in zip(trees, rebuilt, strict=True):
        assert one.random() == other.random()


def test_what_is_shared_stays_shared() -> None:
    shared, base = [1.0], np.arange(4.0)
    cycle: list[Any] = [shared]
    cycle.append(cycle)
    known = KnownObjects()
    numbers = flatten((shared, {"a": shared}, cycle, base[:2], base), known)
    assert numbers is not None
    one, other, ring, part, whole = unflatten(numbers.codes, numbers.values, new_reading(known))
    assert other["a"] is one and ring[0] is one and ring[1] is ring
    part[0] = 7
    assert whole[0] == 7


def test_an_integer_that_is_moved_becomes_a_float() -> None:
    numbers = flatten((2, np.array([1, 2]), 0.5))
    assert numbers is not None
    moved = unflatten(numbers.codes, [2.5, 1.0, 2.5, 0.5])
    assert moved[0] == 2.5 and moved[1].tolist() == [1.0, 2.5]


def test_a_generator_that_was_used_is_put_back_to_the_same_state() -> None:
    """The object is used again, so it may have moved although its saved words are the same."""
    known = KnownObjects()
    numbers = flatten(np.random.default_rng(3), known)
    assert numbers is not None
    draws = [
        unflatten(numbers.codes, numbers.values, new_reading(known)).random() for _ in range(2)
    ]
    assert draws[0] == draws[1] == np.random.default_rng(3).random()
