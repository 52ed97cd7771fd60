"""What a training tells: for people, nothing but its last line, or JSON for other programs."""

import contextlib
import json
import logging
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, NamedTuple, Protocol, final

from rich.console import Console
from rich.live import Live

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.display.pace import Pace
from pgtoolkit.scripts.cli.display.progress import SECONDS_BETWEEN_LINES
from pgtoolkit.scripts.cli.display.progress_line import ProgressLine
from pgtoolkit.scripts.cli.display.training_status import TrainingStatus, plain_line
from pgtoolkit.scripts.cli.files import json_value
from pgtoolkit.scripts.cli.streams import leave_to, others_to, unfailing_output
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder

LOG = logging.getLogger("pgtoolkit")

Show = Callable[[Progress], None]
"""Shows the progress of a training; called after every update."""

SECONDS_BETWEEN_OBJECTS = 1.0

LABEL = re.compile(r"(\w[\w ]*: {2,}| *- )")
"""What the further lines of a sentence of the report are indented below."""


@final
class Beginning(NamedTuple):
    """A run that begins or goes on."""

    folder: RunFolder
    settings: Mapping[str, Any]
    step: int
    """Environment steps that it already has."""
    sentences: Sequence[str]
    """What a user should know of its environments."""


@final
class Ending(NamedTuple):
    """A run that has ended by itself, or was stopped by the function that watched it."""

    folder: RunFolder
    summary: Mapping[str, Any]
    finished: bool
    lines: Sequence[str]
    """The closing report."""


class RunView(Protocol):
    """What a training tells, and where it writes it."""

    def output(self) -> AbstractContextManager[None]:
        """The block of the whole training; in it printing never fails."""

    def begin(self, beginning: Beginning) -> None:
        """Tells of the run before its first update."""

    def follow(self, total_steps: int, num_steps: int) -> AbstractContextManager[Show]:
        """The block of the updates, with the function that shows them.

        Args:
            total_steps: environment steps that are planned.
            num_steps: environment steps that the run already has.
        """

    def end(self, ending: Ending) -> None:
        """Tells how the run has ended."""


@final
class ShownRun:
    """For people: sentences, a progress line on a terminal or plain lines, a closing report."""

    def output(self) -> AbstractContextManager[None]:
        return unfailing_output()

    def begin(self, beginning: Beginning) -> None:
        goes_on = f", from step {beginning.step}" if beginning.step else ""
        print_wrapped([f"run: {beginning.folder.path}{goes_on}", *beginning.sentences])

    def follow(self, total_steps: int, num_steps: int) -> AbstractContextManager[Show]:
        console, pace = Console(), Pace(num_steps)
        if console.is_terminal:
            return on_terminal(console, total_steps, pace)
        return in_lines(total_steps, pace)

    def end(self, ending: Ending) -> None:
        print_wrapped(ending.lines)


def print_wrapped(lines: Sequence[str]) -> None:
    """Prints lines; on a terminal those that are too long go on below, between two words."""
    if sys.stdout.isatty():
        width = Console().width
        lines = [line for long in lines for line in wrapped(long, width)]
    print(*lines, sep="\n", flush=True)


def wrapped(line: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns, but for longer words, indented as what they go on."""
    label = LABEL.match(line)
    indent = " " * len(label[0] if label else "")
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


@contextlib.contextmanager
def on_terminal(console: Console, total_steps: int, pace: Pace) -> Iterator[Show]:
    """Keeps one line up to date at the bottom of a terminal; what is printed goes above it."""
    line = ProgressLine()

    def show(progress: Progress) -> None:
        pace.mark(progress.num_steps)
        line.status = TrainingStatus.of(progress, total_steps, pace)

    with Live(line, console=console, refresh_per_second=8):
        yield show


@contextlib.contextmanager
def in_lines(total_steps: int, pace: Pace) -> Iterator[Show]:
    """Prints a line, at most one in five seconds, and the last one."""
    due = Rarely(SECONDS_BETWEEN_LINES)

    def show(progress: Progress) -> None:
        pace.mark(progress.num_steps)
        if due(progress.finished(total_steps)):
            print(plain_line(TrainingStatus.of(progress, total_steps, pace)), flush=True)

    yield show


@final
class QuietRun:
    """The last line on standard output, errors on standard error, nothing else."""

    def __init__(self) -> None:
        self._out: IO[str] | None = None

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        level = LOG.level
        LOG.setLevel(logging.ERROR)
        try:
            with unfailing_output(), others_to(None) as self._out, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            LOG.setLevel(level)
            leave_to(None)

    def begin(self, beginning: Beginning) -> None:
        pass

    @contextlib.contextmanager
    def follow(self, total_steps: int, num_steps: int) -> Iterator[Show]:
        yield lambda progress: None

    def end(self, ending: Ending) -> None:
        told = [line for line in ending.lines if line.startswith("return:")] or ending.lines
        print(f"{ending.folder.path}: {' '.join(told[0].split())}", file=self._out, flush=True)


@final
class SilentRun:
    """Nothing: for a Python program that says itself what there is to say.

    Args:
        output: makes the block of the whole training.
    """

    def __init__(
        self, output: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self._output = output

    def output(self) -> AbstractContextManager[None]:
        return self._output()

    def begin(self, beginning: Beginning) -> None:
        pass

    @contextlib.contextmanager
    def follow(self, total_steps: int, num_steps: int) -> Iterator[Show]:
        yield lambda progress: None

    def end(self, ending: Ending) -> None:
        pass


@final
class JsonRun:
    """One JSON object on a line of standard output for each event; all else to standard error."""

    def __init__(self) -> None:
        self._out: IO[str] | None = None

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        try:
            with unfailing_output(), others_to("stderr") as self._out:
                yield
        finally:
            leave_to("stderr")

    def begin(self, beginning: Beginning) -> None:
        names = ("agent", "env", "seed", "total_steps")
        settings = {name: beginning.settings[name] for name in names}
        place = str(beginning.folder.path)
        self._write({"event": "start", "run": place, "step": beginning.step, **settings})

    @contextlib.contextmanager
    def follow(self, total_steps: int, num_steps: int) -> Iterator[Show]:
        pace, due, evaluated = Pace(num_steps), Rarely(SECONDS_BETWEEN_OBJECTS), 0
        unwritten: Progress | None = None

        def write(progress: Progress) -> None:
            status = TrainingStatus.of(progress, total_steps, pace)
            self._write({"event": "progress", **status.as_json()})

        def show(progress: Progress) -> None:
            nonlocal unwritten, evaluated
            pace.mark(progress.num_steps)
            forced = progress.next_eval != evaluated or progress.finished(total_steps)
            unwritten, evaluated = progress, progress.next_eval
            if due(forced):
                write(progress)
                unwritten = None

        try:
            yield show
        finally:
            if unwritten is not None:
                write(unwritten)

    def end(self, ending: Ending) -> None:
        names = {
            "steps": "step",
            "updates": "updates",
            "training_return": "mean_return",
            "eval_return": "eval_return",
            "best_eval_return": "best_return",
            "cpu_seconds": "cpu_seconds",
            "diagnosis": "diagnosis",
        }
        place, policy = str(ending.folder.path), str(ending.folder.saved_policy("best"))
        event = {"event": "end", "run": place, "policy": policy, "finished": ending.finished}
        self._write(event | {key: ending.summary[name] for name, key in names.items()})

    def _write(self, event: Mapping[str, Any]) -> None:
        text = json.dumps(json_value(dict(event)), allow_nan=False)
        print(text, file=self._out, flush=True)


@final
class Rarely:
    """Says whether something is due: when it is forced, or was not due for some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, -float("inf")

    def __call__(self, forced: bool) -> bool:
        now = time.monotonic()
        if not forced and now - self._last < self._seconds:
            return False
        self._last = now
        return True


def view_of(*, quiet: bool, json_lines: bool) -> RunView:
    """The view that the command's options ask for.

    Raises:
        RequestError: both are asked for.
    """
    if quiet and json_lines:
        raise RequestError("--quiet and --json-lines ask for different outputs: give one of them")
    return QuietRun() if quiet else JsonRun() if json_lines else ShownRun()
