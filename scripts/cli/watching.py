"""A function that follows a training and may stop it."""

from collections.abc import Callable
from typing import final

from pgtoolkit.training.progress import Progress

Watch = Callable[[Progress], bool]
"""Called after every update; True asks to stop."""


def unwatched(_: Progress) -> bool:
    """Never asks to stop."""
    return False


@final
class Watched:
    """Shows every progress, then asks whether to stop; a request to stop stays.

    Args:
        show: displays the progress.
        watch: says whether to stop.
    """

    def __init__(self, show: Callable[[Progress], None], watch: Watch) -> None:
        self._show, self._watch, self._stop = show, watch, False

    def __call__(self, progress: Progress) -> None:
        self._show(progress)
        self._stop = self._watch(progress) or self._stop

    def stop_requested(self) -> bool:
        return self._stop
