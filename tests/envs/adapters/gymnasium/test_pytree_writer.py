"""What is stored of a tree, what is named instead, and what cannot be saved."""

import threading
from typing import Any

import pytest

from pgtoolkit.envs.adapters.gymnasium.known_objects import KnownObjects
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import new_reading, unflatten
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import flatten


def test_objects_that_stay_are_named_not_copied() -> None:
    known, kept = KnownObjects(), [1.0]
    known.add(kept)
    numbers = flatten((kept, 2.0), known)
    assert numbers is not None and numbers.values == [2.0]
    assert unflatten(numbers.codes, numbers.values, new_reading(known))[0] is kept


@pytest.mark.parametrize(
    "tree",
    [object(), (1, object()), (number for number in range(3)), threading.Lock(), lambda x=[]: x],
)
def test_what_cannot_be_saved_is_said_to_be_so(tree: Any) -> None:
    assert flatten(tree) is None
