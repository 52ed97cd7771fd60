"""The pretended card refuses what a card refuses, and computes what the processor computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def only_pretended(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--device") != "pretended":
        pytest.skip("of the pretended card alone")


REFUSED: dict[str, Callable[[Any], Any]] = {
    "a vector of the processor": lambda x: x + torch.ones(4),
    "a matrix of the processor": lambda x: nn.functional.linear(x, torch.ones(2, 4)),
    "a constant without a device": lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "numbers of two devices in a stack": lambda x: torch.stack([torch.zeros(()), x.sum()]),
    "an index of the processor": lambda x: x.index_select(0, torch.tensor([0])),
    "a mask of the card": lambda x: x.cpu()[x[:, 0] > 0],
    "a generator of the card": lambda x: torch.randn(3, generator=torch.Generator(x.device)),
    "a generator of the processor": lambda x: torch.randn(
        3, generator=torch.Generator(), device=x.device
    ),
    "writing to the processor": lambda x: torch.zeros(3, 4).add_(x),
    "an array": lambda x: x.numpy(),
    "an array of NumPy": np.asarray,
}

ALLOWED: dict[str, Callable[[Any], Any]] = {
    "a number of the processor": lambda x: x + torch.ones(()),
    "a choice of numbers": lambda x: torch.where(x > 0, x, 0.0),
    "an index of the processor": lambda x: x[torch.tensor([0, 2])],
    "a move": lambda x: torch.zeros(3, 4).to(x.device) + x,
    "a copy": lambda x: torch.zeros(3, 4).copy_(x).to(x.device),
    "a new tensor": lambda x: x.new_zeros(4) + x,
    "a constant with a device": lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, device: torch.device) -> None:
    x = torch.ones(3, 4, device=device)
    with pytest.raises((RuntimeError, TypeError), match=r"device|card"):
        REFUSED[name](x)


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, device: torch.device) -> None:
    assert ALLOWED[name](torch.ones(3, 4, device=device)).device == device


def test_numbers_leave_the_card(device: torch.device) -> None:
    x = torch.arange(3.0, device=device)
    assert x.tolist() == [0.0, 1.0, 2.0] and float(x.sum()) == 3.0
    assert x.cpu().numpy().tolist() == x.tolist()


def test_gradients(device: torch.device) -> None:
    """Of modules, by vmap, in place, through views, complex numbers and the optimiser."""
    found = []
    for place in (torch.device("cpu"), device):
        module = nn.Linear(3, 2).to(place)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(0.3)
        x = torch.arange(12.0).reshape(4, 3).to(place)
        parameters = dict(module.named_parameters())

        def loss(parameters: Any, row: Any, module: Any = module) -> Any:
            out = functional_call(module, parameters, (row,))
            return (torch.polar(torch.ones_like(out), out).imag ** 2).sum()

        rows = vmap(grad(loss), (None, 0))(parameters, x)
        optimizer = torch.optim.Adam(module.parameters(), fused=True)
        loss(parameters, x).backward()
        optimizer.step()
        moved = torch.zeros(4, 3, device=place)
        moved[1:, :2].add_(x[1:, :2]).mul_(2)
        found.append([*rows.values(), *module.parameters(), moved])
    for here, there in zip(*found, strict=True):
        assert torch.equal(here, there.cpu())
