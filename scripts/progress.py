"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from typing import final

from pgtoolkit.scripts.bar_view import BarView
from pgtoolkit.training import Progress

SECONDS_BETWEEN_LINES = 5.0


@final
class ProgressView(BarView):
    """Shows where the training stands. Use as a context manager and call with each progress."""

    def __init__(self, total_steps: int) -> None:
        super().__init__("training", total_steps)
        self.total_steps = total_steps
        self._last_line = 0.0

    def __call__(self, progress: Progress) -> None:
        finished = progress.finished(self.total_steps)
        if self.console.is_terminal:
            # The last whole window may end short of the total: that is all there is.
            done = self.total_steps if finished else progress.num_steps
            self._bar.update(self._task, completed=done, description=describe(progress))
            return
        if finished or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(
                f"{progress.num_steps}/{self.total_steps} steps  {describe(progress)}", flush=True
            )


def describe(progress: Progress) -> str:
    """Returns, and the variance of each gradient that has been measured."""
    parts = []
    if progress.mean_return is not None:
        parts.append(f"return {progress.mean_return:.1f}")
    if progress.eval_return is not None:
        parts.append(f"evaluation {progress.eval_return:.1f}")
    for name in ("score_function", "pathwise", "mixed"):
        variance = progress.scalars.get(f"gradient/{name}/variance")
        if variance is not None:
            parts.append(f"{name.replace('_', ' ')} variance {variance:.2g}")
    return "  ".join(parts) or "training"
