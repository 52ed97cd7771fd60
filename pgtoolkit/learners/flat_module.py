"""A module whose parameters are given as one vector, with Adam's state for them."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.learners.step_rules.flat_adam import AdamState, adam_state, flatten, unflatten
from pgtoolkit.state import entries, require, tensor
from pgtoolkit.torch_private import copy_all, places_of_parameters


@final
class FlatModule:
    """A module as a function of the vector ``[P]`` of all its parameters.

    ``torch.func.functional_call`` is such a function too. It looks every parameter up by its name
    in every call, which takes longer than a small network; here the places are looked up once.

    Args:
        module: its parameters are read by :meth:`flat` and written by :meth:`load`. No parameter is
            added or replaced later.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters: list[Tensor] = list(module.parameters())
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self._places = places_of_parameters(module)

    def flat(self) -> Tensor:
        """A copy of the parameters as they are now ``[P]``."""
        return flatten(self.parameters)

    def load(self, flat: Tensor) -> None:
        """Writes a vector of parameters into the module."""
        with torch.no_grad():
            copy_all(self.parameters, unflatten(flat, self.parameters))

    def call(self, method: str, flat: Tensor, *inputs: Tensor) -> Any:
        """The value of a method of the module with these parameters.

        A parameter that several layers share is replaced in all of them.
        """
        try:
            self._put(unflatten(flat, self.parameters))
            return getattr(self.module, method)(*inputs)
        finally:
            self._put(self.parameters)

    def at(self, flat: Tensor) -> "GivenModule":
        """The module with these parameters."""
        return GivenModule(self, flat)

    def _put(self, tensors: Sequence[Tensor]) -> None:
        for places, given in zip(self._places, tensors, strict=True):
            for parameters, name in places:
                parameters[name] = given


@final
class GivenModule(NamedTuple):
    """A module with parameters that are given, in the place of its own."""

    function: FlatModule
    flat: Tensor
    """All parameters ``[P]``."""

    def __call__(self, *inputs: Tensor) -> Any:
        """The value of the module."""
        return self.call("__call__", *inputs)

    def call(self, method: str, *inputs: Tensor) -> Any:
        """The value of a method of the module."""
        return self.function.call(method, self.flat, *inputs)


@final
class Moments(NamedTuple):
    """Adam's moments ``[P]`` and its number of steps."""

    mean: Tensor
    square: Tensor
    steps: Tensor


@final
class FlatOptimizer:
    """Adam's state of a module, for steps that are made on the vector of its parameters.

    Args:
        module: the module that is optimised.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = FlatModule(module)
        self.parameters = self.module.parameters
        start = adam_state(self.parameters)
        self.state = Moments(start.mean, start.square, start.steps)

    def begin(self) -> AdamState:
        """The parameters as they are now, with the moments."""
        return AdamState(self.module.flat(), *self.state)

    def end(self, after: AdamState) -> None:
        """Takes over the moments, and writes the parameters into the module."""
        self.module.load(after.parameters)
        self.state = Moments(after.mean, after.square, after.steps)

    def state_dict(self) -> dict[str, Any]:
        """The moments and the number of steps; the parameters are saved with the module."""
        return self.state._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit the parameters.
        """
        own = self.state
        schemas = {
            "mean": tensor(own.mean),
            "square": tensor(own.square, low=0.0),
            "steps": tensor(own.steps, low=0.0, whole=True),
        }
        require(state, entries(schemas))
        self.state = Moments(**{name: x.to(own.mean.device) for name, x in state.items()})
