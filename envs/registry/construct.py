"""Calls of a class or function with a user's arguments, and messages about wrong ones."""

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pgtoolkit.errors import RequestError

T = TypeVar("T")


def construct(creator: Callable[..., T], kwargs: Mapping[str, Any]) -> T:
    """``creator(**kwargs)``, after a check of the names of the arguments.

    Args:
        creator: a class or a function.
        kwargs: the user's arguments.

    Raises:
        RequestError: an argument is unknown, or a required one is missing.
    """
    try:
        inspect.signature(creator).bind(**kwargs)
    except TypeError as error:
        raise RequestError(arguments_message(creator, kwargs, error)) from error
    return creator(**kwargs)


def arguments_message(
    creator: Callable[..., object], kwargs: Mapping[str, Any], error: Exception
) -> str:
    """The message that names the wrong arguments and lists the accepted ones."""
    name = getattr(creator, "__name__", str(creator))
    accepted = accepted_arguments(creator)
    if accepted is None:
        return f"{name} cannot be made with {dict(kwargs)}: {error}"
    unknown = [repr(key) for key in kwargs if key not in accepted]
    takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
    if unknown:
        return f"{name} does not take the argument {' or '.join(unknown)}: {takes}"
    return f"{name} cannot be made with {dict(kwargs)}: {error} ({takes})"


def accepted_arguments(creator: Callable[..., object]) -> list[str] | None:
    """The names of the creator's keyword arguments; None if it accepts any."""
    parameters = inspect.signature(creator).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def describe_exception(error: BaseException, file: str) -> str:
    """``file.py, line 3: NameError: ...`` with the last line of that file in the traceback."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"{file}, line {frames[-1].lineno}: {what}" if frames else f"{file}: {what}"
