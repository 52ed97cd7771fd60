"""Steps on one minibatch after another, in a Python loop or in one compiled loop.

A step is a pure function of a state, a tuple of tensors (parameters and moments of several
networks), and of a minibatch. It is called in a Python loop, or it is traced once and compiled
together with the loop. Where all losses have one gradient and one norm, see
:mod:`pgtoolkit.learners.minibatches`.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from pgtoolkit.compiling import CompiledLoop, make_contiguous, trace
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.torch_private import scan

LOG = logging.getLogger("pgtoolkit")

MAX_COMPILED_SHAPES = 2
"""Most minibatch shapes for which a loop is compiled; further shapes use the Python loop."""

State = TypeVar("State", bound=tuple[Any, ...])
"""A named tuple of tensors, or of such named tuples."""
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])
"""A named tuple of tensors with one leading axis, the minibatches."""
Step = Callable[[State, Batch, Tensor], tuple[State, dict[str, Tensor]]]
"""Maps a state, one minibatch and the learning rate to the next state and scalars to report."""


@final
class ScannedSteps(Generic[State, Batch]):
    """Calls a step on one minibatch after another.

    Args:
        step: a pure function; nothing in place. What it closes over counts as constant.
        compiled: whether to compile the loop.
    """

    def __init__(self, step: Step[State, Batch], *, compiled: bool = False) -> None:
        self.step, self.compiled = step, compiled
        self._loops: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._reported: tuple[str, ...] = ()

    def run(
        self, state: State, batch: Batch, learning_rate: float
    ) -> tuple[State, dict[str, Tensor]]:
        """Makes a step for each of ``K`` minibatches.

        Args:
            state: the state before the first step.
            batch: tensors ``[K, ...]``, a minibatch in each row.
            learning_rate: of this run.

        Returns:
            The state after the last step, and what the steps report, ``[K]`` by name.

        Raises:
            NonFiniteError: a reported number is not finite; names it and the minibatch.
        """
        first = batch[0]
        rate = torch.tensor(learning_rate, dtype=first.dtype, device=first.device)
        loop = self._loop(state, batch, rate) if self.compiled else self._plain
        after, metrics = loop(state, batch, rate)
        found = dict(zip(self._reported, metrics.unbind(1), strict=True))
        require_finite_reports(found)
        return after, found

    def _plain(self, state: State, batch: Batch, rate: Tensor) -> tuple[State, Tensor]:
        """The loop in Python: the last state, and the reported scalars ``[K, ...]``."""
        rows = []
        for index in range(len(batch[0])):
            state, reported = self.step(state, type(batch)(*(x[index] for x in batch)), rate)
            self._reported = tuple(reported)
            rows.append(torch.stack(list(reported.values())))
        return state, torch.stack(rows)

    def _loop(self, state: State, batch: Batch, rate: Tensor) -> Callable[..., Any]:
        """The compiled loop for these shapes; the Python loop beyond ``MAX_COMPILED_SHAPES``."""
        key = tuple((x.shape[1:], x.dtype, x.device) for x in batch)
        if key not in self._loops and len(self._loops) < MAX_COMPILED_SHAPES:
            self._loops[key] = self._compile(state, batch, rate)
        return self._loops.get(key, self._plain)

    def _compile(self, state: State, batch: Batch, rate: Tensor) -> Callable[..., Any]:
        """The compiled loop, or after a warning the Python loop if it cannot be compiled."""

        def step(carry: list[Tensor], mini: list[Tensor], rate: Tensor) -> Any:
            before = rebuild(state, iter(carry))
            after, reported = self.step(before, type(batch)(*mini), rate)
            self._reported = tuple(reported)
            # A loop's carry must be new tensors, also where the step leaves one as it is.
            kept = {id(x) for x in carry}
            found = [x.clone() if id(x) in kept else x for x in leaves(after)]
            return found, torch.stack(list(reported.values()))

        try:
            graph = trace(step, list(leaves(state)), [x[0] for x in batch], rate)
            loop = CompiledLoop(_scan_steps)
            rows = make_contiguous(list(batch))
            loop(graph, list(leaves(state)), rows, rate, free=rows)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            LOG.warning("the update is not compiled, the plain one is used: %s", reason)
            return self._plain

        def run(state: State, batch: Batch, rate: Tensor) -> Any:
            rows = make_contiguous(list(batch))
            with torch.no_grad():
                found, metrics = loop(graph, list(leaves(state)), rows, rate, free=rows)
            return rebuild(state, iter(found)), metrics

        return run


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of nested named tuples, in their order."""
    if isinstance(state, Tensor):
        yield state
        return
    for part in state:
        yield from leaves(part)


def rebuild(like: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested named tuples of the same types with these tensors."""
    if isinstance(like, Tensor):
        return next(tensors)
    return type(like)(*[rebuild(part, tensors) for part in like])


def _scan_steps(
    step: Callable[..., Any], state: list[Tensor], rows: list[Tensor], rate: Tensor
) -> Any:
    """The loop over minibatches that is compiled."""
    return scan(lambda carry, mini: step(carry, mini, rate), state, rows)


def require_finite_reports(reports: dict[str, Tensor]) -> None:
    """Raises on the first minibatch of which a reported number is not finite.

    Args:
        reports: ``[K]`` by name.

    Raises:
        NonFiniteError: names the number and the minibatch.
    """
    names = list(reports)
    bad = ~torch.isfinite(torch.stack([reports[name] for name in names], 1))
    if bool(bad.any()):
        index, which = bad.nonzero()[0].tolist()
        raise NonFiniteError(f"{names[which]} of minibatch {index} of the update")
