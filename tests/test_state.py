"""The state of an object by the names of its parts."""

import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.state import (
    Schema,
    StateError,
    array,
    at,
    entries,
    equal,
    flag,
    integer,
    items,
    like,
    load_state_of,
    mapping,
    number,
    optional,
    require,
    schema_of,
    series,
    state_of,
    tensor,
    text,
)
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

NAMES = ("module", "optimizer", "generator", "tensor", "count", "word", "nothing")
DECLARED = {"nothing": optional(number())}


@final
class Owner:
    """One part of every kind, and one that is not saved."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.module = nn.Linear(2, 1)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=self.generator))
        self.optimizer = torch.optim.Adam(self.module.parameters(), 0.1)
        self.tensor = torch.full((3,), float(seed))
        self.count, self.word = seed, f"seed {seed}"
        self.nothing: float | None = None if seed == 0 else 1.5
        self.unnamed = seed

    def run(self) -> Tensor:
        """One step of the optimiser on a drawn input; all parts change or matter."""
        loss = self.module(torch.randn(4, 2, generator=self.generator)).square().mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.count += 1
        return torch.cat([p.detach().flatten() for p in self.module.parameters()])


def test_each_kind_of_part_gives_its_own_state() -> None:
    owner = Owner(0)
    state = state_of(owner, NAMES)
    assert list(state) == list(NAMES)
    assert torch.equal(state["module"]["weight"], owner.module.weight)
    assert state["optimizer"].keys() == owner.optimizer.state_dict().keys()
    assert torch.equal(state["generator"], owner.generator.get_state())
    assert state["tensor"].tolist() == [0, 0, 0]
    assert (state["count"], state["word"], state["nothing"]) == (0, "seed 0", None)


def test_a_loaded_owner_goes_on_exactly(tmp_path: Path) -> None:
    """An owner with other parts loads the file; parts that are not named keep their state."""
    one, other = Owner(0), Owner(1)
    one.run()
    save_checkpoint(tmp_path / "state.safetensors", state_of(one, NAMES))
    expected = [one.run() for _ in range(3)]
    other.run()
    other.run()
    load_state_of(other, NAMES, load_checkpoint(tmp_path / "state.safetensors"), DECLARED)
    assert (other.count, other.word, other.nothing) == (1, "seed 0", None)
    assert other.tensor.tolist() == [0, 0, 0]
    assert other.unnamed == 1
    for values in expected:
        assert torch.equal(other.run(), values)


def test_the_parts_of_a_loaded_owner_stay_the_same_objects() -> None:
    """An optimiser holds the module's parameters, and a rollout the generator."""
    one, other = Owner(0), Owner(1)
    parts = (other.module, other.module.weight, other.optimizer, other.generator)
    load_state_of(other, NAMES, copy.deepcopy(state_of(one, NAMES)), DECLARED)
    after = (other.module, other.module.weight, other.optimizer, other.generator)
    assert all(a is b for a, b in zip(parts, after, strict=True))


def test_an_owner_is_a_part_of_another() -> None:
    """A part may be any object with ``state_dict`` and ``load_state_dict``, such as a learner."""

    class Outer:
        def __init__(self, seed: int) -> None:
            self.part = Part(seed)

    class Part:
        def __init__(self, seed: int) -> None:
            self.count = seed

        def state_dict(self) -> dict[str, Any]:
            return state_of(self, ("count",))

        def load_state_dict(self, state: dict[str, Any]) -> None:
            load_state_of(self, ("count",), state)

    one, other = Outer(3), Outer(4)
    state = state_of(one, ("part",))
    assert state == {"part": {"count": 3}}
    load_state_of(other, ("part",), state)
    assert other.part.count == 3


def test_a_name_that_is_missing_and_a_shape_that_differs_are_errors() -> None:
    owner, state = Owner(0), state_of(Owner(0), NAMES)
    with pytest.raises(StateError, match="word is missing"):
        load_state_of(owner, NAMES, {k: v for k, v in state.items() if k != "word"})
    owner.module = nn.Linear(3, 1)
    with pytest.raises(StateError, match=r"module/weight has shape \[1, 2\], not \[1, 3\]"):
        load_state_of(owner, NAMES, state)
    with pytest.raises(AttributeError, match="absent"):
        state_of(owner, ("absent",))


def refusal(schema: Schema, value: Any) -> str | None:
    """What a schema says of a value at ``a/b``; None if it fits."""
    try:
        require(value, schema, "a/b")
    except StateError as error:
        assert error.path.startswith("a/b")
        return str(error)
    return None


FITS: list[tuple[Schema, list[Any], dict[str, Any]]] = [
    (
        integer(0, 9),
        [0, 9],
        {
            "not an integer": True,
            "not between 0 and 9": 10,
            "'16', not": "16",
            "-1000000000": -(10**9),
        },
    ),
    (integer(), [0, 2**63 - 1], {"not between": 10**30, "1.0, not an integer": 1.0, "None": None}),
    (number(0.0), [0.0, 3, 1e308], {"finite": float("nan"), "below": -1.0, "a number": False}),
    (number(), [-1e308, 5], {"finite": float("inf"), "too large": 10**400}),
    (number(finite=False), [float("nan"), -float("inf")], {"not a number": "nan"}),
    (flag, [True, False], {"not true or false": 1}),
    (text, ["", "x"], {"not a text": 1}),
    (optional(text), [None, "x"], {"not a text": 1}),
    (
        series(flag, 1, 2),
        [[True], (True, False)],
        {"0 entries, not 1 to 2": [], "a/b/1 is 3": [True, 3]},
    ),
    (items([flag, text], ["yes", "word"]), [(True, "")], {"a/b/word is 2": (True, 2)}),
    (mapping(flag, keys=str.islower), [{}, {"a": True}], {"a/b/A is not": {"A": True}}),
    (
        entries({0: flag, "x": text}, absent=("x",)),
        [{0: True}, {0: True, "x": ""}],
        {"a/b/0 is missing": {"x": ""}, "a/b/y is not known": {0: True, "y": 1}},
    ),
    (entries({1: flag}), [{1: True}], {"a/b/True is not known": {True: True}}),
    (
        array(torch.float32, (2, 3), longest=(0,)),
        [torch.zeros(2, 3), torch.zeros(0, 3)],
        {
            "has shape [3, 3], not [<= 2, 3]": torch.zeros(3, 3),
            "torch.float64, not torch.float32": torch.zeros(2, 3, dtype=torch.float64),
            "not finite": torch.full((2, 3), torch.inf),
            "not a tensor": [[0.0]],
        },
    ),
    (
        tensor(torch.zeros(2), low=0, high=3, whole=True),
        [torch.tensor([0.0, 3.0])],
        {
            "below 0": torch.tensor([0.0, -1.0]),
            "above 3": torch.tensor([0.0, 4.0]),
            "whole numbers": torch.tensor([0.0, 0.5]),
        },
    ),
    (tensor(torch.tensor([1.0, torch.inf])), [torch.tensor([torch.nan, 0.0])], {}),
    (equal((0.9, 0.999)), [(0.9, 0.999)], {"not": (0.9, 0.99), "a list": [0.9, 0.999]}),
    (equal(torch.ones(2)), [torch.ones(2)], {"other numbers": torch.zeros(2)}),
    (
        like({"a": [1, 1.0], "b": None, "c": float("nan")}),
        [{"a": (-5, 2), "b": None, "c": float("inf")}],
        {"a/b/b is 1, not None": {"a": [1, 1.0], "b": 1, "c": 0.0}},
    ),
]


@pytest.mark.parametrize("schema, fitting, others", FITS)
def test_a_schema_takes_what_fits_and_names_what_does_not(
    schema: Schema, fitting: list[Any], others: dict[str, Any]
) -> None:
    assert [refusal(schema, value) for value in fitting] == [None] * len(fitting)
    for words, value in others.items():
        assert words in str(refusal(schema, value))


def test_what_a_message_quotes_is_short_and_on_one_line() -> None:
    """Keys and values of a stranger's file are in it."""
    hostile = "\n\x1b[31m" * 500
    for value in ({hostile: 1}, {"x": hostile}, {"x": [hostile] * 500}, {"x": 10**4000}):
        found = str(refusal(entries({"x": integer()}), value))
        assert len(found) < 400 and found.isprintable()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_an_optimiser_takes_its_own_state_before_and_after_a_step(kind: Any) -> None:
    """The state's structure is that of an equal optimiser after one step."""
    one, other = (kind(nn.Linear(2, 3).parameters(), 0.1) for _ in range(2))
    assert refusal(schema_of(other), one.state_dict()) is None
    for parameter in one.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    one.step()
    assert refusal(schema_of(other), one.state_dict()) is None
    assert other.state_dict()["state"] == {}


def test_an_optimiser_refuses_a_state_that_its_step_would_read_beyond() -> None:
    owner, other = Owner(0), Owner(1)
    owner.run()
    good = state_of(owner, ("optimizer",))
    state = good["optimizer"]["state"]
    short = torch.zeros(1)
    damaged: dict[str, dict[str, Any]] = {
        r"state/0/exp_avg has shape \[1\], not \[1, 2\]": {"exp_avg": short},
        "state/0/exp_avg_sq has entries below 0": {"exp_avg_sq": -torch.ones(1, 2)},
        "state/0/step has entries below 0": {"step": torch.tensor(-1.0)},
        "state/0/step has entries that are not whole": {"step": torch.tensor(1.5)},
        "state/0/exp_avg is missing": {"exp_avg": None},
        "state/0/more is not known here": {"more": short},
    }
    for words, change in damaged.items():
        entry = {k: v for k, v in (state[0] | change).items() if v is not None}
        with pytest.raises(StateError, match=f"optimizer/{words}"):
            changed = good["optimizer"] | {"state": state | {0: entry}}
            load_state_of(other, ("optimizer",), {"optimizer": changed})
    with pytest.raises(StateError, match="optimizer/state/7 is not known here"):
        changed = good["optimizer"] | {"state": state | {7: state[0]}}
        load_state_of(other, ("optimizer",), {"optimizer": changed})
    for change in ({"betas": (0.5, 0.5)}, {"lr": -1.0}, {"lr": "0.1"}, {"params": [0]}):
        groups = [good["optimizer"]["param_groups"][0] | change]
        with pytest.raises(StateError, match="optimizer/param_groups/0/"):
            changed = good["optimizer"] | {"param_groups": groups}
            load_state_of(other, ("optimizer",), {"optimizer": changed})


def test_a_generator_is_tried_before_it_is_set() -> None:
    """One byte of the state says whether it was seeded; without it torch refuses the state."""
    owner = Owner(0)
    before = owner.generator.get_state()
    for value in (torch.zeros_like(before), before[:-1], before.float()):
        with pytest.raises(StateError, match="generator"):
            load_state_of(owner, ("generator",), {"generator": value})
    assert torch.equal(owner.generator.get_state(), before)


def test_nothing_is_changed_unless_all_attributes_fit() -> None:
    """The last name does not fit, so the first one is not loaded either."""
    owner = Owner(0)
    state = state_of(Owner(1), NAMES) | {"nothing": "x"}
    weight = owner.module.weight.clone()
    with pytest.raises(StateError, match="nothing is 'x'"):
        load_state_of(owner, NAMES, state, DECLARED)
    assert torch.equal(owner.module.weight, weight) and owner.count == 0


def test_a_module_names_what_is_constant_and_what_has_a_least_value() -> None:
    class Part(nn.Module):
        state_constants = ("low",)
        state_minima = MappingProxyType({"count": 0.0})

        def __init__(self, low: float) -> None:
            super().__init__()
            self.register_buffer("low", torch.tensor([low, torch.inf]))
            self.register_buffer("count", torch.zeros(()))

    one, other = (nn.ModuleDict({"part": Part(low)}) for low in (-1.0, -2.0))
    assert refusal(schema_of(one), one.state_dict()) is None
    assert refusal(schema_of(one), other.state_dict()) == (
        "a/b/part.low has other numbers than it has here"
    )
    negative = one.state_dict() | {"part.count": torch.tensor(-1.0)}
    assert refusal(schema_of(one), negative) == "a/b/part.count has entries below 0.0"


def test_the_path_of_a_part_begins_with_the_names_above_it() -> None:
    with pytest.raises(StateError) as caught, at("agent"), at("learner"):
        require({}, entries({"x": flag}))
    assert (caught.value.path, str(caught.value)) == (
        "agent/learner/x",
        "agent/learner/x is missing",
    )
    assert str(StateError("", "is None")) == "the state is None"
