"""Torch's number of threads, which a run sets for itself."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """A block after which torch has as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
