"""The exceptions that the command line reports, and text for their messages."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, final

from pgtoolkit.words import in_python

LONGEST_WORD, LONGEST_MESSAGE = 300, 1500
"""Characters: a path of a few folders is shorter than the one, a sentence with a list of names
shorter than the other."""


def single_line(value: object) -> str:
    """``str(value)`` on one line, for messages; that of a Gymnasium space may have several."""
    return " ".join(str(value).split())


def bounded(message: object) -> str:
    """The message on one line of at most ``LONGEST_MESSAGE`` characters, for a terminal.

    It may quote what a user gave, of any length and with any characters. A word that is longer than
    ``LONGEST_WORD`` characters keeps its first 100 and its last 20, and characters that are not
    printed, or turn the text around, are escaped.
    """
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", _shortened, single_line(message))
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE - 400]} [...] {text[-380:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:100]}[...]{word[0][-20:]}"


class RequestError(ValueError):
    """A wrong request: a name, a value, or an environment that cannot do what is asked.

    The message says what is wrong, why, and what to do. The command line prints it and exits 2.
    """

    @property
    def with_flags(self) -> str:
        """The message in the words of the command line: ``--num-envs must be ...``."""
        return str(self.args[0]) if self.args else ""


@final
class SettingError(RequestError):
    """A wrong request whose message names settings.

    The message is written with the flags of the command line, which prints it so. As text it has
    the words of Python: ``num_envs must be at least 1, not -1``.
    """

    def __str__(self) -> str:
        return in_python(self.with_flags)


@contextlib.contextmanager
def python_words() -> Iterator[None]:
    """A block whose wrong requests were made in Python, and are told in its words.

    Raises:
        RequestError: the block raised it; its message and notes name no flags.
    """
    try:
        yield
    except RequestError as error:
        error.args = (in_python(error.with_flags),)
        if hasattr(error, "__notes__"):
            error.__notes__ = [in_python(note) for note in error.__notes__]
        raise


class RunFileError(RuntimeError):
    """A file of the run folder cannot be written. The command line prints it and exits 1."""


class LostProcessError(RuntimeError):
    """Another process of a run has ended. The command line prints it and exits 1."""


class ExportError(RuntimeError):
    """An exported policy does not act as the agent does. The command line prints it and exits 1."""


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
