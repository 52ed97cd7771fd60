"""The state of an object as a dictionary that a checkpoint can hold, by a list of its parts.

A state comes from a file, which may be damaged, of another version or a stranger's. So nothing is
taken from it before :func:`require` has compared it with a *schema*: which entries there must be,
of which kinds, dtypes, shapes and ranges. Most schemas are read off the object that receives the
state (:func:`schema_of`). Where a state grows, its class writes the schema in the same words:
:func:`integer`, :func:`series`, :func:`entries` and so on.
"""

import contextlib
import copy
import math
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pgtoolkit.errors import RequestError

Schema: TypeAlias = Callable[[Any, str], None]
"""Raises :class:`StateError` unless a value fits; it is given the value and its path."""

_ranges_are_checked: ContextVar[bool] = ContextVar("ranges are checked", default=True)

LARGEST_INTEGER = 2**63 - 1
NON_NEGATIVE_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
"""Entries of the state of torch's optimisers that are means or sums of squares."""


class StateError(RequestError):
    """A saved state does not fit the object that is to continue from it.

    Attributes:
        path: the entry, such as ``agent/learner/rule/state/0/exp_avg``.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path or 'the state'} {reason}")


def state_of(owner: object, names: Sequence[str]) -> dict[str, Any]:
    """``{name: state}`` of the attributes ``names``.

    A module, an optimiser, or anything else with ``state_dict`` gives that; a generator gives its
    state; a tensor, number, string or None is itself.
    """
    return {name: _pack(getattr(owner, name)) for name in names}


def load_state_of(
    owner: object,
    names: Sequence[str],
    state: Any,
    declared: Mapping[str, Schema] | None = None,
) -> None:
    """Puts back what :func:`state_of` gave, once it has been compared with the owner's own state.

    The attributes themselves are compared before any of them is changed; a part that has a
    ``load_state_dict`` of its own compares what is below it when its turn comes.

    Args:
        owner: has the attributes; they are changed.
        names: the attributes.
        state: the saved state.
        declared: schemas of attributes whose present values do not tell what may be loaded.

    Raises:
        StateError: an entry is missing or unknown, or has another kind, dtype, shape or range.
    """
    own = {name: schema_of(getattr(owner, name)) for name in names}
    require(state, entries({**own, **(declared or {})}))
    for name in names:
        part = getattr(owner, name)
        if isinstance(part, torch.Generator):
            part.set_state(state[name].cpu())
        elif hasattr(part, "load_state_dict"):
            with at(name):
                part.load_state_dict(_own_copy(part, state[name]))
        else:
            value = state[name]
            is_tensor = isinstance(part, Tensor)
            setattr(owner, name, value.to(part.device, copy=True) if is_tensor else value)


def _own_copy(part: Any, state: Any) -> Any:
    """The state for a part: torch's optimisers keep the tensors they are given, and write there."""
    return copy.deepcopy(state) if isinstance(part, torch.optim.Optimizer) else state


def _pack(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if hasattr(part, "state_dict") else part


def require(state: Any, schema: Schema, path: str = "") -> None:
    """Compares a saved state with a schema.

    Raises:
        StateError: it does not fit; names the entry by its path below ``path``.
    """
    schema(state, path)


@contextlib.contextmanager
def at(name: str) -> Iterator[None]:
    """A context whose :class:`StateError` is about the entry ``name``."""
    try:
        yield
    except StateError as error:
        raise StateError(_below(name, error.path) if error.path else name, error.reason) from None


@contextlib.contextmanager
def any_numbers() -> Iterator[None]:
    """A context in which tensors and numbers may be NaN, infinite or out of range.

    For the recording of a fault, in which they are. Kinds, dtypes and shapes are compared as ever.
    """
    token = _ranges_are_checked.set(False)
    try:
        yield
    finally:
        _ranges_are_checked.reset(token)


# Schemas that are read off what is there ---------------------------------------------------------


def schema_of(part: Any) -> Schema:
    """The schema of a part of an object: that of its own state now."""
    if isinstance(part, torch.Generator):
        return generator(part)
    if isinstance(part, nn.Module):
        return module(part)
    if isinstance(part, torch.optim.Optimizer):
        return optimizer(part)
    return anything if hasattr(part, "load_state_dict") else like(part)


def like(fresh: Any) -> Schema:
    """Of the structure, kinds, dtypes and shapes of ``fresh``; finite if that is finite."""
    if isinstance(fresh, Tensor):
        return tensor(fresh)
    if isinstance(fresh, Mapping):
        return entries({key: like(value) for key, value in fresh.items()})
    if isinstance(fresh, list | tuple):
        return items([like(value) for value in fresh])
    for kind, schema in ((bool, flag), (int, integer(-LARGEST_INTEGER)), (str, text)):
        if isinstance(fresh, kind):
            return schema
    return number(finite=math.isfinite(fresh)) if isinstance(fresh, float) else equal(fresh)


def tensor(fresh: Tensor, **bounds: Any) -> Schema:
    """A tensor of the dtype and shape of ``fresh``; it is finite unless that has other entries.

    Args:
        fresh: the tensor to compare with.
        bounds: ``low``, ``high``, ``whole`` and ``longest`` of :func:`array`.
    """
    finite = not fresh.is_floating_point() or bool(torch.isfinite(fresh).all())
    return array(fresh.dtype, fresh.shape, finite=finite, **bounds)


def array(
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    finite: bool = True,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
    longest: Sequence[int] = (),
) -> Schema:
    """A tensor of this dtype and shape.

    Args:
        dtype: its dtype.
        shape: its shape.
        finite: whether NaN and infinity are refused.
        low: the least entry.
        high: the largest entry.
        whole: whether all entries are integers.
        longest: dimensions in which the shape is only the largest length.
    """

    def check(value: Any, path: str) -> None:
        if not isinstance(value, Tensor):
            raise StateError(path, f"is {_short(value)}, not a tensor")
        if value.dtype != dtype:
            raise StateError(path, f"is {value.dtype}, not {dtype}")
        _require_shape(value, shape, longest, path)
        if not _ranges_are_checked.get():
            return
        if finite and not bool(torch.isfinite(value).all()):
            raise StateError(path, "has entries that are not finite")
        if low is not None and bool((value < low).any()):
            raise StateError(path, f"has entries below {low}")
        if high is not None and bool((value > high).any()):
            raise StateError(path, f"has entries above {high}")
        if whole and bool((value != value.floor()).any()):
            raise StateError(path, "has entries that are not whole numbers")

    return check


def _require_shape(value: Tensor, shape: Sequence[int], longest: Sequence[int], path: str) -> None:
    fits = value.dim() == len(shape) and all(
        size <= expected if axis in longest else size == expected
        for axis, (size, expected) in enumerate(zip(value.shape, shape, strict=True))
    )
    if not fits:
        words = [f"<= {size}" if k in longest else str(size) for k, size in enumerate(shape)]
        raise StateError(path, f"has shape {list(value.shape)}, not [{', '.join(words)}]")


def generator(own: torch.Generator) -> Schema:
    """The state of a generator on the device of ``own``; tried on another generator."""
    fresh = own.get_state()

    def check(value: Any, path: str) -> None:
        tensor(fresh)(value, path)
        try:
            torch.Generator(own.device).set_state(value.cpu())
        except RuntimeError:
            raise StateError(path, "is no state of a random generator") from None

    return check


def module(own: nn.Module) -> Schema:
    """The parameters and buffers of a module.

    A class of modules says more of its buffers by two attributes: ``state_constants`` names those
    that must be what they are, as bounds of a space, and ``state_minima`` has least values by name.
    """
    found: dict[str, Schema] = {}
    state = own.state_dict()
    for prefix, part in own.named_modules():
        constants: Sequence[str] = getattr(part, "state_constants", ())
        minima: Mapping[str, float] = getattr(part, "state_minima", {})
        for name in (*part._parameters, *part._buffers):
            key = f"{prefix}.{name}" if prefix else name
            if key in state:
                fixed = name in constants
                found[key] = (
                    equal(state[key]) if fixed else tensor(state[key], low=minima.get(name))
                )
    return entries({key: found.get(key, like(value)) for key, value in state.items()})


def optimizer(own: torch.optim.Optimizer) -> Schema:
    """The state of a torch optimiser, for each parameter none yet or that of its shape.

    What a parameter's state consists of is seen on an equal optimiser that makes a step with
    parameters and gradients of 0. The settings must be those of ``own``, but for the learning rate,
    which follows a schedule.
    """
    after = _after_a_step(own)
    own_groups = own.state_dict()["param_groups"]
    groups = [
        {key: number(0.0) if key == "lr" else equal(value) for key, value in group.items()}
        for group in own_groups
    ]
    states = {
        index: entries({name: _moment(name, value) for name, value in found.items()})
        for index, found in after.items()
    }
    return entries(
        {
            "state": entries(states, absent=tuple(states)),
            "param_groups": items([entries(group) for group in groups]),
        }
    )


def _moment(name: str, fresh: Any) -> Schema:
    if not isinstance(fresh, Tensor):
        return like(fresh)
    low = 0.0 if name == "step" or name in NON_NEGATIVE_MOMENTS else None
    return tensor(fresh, low=low, whole=name == "step")


def _after_a_step(own: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Of each parameter's index, the state after one step of an equal optimiser."""
    twin = copy.copy(own)
    twin.state = defaultdict(dict)
    twin.param_groups = [
        {**group, "params": [torch.zeros_like(p) for p in group["params"]]}
        for group in own.param_groups
    ]
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    found: dict[int, dict[str, Any]] = twin.state_dict()["state"]
    return found


# Schemas that a class writes for a state that grows -----------------------------------------------


def anything(value: Any, path: str) -> None:
    """No demand: what is below is compared by the part that loads it."""


def equal(own: Any) -> Schema:
    """The same value, of the same type."""

    def check(value: Any, path: str) -> None:
        if isinstance(own, Tensor):
            tensor(own)(value, path)
            if not torch.equal(value.cpu(), own.cpu()):
                raise StateError(path, "has other numbers than it has here")
        elif not _same(value, own):
            raise StateError(path, f"is {_short(value)}, not {_short(own)}")

    return check


def _same(value: Any, own: Any) -> bool:
    if type(value) is not type(own):
        return False
    if isinstance(own, list | tuple):
        return len(value) == len(own) and all(map(_same, value, own))
    return bool(value == own)


def flag(value: Any, path: str) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise StateError(path, f"is {_short(value)}, not true or false")


def text(value: Any, path: str) -> None:
    """A string."""
    if not isinstance(value, str):
        raise StateError(path, f"is {_short(value)}, not a text")


def integer(low: int = 0, high: int = LARGEST_INTEGER) -> Schema:
    """An integer from ``low`` to ``high``."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise StateError(path, f"is {_short(value)}, not an integer")
        if not low <= value <= high:
            raise StateError(path, f"is {_short(value)}, not between {low} and {high}")

    return check


def number(low: float = -math.inf, *, finite: bool = True) -> Schema:
    """A number of at least ``low``; if ``finite`` is false, it may be NaN or infinite."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StateError(path, f"is {_short(value)}, not a number")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise StateError(path, f"is {_short(value)}, which is too large")
        if not _ranges_are_checked.get():
            return
        if finite and not math.isfinite(value):
            raise StateError(path, f"is {value}, not a finite number")
        if value < low:
            raise StateError(path, f"is {value}, below {low}")

    return check


def optional(schema: Schema) -> Schema:
    """None, or what fits the schema."""

    def check(value: Any, path: str) -> None:
        if value is not None:
            schema(value, path)

    return check


def entries(schemas: Mapping[Any, Schema], *, absent: Sequence[Any] = ()) -> Schema:
    """A dictionary of exactly these entries; those in ``absent`` may be missing."""

    def check(value: Any, path: str) -> None:
        _require_dictionary(value, path)
        # A key is compared with its type, because True counts as the key 1 otherwise.
        surplus = {(type(key), key) for key in value} - {(type(key), key) for key in schemas}
        if surplus:
            raise StateError(_below(path, min(str(key) for _, key in surplus)), "is not known here")
        for key, schema in schemas.items():
            if key in value:
                schema(value[key], _below(path, key))
            elif key not in absent:
                raise StateError(_below(path, key), "is missing")

    return check


def mapping(schema: Schema, *, keys: Callable[[str], bool] = lambda key: True) -> Schema:
    """A dictionary from texts for which ``keys`` is true to what fits the schema."""

    def check(value: Any, path: str) -> None:
        _require_dictionary(value, path)
        for key, item in value.items():
            if not isinstance(key, str) or not keys(key):
                raise StateError(_below(path, key), "is not known here")
            schema(item, _below(path, key))

    return check


def _require_dictionary(value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise StateError(path, f"is {_short(value)}, not a dictionary")


def items(schemas: Sequence[Schema], names: Sequence[str] = ()) -> Schema:
    """A list or tuple of exactly these items, which have numbers or ``names`` in paths."""

    def check(value: Any, path: str) -> None:
        _require_sequence(value, len(schemas), len(schemas), path)
        for index, (schema, item) in enumerate(zip(schemas, value, strict=True)):
            schema(item, _below(path, names[index] if names else index))

    return check


def series(schema: Schema, shortest: int = 0, longest: int = LARGEST_INTEGER) -> Schema:
    """A list or tuple of so many items, each of which fits the schema."""

    def check(value: Any, path: str) -> None:
        _require_sequence(value, shortest, longest, path)
        for index, item in enumerate(value):
            schema(item, _below(path, index))

    return check


def _require_sequence(value: Any, shortest: int, longest: int, path: str) -> None:
    if not isinstance(value, list | tuple):
        raise StateError(path, f"is {_short(value)}, not a list")
    if not shortest <= len(value) <= longest:
        words = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise StateError(path, f"has {len(value)} entries, not {words}")


def _below(path: str, key: Any) -> str:
    name = str(key)
    plain = name.isascii() and name.isprintable() and len(name) <= 200
    name = name if plain else reprlib.repr(name)
    return f"{path}/{name}" if path else name


def _short(value: Any) -> str:
    """The value in a few words, for a message."""
    if isinstance(value, Tensor):
        return "a tensor"
    if isinstance(value, Mapping):
        return "a dictionary"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return ascii(value)[:60] if isinstance(value, str) else reprlib.repr(value)
