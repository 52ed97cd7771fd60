"""Checks of what a differentiable environment's functions return: shapes, dtypes, devices."""

from collections.abc import Callable, Iterator
from typing import TypeGuard

import torch
from torch import Tensor

from pgtoolkit.envs.checks_play import (
    AnyDifferentiable,
    draw_noise,
    fresh,
    leaf_names,
    leaves,
    random_actions,
)
from pgtoolkit.envs.finding import Finding, fault, passed, where
from pgtoolkit.envs.states import State
from pgtoolkit.errors import RequestError

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
