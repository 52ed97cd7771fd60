"""Checks that a differentiable environment's functions are functions of their inputs."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Finding, fault, passed
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    Points,
    copy,
    leaf_names,
    leaves,
    take,
)
from pgtoolkit.envs.states import State

Function = Callable[..., Any]


def functions(env: AnyDifferentiable, points: Points) -> dict[str, tuple[Function, list[Any]]]:
    """The four that are not random, each with the inputs at these points."""
    return {
        "transition": (env.transition, [points.state, points.action, points.noise]),
        "observation": (env.observation, [points.state]),
        "reward": (env.reward, [points.state, points.action, points.next_state]),
        "terminal": (env.terminal, [points.next_state]),
    }


def check_inputs_kept(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """No function writes into what it is given."""
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        given = [copied(x) for x in inputs]
        versions = [[leaf._version for leaf in tensors(x)] for x in given]
        function(*given)
        for label, kept, now, before in zip(INPUTS[name], inputs, given, versions, strict=True):
            names = leaf_names(now, label) if now is not None else []
            for leaf_name, old, new, version in zip(
                names, tensors(kept), tensors(now), before, strict=True
            ):
                if new._version != version or not equal(old, new):
                    wrong.append(f"{name} changes its {leaf_name} in place")
    if wrong:
        yield fault("behaviour", "in place", "; ".join(wrong), WRITES, NEW_TENSORS)
    else:
        yield passed("behaviour", "in place", "no function writes into its inputs")


def check_results_kept(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """What a function returned stays what it was when the function is called again."""
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        first = function(*[copied(x) for x in inputs])
        kept = copied(first)
        function(*[_backwards(x) for x in inputs])
        if not same(first, kept):
            wrong.append(name)
    if wrong:
        yield fault(
            "behaviour",
            "aliasing",
            f"{' and '.join(wrong)} writes into what it returned before (a buffer that is used "
            "again)",
            "a step changes the states of earlier steps, and with them gradients and windows",
            "return a new tensor at each call; keep none on the environment",
        )


def check_repeatable(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """Same inputs, same outputs, whatever was called in between."""
    wrong: list[str] = []
    for name, (function, inputs) in functions(env, points).items():
        wrong += _unrepeatable(name, function, inputs, lambda other: _call_all(env, points, other))
    if wrong:
        yield fault("behaviour", "determinism", "; ".join(wrong), IMPURE, EXPLICIT)
    else:
        yield passed("behaviour", "determinism", "same inputs, same outputs; no global generator")


def _call_all(env: AnyDifferentiable, points: Points, other: bool) -> None:
    """Calls all four, with the same or with other inputs: they may remember some."""
    for function, inputs in functions(env, points).values():
        function(*[_backwards(x) if other else copied(x) for x in inputs])


def _unrepeatable(
    name: str, function: Function, inputs: list[Any], call_all: Callable[[bool], None]
) -> list[str]:
    def call() -> Any:
        return copied(function(*[copied(x) for x in inputs]))

    libraries = changes_with(call, same)
    seeds = dict.fromkeys(LIBRARIES, 1)
    call_all(False)
    reseed(seeds)
    first = call()
    call_all(True)
    reseed(seeds)
    if not same(first, call()):
        return [
            f"{name} gives different results for the same inputs: it remembers something, or has a "
            "random generator of its own"
        ]
    if libraries:
        return [f"{name} is random: it draws from {named_calls(libraries)}"]
    touched = touched_by(call)
    return [f"{name} draws from, or seeds, {named_calls(touched)}"] if touched else []


def check_functions(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """Repeatable, and if so, row by row: what is random differs between batches anyway."""
    random = False
    for finding in check_repeatable(env, points):
        random |= finding.status == "fault"
        yield finding
    if not random:
        yield from check_rows_apart(env, points)


def check_rows_apart(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """A row's outputs depend on this row's inputs alone."""
    order = torch.arange(len(points)).flip(0)[: max(1, len(points) // 2)]
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        whole = function(*[copied(x) for x in inputs])
        part = function(*[None if x is None else take(copied(x), order) for x in inputs])
        if not close(take(whole, order), part):
            wrong.append(name)
    if wrong:
        yield fault(
            "behaviour",
            "rows",
            f"rows mix: {' and '.join(wrong)} of an environment changes with the other "
            "environments of the batch",
            "the score function takes trajectories for independent, and single environments behave "
            "differently from batches",
            "reduce over the last axis only: no .mean(), .sum(), .max() over the batch",
        )
    else:
        yield passed("behaviour", "rows", "each environment depends on its own row alone")


def copied(x: Any) -> Any:
    """A copy of a state or tensor; None stays None."""
    return None if x is None else copy(x)


def tensors(x: Any) -> tuple[Tensor, ...]:
    """Of a state; none of None."""
    return () if x is None else leaves(x)


def equal(a: Tensor, b: Tensor) -> bool:
    """To the bit; NaN equals NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def same(a: Any, b: Any) -> bool:
    """Of states."""
    return all(equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def close(a: Any, b: Any) -> bool:
    """Up to the order of sums, which differs with the size of a batch."""
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x.shape == y.shape and _close(x.double(), y.double()) for x, y in pairs)


def _close(x: Tensor, y: Tensor) -> bool:
    scale = x.nan_to_num().abs().max().clamp(min=1e-12) if x.numel() else x.new_ones(())
    finite = x.isfinite() & y.isfinite()
    near = ((x - y).abs() <= 1e-6 * scale) & finite
    return bool((near | (~x.isfinite() & ~y.isfinite())).all())


def _backwards(x: Any) -> Any:
    """Other inputs of the same kind: the rows in another order."""
    return None if x is None else take(copied(x), torch.arange(len(tensors(x)[0])).flip(0))


def varies(state: State) -> bool:
    return any(bool((leaf != leaf[:1]).any()) for leaf in leaves(state))


def named_calls(libraries: list[Any]) -> str:
    return " and ".join(f"{CALLS[name]} (global)" for name in libraries)


INPUTS = {
    "transition": ("state", "action", "noise"),
    "observation": ("state",),
    "reward": ("state", "action", "next_state"),
    "terminal": ("state",),
}

WRITES = "autograd stops with an error or uses changed values, and windows hold wrong states"

NEW_TENSORS = "build new tensors (torch.where, torch.stack, +) instead of writing (x[:, 0] = ...)"

IMPURE = "runs cannot be repeated or resumed, and two gradients of one state need not agree"

EXPLICIT = (
    "draw starts from initial's generator and process noise from transition's noise (set "
    "noise_shape); keep what a step needs in the state"
)

Library = Literal["torch", "numpy", "random"]

LIBRARIES: tuple[Library, ...] = ("torch", "numpy", "random")

CALLS = {"torch": "torch.rand", "numpy": "np.random", "random": "random.random"}
"""What a line that draws from each looks like."""

UNUSUAL = 1_234_567_891
"""A seed that nobody else uses: who seeds shows as well as who draws."""


def reseed(seeds: dict[Library, int]) -> None:
    """Puts each into a known state."""
    torch.manual_seed(seeds["torch"])
    np.random.seed(seeds["numpy"])
    random.seed(seeds["random"])


def fingerprint() -> dict[Library, object]:
    """Something that changes as soon as one is drawn from, or seeded."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (kind, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Puts them back as they were."""
    states = torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def changes_with(
    call: Callable[[], object], same: Callable[[object, object], bool]
) -> list[Library]:
    """The libraries on whose seed the result depends; none, if it differs without them.

    Args:
        call: what is looked at.
        same: whether two results are equal.
    """
    usual: dict[Library, int] = dict.fromkeys(LIBRARIES, 1)
    reseed(usual)
    first = call()
    reseed(usual)
    if not same(first, call()):
        return []
    found = []
    for library in LIBRARIES:
        reseed(usual | {library: 2})
        if not same(first, call()):
            found.append(library)
    return found


def touched_by(call: Callable[[], object]) -> list[Library]:
    """The libraries whose generator the call draws from, or seeds."""
    reseed(dict.fromkeys(LIBRARIES, UNUSUAL))
    before = fingerprint()
    call()
    after = fingerprint()
    return [library for library in LIBRARIES if before[library] != after[library]]
