"""What a process of a run tells that is not the first one: nothing."""

import contextlib
from collections.abc import Iterator
from typing import final

from pgtoolkit import parallel
from pgtoolkit.scripts.cli.display.run_views import (
    Beginning,
    Ending,
    QuietRun,
    RunView,
    Show,
    ShownRun,
)


@final
class FollowingRun:
    """Nothing, and no warnings: process 0 tells what there is to tell."""

    def __init__(self) -> None:
        self._quiet = QuietRun()

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        with self._quiet.output():
            yield

    def begin(self, beginning: Beginning) -> None:
        pass

    @contextlib.contextmanager
    def follow(self, total_steps: int, num_steps: int) -> Iterator[Show]:
        yield lambda progress: None

    def end(self, ending: Ending) -> None:
        pass


def view_here(view: RunView | None) -> RunView:
    """The view of this process: the given one, or that for people, in the first process."""
    if parallel.rank() != 0:
        return FollowingRun()
    return view or ShownRun()
