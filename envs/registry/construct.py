"""Calls of a class or function with a user's arguments, and messages about wrong ones."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from gymnasium.error import DependencyNotInstalled

from pgtoolkit.envs.registry.json_types import annotations_of, fits, words_of
from pgtoolkit.errors import RequestError
from pgtoolkit.user_code import describe_exception

T = TypeVar("T")


def construct(
    creator: Callable[..., T],
    kwargs: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    option: str = "",
) -> T:
    """``creator(**kwargs, **given)``, after a check of the arguments against the signature.

    Args:
        creator: a class or a function.
        kwargs: the user's arguments, out of JSON.
        given: arguments that the caller gives itself, and the user may not.
        option: the command line's option that has the user's arguments, for messages.

    Raises:
        RequestError: an argument is unknown, has another type than its annotation says, or a
            required one is missing; or the creator raises, and the message says what and where.
        ImportError, DependencyNotInstalled: a package is missing.
    """
    given = given or {}
    require_arguments(creator, kwargs, given, option)
    try:
        return creator(**kwargs, **given)
    except (RequestError, ImportError, DependencyNotInstalled):
        raise
    except Exception as error:
        name = getattr(creator, "__name__", str(creator))
        raise RequestError(
            f"{name} cannot be made{_with(kwargs)}: {describe_exception(error, _file_of(creator))}"
        ) from error


def require_arguments(
    creator: Callable[..., object],
    kwargs: Mapping[str, Any],
    given: Mapping[str, Any],
    option: str = "",
) -> None:
    """Checks arguments against the creator's signature: their names and, out of JSON, their types.

    Raises:
        RequestError: names the argument, and what the creator takes.
    """
    try:
        inspect.signature(creator).bind(**kwargs, **given)
    except TypeError as error:
        raise RequestError(arguments_message(creator, kwargs, error, given, option)) from error
    annotations = annotations_of(creator)
    for key, value in kwargs.items():
        if key in annotations and not fits(value, annotations[key]):
            name = getattr(creator, "__name__", str(creator))
            raise RequestError(
                f"{name}'s {key} is {value!r}: it must be {words_of(annotations[key])}"
            )


def _with(kwargs: Mapping[str, Any]) -> str:
    return f" with {dict(kwargs)}" if kwargs else ""


def _file_of(creator: Callable[..., object]) -> str:
    """The file that defines it; empty where there is none."""
    try:
        return inspect.getfile(creator)
    except TypeError:
        return ""


def arguments_message(
    creator: Callable[..., object],
    kwargs: Mapping[str, Any],
    error: Exception,
    given: Mapping[str, Any] | None = None,
    option: str = "",
) -> str:
    """The message that names the wrong arguments and lists the accepted ones but those given."""
    name = getattr(creator, "__name__", str(creator))
    accepted = accepted_arguments(creator, given or {})
    if accepted is None:
        return f"{name} cannot be made with {dict(kwargs)}: {error}"
    unknown = [repr(key) for key in kwargs if key not in accepted]
    takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
    if unknown:
        return f"{name} does not take the argument {' or '.join(unknown)}: {takes}"
    missing = [key for key in required_arguments(creator) if key not in {**kwargs, **(given or {})}]
    if missing:
        example = "{" + ", ".join(f'"{key}": ...' for key in missing) + "}"
        how = f": give it with {option} '{example}'" if option else ""
        return f"{name} needs the argument {' and '.join(map(repr, missing))} ({takes}){how}"
    return f"{name} cannot be made with {dict(kwargs)}: {error} ({takes})"


def required_arguments(creator: Callable[..., object]) -> list[str]:
    """The names of the creator's arguments that have no default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(creator).parameters.values()
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def accepted_arguments(
    creator: Callable[..., object], given: Collection[str] = ()
) -> list[str] | None:
    """The names of the creator's keyword arguments without those given; None if it accepts any."""
    parameters = inspect.signature(creator).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in kinds and p.name not in given]
