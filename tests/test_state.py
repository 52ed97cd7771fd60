"""The state of an object by the names of its parts."""

import copy
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.state import StateError, load_state_of, number, optional, state_of
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
