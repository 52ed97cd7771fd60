"""Settings of the C library's memory allocator."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

TRIM_THRESHOLD = 256 * 2**20
"""Bytes of freed memory that the process keeps before it returns any to the system."""

MMAP_THRESHOLD = 32 * 2**20
"""Bytes of a block from which it is mapped separately; glibc allows no larger threshold."""


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next tensors; does nothing on other C libraries.

    By default glibc returns blocks of a few megabytes to the system at once, and each new tensor of
    that size then costs page faults: nearly half the time of a backward pass with every
    trajectory's gradient, 256 trajectories of 32 steps. Only commands call this: a library should
    not change its user's process.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
