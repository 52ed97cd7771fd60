"""Environment steps per second of a run, lately, and the time that is left."""

import time
from collections import deque
from collections.abc import Callable
from typing import final

RECENT_SECONDS = 30.0
"""The speed is that of this last time, because it changes, and a resumed run starts late."""

UPDATES_BEFORE_ESTIMATE = 3
"""No time left is told before: the first update compiles, and an evaluation comes before it."""


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
        self._num_updates = 0

    def mark(self, num_steps: int) -> None:
        """Notes the number of steps at the present time, after an update."""
        now = self._clock()
        self._num_updates += 1
        self._marks.append((num_steps, now))
        if self._num_updates == 2:
            self._marks.popleft()  # the time of the first update
        while len(self._marks) > 2 and self._marks[1][1] <= now - RECENT_SECONDS:
            self._marks.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Mean over the last ``RECENT_SECONDS``; None before the first steps."""
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if last > first and end > start else None

    def seconds_left(self, total_steps: int) -> float | None:
        """Time until ``total_steps`` at the present speed; None in the first updates."""
        speed, steps = self.steps_per_second, max(0, total_steps - self._marks[-1][0])
        if speed is None or self._num_updates < UPDATES_BEFORE_ESTIMATE:
            return None
        return steps / speed
