"""Optimiser steps on minibatches of one batch, in a Python loop or in one compiled loop.

The step on one minibatch is a function of the vector of all parameters. For each objective in turn
it computes the loss, its gradient, the clipped gradient and Adam's update, and the next objective
sees the parameters after that. The function is called in a Python loop, or it is traced once and
compiled together with the loop over all minibatches.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, final

import torch
from torch import Tensor, nn

from pgtoolkit.compiling import CompiledLoop, make_contiguous, trace
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.flat_module import FlatModule, GivenModule
from pgtoolkit.learners.step_rules.flat_adam import (
    AdamState,
    FlatRule,
    adam_state,
    flatten,
    unflatten,
)
from pgtoolkit.state import entries, require, tensor
from pgtoolkit.torch_private import copy_all, scan

LOG = logging.getLogger("pgtoolkit")

MAX_COMPILED_SHAPES = 2
"""Most minibatch shapes for which a loop is compiled; further shapes use the Python loop."""

GivenModules = Mapping[str, GivenModule]
"""The modules of all objectives by name, with the parameters at which a loss is computed."""
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])
"""A named tuple of tensors with one leading axis."""
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""Maps all modules with their parameters, a minibatch and its fresh tensors to the loss, a scalar,
and further scalars to report."""
Step = Callable[..., tuple[Any, ...]]
"""Maps the tensors of the objectives' states, a minibatch, its fresh tensors and the learning rate
to the next tensors of the states and the scalars of each objective, ``[loss, *reported, norm]``."""


@final
class Objective(NamedTuple):
    """A loss with the modules that it moves: one step of a minibatch.

    The loss is called with all objectives' modules, of which the parameters of other objectives'
    are constants. It must use the modules that it is given: the parameters of its own are those
    before the first minibatch.
    """

    modules: Mapping[str, nn.Module]
    """The modules by name; their parameters are one vector, in this order."""
    loss: Loss
    """Computes the loss of a minibatch."""
    rule: FlatRule
    """Clips the gradient and makes Adam's update."""
    name: str = ""
    """Comes before ``loss`` and ``norm`` in the reported names and in messages."""

    def label(self, word: str, joint: str = "_") -> str:
        """The word with the objective's name before it, if it has one."""
        return f"{self.name}{joint}{word}" if self.name else word


@final
class Minibatches(Generic[Batch]):
    """Takes steps on objectives, one after the other on every minibatch of a batch.

    Args:
        objectives: in the order of their steps. No module is in two of them. The modules'
            parameters are changed in place.
        compiled: whether to compile the loop over minibatches.
    """

    def __init__(self, objectives: Sequence[Objective], *, compiled: bool = False) -> None:
        self.objectives = list(objectives)
        named = {name: module for one in objectives for name, module in one.modules.items()}
        self.modules = nn.ModuleDict(named)
        self.parameters: list[Tensor] = list(self.modules.parameters())
        self._own = [
            {name: FlatModule(module) for name, module in one.modules.items()} for one in objectives
        ]
        self._module_sizes = [[own.size for own in modules.values()] for modules in self._own]
        self._sizes = [sum(sizes) for sizes in self._module_sizes]
        self.state = adam_state(self.parameters)
        self.compiled = compiled
        self._loops: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._reported: list[str] = []

    def run(
        self, batch: Batch, rows: Tensor, learning_rate: float, *fresh: Tensor
    ) -> dict[str, Tensor]:
        """Makes one optimiser step of every objective for each minibatch.

        Args:
            batch: a named tuple of tensors ``[M, ...]``.
            rows: ``[K, B]``, the indices into the batch of each minibatch.
            learning_rate: Adam's learning rate.
            fresh: tensors ``[K, ...]`` such as noise, one row for each minibatch; losses take the
                row after the minibatch.

        Returns:
            Numbers ``[K]`` of the minibatches, for every objective: ``loss``, those that the loss
            reports, and ``norm``, the norm of the gradient before clipping.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; names the minibatch. Parameters and
                optimiser are unchanged.
        """
        # The modules' parameters may have been loaded or changed since the last run.
        flat = flatten(self.parameters)
        states = self._split(self.state._replace(parameters=flat))
        rate = torch.tensor(learning_rate, dtype=flat.dtype, device=flat.device)
        each = [rows, *fresh]
        loop = self._loop(batch, each, rate) if self.compiled else self._plain
        after, metrics = loop(batch, each, rate, states)
        found = dict(zip(self._reported, metrics.unbind(1), strict=True))
        for one in self.objectives:
            require_finite_minibatches(found, one)
        self.state = self._joined(after)
        with torch.no_grad():
            parts = unflatten(self.state.parameters, self.parameters)
            copy_all(self.parameters, parts)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and number of steps; the parameters are saved with the modules."""
        return {name: getattr(self.state, name) for name in ("mean", "square", "steps")}

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
        moved = {name: value.to(self.state.mean.device) for name, value in state.items()}
        self.state = self.state._replace(**moved)

    def minibatch(
        self, states: Sequence[AdamState], mini: Batch, fresh: Sequence[Tensor], rate: Tensor
    ) -> tuple[list[AdamState], Tensor]:
        """Makes one step of each objective.

        Returns:
            The next states, and the scalars ``[loss, *reported, norm]`` of all objectives.
        """
        states = list(states)
        metrics: dict[str, Tensor] = {}
        for place, one in enumerate(self.objectives):
            flat = states[place].parameters.detach().requires_grad_()
            vectors = [state.parameters for state in states]
            vectors[place] = flat
            with torch.enable_grad():
                loss, reported = one.loss(self._given(vectors), mini, *fresh)
                (gradient,) = torch.autograd.grad(loss, flat)
            before = states[place]._replace(parameters=flat.detach())
            states[place], norm = one.rule.step(before, gradient, rate)
            metrics |= {one.label("loss"): loss.detach(), **reported, one.label("norm"): norm}
        self._reported = list(metrics)
        return states, torch.stack(list(metrics.values()))

    def _given(self, vectors: Sequence[Tensor]) -> GivenModules:
        """The modules with the objectives' vectors of parameters."""
        found: dict[str, GivenModule] = {}
        for vector, modules, sizes in zip(vectors, self._own, self._module_sizes, strict=True):
            parts = vector.split_with_sizes(sizes) if len(sizes) > 1 else (vector,)
            pairs = zip(modules.items(), parts, strict=True)
            found |= {name: own.at(part) for (name, own), part in pairs}
        return found

    def _split(self, state: AdamState) -> list[AdamState]:
        """The state of each objective; every one has made the same number of steps.

        The tensors are copies, because those that a compiled loop carries must share no memory.
        """
        parts = ([part.clone() for part in torch.split(x, self._sizes)] for x in state[:-1])
        return [AdamState._make((*own, state.steps.clone())) for own in zip(*parts, strict=True)]

    def _joined(self, states: Sequence[AdamState]) -> AdamState:
        """The state of all objectives as one."""
        vectors = zip(*(state[:-1] for state in states), strict=True)
        return AdamState._make((*(torch.cat(parts) for parts in vectors), states[0].steps))

    def _plain(
        self, batch: Batch, each: Sequence[Tensor], rate: Tensor, states: Sequence[AdamState]
    ) -> tuple[Sequence[AdamState], Tensor]:
        """The loop over minibatches in Python: the last states, and the scalars ``[K, ...]``."""
        metrics = []
        for index, *fresh in zip(*each, strict=True):
            mini = _rebuild(batch, [x.index_select(0, index) for x in batch])
            states, found = self.minibatch(states, mini, fresh, rate)
            metrics.append(found)
        return states, torch.stack(metrics)

    def _loop(self, batch: Batch, each: Sequence[Tensor], rate: Tensor) -> Callable[..., Any]:
        """The compiled loop for these shapes; the Python loop beyond ``MAX_COMPILED_SHAPES``."""
        key = tuple((x.shape[1:], x.dtype, x.device) for x in (*each, *batch))
        if key not in self._loops and len(self._loops) < MAX_COMPILED_SHAPES:
            self._loops[key] = self._compile(batch, each, rate)
        return self._loops.get(key, self._plain)

    def _compile(self, batch: Batch, each: Sequence[Tensor], rate: Tensor) -> Callable[..., Any]:
        """The compiled loop, or after a warning the Python loop if it cannot be compiled."""

        def step(state: list[Tensor], mini: list[Tensor], fresh: list[Tensor], rate: Tensor) -> Any:
            after, metrics = self.minibatch(_states_of(state), _rebuild(batch, mini), fresh, rate)
            return _tensors_of(after), metrics

        def compiled(
            batch: Batch, each: Sequence[Tensor], rate: Tensor, states: Sequence[AdamState]
        ) -> Any:
            whole, own = make_contiguous(list(batch)), make_contiguous(list(each))
            with torch.no_grad():
                found, metrics = loop(
                    graph, _tensors_of(states), whole, rate, own, free=[*whole, *own]
                )
            return _states_of(found), metrics

        try:
            states = self._split(self.state)
            mini = [x.index_select(0, each[0][0]) for x in batch]
            graph = trace(step, _tensors_of(states), mini, [x[0] for x in each[1:]], rate)
            loop = CompiledLoop(_scan_minibatches)
            compiled(batch, each, rate, states)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            LOG.warning("the update is not compiled, the plain one is used: %s", reason)
            return self._plain
        return compiled


def _rebuild(batch: Batch, tensors: list[Tensor]) -> Batch:
    """A named tuple of the same type with these tensors."""
    return type(batch)(*tensors)


def _tensors_of(states: Sequence[AdamState]) -> list[Tensor]:
    """The tensors of all states, one state after the other."""
    return [x for state in states for x in state]


def _states_of(tensors: Sequence[Tensor]) -> list[AdamState]:
    """The states with these tensors: the inverse of :func:`_tensors_of`."""
    width = len(AdamState._fields)
    return [AdamState(*tensors[k : k + width]) for k in range(0, len(tensors), width)]


def _scan_minibatches(
    step: Step, state: list[Tensor], batch: list[Tensor], rate: Tensor, each: list[Tensor]
) -> Any:
    """The loop over minibatches that is compiled: scans ``step`` over the rows of ``each``."""

    def one(carry: list[Tensor], row: list[Tensor]) -> Any:
        index, *fresh = row
        return step(carry, [x.index_select(0, index) for x in batch], fresh, rate)

    return scan(one, state, each)


def require_finite_minibatches(metrics: Mapping[str, Tensor], objective: Objective) -> None:
    """Raises on the first minibatch whose loss or gradient is not finite.

    Args:
        metrics: the objective's ``loss`` and ``norm`` ``[K]`` among others.
        objective: gives them their names.

    Raises:
        NonFiniteError: names the minibatch, and the loss or else the gradient's norm.
    """
    loss, norm = metrics[objective.label("loss")], metrics[objective.label("norm")]
    bad = ~torch.isfinite(torch.stack([loss, norm], 1))
    if bool(bad.any()):
        index = int(bad.any(1).nonzero()[0])
        words = objective.label("loss", " "), f"norm of the {objective.label('gradient', ' ')}"
        raise NonFiniteError(
            f"{words[0 if bool(bad[index, 0]) else 1]} of minibatch {index} of the update"
        )


def draw_minibatches(
    size: int, batch_size: int, n_epochs: int, generator: torch.Generator
) -> Tensor:
    """Indices ``[n_epochs * (M // B), B]`` of minibatches; each epoch permutes the rows anew.

    The last ``M mod B`` rows of a permutation are left out of that epoch. If there are fewer than
    ``B`` rows, an epoch is one minibatch of all of them.

    Args:
        size: ``M``, the number of rows of the batch.
        batch_size: ``B``.
        n_epochs: passes over the batch.
        generator: draws the permutations.
    """
    width = min(size, batch_size)
    device = generator.device
    orders = [torch.randperm(size, generator=generator, device=device) for _ in range(n_epochs)]
    return torch.cat([order[: size // width * width].view(-1, width) for order in orders])
