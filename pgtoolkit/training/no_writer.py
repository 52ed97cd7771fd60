"""The writer of a process that writes nothing, because another process of the run does."""

from collections.abc import Mapping
from typing import Any, Self, final

from pgtoolkit.agent import Metrics
from pgtoolkit.training.writer import as_floats


@final
class NoWriter:
    """Has the methods of :class:`~pgtoolkit.training.writer.RunWriter`, and no file."""

    def begin(self, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        pass

    def write(self, metrics: Metrics, step: int) -> dict[str, float]:
        """The scalars as floats."""
        return as_floats(metrics)

    def write_text(self, tag: str, text: str, step: int) -> None:
        pass

    def end(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
