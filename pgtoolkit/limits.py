"""The largest numbers that settings and command-line options may be. Imports nothing."""

MAX_COUNT = 10**9
"""Most steps, environments, episodes or passes; what fits into memory is less, and is said then."""

MAX_PASSES = 10_000
"""Most passes over one window, or minibatches of a pass: an update should end."""

MAX_INTEGER = 10**15
"""Largest integer that a setting may be: floating-point numbers still tell it from the next."""

MAX_FLOAT = 1e38
"""Largest number that a setting may be: float32 holds it, and three times as much."""

MAX_THREADS = 1024

MAX_LAYER = 65_536
"""Largest size of a hidden layer."""

MAX_CRITICS = 64
"""Most Q functions of an ensemble."""
