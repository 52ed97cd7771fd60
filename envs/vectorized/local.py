"""An environment in this process."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

from pgtoolkit.envs.vectorized.causes import Failure, StepTimeout, failure_of
from pgtoolkit.envs.vectorized.play import Answer, NewEpisode, facts_of, play_reset, play_step
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv


@final
class LocalEnv:
    """Steps an environment when the answer is asked for.

    Args:
        make_env: makes the environment.
        step_timeout: seconds that it may take for an answer, or None. Python code is interrupted
            then; a call into a C library is not, which only a worker process can stop.
    """

    def __init__(self, make_env: Callable[[], AnyEnv], step_timeout: float | None) -> None:
        self.env, self._timeout = make_env(), step_timeout
        self.facts = facts_of(self.env)
        self._action: Any = None

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> NewEpisode | Failure:
        answer: NewEpisode | Failure = self._limited(lambda: play_reset(self.env, seed, options))
        return answer

    def send_step(self, action: Any) -> None:
        self._action = action

    def receive_step(self) -> Answer | Failure:
        if self._timeout is None:
            return play_step(self.env, self._action)
        answer: Answer | Failure = self._limited(lambda: play_step(self.env, self._action))
        return answer

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(env, *arguments)``, whose exceptions are raised."""
        return function(self.env, *arguments)

    def close(self, failure: Failure | None = None) -> None:
        """Closes the environment; one that failed may fail again, which is then ignored."""
        if failure is None:
            self.env.close()
            return
        try:
            with alarm(self._timeout):
                self.env.close()
        except BaseException as error:
            failure_of(error)  # raises if a signal of the user's was the reason

    def _limited(self, play: Callable[[], Any]) -> Any:
        try:
            with alarm(self._timeout):
                return play()
        except StepTimeout as error:  # between the environment's last line and the clock's stop
            return failure_of(error)


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Raises :class:`StepTimeout` in the body, every so many seconds, as long as it runs.

    Raises:
        RequestError: there are no alarms here: in another thread than the main one, or on Windows.
    """
    if seconds is None:
        yield
        return
    if not hasattr(signal, "setitimer") or (
        threading.current_thread() is not threading.main_thread()
    ):
        raise RequestError(
            "--step-timeout needs signals, which only the main thread has (and not on Windows): "
            "leave it out, or use --vectorization async"
        )
    running = True

    def ring(*_: object) -> None:
        if running:
            raise StepTimeout(f"no answer within {seconds} s (--step-timeout)")

    before = signal.signal(signal.SIGALRM, ring)
    # It rings again, because the environment may catch the exception.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
