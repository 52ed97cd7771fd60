"""Standard output and error: whatever becomes of them, no text is an error and no run is lost."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Literal, final


def prepare() -> None:
    """Makes standard output and error usable, whatever the process was started with.

    Closed ones (``>&-``) become the null device: the next file that is opened would get their
    numbers otherwise, and messages would be written into it. Characters that the encoding lacks are
    written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open to the end
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> OSError | None:
    """Writes out what is waiting in standard output; returns the error if that fails.

    After an error the output is discarded, so that Python says nothing of it at its exit.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        discard()
        return error
    return None


def discard() -> None:
    """Discards standard output from now on."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


def report(text: str) -> None:
    """Prints to standard error; an error there cannot be told to anybody."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def unfailing_output() -> Iterator[None]:
    """A block in which printing never fails: a training is worth more than its progress lines.

    When the reader of a pipe ends (``| head -1``), the disk of a log file is full, or the terminal
    goes away, the text is lost and the run goes on. Streams that are no files of the system's are
    left as they are.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in before.items():
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
                setattr(sys, name, _unfailing(stream.fileno(), stream.encoding))
    try:
        yield
    finally:
        for name, stream in before.items():
            if getattr(sys, name) is not stream:
                getattr(sys, name).flush()
                setattr(sys, name, stream)


@contextlib.contextmanager
def others_to(place: Literal["stderr"] | None) -> Iterator[IO[str]]:
    """A block in which only the caller writes to standard output, through the stream that it gets.

    What others print goes elsewhere: environments, libraries, code in C and worker processes, which
    inherit the file. Standard output that is no file of the system's is kept from Python code only.

    Args:
        place: standard error, or None to discard it.
    """
    stdout = sys.stdout
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        elsewhere = null if place is None else sys.stderr
        stack.enter_context(contextlib.redirect_stdout(elsewhere))
        try:
            stdout.flush()
            numbers = stdout.fileno(), elsewhere.fileno()
        except (OSError, ValueError):
            yield stdout
            return
        own = os.dup(numbers[0])
        stack.callback(os.close, own)
        os.dup2(numbers[1], numbers[0])
        try:
            with _unfailing(own, stdout.encoding) as stream:
                yield stream
        finally:
            elsewhere.flush()
            os.dup2(own, numbers[0])


def leave_to(place: Literal["stderr"] | None) -> None:
    """What is printed until the process ends goes elsewhere: libraries print while they end.

    Args:
        place: standard error, or None to discard it.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        if sys.stdout.fileno() == 1:  # the process's own, which no program around it reads on
            target = sys.stderr.fileno() if place else os.open(os.devnull, os.O_WRONLY)
            os.dup2(target, 1)


def _unfailing(number: int, encoding: str) -> io.TextIOWrapper:
    raw = _Unfailing(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True
    )


@final
class _Unfailing(io.FileIO):
    """A file whose writes always succeed; what cannot be written is lost."""

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            return super().write(data) or size
        except OSError:
            return size
