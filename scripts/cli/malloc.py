"""Memory that is freed is kept for the next tensor, instead of going back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

KEPT = 256 * 2**20

LARGEST = 32 * 2**20
"""Bytes: the C library allows no larger one."""


def keep_freed_memory() -> None:
    """Asks the C library (glibc; elsewhere nothing happens) to keep freed memory of this process.

    By default it returns blocks of a few megabytes at once, and each new tensor of that size is
    then paid for in page faults: of a backward with every trajectory's gradient, 256 trajectories
    of 32 steps, they were nearly half the time. For commands; a library does not decide this for
    its user.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
