"""An environment in a worker process."""

import pickle
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, final

from pgtoolkit.envs.vectorized.causes import Failure, failure_of
from pgtoolkit.envs.vectorized.launcher import Launcher, hang_up
from pgtoolkit.envs.vectorized.play import (
    Answer,
    EnvFacts,
    NewEpisode,
    facts_of,
    play_reset,
    play_step,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

LOOK_SECONDS = 1.0
"""Seconds between looks whether a worker that does not answer is still there."""

CLOSE_SECONDS = 2.0
"""Seconds that an environment has to close itself."""

Message = tuple[int, Callable[..., Any], tuple[Any, ...]]


def serve(connection: Connection, make_env: Callable[[], AnyEnv]) -> None:
    """A worker's life: makes the environment, and answers until the other end is closed."""
    try:
        env = make_env()
        answer: Any = facts_of(env)
    except BaseException as error:
        _send(connection, 0, failure_of(error))
        return
    _send(connection, 0, answer)
    while True:
        try:
            number, function, arguments = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            answer = function(env, *arguments)
        except BaseException as error:
            answer = failure_of(error)
        _send(connection, number, answer)


def _send(connection: Connection, number: int, answer: Any) -> None:
    """Sends an answer; one that cannot be sent becomes a failure."""
    try:
        message = pickle.dumps((number, answer), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        message = pickle.dumps((number, failure_of(error)), pickle.HIGHEST_PROTOCOL)
    try:
        connection.send_bytes(message)
    except OSError:  # the other end is closed, which the next read will see
        return


@final
class WorkerEnv:
    """Sends what is to be done to an environment in a worker process, and receives the answers.

    Args:
        launcher: starts the worker.
        step_timeout: seconds that the environment may take for an answer, or None. A worker that
            takes longer is killed.

    Raises:
        RuntimeError: there can be no more processes.
    """

    def __init__(self, launcher: Launcher, step_timeout: float | None) -> None:
        self._launcher, self._timeout = launcher, step_timeout
        try:
            self.pid, self._connection = launcher.start()
        except OSError as error:
            raise RuntimeError(f"its worker process cannot be started: {error}") from error
        # Answers carry the number of their question: one that was not waited for is passed over.
        self._number, self._deadline = 0, float("inf")
        self._is_gone = False
        self._exit_code: int | None = None
        self._facts: EnvFacts | None = None

    @property
    def facts(self) -> EnvFacts:
        """What is known of the environment; waits until it is made.

        Raises:
            RequestError: it cannot be made.
            RuntimeError: making it failed in another way, or its process ended.
        """
        if self._facts is None:
            self._facts = self._or_raise(self._receive())
        return self._facts

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> NewEpisode | Failure:
        self._send(play_reset, seed, options)
        answer: NewEpisode | Failure = self._receive()
        return answer

    def send_step(self, action: Any) -> None:
        self._send(play_step, action)

    def receive_step(self) -> Answer | Failure:
        answer: Answer | Failure = self._receive()
        return answer

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(env, *arguments)`` in the worker; the function is one of a module.

        Raises:
            RequestError: it raises one.
            RuntimeError: it raises another exception, or the worker ends.
        """
        self._send(function, *arguments)
        self._deadline = float("inf")
        return self._or_raise(self._receive())

    def close(self, failure: Failure | None = None) -> None:
        """Closes the environment and ends its worker, which is killed if it does not answer."""
        if self._is_gone:
            return
        if failure is None or failure.answers:
            self._send(_close)
            self._deadline = time.monotonic() + CLOSE_SECONDS
            self._receive()
        if not self._is_gone:
            self._end(kill=False)

    def _send(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._number += 1
        limit = float("inf") if self._timeout is None else self._timeout
        self._deadline = time.monotonic() + limit
        if self._is_gone:
            return
        try:
            message: Message = (self._number, function, arguments)
            self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:  # the worker is dead, which the next read will say
            return

    def _receive(self) -> Any:
        """The answer to the latest question, or the failure of a worker that is dead or hangs."""
        while not self._is_gone:
            try:
                if not self._wait():
                    self._end(kill=True)
                    late = f"no answer within {self._timeout} s (--step-timeout)"
                    return Failure(f"TimeoutError: {late}", answers=False)
                number, answer = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                return Failure(_end_in_words(self._end(kill=False)), answers=False)
            if number == self._number:
                return answer
        return Failure("its worker process has ended", answers=False)

    def _wait(self) -> bool:
        """Waits for a message; False if there is none until the deadline.

        Raises:
            EOFError: the worker has ended, though a process that it started holds its connection.
        """
        while not self._connection.poll(min(LOOK_SECONDS, self._left())):
            if self._left() == 0.0:
                return False
            self._exit_code = self._launcher.status(self.pid)
            if self._exit_code is not None and not self._connection.poll():
                raise EOFError
        return True

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _end(self, *, kill: bool) -> int | None:
        """Closes the connection, waits for the worker's end, and returns its exit code."""
        self._is_gone = True
        hang_up(self._connection.fileno())
        self._connection.close()
        if self._exit_code is None:
            self._exit_code = self._launcher.bury(self.pid, kill=kill)
        return self._exit_code

    def _or_raise(self, answer: Any) -> Any:
        if isinstance(answer, Failure):
            kind = RequestError if answer.is_request else RuntimeError
            raise kind(answer.cause)
        return answer


def _close(env: AnyEnv) -> None:
    env.close()


def _end_in_words(code: int | None) -> str:
    """How a worker ended: ``its worker process was killed by SIGSEGV``."""
    if code is None or code < -signal.NSIG:
        return "its worker process is gone"
    if code >= 0:
        return f"its worker process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its worker process was killed by {name}{memory}"
