"""What a process of a run tells that is not the first one: nothing."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

from pgtoolkit import parallel
from pgtoolkit.scripts.cli.display.run_views import RunView, ShownRun, SilentRun
from pgtoolkit.scripts.cli.streams import others_to, unfailing_output

LOG = logging.getLogger("pgtoolkit")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """A block in which nothing is printed, and nothing but errors is logged."""
    level = LOG.level
    LOG.setLevel(logging.ERROR)
    try:
        with unfailing_output(), others_to(None), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        LOG.setLevel(level)


def view_here(view: RunView | None) -> RunView:
    """The view of this process: the given one, or that for people, in the first process."""
    if parallel.rank() != 0:
        return SilentRun(hushed)
    return view or ShownRun()
