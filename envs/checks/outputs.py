"""What an ordinary environment returns from ``reset`` and ``step``: types, shapes and dtypes."""

import copy
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.ordinary_play import seeded_actions, without_added_wrappers
from pgtoolkit.envs.registry.ordinary import time_limit
from pgtoolkit.errors import single_line
from pgtoolkit.gymnasium_types import AnyEnv

SHAPES, DTYPES = Check("interface", "shapes"), Check("interface", "dtype")

RESULTS, COPIES = Check("interface", "results"), Check("interface", "copies")

OBSERVATION_ADVICE = (
    "return np.asarray(observation, dtype=self.observation_space.dtype) of the space's shape"
)

SHAPE_MEANING = "windows are built of rows of one shape"

INTERFACE = "every caller unpacks Gymnasium's results: (obs, info), and five values of a step"

STEPS, SECONDS = 60, 1.0
"""Steps whose results are looked at, or fewer when that time is over."""


class Part(NamedTuple):
    """A part of an observation that is neither a dictionary nor a tuple, and its space."""

    name: str
    """Empty for an observation of one part."""
    space: spaces.Space[Any]
    value: Any


def check_outputs(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """``reset`` and ``step`` return what Gymnasium's interface and the spaces say.

    What is legal in Gymnasium is right: NumPy booleans, rewards of any real type, and arrays that
    are views of others.
    """
    inner = without_added_wrappers(env)
    act = seeded_actions(inner, seed)
    first, found = _reset(inner, seed)
    kept, stays, began = copy.deepcopy(first), True, time.monotonic()
    limit = time_limit(env) or STEPS
    for number in range(1, STEPS + 1):
        if found or time.monotonic() - began > SECONDS:
            break
        over, found = _step(inner, act())
        stays = stays and _same_observation(inner, first, kept)
        # Without its wrappers nothing stops the environment at its time limit.
        if not found and (over or number % limit == 0):
            _, found = _reset(inner, None)
    yield from found
    if not found:
        yield _copies(stays and _same_observation(inner, first, kept))


def _reset(env: AnyEnv, seed: int | None) -> tuple[Any, list[Finding]]:
    """The observation of a reset, and what is wrong with its results."""
    try:
        result: Any = env.reset(seed=seed, options=None)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        text = f"reset does not take seed and options: {error}"
        advice = "write def reset(self, *, seed=None, options=None), and super().reset(seed=seed)"
        return None, [RESULTS.fault(text, INTERFACE, advice)]
    if not (isinstance(result, tuple) and len(result) == 2):
        text = f"reset returned {_describe(result)}, not (observation, info)"
        return None, [RESULTS.fault(text, INTERFACE, "return observation, {} from reset")]
    return result[0], _check_observation("reset", env, result[0]) + _check_info("reset", result[1])


def _step(env: AnyEnv, action: Any) -> tuple[bool, list[Finding]]:
    """Whether the episode is over after a step, and what is wrong with the step's results."""
    result: Any = env.step(action)
    if not (isinstance(result, tuple) and len(result) == 5):
        text = (
            f"step returned {_describe(result)}, not (observation, reward, terminated, truncated, "
            "info)"
        )
        return True, [RESULTS.fault(text, INTERFACE, "return these five; `done` is `terminated`")]
    observation, reward, terminated, truncated, info = result
    found = _check_observation("step", env, observation) + _check_info("step", info)
    found += [*_check_reward(reward), *_check_flags(terminated, truncated)]
    return bool(found) or bool(terminated) or bool(truncated), found


def _describe(result: object) -> str:
    kind = type(result).__name__
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {kind}"


def _check_info(name: str, info: object) -> list[Finding]:
    if isinstance(info, dict):
        return []
    text = f"{name} returned an info of type {type(info).__name__}: it must be a dictionary"
    return [RESULTS.fault(text, INTERFACE, "return {} where there is nothing to say")]


def _check_reward(reward: Any) -> Iterator[Finding]:
    """A reward is one real number, of any type."""
    if np.ndim(reward) != 0:
        shape = list(np.shape(reward))
        yield SHAPES.fault(
            f"step returned a reward of shape {shape}: it must be one number",
            SHAPE_MEANING,
            "return float(reward); make one weighted sum of several objectives "
            "(mo_gymnasium.wrappers.LinearReward)",
        )
    elif np.asarray(reward).dtype.kind not in "biuf":
        text = f"step returned a reward of type {type(reward).__name__}: it must be a number"
        yield RESULTS.fault(text, "returns are sums of rewards", "return float(reward)")


def _check_flags(terminated: Any, truncated: Any) -> Iterator[Finding]:
    """The flags are booleans, or numbers 0 and 1; NumPy's are as good as Python's."""
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        array = np.asarray(flag)
        if array.ndim != 0 or array.dtype.kind not in "biu" or int(array) not in (0, 1):
            text = f"step returned {name} = {single_line(flag)}, of type {type(flag).__name__}"
            yield RESULTS.fault(text, "episodes end by these flags", f"return bool({name})")


def _check_observation(name: str, env: AnyEnv, observation: Any) -> list[Finding]:
    try:
        parts = list(_parts("", env.observation_space, observation))
    except (KeyError, IndexError, TypeError):
        text = (
            f"{name} returned an observation {_describe(observation)} that has not the parts of "
            f"its space {single_line(env.observation_space)}"
        )
        return [SHAPES.fault(text, SHAPE_MEANING, "return each part that the space names")]
    return [finding for part in parts for finding in _check_part(name, part)]


def _parts(name: str, space: spaces.Space[Any], value: Any) -> Iterator[Part]:
    """The parts of an observation, in the order of its space.

    Raises:
        KeyError: a part is missing.
        IndexError: likewise, of a tuple.
        TypeError: the value has no parts.
    """
    if isinstance(space, spaces.Dict):
        for key, inner in space.items():
            yield from _parts(f"{name}[{key!r}]", inner, value[key])
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space):
            yield from _parts(f"{name}[{index}]", inner, value[index])
    else:
        yield Part(name, space, value)


def _check_part(name: str, part: Part) -> Iterator[Finding]:
    """Shape and dtype of a ``Box``; membership in any other space but texts, which no one reads."""
    if isinstance(part.space, spaces.Text):
        return
    what = f"{name} returned an observation{part.name and f', in {part.name},'}"
    if not isinstance(part.space, spaces.Box):
        if not part.space.contains(part.value):
            text = (
                f"{what} {single_line(part.value)[:60]}, which is not in {single_line(part.space)}"
            )
            yield SHAPES.fault(text, "it cannot be turned into a row of numbers", "correct either")
        return
    try:
        array: NDArray[Any] = np.asarray(part.value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if array.shape != part.space.shape:
        text = f"{what} {list(array.shape)}, its space has {list(part.space.shape)}"
        yield SHAPES.fault(text, SHAPE_MEANING, OBSERVATION_ADVICE)
    elif array.dtype != part.space.dtype:
        yield _wrong_dtype(
            f"{what} of {array.dtype}, its space says {part.space.dtype}", part, array
        )


def _wrong_dtype(text: str, part: Part, array: NDArray[Any]) -> Finding:
    """A fault if the numbers are others in the space's dtype; training converts all the rest."""
    dtype = np.dtype(part.space.dtype)
    if isinstance(part.value, list | tuple) or np.can_cast(array.dtype, dtype):
        meaning = "nothing is lost, and Gymnasium allows it; some libraries do not"
        return DTYPES.warning(text, meaning, OBSERVATION_ADVICE)
    if np.can_cast(array.dtype, dtype, "same_kind"):
        meaning = (
            f"it is converted, and digits that {dtype} does not hold are lost; some wrappers and "
            "other libraries refuse it"
        )
        return DTYPES.warning(text, meaning, OBSERVATION_ADVICE)
    if array.dtype.kind in "biuf" and np.array_equal(array.astype(dtype), array):
        meaning = "it is converted, and these numbers stay the same; some libraries refuse it"
        return DTYPES.warning(text, meaning, OBSERVATION_ADVICE)
    meaning = "its numbers become others, or wrappers and other libraries refuse the observation"
    return DTYPES.fault(text, meaning, OBSERVATION_ADVICE)


def _copies(stays: bool) -> Finding:
    """Whether an observation stayed as it was returned while the environment went on."""
    if stays:
        return COPIES.passed("an observation stays as it was returned")
    return COPIES.warning(
        "an observation changes after it was returned: the environment writes into one array again "
        "and again",
        "training here copies observations; code that keeps them sees the last one everywhere",
        "return observation.copy()",
    )


def _same_observation(env: AnyEnv, a: Any, b: Any) -> bool:
    """Whether the arrays of two observations are equal; numbers and texts cannot change."""
    space = env.observation_space
    pairs = zip(_parts("", space, a), _parts("", space, b), strict=True)
    return all(
        np.array_equal(x.value, y.value, equal_nan=x.value.dtype.kind == "f")
        for x, y in pairs
        if isinstance(x.value, np.ndarray)
    )
