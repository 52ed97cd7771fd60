"""The exceptions that the command line reports, and text for their messages."""

from collections.abc import Mapping
from typing import Any


def single_line(value: object) -> str:
    """``str(value)`` on one line, for messages; that of a Gymnasium space may have several."""
    return " ".join(str(value).split())


class RequestError(ValueError):
    """A wrong request: a name, a value, or an environment that cannot do what is asked.

    The message says what is wrong, why, and what to do. The command line prints it and exits 2.
    """


class RunFileError(RuntimeError):
    """A file of the run folder cannot be written. The command line prints it and exits 1."""


class NonFiniteError(RuntimeError):
    """A tensor became infinite or NaN during a run. The command line prints it and exits 1.

    Attributes:
        tensor: the name of the first tensor that was not finite.
        step: the step of the window at which it happened; None if there is no time axis.
        env_index: the environment (trajectory) in which it happened; None if there is none.
    """

    def __init__(self, tensor: str, step: int | None = None, env_index: int | None = None) -> None:
        self.tensor, self.step, self.env_index = tensor, step, env_index
        where = "" if step is None else f" at step {step} of the window"
        which = "" if env_index is None else f", environment {env_index}"
        super().__init__(f"{tensor} is not finite{where}{which}")


class EnvFaultError(RuntimeError):
    """An environment failed during a run. The command line prints it and exits 1.

    Attributes:
        env_index: the environment; None where all of them are one batch.
        step: its step, counted from the start of its episode; None at a reset.
        seed: the seed of the episode's start, None where it is not known.
        replay: what repeats the fault, as JSON can hold it: the start and the actions.
    """

    def __init__(
        self,
        message: str,
        *,
        env_index: int | None = None,
        step: int | None = None,
        seed: int | None = None,
        replay: Mapping[str, Any] | None = None,
    ) -> None:
        self.env_index, self.step, self.seed = env_index, step, seed
        self.replay = dict(replay or {})
        super().__init__(message)
