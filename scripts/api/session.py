"""What a call from Python changes in this process while it runs, and puts back."""

import contextlib
import logging
from collections.abc import Iterator

import torch

from pgtoolkit.errors import python_words
from pgtoolkit.words import in_python

LOG = logging.getLogger("pgtoolkit")


@contextlib.contextmanager
def python_session() -> Iterator[None]:
    """A block in which errors and warnings have the words of Python.

    After it torch has as many threads as before; a run sets its own number.

    Raises:
        RequestError: the block raised it; its message names no flags.
    """
    threads = torch.get_num_threads()
    LOG.addFilter(_reworded)
    try:
        with python_words():
            yield
    finally:
        LOG.removeFilter(_reworded)
        torch.set_num_threads(threads)


def _reworded(record: logging.LogRecord) -> bool:
    """Rewrites the message of a warning; every record passes."""
    record.msg, record.args = in_python(record.getMessage()), ()
    return True
