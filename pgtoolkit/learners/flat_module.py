"""A module whose parameters are given as one vector, with Adam's state for them."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pgtoolkit.learners.step_rules.flat_adam import AdamState, adam_state, flatten, unflatten
from pgtoolkit.state import entries, require, tensor
from pgtoolkit.torch_private import copy_all


class _Methods(nn.Module):
    """Calls any method of a module, because ``functional_call`` calls ``forward`` alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *inputs: Tensor) -> Any:
        return getattr(self.module, method)(*inputs)


@final
class FlatModule:
    """A module as a function of the vector ``[P]`` of all its parameters.

    Args:
        module: its parameters are read by :meth:`flat` and written by :meth:`load`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._methods = _Methods(module)
        self._names = [name for name, _ in self._methods.named_parameters()]
        self.parameters: list[Tensor] = list(module.parameters())

    def flat(self) -> Tensor:
        """A copy of the parameters as they are now ``[P]``."""
        return flatten(self.parameters)

    def load(self, flat: Tensor) -> None:
        """Writes a vector of parameters into the module."""
        with torch.no_grad():
            copy_all(self.parameters, unflatten(flat, self.parameters))

    def call(self, method: str, flat: Tensor, *inputs: Tensor) -> Any:
        """The value of a method of the module with these parameters."""
        tensors = dict(zip(self._names, unflatten(flat, self.parameters), strict=True))
        return functional_call(self._methods, tensors, (method, *inputs))


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
