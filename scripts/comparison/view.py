"""The progress of a comparison on the screen: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Sequence
from typing import final

from pgtoolkit.scripts.cli.display.progress import BarView
from pgtoolkit.scripts.cli.display.training_status import time_text
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.stages import final_evaluation


class LinesView(BarView):
    """A bar of the steps of many runs, and lines that stay."""

    def say(self, text: str) -> None:
        """Prints lines; on a terminal above the bar."""
        if self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)


@final
class ComparisonView(LinesView):
    """Shows environment steps and runs; a line for each run that ends.

    Args:
        runs: what is to be run.
        clock: gives the time in seconds.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("comparison", sum(map(planned_steps, runs)))
        self.num_runs = len(runs)
        self.kept = {run.name for run in runs if final_evaluation(run) is not None}
        self._clock, self._start = clock, clock()
        self._new_steps = sum(planned_steps(run) for run in runs if run.name not in self.kept)
        self._kept_steps, self._num_new = 0, 0
        # The steps that half a run already has took no time of this call.
        self._estimates = not any(run.path.exists() and run.name not in self.kept for run in runs)

    def begin(self, jobs: int) -> None:
        """Says how many runs there are, and how many are at work at a time."""
        kept = f", {len(self.kept)} of them complete" if self.kept else ""
        self.say(f"{self.num_runs} run{'s' * (self.num_runs > 1)}{kept}; at most {jobs} at a time")

    def advance(self, steps: int, complete: int, running: int, failed: int) -> None:
        if self._estimates and self._num_new:
            self._estimates = False
            self._say_time_left(steps - self._kept_steps)
        text = f"{complete} of {self.num_runs} runs complete, {running} at work"
        finished = complete + failed == self.num_runs
        self.show(steps, text + (f", {failed} failed" if failed else ""), finished=finished)

    def _say_time_left(self, steps: int) -> None:
        """Says how long the other runs take at the speed so far.

        Args:
            steps: environment steps of this call.
        """
        if steps < self._new_steps:
            seconds = (self._clock() - self._start) * (self._new_steps - steps) / steps
            left = time_text(seconds)
            self.say(f"the first run has ended: about {left} left if the others are as fast")

    def complete(self, run: PlannedRun) -> None:
        result = final_evaluation(run)
        assert result is not None, "the run is complete"
        mean = format_number(result["mean_return"], 4)
        self.say(f"{run.title}: final return {mean} ({run.final_episodes} episodes)")
        if run.name in self.kept:
            self._kept_steps += planned_steps(run)
        else:
            self._num_new += 1

    def failed(self, run: PlannedRun, how: str) -> None:
        self.say(f"{run.title}: failed; {how}")


def planned_steps(run: PlannedRun) -> int:
    """Environment steps of a run, as they were asked for."""
    return run.settings.loop.total_steps
