"""The two ways in which a request can fail."""


def one_line(value: object) -> str:
    """Any object's text on one line, for messages: a space's bounds may span several."""
    return " ".join(str(value).split())


class RequestError(ValueError):
    """The request is wrong: a name, a value, or an environment that cannot do what is asked.

    The message says what is wrong, why, and what to do. The command line prints it and exits 2.
    """


class NonFiniteError(RuntimeError):
    """A number became infinite or NaN while running. The command line prints it and exits 1.

    Attributes:
        tensor: the name of the tensor that was not finite first.
        step: the step of the window at which it began, or None where there is no time axis.
        env_index: the environment (trajectory) in which it began, or None.
    """

    def __init__(self, tensor: str, step: int | None = None, env_index: int | None = None) -> None:
        self.tensor, self.step, self.env_index = tensor, step, env_index
        where = "" if step is None else f" at step {step} of the window"
        which = "" if env_index is None else f", environment {env_index}"
        super().__init__(f"{tensor} is not finite{where}{which}")
