"""Checks of what a differentiable environment's functions return: shapes, dtypes, devices."""

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Finding, fault, passed, warned, where
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    draw_noise,
    fresh,
    leaf_names,
    leaves,
    random_actions,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.ordinary import is_flat_box
from pgtoolkit.envs.states import State, cast_state
from pgtoolkit.errors import RequestError, one_line

SIZES = (1, 5)
"""Numbers of environments: a ``squeeze()`` goes wrong with one of them only."""


def check_returns(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """Shapes first; dtypes if those are right."""
    shapes: list[str] = []
    dtypes: list[str] = []
    only_single = refuses_double(env, seed)
    for count in SIZES:
        for dtype in (torch.float32,) if only_single else (torch.float64, torch.float32):
            look = Look(env, count, dtype, seed)
            try:
                shapes += look.wrong_shapes()
            except Exception as error:
                if not is_about_dtypes(error):
                    raise
                dtypes.append(f"with a state of {_short(dtype)}: {where(env, error)}")
            # A wrong number of rows broadcasts, and then its dtype is no news.
            dtypes += look.wrong_dtypes if not shapes else []
    yield from _report(
        shapes,
        "shapes",
        "of all outputs, for 1 and for 5 environments",
        "a wrong shape broadcasts in silence, and trains on nonsense: rewards [N, 1] minus values "
        "[N] are a table [N, N]",
        "return what is owed; sum over the last axis with .sum(-1), and avoid .squeeze()",
    )
    if not shapes:
        yield from _report(
            dtypes,
            "dtype",
            "float32 in, float32 out; float64 is refused"
            if only_single
            else "float64 in, float64 out; float32 in, float32 out; on one device",
            "mixed precision raises errors far from here, slows down, or loses digits that a long "
            "gradient needs",
            "make constants with state.new_tensor(...) or constant.to(state); no .float(), "
            ".double() or dtype= on the way",
        )


def refuses_double(env: AnyDifferentiable, seed: int) -> bool:
    """Whether the environment says, in words meant for users, that it has no float64."""
    try:
        Look(env, 1, torch.float64, seed).wrong_shapes()
    except RequestError:
        return True
    except Exception:  # the other checks tell
        return False
    return False


def is_about_dtypes(error: Exception) -> bool:
    """Whether tensors of different dtypes met where they must not."""
    return any(word in str(error) for word in ("dtype", "Double", "double and", "float64"))


def _report(
    wrong: list[str], check: str, fine: str, meaning: str, advice: str
) -> Iterator[Finding]:
    if wrong:
        different = list(dict.fromkeys(wrong))
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        text = "; ".join(different[:3]) + more
        yield fault("interface", check, text, meaning, advice)
    else:
        yield passed("interface", check, fine)


class Look:
    """Calls the five functions once.

    Args:
        env: of which.
        count: of environments.
        dtype: of the state that is given.
        seed: of start and action.
    """

    def __init__(self, env: AnyDifferentiable, count: int, dtype: torch.dtype, seed: int) -> None:
        self.env, self.count, self.dtype = env, count, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.wrong_dtypes: list[str] = []

    def wrong_shapes(self) -> list[str]:
        """What is wrong with the shapes; notes wrong dtypes by the way."""
        env, n = self.env, self.count
        given = env.initial(n, self.generator)
        wrong = self._wrong_state("initial", given, None)
        if wrong:
            return wrong
        state = fresh(env, n, self.generator, self.dtype)
        action = random_actions(env.action_space, n, self.generator).to(self.dtype)
        noise = draw_noise(env, n, self.generator, self.dtype)
        after = env.transition(state, action, noise)
        wrong = self._wrong_state("transition", after, state)
        if wrong:
            return wrong
        size = env.observation_space.shape[0]
        calls: list[tuple[str, Callable[[], Tensor], tuple[int, ...]]] = [
            ("observation", lambda: env.observation(after), (n, size)),
            ("reward", lambda: env.reward(state, action, after), (n,)),
            ("terminal", lambda: env.terminal(after), (n,)),
        ]
        return [text for name, call, owed in calls for text in self._wrong_output(name, call, owed)]

    def _wrong_state(self, name: str, found: object, like: State | None) -> list[str]:
        if not _is_state(found):
            kind = type(found).__name__
            return [f"{name} returned a {kind}: it must return a tensor or a NamedTuple of tensors"]
        if like is not None and (type(found) is not type(like) or _length(found) != _length(like)):
            return [
                f"{name} returned a {type(found).__name__} of {_length(found)} tensors for a "
                f"{type(like).__name__} of {_length(like)}"
            ]
        templates = leaves(like) if like is not None else leaves(found)
        wrong = []
        for label, leaf, template in zip(leaf_names(found), leaves(found), templates, strict=True):
            owed = tuple(template.shape) if like is not None else (self.count, *leaf.shape[1:])
            if tuple(leaf.shape) != owed:
                wrong.append(
                    f"{name} returned {label} of shape {list(leaf.shape)} for {self.count} "
                    f"environments: it must be {list(owed)}"
                )
            elif like is not None:
                self._note_dtype(f"{name} ({label})", leaf, template)
        return wrong

    def _wrong_output(
        self, name: str, call: Callable[[], Tensor], owed: tuple[int, ...]
    ) -> list[str]:
        found = call()
        if not isinstance(found, Tensor):
            return [f"{name} returned a {type(found).__name__}: it must return a tensor"]
        if tuple(found.shape) != owed:
            return [
                f"{name} returned {list(found.shape)} for {self.count} environments: it must "
                f"return {list(owed)}"
            ]
        if name == "terminal" and found.dtype != torch.bool:
            return [f"terminal returned {_short(found.dtype)}: it must return booleans"]
        if name != "terminal":
            self._note_dtype(name, found, torch.empty(0, dtype=self.dtype))
        return []

    def _note_dtype(self, name: str, found: Tensor, owed: Tensor) -> None:
        if found.dtype != owed.dtype:
            self.wrong_dtypes.append(
                f"{name} returned {_short(found.dtype)} for a state of {_short(self.dtype)}"
            )
        if found.device != owed.device:
            self.wrong_dtypes.append(f"{name} returned a tensor on {found.device}")


def _is_state(found: object) -> TypeGuard[State]:
    if isinstance(found, Tensor):
        return found.dim() >= 1
    if not isinstance(found, tuple) or not found:
        return False
    return all(isinstance(leaf, Tensor) and leaf.dim() >= 1 for leaf in found)


def _length(found: State) -> int:
    return 1 if isinstance(found, Tensor) else len(found)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_attributes(env: AnyDifferentiable) -> Iterator[Finding]:
    """The spaces, the time limit, and the claims."""
    wrong = []
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)
        if not is_flat_box(space):
            wrong.append(f"{name} is {one_line(space)}")
        elif not np.issubdtype(space.dtype, np.floating):
            wrong.append(f"{name} holds {space.dtype}")
    limit = env.max_episode_steps
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        wrong.append(f"max_episode_steps is {limit!r}")
    if wrong:
        yield fault(
            "interface",
            "spaces",
            ", ".join(wrong),
            "policies are made for one-dimensional boxes of floating-point numbers, and episodes "
            "need a whole number of steps",
            "use gymnasium.spaces.Box(low, high, (size,), np.float32), and an int of at least 1",
        )
        return
    yield from _bounds(env)


def _bounds(env: AnyDifferentiable) -> Iterator[Finding]:
    space = env.action_space
    sides = space.bounded_below.astype(int) + space.bounded_above.astype(int)
    if bool((sides == 1).any()) or len({int(s) for s in sides}) > 1:
        yield fault(
            "interface",
            "spaces",
            f"the action space {one_line(space)} is bounded on some sides only",
            "a policy squashes its actions to bounds on all sides, or has none to squash to",
            "bound every dimension on both sides, or none",
        )
        return
    kind = "bounded" if sides.all() else "unbounded"
    seen = "bounded" if env.observation_space.is_bounded("both") else "unbounded"
    yield passed(
        "interface",
        "spaces",
        f"observation [{env.observation_space.shape[0]}] {seen}, action [{space.shape[0]}] {kind}, "
        f"{env.max_episode_steps} steps at most",
    )


def check_state(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """Something of the state must be able to carry a gradient."""
    state = fresh(env, 1, torch.Generator().manual_seed(seed))
    if not any(leaf.is_floating_point() for leaf in leaves(state)):
        yield warned(
            "interface",
            "state",
            "no tensor of the state holds floating-point numbers",
            "no gradient reaches an earlier step",
            "keep what changes smoothly in floating-point tensors; whole numbers are for counters",
        )


@final
class InSingle(DifferentiableEnv[Any]):
    """Rounds what goes in to float32, and gives out float64.

    The checks compare in float64; so they see how few digits there are and allow for it.
    """

    def __init__(self, env: AnyDifferentiable) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.max_episode_steps, self.noise_shape = env.max_episode_steps, env.noise_shape
        self.gradient = env.gradient

    def initial(self, num_envs: int, generator: torch.Generator) -> State:
        return _wide(self.env.initial(num_envs, generator))

    def transition(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        noise = None if noise is None else noise.float()
        return _wide(self.env.transition(_narrow(state), action.float(), noise))

    def observation(self, state: State) -> Tensor:
        return self.env.observation(_narrow(state)).double()

    def reward(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return self.env.reward(_narrow(state), action.float(), _narrow(next_state)).double()

    def terminal(self, state: State) -> Tensor:
        return self.env.terminal(_narrow(state))

    def reset_where(self, state: State, mask: Tensor, generator: torch.Generator) -> State:
        return _wide(self.env.reset_where(_narrow(state), mask, generator))

    def begin_window(self) -> None:
        self.env.begin_window()


def _narrow(state: State) -> State:
    return cast_state(state, torch.device("cpu"), torch.float32)


def _wide(state: State) -> State:
    return cast_state(state, torch.device("cpu"), torch.float64)
