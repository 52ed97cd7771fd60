"""What a vector environment does with one environment, wherever that is."""

from collections.abc import Callable
from typing import Any, Protocol

from pgtoolkit.envs.vectorized.causes import Failure
from pgtoolkit.envs.vectorized.play import Answer, EnvFacts, NewEpisode


class SingleEnv(Protocol):
    """One environment, in this process or in a worker."""

    @property
    def facts(self) -> EnvFacts:
        """Its spaces, metadata and time limit."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> NewEpisode | Failure:
        """Resets it."""

    def send_step(self, action: Any) -> None:
        """Gives it an action."""

    def receive_step(self) -> Answer | Failure:
        """The result of the step, after which an episode that ended has been reset."""

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(env, *arguments)``."""

    def close(self, failure: Failure | None = None) -> None:
        """Closes it; after a failure, without waiting for one that does not answer."""
