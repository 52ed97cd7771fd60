"""Checks that the functions of a differentiable environment depend on their inputs alone.

Also finds out which global random generators some code draws from, or seeds.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.random_play import Points
from pgtoolkit.envs.checks.states import copy_state, equal_entries, leaf_names, take_rows
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, leaves_of

Function = Callable[..., Any]

Library = Literal["torch", "numpy", "random"]

LIBRARIES: tuple[Library, ...] = ("torch", "numpy", "random")
"""Libraries with a global random generator."""

EXAMPLE_CALLS = {"torch": "torch.rand", "numpy": "np.random", "random": "random.random"}
"""A typical call that draws from each library's global generator."""

UNUSUAL_SEED = 1_234_567_891
"""A seed that no environment uses, so that seeding changes a generator's state too."""

INPUT_NAMES = {
    "transition": ("state", "action", "noise"),
    "observation": ("state",),
    "reward": ("state", "action", "next_state"),
    "terminal": ("state",),
}

USE_GIVEN_RANDOMNESS = (
    "draw starts from initial's generator and process noise from transition's noise (set "
    "noise_shape); keep what a step needs in the state"
)
"""Advice for an environment with randomness or memory of its own."""


def functions(env: DifferentiableEnv, points: Points) -> dict[str, tuple[Function, list[Any]]]:
    """The four deterministic functions, each with its inputs at the points."""
    return {
        "transition": (env.transition, [points.state, points.action, points.noise]),
        "observation": (env.observation, [points.state]),
        "reward": (env.reward, [points.state, points.action, points.next_state]),
        "terminal": (env.terminal, [points.next_state]),
    }


def check_inputs_kept(env: DifferentiableEnv, points: Points) -> Iterator[Finding]:
    """No function writes into its inputs."""
    check = Check("behaviour", "in place")
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        given = [_copy(x) for x in inputs]
        versions = [[leaf._version for leaf in _tensors(x)] for x in given]
        function(*given)
        for label, kept, now, before in zip(
            INPUT_NAMES[name], inputs, given, versions, strict=True
        ):
            names = leaf_names(now, label) if now is not None else []
            for leaf_name, old, new, version in zip(
                names, _tensors(kept), _tensors(now), before, strict=True
            ):
                if new._version != version or not equal_entries(old, new):
                    wrong.append(f"{name} changes its {leaf_name} in place")
    if wrong:
        yield check.fault(
            "; ".join(wrong),
            "autograd stops with an error or uses changed values, and windows hold wrong states",
            "build new tensors (torch.where, torch.stack, +) instead of writing (x[:, 0] = ...)",
        )
    else:
        yield check.passed("no function writes into its inputs")


def check_results_kept(env: DifferentiableEnv, points: Points) -> Iterator[Finding]:
    """A function's result does not change when the function is called again."""
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        first = function(*[_copy(x) for x in inputs])
        kept = _copy(first)
        function(*[_reversed_rows(x) for x in inputs])
        if not same_state(first, kept):
            wrong.append(name)
    if wrong:
        yield Check("behaviour", "aliasing").fault(
            f"{' and '.join(wrong)} writes into what it returned before (a buffer that is used "
            "again)",
            "a step changes the states of earlier steps, and with them gradients and windows",
            "return a new tensor at each call; keep none on the environment",
        )


def check_functions(env: DifferentiableEnv, points: Points) -> Iterator[Finding]:
    """Same inputs give same outputs, and each row depends on its own row alone.

    Rows are not checked where outputs are random: these differ between batches anyway.
    """
    repeatable = _check_repeatable(env, points)
    yield repeatable
    if repeatable.status == "pass":
        yield _check_rows_apart(env, points)
    else:
        yield Check("behaviour", "rows").not_checked("until the same inputs give the same outputs")


def _check_repeatable(env: DifferentiableEnv, points: Points) -> Finding:
    """Same inputs give same outputs, whatever was called in between."""
    check = Check("behaviour", "determinism")
    wrong: list[str] = []
    for name, (function, inputs) in functions(env, points).items():
        wrong += _unrepeatable(name, function, inputs, lambda other: _call_all(env, points, other))
    if wrong:
        return check.fault(
            "; ".join(wrong),
            "runs cannot be repeated or resumed, and two gradients of one state need not agree",
            USE_GIVEN_RANDOMNESS,
        )
    return check.passed("same inputs, same outputs; no global generator")


def _call_all(env: DifferentiableEnv, points: Points, other: bool) -> None:
    """Calls all four functions, which may remember inputs: these ones, or others."""
    for function, inputs in functions(env, points).values():
        function(*[_reversed_rows(x) if other else _copy(x) for x in inputs])


def _unrepeatable(
    name: str, function: Function, inputs: list[Any], call_all: Callable[[bool], None]
) -> list[str]:
    """A sentence on why the function's results vary, or none."""

    def call() -> Any:
        return _copy(function(*[_copy(x) for x in inputs]))

    libraries = changes_with(call, same_state)
    seeds = dict.fromkeys(LIBRARIES, 1)
    call_all(False)
    _seed_all(seeds)
    first = call()
    call_all(True)
    _seed_all(seeds)
    if not same_state(first, call()):
        return [
            f"{name} gives different results for the same inputs: it remembers something, or has a "
            "random generator of its own"
        ]
    if libraries:
        return [f"{name} is random: it draws from {example_calls(libraries)}"]
    touched = touched_by(call)
    return [f"{name} draws from, or seeds, {example_calls(touched)}"] if touched else []


def _check_rows_apart(env: DifferentiableEnv, points: Points) -> Finding:
    """A row's outputs do not change when other rows are left out or moved."""
    check = Check("behaviour", "rows")
    order = torch.arange(len(points)).flip(0)[: max(1, len(points) // 2)]
    wrong = []
    for name, (function, inputs) in functions(env, points).items():
        whole = function(*[_copy(x) for x in inputs])
        part = function(*[None if x is None else take_rows(_copy(x), order) for x in inputs])
        if not _same_up_to_rounding(take_rows(whole, order), part):
            wrong.append(name)
    if wrong:
        return check.fault(
            f"rows mix: {' and '.join(wrong)} of an environment changes with the other "
            "environments of the batch",
            "the score function takes trajectories for independent, and single environments behave "
            "differently from batches",
            "reduce over the last axis only: no .mean(), .sum(), .max() over the batch",
        )
    return check.passed("each environment depends on its own row alone")


def same_state(a: Any, b: Any) -> bool:
    """Whether two states are equal to the bit; NaN equals NaN."""
    return all(equal_entries(x, y) for x, y in zip(_tensors(a), _tensors(b), strict=True))


def _same_up_to_rounding(a: Any, b: Any) -> bool:
    """Whether two states agree to 1e-6 of the largest entry: the order of sums may differ."""
    pairs = zip(_tensors(a), _tensors(b), strict=True)
    return all(x.shape == y.shape and _close(x.double(), y.double()) for x, y in pairs)


def _close(x: Tensor, y: Tensor) -> bool:
    scale = x.nan_to_num().abs().max().clamp(min=1e-12) if x.numel() else x.new_ones(())
    finite = x.isfinite() & y.isfinite()
    near = ((x - y).abs() <= 1e-6 * scale) & finite
    return bool((near | (~x.isfinite() & ~y.isfinite())).all())


def _copy(x: State | None) -> Any:
    """A copy of a state or tensor; None stays None."""
    return None if x is None else copy_state(x)


def _tensors(x: State | None) -> list[Tensor]:
    """The tensors of a state; none for None."""
    return [] if x is None else leaves_of(x)


def _reversed_rows(x: State | None) -> Any:
    """A copy with the rows in reverse order: other inputs of the same kind."""
    if x is None:
        return None
    return take_rows(copy_state(x), torch.arange(len(leaves_of(x)[0])).flip(0))


def changes_with(
    call: Callable[[], object], same: Callable[[object, object], bool]
) -> list[Library]:
    """The libraries on whose global seed the result of ``call()`` depends.

    Empty if results differ for equal seeds: then the randomness comes from elsewhere.

    Args:
        call: the code to examine.
        same: whether two results are equal.
    """
    usual: dict[Library, int] = dict.fromkeys(LIBRARIES, 1)
    _seed_all(usual)
    first = call()
    _seed_all(usual)
    if not same(first, call()):
        return []
    found = []
    for library in LIBRARIES:
        _seed_all(usual | {library: 2})
        if not same(first, call()):
            found.append(library)
    return found


def touched_by(call: Callable[[], object]) -> list[Library]:
    """The libraries whose global generator ``call()`` draws from, or seeds."""
    _seed_all(dict.fromkeys(LIBRARIES, UNUSUAL_SEED))
    before = _generator_states()
    call()
    after = _generator_states()
    return [library for library in LIBRARIES if before[library] != after[library]]


def example_calls(libraries: list[Library]) -> str:
    """The libraries' generators as messages name them: ``torch.rand (global)``."""
    return " and ".join(f"{EXAMPLE_CALLS[name]} (global)" for name in libraries)


@contextlib.contextmanager
def preserved_generators() -> Iterator[None]:
    """Restores the state of all global generators on exit."""
    states = torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed_all(seeds: dict[Library, int]) -> None:
    torch.manual_seed(seeds["torch"])
    np.random.seed(seeds["numpy"])
    random.seed(seeds["random"])


def _generator_states() -> dict[Library, object]:
    """The states of the global generators, comparable by ``==``."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (kind, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }
