"""Takes recorded windows again, by the agent's own ``collect`` and ``update``."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.agent import Agent, Metrics
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.rollouts.replay import ReplayBuffer, with_transitions, without_transitions
from pgtoolkit.rollouts.rollout import RolloutState
from pgtoolkit.rollouts.tape import TapePlayer, unpack_events
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import any_numbers
from pgtoolkit.training.faults.flight_recorder import (
    MAX_STRIDE,
    NORM,
    SNAPSHOTS,
    Flight,
    copied,
    join,
)

WINDOWS = 1_000
"""Most windows that are taken again from a checkpoint, where no state was recorded."""


@final
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one window that was taken again."""

    flight: Flight
    before: dict[str, Any]
    """The agent's state before the window."""
    after: dict[str, Any]
    """The agent's state after it, or where it failed."""
    rollout: dict[str, Tensor] | None
    """The rollout state of ordinary environments before it."""
    changed: list[str]
    """Parts of the state that differ from what the last window left: something else changed
    them."""
    window: Window | None
    metrics: Metrics
    error: Exception | None

    @property
    def norm(self) -> float | None:
        """The norm of the followed gradient."""
        return float(self.metrics[NORM]) if NORM in self.metrics else None


def read_flights(recording: Mapping[str, Any]) -> list[Flight]:
    """The flights of a recording, the oldest first.

    Raises:
        RequestError: the recording is not of the right form.
    """
    try:
        flights = [
            Flight(**{**flight, "events": unpack_events(flight["events"])})
            for flight in recording["flights"]
        ]
        whole = bool(flights) and isinstance(flights[0].before, dict)
        whole &= len(flights) <= SNAPSHOTS * MAX_STRIDE and all(map(is_whole, flights))
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"the recording has another form ({single_line(error)}): the file was altered, or "
            "another version wrote it"
        ) from error
    if not whole:
        raise RequestError("the recording holds no state: the file was altered")
    return flights


def is_whole(flight: Flight) -> bool:
    """Whether the entries of a recorded flight are of the right kinds."""
    counts = all(isinstance(x, int) for x in (flight.num_steps, flight.num_updates))
    noise = isinstance(flight.noise, list) and all(
        isinstance(x, Tensor) and x.dim() >= 2 for x in flight.noise
    )
    states = all(isinstance(x, dict | None) for x in (flight.before, flight.rollout))
    return counts and noise and states


@final
class Replay:
    """An agent that takes recorded windows again.

    Args:
        agent: made from the run's settings; on ``player`` where the environments are ordinary ones.
        player: stands in for ordinary environments; None for differentiable ones.
        replay: the recorded state of the agent's replay buffer at the fault, if there is one.

    Attributes:
        noise_differs: whether the recorded noise of the last window was not that of the generator.
    """

    def __init__(
        self,
        agent: Agent,
        player: TapePlayer | None,
        replay: Mapping[str, Any] | None = None,
    ) -> None:
        self.agent, self.player, self.replay = agent, player, replay
        self.collector: Any = getattr(agent, "collector", None)
        self.noise_differs = False

    def restore(self, state: Mapping[str, Any], rollout: Mapping[str, Tensor] | None) -> None:
        """Puts the agent into a recorded state.

        Raises:
            RequestError: the state does not fit the agent.
        """
        state = dict(state)
        if self.player is not None:
            self.player.load([])
            if isinstance(state.get("collector"), dict):
                state["collector"] = state["collector"] | {"env": {}}
        try:
            with any_numbers():
                self.agent.load_state_dict(copied(with_transitions(state, self.transitions())))
            if self.player is not None and rollout is not None:
                self.collector.rollout_state = RolloutState(**rollout)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise RequestError(
                f"the recording does not fit the run's config.yaml: was that edited? "
                f"({single_line(error)})"
            ) from error

    def transitions(self) -> Mapping[str, Any] | None:
        """The latest known state of the agent's replay buffer; None without one."""
        buffer = getattr(self.agent, "replay", None)
        own = buffer.state_dict() if isinstance(buffer, ReplayBuffer) else None
        return own if self.replay is None else self.replay

    def fly(self, flight: Flight) -> tuple[Window | None, Metrics, Exception | None]:
        """One window from the present state: its data, its metrics, or what was raised."""
        window: Window | None = None
        if self.player is not None:
            self.player.load(flight.events)
        if self.collector is not None:
            self.collector.noise_passes = self._recorded(flight.noise)
        try:
            window = self.agent.collect()
            return window, self.agent.update(window), None
        except Exception as error:
            return window, {}, error

    def _recorded(self, noise: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """The function that puts recorded noise in the place of what was drawn again."""
        remaining = list(noise)
        self.noise_differs = False

        def passes(drawn: Tensor) -> Tensor:
            if not remaining:
                return drawn
            kept = remaining.pop(0).to(drawn.device)
            self.noise_differs |= not same_bits(kept, drawn)
            return kept

        return passes

    def run(self, flights: Sequence[Flight]) -> list[Outcome]:
        """Takes all windows again, each from its recorded state where it has one."""
        outcomes: list[Outcome] = []
        for flight in flights:
            changed: list[str] = []
            if flight.before is not None:
                if outcomes:
                    changed = self.different(outcomes[-1].after, flight.before)
                self.restore(flight.before, flight.rollout)
            before, rollout = self.state(), self.rollout()
            window, metrics, error = self.fly(flight)
            after = self.state()
            window = None if window is None else window.detach()
            outcomes.append(
                Outcome(flight, before, after, rollout, changed, window, metrics, error)
            )
            if error is not None:
                break
        return outcomes

    def state(self) -> dict[str, Any]:
        """A copy of the agent's state, without the transitions of a replay buffer."""
        found: dict[str, Any] = copied(without_transitions(self.agent.state_dict()))
        return found

    def rollout(self) -> dict[str, Tensor] | None:
        """A copy of the rollout state of ordinary environments."""
        if self.player is None:
            return None
        found: dict[str, Tensor] = copied(vars(self.collector.rollout_state))
        return found

    def different(self, one: Any, two: Any) -> list[str]:
        """Paths of the parts of two states that differ in a bit."""
        found = different_parts(one, two)
        own = self.player is not None  # ordinary environments were not stepped here
        return [path for path in found if not (own and path.startswith("collector.env"))]


def different_parts(one: Any, two: Any, path: str = "") -> list[str]:
    """Paths, such as ``policy.torso.0.weight``, at which two states differ in a bit."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = {str(k): k for k in [*one, *two]}
        return [
            found
            for name, key in keys.items()
            for found in different_parts(one.get(key), two.get(key), join(path, name))
        ]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [f for i, (a, b) in pairs for f in different_parts(a, b, join(path, str(i)))]
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return [] if same_bits(one, two) else [path]
    same = type(one) is type(two) and (one == two or (one != one and two != two))
    return [] if same else [path]


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return torch.equal(one.nan_to_num(), two.to(one.device).nan_to_num()) and torch.equal(
        one.isnan(), two.to(one.device).isnan()
    )
