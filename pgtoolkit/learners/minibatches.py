"""Optimiser steps on minibatches of one batch, in a Python loop or in one compiled loop.

The step on one minibatch is a function of the vector of all parameters: it computes the loss, its
gradient, the clipped gradient and Adam's update. The function is called in a Python loop, or it is
traced once and compiled together with the loop over all minibatches.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from pgtoolkit.compiling import CompiledLoop, make_contiguous, trace
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.step_rules.flat_adam import (
    AdamState,
    FlatAdam,
    adam_state,
    flatten,
    unflatten,
)
from pgtoolkit.state import entries, require, tensor
from pgtoolkit.torch_private import copy_all, scan

LOG = logging.getLogger("pgtoolkit")

MAX_COMPILED_SHAPES = 2
"""Most minibatch shapes for which a loop is compiled; further shapes use the Python loop."""

Parameters = Mapping[str, Mapping[str, Tensor]]
"""``{module: {parameter: tensor}}``, for ``torch.func.functional_call``."""
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])
"""A named tuple of tensors with one leading axis."""
Loss = Callable[[Parameters, Batch], tuple[Tensor, dict[str, Tensor]]]
"""Maps parameters and a minibatch to the loss, a scalar, and further scalars to report."""
Step = Callable[..., tuple[Any, ...]]
"""Maps the tensors of an :class:`AdamState`, a minibatch and the learning rate to the next state
and the scalars ``[loss, *reported, norm]``."""


@final
class Minibatches(Generic[Batch]):
    """Optimises modules that share a loss and a gradient norm, on minibatches of a batch.

    Args:
        modules: the modules by name; their parameters are changed in place.
        loss: computes the loss of a minibatch, which is a named tuple of tensors ``[B, ...]``. It
            must use the parameters that it is given, not those of the modules.
        rule: clips the gradient and makes Adam's update.
        compiled: whether to compile the loop over minibatches.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        loss: Loss[Batch],
        rule: FlatAdam,
        *,
        compiled: bool = False,
    ) -> None:
        self.modules, self.loss, self.rule = nn.ModuleDict(modules), loss, rule
        self.names = [name for name, _ in self.modules.named_parameters()]
        self.parameters: list[Tensor] = list(self.modules.parameters())
        self.state = adam_state(self.parameters)
        self.compiled = compiled
        self._loops: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._reported: tuple[str, ...] = ()

    def run(self, batch: Batch, rows: Tensor, learning_rate: float) -> dict[str, Tensor]:
        """Makes one optimiser step for each minibatch.

        Args:
            batch: a named tuple of tensors ``[M, ...]``.
            rows: ``[K, B]``, the indices into the batch of each minibatch.
            learning_rate: Adam's learning rate.

        Returns:
            Numbers ``[K]`` of the minibatches: ``loss``, those that the loss reports, and ``norm``,
            the norm of the gradient before clipping.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; names the minibatch. Parameters and
                optimiser are unchanged.
        """
        # The modules' parameters may have been loaded or changed since the last run.
        flat = flatten(self.parameters)
        state = self.state._replace(parameters=flat)
        rate = torch.tensor(learning_rate, dtype=flat.dtype, device=flat.device)
        loop = self._loop(batch, rows, rate) if self.compiled else self._plain
        after, metrics = loop(batch, rows, rate, state)
        found = dict(zip(("loss", *self._reported, "norm"), metrics.unbind(1), strict=True))
        require_finite_minibatches(found)
        self.state = after
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

    def minibatch(self, state: AdamState, mini: Batch, rate: Tensor) -> tuple[AdamState, Tensor]:
        """Makes one step; returns the next state and the scalars ``[loss, *reported, norm]``."""
        flat = state.parameters.detach().requires_grad_()
        with torch.enable_grad():
            loss, reported = self.loss(self._by_module(flat), mini)
            (gradient,) = torch.autograd.grad(loss, flat)
        self._reported = tuple(reported)
        after, norm = self.rule.step(state._replace(parameters=flat.detach()), gradient, rate)
        return after, torch.stack([loss.detach(), *reported.values(), norm])

    def _by_module(self, flat: Tensor) -> Parameters:
        """The vector of all parameters, split by module and parameter."""
        found: dict[str, dict[str, Tensor]] = {name: {} for name in self.modules}
        for name, parameter in zip(self.names, unflatten(flat, self.parameters), strict=True):
            module, _, rest = name.partition(".")
            found[module][rest] = parameter
        return found

    def _plain(
        self, batch: Batch, rows: Tensor, rate: Tensor, state: AdamState
    ) -> tuple[AdamState, Tensor]:
        """The loop over minibatches in Python: the last state, and the scalars ``[K, ...]``."""
        metrics = []
        for index in rows:
            mini = _rebuild(batch, [x.index_select(0, index) for x in batch])
            state, found = self.minibatch(state, mini, rate)
            metrics.append(found)
        return state, torch.stack(metrics)

    def _loop(self, batch: Batch, rows: Tensor, rate: Tensor) -> Callable[..., Any]:
        """The compiled loop for these shapes; the Python loop beyond ``MAX_COMPILED_SHAPES``."""
        key = (rows.shape[1], *((x.shape[1:], x.dtype, x.device) for x in batch))
        if key not in self._loops and len(self._loops) < MAX_COMPILED_SHAPES:
            self._loops[key] = self._compile(batch, rows, rate)
        return self._loops.get(key, self._plain)

    def _compile(self, batch: Batch, rows: Tensor, rate: Tensor) -> Callable[..., Any]:
        """The compiled loop, or after a warning the Python loop if it cannot be compiled."""

        def step(state: list[Tensor], mini: list[Tensor], rate: Tensor) -> Any:
            after, metrics = self.minibatch(AdamState(*state), _rebuild(batch, mini), rate)
            return list(after), metrics

        try:
            mini = [x.index_select(0, rows[0]) for x in batch]
            graph = trace(step, list(self.state), mini, rate)
            loop = CompiledLoop(_scan_minibatches)
            whole = make_contiguous(list(batch))
            loop(graph, list(self.state), whole, rate, rows, free=[*whole, rows])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            LOG.warning("the update is not compiled, the plain one is used: %s", reason)
            return self._plain

        def run(batch: Batch, rows: Tensor, rate: Tensor, state: AdamState) -> Any:
            whole = make_contiguous(list(batch))
            with torch.no_grad():
                found, metrics = loop(graph, list(state), whole, rate, rows, free=[*whole, rows])
            return AdamState(*found), metrics

        return run


def _rebuild(batch: Batch, tensors: list[Tensor]) -> Batch:
    """A named tuple of the same type with these tensors."""
    return type(batch)(*tensors)


def _scan_minibatches(
    step: Step, state: list[Tensor], batch: list[Tensor], rate: Tensor, rows: Tensor
) -> Any:
    """The loop over minibatches that is compiled: scans ``step`` over ``rows``."""
    return scan(
        lambda carry, index: step(carry, [x.index_select(0, index) for x in batch], rate),
        state,
        rows,
    )


def require_finite_minibatches(metrics: Mapping[str, Tensor]) -> None:
    """Raises on the first minibatch whose loss or gradient is not finite.

    Args:
        metrics: ``loss`` and ``norm`` ``[K]``.

    Raises:
        NonFiniteError: names the minibatch, and the loss or else the gradient's norm.
    """
    bad = ~torch.isfinite(torch.stack([metrics["loss"], metrics["norm"]], 1))
    if bool(bad.any()):
        index = int(bad.any(1).nonzero()[0])
        what = "loss" if bool(bad[index, 0]) else "norm of the gradient"
        raise NonFiniteError(f"{what} of minibatch {index} of the update")


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
