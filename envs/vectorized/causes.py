"""What made an environment fail, as a value that a worker process can send."""

import dis
import os
import signal
import traceback
from types import FrameType, TracebackType
from typing import NamedTuple, final

import gymnasium

import pgtoolkit
from pgtoolkit.errors import RequestError, single_line

MAX_CHARACTERS = 400
"""Most characters of a cause; an exception's text may be of any length."""

LIBRARIES = tuple(
    os.path.abspath(os.path.dirname(module.__file__ or "")) + os.sep
    for module in (gymnasium, pgtoolkit)
)
"""Folders whose lines are not named as the place of a fault if there is another one."""

STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals by which a user stops the process."""


@final
class Failure(NamedTuple):
    """An environment that failed."""

    cause: str
    """One line: ``ValueError: sensor 3 is disconnected (robot.py, line 30)``."""
    is_request: bool = False
    """Whether a :class:`RequestError <pgtoolkit.errors.RequestError>` says that the environment
    does not keep to Gymnasium's interface."""
    answers: bool = True
    """Whether the environment can still be closed: false if its worker is dead or hangs."""


class StepTimeout(BaseException):
    """An environment takes too long. Environments' own ``except Exception`` do not catch it."""


def failure_of(error: BaseException) -> Failure:
    """The failure behind an exception that an environment's code raised.

    ``SystemExit`` and ``KeyboardInterrupt`` are failures as well, if they do not come from a signal
    that the user sent to this process.

    Raises:
        BaseException: the same, if it comes from a signal.
    """
    if is_from_signal(error):
        raise error
    if isinstance(error, StepTimeout):
        return Failure(f"TimeoutError: {error}{place_of(error.__traceback__)}")
    try:
        text = single_line(error)
    except Exception:  # its __str__ fails as well
        text = ""
    if isinstance(error, RequestError):
        return Failure(_shortened(text), is_request=True)
    named = f"{type(error).__name__}: {text}".rstrip(": ")
    return Failure(_shortened(named) + place_of(error.__traceback__))


def place_of(trace: TracebackType | None) -> str:
    """``" (robot.py, line 30)"``: the innermost line outside of Gymnasium and this package."""
    frames = traceback.extract_tb(trace)
    own = [f for f in frames if not os.path.abspath(f.filename).startswith(LIBRARIES)]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"


def is_from_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised the exception, and no ``raise`` of the environment's code.

    Python's own handler of SIGINT leaves no frame. Its ``KeyboardInterrupt`` begins at an
    instruction that is no ``raise``.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    handlers = [getattr(signal.getsignal(number), "__code__", None) for number in STOPS]
    if any(frame.f_code in handlers for frame in frames):
        return True
    return isinstance(error, KeyboardInterrupt) and not _is_raise(error.__traceback__)


def _is_raise(trace: TracebackType | None) -> bool:
    """Whether the innermost frame of a traceback is at a ``raise`` statement."""
    innermost: tuple[FrameType, int] | None = None
    while trace is not None:
        innermost, trace = (trace.tb_frame, trace.tb_lasti), trace.tb_next
    if innermost is None:
        return False
    frame, position = innermost
    return position >= 0 and dis.opname[frame.f_code.co_code[position]] == "RAISE_VARARGS"


def not_finite(name: str, value: object) -> Failure:
    """The failure of an environment that returned NaN or infinity."""
    return Failure(f"{name} is {_shortened(single_line(value), 80)}, not finite")


def _shortened(text: str, characters: int = MAX_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[:characters]}..."
