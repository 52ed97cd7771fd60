"""What a process of a run tells that is not the first one: nothing."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import final

from pgtoolkit import parallel
from pgtoolkit.scripts.cli.display.run_views import (
    Beginning,
    Ending,
    RunView,
    Show,
    ShownRun,
)
from pgtoolkit.scripts.cli.streams import others_to, unfailing_output

LOG = logging.getLogger("pgtoolkit")


@final
class FollowingRun:
    """Nothing, and no warnings: process 0 tells what there is to tell."""

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        level = LOG.level
        LOG.setLevel(logging.ERROR)
        try:
            with unfailing_output(), others_to(None), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            LOG.setLevel(level)

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
