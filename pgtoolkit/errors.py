"""The two exceptions that the command line reports, and text for their messages."""


def single_line(value: object) -> str:
    """``str(value)`` on one line, for messages; that of a Gymnasium space may have several."""
    return " ".join(str(value).split())


class RequestError(ValueError):
    """A wrong request: a name, a value, or an environment that cannot do what is asked.

    The message says what is wrong, why, and what to do. The command line prints it and exits 2.
    """


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
