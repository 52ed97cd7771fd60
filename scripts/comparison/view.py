"""The progress of a comparison on the screen: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from typing import final

from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.cli.progress import BarView
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
    """Shows environment steps and runs; a line for each run that ends."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        super().__init__("comparison", sum(run.settings.loop.total_steps for run in runs))
        self.num_runs = len(runs)

    def advance(self, steps: int, complete: int, running: int, failed: int) -> None:
        text = f"{complete} of {self.num_runs} runs complete, {running} at work"
        finished = complete + failed == self.num_runs
        self.show(steps, text + (f", {failed} failed" if failed else ""), finished=finished)

    def complete(self, run: PlannedRun) -> None:
        result = final_evaluation(run)
        assert result is not None, "the run is complete"
        mean = format_number(result["mean_return"], 4)
        self.say(f"{run.title}: final return {mean} ({run.final_episodes} episodes)")

    def failed(self, run: PlannedRun, how: str) -> None:
        self.say(f"{run.title}: failed; {how}")
