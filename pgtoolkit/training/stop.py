"""Signals that stop a run: the handlers only note them, and the loop asks between two updates."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self, final

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that ask a process to stop. Windows has no SIGHUP."""

STOPPING_LINE = b"stopping after this update; a second signal stops at once\n"

Handler = Callable[[int, FrameType | None], Any]


@final
class Interruption(KeyboardInterrupt):
    """A signal asked the command to stop. The command line exits with 128 + ``signum``."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


@contextlib.contextmanager
def handling(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Calls ``on_signal(signum)`` at the first of :data:`STOP_SIGNALS` in the block.

    A second signal has its default action: it ends the process at once. A signal that was ignored
    before stays ignored (``nohup``). The handlers are restored at the end of the block. Only the
    main thread may set handlers, so nothing changes in another one. A process that is forked inside
    the block gets the default action.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handler(signum: int, _: FrameType | None) -> None:
        for each in installed:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() == owner:
            on_signal(signum)
        else:
            os.kill(os.getpid(), signum)

    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    # None is a handler that was not set from Python: it cannot be set again afterwards.
    installed = [s for s, old in before.items() if old not in (signal.SIG_IGN, None)]
    for signum in installed:
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum in installed:
            signal.signal(signum, before[signum])


def raise_interruption(signum: int) -> None:
    """Ends what is under way by an exception, as Python does at SIGINT.

    Raises:
        Interruption: always.
    """
    raise Interruption(signum)


@final
class StopSignals:
    """Notes the first signal that asks to stop. Use as a context manager around the training loop.

    A handler that raised an exception would lose the update under way, and a signal would be lost
    in code that catches every exception.

    Attributes:
        signum: the signal; None as long as there was none.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._handling = handling(self._note)

    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        return self.signum is not None

    def _note(self, signum: int) -> None:
        self.signum = signum
        with contextlib.suppress(OSError):  # the terminal may be gone
            if os.isatty(2):
                os.write(2, STOPPING_LINE)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._handling.__exit__(None, None, None)
