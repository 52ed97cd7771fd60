"""How ordinary environments are stepped, and what happens when one of them fails."""

import dataclasses
from typing import Literal, final

Vectorization = Literal["sync", "async"]
OnFault = Literal["stop", "drop", "restart"]


@final
@dataclasses.dataclass(frozen=True)
class Stepping:
    """Where environments run, how long they may take, and what a fault does."""

    vectorization: Vectorization = "sync"
    """sync: one after the other in this process; async: each in a worker process of its own."""
    step_timeout: float | None = None
    """Seconds that an environment may take for a step with the reset after it, or for a reset; None
    is without limit."""
    on_fault: OnFault = "stop"
    """stop: a fault is an error; drop: the environment is taken out; restart: it is made again."""
    divided: bool = False
    """Whether the processes of the run divide the environments among them; otherwise each process
    steps all of them."""
    needs_episodes: bool = False
    """Whether restarts are in vain unless an episode ends between them, as in an evaluation, which
    waits for ends; otherwise one good step is enough."""


PLAIN = Stepping()
"""In this process, without a limit, and a fault stops."""
