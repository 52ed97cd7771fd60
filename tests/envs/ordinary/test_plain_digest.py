"""A hash of plain values that every process agrees on."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pgtoolkit.envs.ordinary.plain_digest import MAX_DEPTH, plain_digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        (0.1, float(np.nextafter(0.1, 1))),
        ([1, 2], [2, 1]),
        ([1, 2], (1, 2)),
        ([[1], 2], [[1, 2]]),
        (["ab"], ["a", "b"]),
        ({"g": 9.81}, {"g": 0.0}),
        (np.float32(1), np.float64(1)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(1), -np.zeros(1)),
        ({1, 2}, frozenset({1, 2})),
        (None, ()),
    ],
)
def test_different_values_differ(one: Any, other: Any) -> None:
    assert plain_digest(one) != plain_digest(other)
    assert plain_digest(one) != 0 and plain_digest(other) != 0


def test_equal_values_are_equal_in_whatever_order_sets_have_them() -> None:
    assert plain_digest({"a": 1, "b": [2, {3}]}) == plain_digest({"b": [2, {3}], "a": 1})
    assert plain_digest(np.arange(3.0)) == plain_digest(np.arange(3.0))


def test_other_processes_agree() -> None:
    """The order of texts in a set depends on the process."""
    code = (
        "from pgtoolkit.envs.ordinary.plain_digest import plain_digest; "
        "print(plain_digest({'alpha', 'beta', 'gamma', 'delta', 'epsilon'}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(found) == 1


def test_what_is_not_plain_has_none() -> None:
    nested: Any = 1
    for _ in range(MAX_DEPTH + 1):
        nested = [nested]
    for value in (object(), [print], {"rng": np.random.default_rng(0)}, nested):
        assert plain_digest(value) == 0
