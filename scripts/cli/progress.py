"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from pgtoolkit.training.loop import Progress

SECONDS_BETWEEN_LINES = 5.0


class BarView:
    """The bar that each command's view derives from. Use as a context manager.

    Args:
        what: the description until there is another.
        total: of what ``completed`` counts.
    """

    def __init__(self, what: str, total: int) -> None:
        self.console = Console()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


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
