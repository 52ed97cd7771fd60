"""A module as a function of one vector of parameters, against ``torch.func.functional_call``."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pgtoolkit.learners.flat_module import FlatModule
from pgtoolkit.learners.step_rules.flat_adam import unflatten


class Tied(nn.Module):
    """A layer that is used twice, once under another name, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(3, 3), nn.Linear(3, 2)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(x))))
        return nn.functional.linear(hidden, self.other.weight, self.other.bias)

    def doubled(self, x: Tensor) -> Tensor:
        """Another method."""
        return 2 * self.forward(x)

    def broken(self, x: Tensor) -> Tensor:
        """A method that raises."""
        raise ArithmeticError("on purpose")


@pytest.mark.parametrize("make", [Tied, lambda: nn.Sequential(nn.Linear(3, 4), nn.SiLU())])
def test_value_and_gradient_are_those_of_torch(make: type[nn.Module]) -> None:
    torch.manual_seed(1)
    module = make()
    before = copy.deepcopy(module.state_dict())
    function, x = FlatModule(module), torch.randn(5, 3)
    flat = torch.randn(function.size, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]
    given = dict(zip(names, unflatten(flat, function.parameters), strict=True))
    expected = functional_call(module, given, (x,))
    found = function.at(flat)(x)
    assert torch.equal(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), flat),
        torch.autograd.grad(expected.square().sum(), flat),
        strict=True,
    ):
        assert torch.equal(one, other)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_method_is_called_with_the_given_parameters() -> None:
    function = FlatModule(Tied())
    flat, x = torch.ones(function.size), torch.ones(2, 3)
    assert torch.equal(function.call("doubled", flat, x), 2 * function.call("forward", flat, x))


def test_the_module_has_its_own_parameters_again_after_an_error() -> None:
    module = Tied()
    own = dict(module.named_parameters())
    function = FlatModule(module)
    with pytest.raises(ArithmeticError, match="on purpose"):
        function.call("broken", function.flat(), torch.ones(2, 3))
    assert all(parameter is own[name] for name, parameter in module.named_parameters())
    assert module.second.weight is module.first.weight


def test_a_copy_is_a_function_of_the_copied_module() -> None:
    function = FlatModule(Tied())
    copied, x = copy.deepcopy(function), torch.ones(2, 3)
    copied.load(torch.zeros(copied.size))
    assert not function.module(x).equal(copied.module(x))
    assert torch.equal(copied.call("forward", copied.flat(), x), copied.module(x))


def test_a_loaded_vector_is_read_back() -> None:
    function = FlatModule(Tied())
    flat = torch.randn(function.size)
    function.load(flat)
    assert torch.equal(function.flat(), flat)
