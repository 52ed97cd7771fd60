"""Environment steps per second of a run, lately, and the time that is left."""

import time
from collections import deque
from collections.abc import Callable
from typing import final

RECENT_SECONDS = 30.0
"""The speed is that of this last time: the first update compiles, and a resumed run starts late."""


@final
class Pace:
    """Follows the number of environment steps over time.

    Args:
        num_steps: environment steps when the clock starts.
        clock: gives the time in seconds.
    """

    def __init__(self, num_steps: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks = deque([(num_steps, clock())])

    def mark(self, num_steps: int) -> None:
        """Notes the number of steps at the present time."""
        now = self._clock()
        self._marks.append((num_steps, now))
        while len(self._marks) > 2 and self._marks[1][1] <= now - RECENT_SECONDS:
            self._marks.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Mean over the last ``RECENT_SECONDS``; None before the first steps."""
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if last > first and end > start else None

    def seconds_left(self, total_steps: int) -> float | None:
        """Time until ``total_steps`` at the present speed; None while that is not known."""
        speed, steps = self.steps_per_second, max(0, total_steps - self._marks[-1][0])
        return None if speed is None else steps / speed
