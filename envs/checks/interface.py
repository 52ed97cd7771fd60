"""Checks of a differentiable environment's interface: spaces, and what its functions return."""

from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.checks.finding import Check, Finding, describe_error
from pgtoolkit.envs.checks.random_play import draw_noise, random_actions
from pgtoolkit.envs.checks.states import CPU, leaf_names, start_states
from pgtoolkit.envs.differentiable import DifferentiableEnv, next_state, wrong_attributes
from pgtoolkit.envs.states import State, cast_state, is_state, leaves_of
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.policies.factory import make_policy

BATCH_SIZES = (1, 5)
"""Numbers of environments to call with: a ``squeeze()`` goes wrong with one environment only."""

WRONG_KINDS = ("must return a tensor", "must return booleans")

KIND_ADVICE = (
    "return the kind that is asked for; an episode that never ends by itself has the terminal "
    "torch.zeros(num_envs, dtype=torch.bool, device=...)"
)

SPACES = Check("interface", "spaces")


def check_attributes(env: DifferentiableEnv) -> Iterator[Finding]:
    """The spaces are one-dimensional boxes of floats, and the time limit is a positive integer."""
    wrong = []
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)
        if not isinstance(space, Box) or len(space.shape) != 1:
            wrong.append(f"{name} is {single_line(space)}")
        elif not np.issubdtype(space.dtype, np.floating):
            wrong.append(f"{name} holds {space.dtype}")
    if wrong:
        yield SPACES.fault(
            ", ".join(wrong),
            "policies are made for one-dimensional boxes of floating-point numbers",
            "use gymnasium.spaces.Box(low, high, (size,), np.float32)",
        )
    others = wrong_attributes(env)
    if others:
        meaning = "no step can be taken, or no episode would end"
        yield SPACES.fault("; ".join(others), meaning, "set it on the class or in __init__")
    if not wrong and not others:
        yield _policy_fits(env)


def _policy_fits(env: DifferentiableEnv) -> Finding:
    """Whether the policy with the default settings can be made for the spaces."""
    weights = torch.Generator().manual_seed(0)
    try:
        make_policy(PolicySettings(), env.observation_space, env.action_space, weights)
    except RequestError as error:
        return SPACES.fault(
            str(error),
            "pathwise agents cannot be trained with their default policy",
            "bound every dimension of the action on both sides, or none",
        )
    observation, action = (
        "bounded" if space.is_bounded("both") else "unbounded"
        for space in (env.observation_space, env.action_space)
    )
    return SPACES.passed(
        f"observation [{env.observation_space.shape[0]}] {observation}, action "
        f"[{env.action_space.shape[0]}] {action}, {env.max_episode_steps} steps at most"
    )


def check_state(env: DifferentiableEnv, seed: int) -> Iterator[Finding]:
    """At least one tensor of the state holds floats, which can carry a gradient."""
    state = start_states(env, 1, torch.Generator().manual_seed(seed))
    if not any(leaf.is_floating_point() for leaf in leaves_of(state)):
        yield Check("interface", "state").warning(
            "no tensor of the state holds floating-point numbers",
            "no gradient reaches an earlier step",
            "keep what changes smoothly in floating-point tensors; whole numbers are for counters",
        )


def check_outputs(env: DifferentiableEnv, seed: int) -> Iterator[Finding]:
    """Shapes of all outputs; if those are right, their dtypes and devices."""
    shapes: list[str] = []
    dtypes: list[str] = []
    only_single = refuses_double(env, seed)
    for count in BATCH_SIZES:
        for dtype in (torch.float32,) if only_single else (torch.float64, torch.float32):
            outputs = OutputCheck(env, count, dtype, seed)
            try:
                shapes += outputs.wrong_shapes()
            except Exception as error:
                if not _is_about_dtypes(error):
                    raise
                dtypes.append(f"with a state of {_dtype_name(dtype)}: {describe_error(env, error)}")
            # A wrong shape broadcasts with tensors of another dtype: its dtype says nothing.
            dtypes += outputs.wrong_dtypes if not shapes else []
    yield _report_shapes(shapes)
    if not shapes:
        yield _report_dtypes(dtypes, only_single)


def _report_shapes(wrong: list[str]) -> Finding:
    check = Check("interface", "shapes")
    if not wrong:
        return check.passed("of all outputs, for 1 and for 5 environments")
    kinds = [text for text in wrong if any(kind in text for kind in WRONG_KINDS)]
    if kinds:
        return check.fault(_first_three(kinds), "training cannot start", KIND_ADVICE)
    return check.fault(
        _first_three(wrong),
        "a wrong shape broadcasts without an error, and training goes wrong: rewards [N, 1] minus "
        "values [N] are a table [N, N]",
        "return the shape that is asked for; sum over the last axis with .sum(-1), and avoid "
        ".squeeze()",
    )


def _report_dtypes(wrong: list[str], only_single: bool) -> Finding:
    check = Check("interface", "dtype")
    if wrong:
        return check.fault(
            _first_three(wrong),
            "mixed precision raises errors far from here, slows down, or loses digits that a long "
            "gradient needs",
            "make constants with state.new_tensor(...) or constant.to(state); no .float(), "
            ".double() or dtype= on the way",
        )
    if only_single:
        return check.passed("float32 in, float32 out; float64 is refused")
    return check.passed("float64 in, float64 out; float32 in, float32 out; on one device")


def _first_three(wrong: list[str]) -> str:
    different = list(dict.fromkeys(wrong))
    more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return "; ".join(different[:3]) + more


def refuses_double(env: DifferentiableEnv, seed: int) -> bool:
    """Whether the environment raises a ``RequestError`` for a float64 state."""
    try:
        OutputCheck(env, 1, torch.float64, seed).wrong_shapes()
    except RequestError:
        return True
    except Exception:  # the checks report other errors
        return False
    return False


def _is_about_dtypes(error: Exception) -> bool:
    """Whether an operation was given tensors of different dtypes, by the error's words."""
    return any(word in str(error) for word in ("dtype", "Double", "double and", "float64"))


@final
class OutputCheck:
    """Calls the five functions once and compares what they return with the protocol.

    Args:
        env: the dynamics.
        count: number of environments.
        dtype: the dtype of the state, action and noise.
        seed: seeds start state, action and noise.
    """

    def __init__(self, env: DifferentiableEnv, count: int, dtype: torch.dtype, seed: int) -> None:
        self.env, self.count, self.dtype = env, count, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.wrong_dtypes: list[str] = []
        """Wrong dtypes and devices; filled by :meth:`wrong_shapes`."""

    def wrong_shapes(self) -> list[str]:
        """Calls the functions; a sentence for each output that is not of the right type or shape.

        Stops at a wrong state, because the other functions could not take it.
        """
        env, n = self.env, self.count
        wrong = self._wrong_state("initial", env.initial(n, self.generator), None)
        if wrong:
            return wrong
        state = start_states(env, n, self.generator, self.dtype)
        action = random_actions(env.action_space, n, self.generator).to(self.dtype)
        noise = draw_noise(env, n, self.generator, self.dtype)
        after = next_state(env, state, action, noise)
        wrong = self._wrong_state("transition", after, state)
        if wrong:
            return wrong
        size = env.observation_space.shape[0]
        calls: list[tuple[str, Callable[[], Tensor], tuple[int, ...]]] = [
            ("observation", lambda: env.observation(after), (n, size)),
            ("reward", lambda: env.reward(state, action, after), (n,)),
            ("terminal", lambda: env.terminal(after), (n,)),
        ]
        return [
            text for name, call, shape in calls for text in self._wrong_output(name, call(), shape)
        ]

    def _wrong_state(self, name: str, found: object, like: State | None) -> list[str]:
        """Compares a state with the one that the function was given, if it was given one."""
        if not is_state(found):
            kind = type(found).__name__
            return [f"{name} returned a {kind}: it must return a tensor or a NamedTuple of tensors"]
        length = len(leaves_of(found))
        if like is not None and (type(found) is not type(like) or length != len(leaves_of(like))):
            return [
                f"{name} returned a {type(found).__name__} of {length} tensors for a "
                f"{type(like).__name__} of {len(leaves_of(like))}"
            ]
        templates = leaves_of(like) if like is not None else leaves_of(found)
        wrong = []
        for label, leaf, template in zip(
            leaf_names(found), leaves_of(found), templates, strict=True
        ):
            shape = tuple(template.shape) if like is not None else (self.count, *leaf.shape[1:])
            if tuple(leaf.shape) != shape:
                wrong.append(
                    f"{name} returned {label} of shape {list(leaf.shape)} for {self.count} "
                    f"environments: it must be {list(shape)}"
                )
            elif like is not None:
                self._note_dtype(f"{name} ({label})", leaf, template)
        return wrong

    def _wrong_output(self, name: str, found: object, shape: tuple[int, ...]) -> list[str]:
        if not isinstance(found, Tensor):
            return [f"{name} returned a {type(found).__name__}: it must return a tensor"]
        if tuple(found.shape) != shape:
            return [
                f"{name} returned {list(found.shape)} for {self.count} environments: it must "
                f"return {list(shape)}"
            ]
        if name == "terminal" and found.dtype != torch.bool:
            return [f"terminal returned {_dtype_name(found.dtype)}: it must return booleans"]
        if name != "terminal":
            self._note_dtype(name, found, torch.empty(0, dtype=self.dtype))
        return []

    def _note_dtype(self, name: str, found: Tensor, like: Tensor) -> None:
        if found.dtype != like.dtype:
            self.wrong_dtypes.append(
                f"{name} returned {_dtype_name(found.dtype)} for a state of "
                f"{_dtype_name(self.dtype)}"
            )
        if found.device != like.device:
            self.wrong_dtypes.append(f"{name} returned a tensor on {found.device}")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@final
class Float32Env(DifferentiableEnv[Any]):
    """Gives an environment that refuses float64 its inputs in float32, and returns float64.

    The checks compare in float64; they see that only float32's digits are there and allow for it.
    """

    def __init__(self, env: DifferentiableEnv) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.max_episode_steps, self.noise_shape = env.max_episode_steps, env.noise_shape
        self.gradient = env.gradient

    def initial(self, num_envs: int, generator: torch.Generator) -> State:
        return _to_double(self.env.initial(num_envs, generator))

    def transition(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        noise = None if noise is None else noise.float()
        return _to_double(self.env.transition(_to_single(state), action.float(), noise))

    def observation(self, state: State) -> Tensor:
        return self.env.observation(_to_single(state)).double()

    def reward(self, state: State, action: Tensor, next_state: State) -> Tensor:
        before, after = _to_single(state), _to_single(next_state)
        return self.env.reward(before, action.float(), after).double()

    def terminal(self, state: State) -> Tensor:
        return self.env.terminal(_to_single(state))

    def reset_where(self, state: State, mask: Tensor, generator: torch.Generator) -> State:
        return _to_double(self.env.reset_where(_to_single(state), mask, generator))

    def begin_window(self) -> None:
        self.env.begin_window()


def _to_single(state: State) -> State:
    return cast_state(state, CPU, torch.float32)


def _to_double(state: State) -> State:
    return cast_state(state, CPU, torch.float64)
