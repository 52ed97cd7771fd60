"""Values out of JSON against annotations, and what a user is told of those that do not fit."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from torch import Tensor

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.json_types import annotations_of, fits, words_of
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.errors import RequestError

FITTING: list[tuple[Any, Any]] = [
    (1, float),
    (1.5, float),
    (2, int),
    (True, bool),
    ("x", str),
    (None, float | None),
    ([1, 2.5], Sequence[float]),
    ([[1.0], [2]], Sequence[Sequence[float]]),
    ([8, 8], tuple[int, ...]),
    ([1, 2], tuple[float, float]),
    ({"a": 1}, Mapping[str, Any]),
    ("a", Literal["a", "b"]),
    (3, Annotated[int, "steps"]),
    ([[1]], Tensor | float),
    ("x", Any),
    ("x", np.random.Generator),
    (np.zeros(2), float),
]

OTHERS: list[tuple[Any, Any, str]] = [
    ("x", float, "a number"),
    (True, float, "a number"),
    (None, float, "a number"),
    (1.5, int, "an integer"),
    (True, int, "an integer"),
    (2**63, int, "an integer"),
    (1, bool, "true or false"),
    (1, str, "text"),
    ("x", float | None, "a number or null"),
    ("ab", Sequence[float], "a list"),
    (["x"], Sequence[float], "a list"),
    ([[1, "x"]], Sequence[Sequence[float]], "a list"),
    ([0.5], tuple[int, ...], "a list"),
    ([1], Mapping[str, Any], "an object"),
    ("c", Literal["a", "b"], "'a' or 'b'"),
    ("x", Tensor | float, "numbers or a number"),
]


@pytest.mark.parametrize(("value", "annotation"), FITTING)
def test_values_that_fit(value: Any, annotation: Any) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation", "words"), OTHERS)
def test_values_that_do_not_fit(value: Any, annotation: Any, words: str) -> None:
    assert not fits(value, annotation) and words_of(annotation) == words


class Mine:
    """A user's class, without annotations but one."""

    def __init__(self, a: Any, b: int = 1, c=None) -> None:  # type: ignore[no-untyped-def]
        self.total = a + b


def test_annotations_of_classes_functions_and_what_has_none() -> None:
    assert annotations_of(Mine)["b"] is int
    assert annotations_of(functools.partial(Mine, 1))["b"] is int
    assert annotations_of(len) == {}


def test_a_wrong_type_is_named_before_anything_is_made() -> None:
    with pytest.raises(
        RequestError, match=r"^GradientGate's clip_norm is 'x': .* a number or null$"
    ):
        construct(GradientGate, {"clip_norm": "x"}, {"env": Pendulum()})
    with pytest.raises(RequestError, match=r"Mine's b is 1\.5: it must be an integer"):
        construct(Mine, {"a": 1, "b": 1.5})


def test_an_error_in_the_constructor_says_where() -> None:
    with pytest.raises(RequestError, match=r"Mine cannot be made with .*test_json_types.py, line"):
        construct(Mine, {"a": "x"})
    assert construct(Mine, {"a": 2}).total == 3


def test_what_the_caller_gives_is_not_the_users_to_give() -> None:
    with pytest.raises(RequestError) as caught:
        construct(GradientGate, {"env": 1}, {"env": Pendulum()})
    assert "does not take" in str(caught.value) and "env," not in str(caught.value)
