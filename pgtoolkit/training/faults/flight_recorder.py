"""The flight recorder: the last windows' states, noise and steps, in memory, for a fault.

Before a window it copies the agent's state: all that an exact resume needs. What comes after is
determined by that state; only the noise of the actions, and what ordinary environments returned,
are kept too, because their sources may not repeat themselves. When something goes wrong, all of it
is written beside ``fault-*.json``, and ``pgtoolkit explain`` takes the windows again.

Nothing here changes a number of the run: no generator is drawn from, and tensors are only copied.
"""

import contextlib
import dataclasses
import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit import parallel
from pgtoolkit.agent import Agent, Metrics
from pgtoolkit.errors import EnvFaultError, NonFiniteError, RequestError
from pgtoolkit.finite import is_finite
from pgtoolkit.rollouts.evaluation import EvaluationStopped
from pgtoolkit.rollouts.replay import ReplayBuffer, without_transitions
from pgtoolkit.rollouts.rollout import TensorVectorEnv
from pgtoolkit.rollouts.tape import Event, TapedVectorEnv, num_bytes, pack_events
from pgtoolkit.rollouts.window import Window
from pgtoolkit.torch_private import norms_of
from pgtoolkit.training.faults.agent_parts import AgentParts
from pgtoolkit.training.faults.fault_file import fault_files, read_fault, write_fault
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder

LOG = logging.getLogger("pgtoolkit")

SNAPSHOTS = 3
"""States that are kept."""
COST = 0.01
"""Largest share of an update's time that copies of the state may take."""
MAX_STRIDE, NEVER = 64, 1_000_000
"""Most updates between two copies. Where that is too often for COST, and for states of more than
MAX_BYTES, nothing is copied (NEVER), and a replay begins at the last checkpoint."""
MAX_BYTES = 256 * 2**20
"""Most bytes of a state, and of all that is kept."""
NORM = "train/gradient_norm"
SPIKE, REMEMBERED, ENOUGH = 100.0, 50, 10
"""A spike is a norm of the gradient above SPIKE times the median of the last REMEMBERED ones, of
which there are at least ENOUGH."""
MAX_FILES = 5
"""Most files of a run for spikes and collapses, which do not stop it."""
COLLAPSE = "below_best"
"""The finding of the diagnosis that counts as a collapse."""
PASSING = ("spike", "collapse")


@final
@dataclasses.dataclass
class Flight:
    """One window: the counts before it, the state if it was copied, the noise and the steps."""

    num_steps: int
    num_updates: int
    before: dict[str, Any] | None
    rollout: dict[str, Tensor] | None
    """The rollout state of ordinary environments, which their own state does not give."""
    noise: list[Tensor]
    events: list[Event]
    bytes: int = 0
    """The size of all this, once the window is complete."""

    def packed(self) -> dict[str, Any]:
        """The flight as a checkpoint holds it."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return kept | {"events": pack_events(self.events), "noise": copied(self.noise)}

    def measure(self) -> None:
        """Sets :attr:`bytes`."""
        self.bytes = state_bytes(self.before) + state_bytes(self.noise) + num_bytes(self.events)


@final
class FlightRecorder:
    """Runs an agent's windows and keeps what is needed to take the last of them again.

    Args:
        agent: its ``collector``, if it has one, is asked for the noise and its environments are
            taped where they are ordinary ones.
        run: the folder for the files of faults.
    """

    def __init__(self, agent: Agent, run: RunFolder) -> None:
        self.agent, self.run = agent, run
        self.flights: deque[Flight] = deque()
        self._parts = AgentParts(agent)
        self.meant: frozenset[str] | None = None
        self.norms: deque[float] = deque(maxlen=REMEMBERED)
        self.stride, self.since, self.copies = 1, 0, 0
        self.copy_seconds, self.update_seconds = math.inf, 0.0
        self.collapsed = False
        self._collector: Any = getattr(agent, "collector", None)
        self._tape: TapedVectorEnv | None = None
        if self._collector is not None and not isinstance(self._collector.env, TensorVectorEnv):
            self._tape = TapedVectorEnv(self._collector.env)

    def fly(self, progress: Progress) -> tuple[Window, Metrics]:
        """Collects a window, updates the agent, and returns the window and the metrics.

        Raises:
            Exception: whatever the two raise, with a note that names the file of the fault.
        """
        self._begin(progress)
        with self.watching("state", progress):
            self._require_finite_state()
        began = time.perf_counter()
        with self.watching("training", progress), self._attached():
            window = self.agent.collect()
            metrics = self.agent.update(window)
        self._count(time.perf_counter() - began)
        self.flights[-1].measure()
        return window, metrics

    @contextlib.contextmanager
    def _attached(self) -> Iterator[None]:
        """A context in which noise and steps of the environments are kept."""
        collector = self._collector
        if collector is None:
            yield
            return
        before = collector.noise_passes, collector.stepped
        collector.noise_passes = self._keep_noise
        if self._tape is not None:
            collector.stepped = self._tape
        try:
            yield
        finally:
            collector.noise_passes, collector.stepped = before

    @contextlib.contextmanager
    def watching(self, where: str, progress: Progress) -> Iterator[None]:
        """A context in which an exception is written to the file of a fault.

        Args:
            where: ``state``, ``training`` or ``evaluation``.
            progress: the counts before the window, or at the evaluation.
        """
        try:
            yield
        except (RequestError, EvaluationStopped):
            raise  # what is wrong is the request, and its message says so; or nothing is
        except Exception as error:
            fault = described(error) | {"where": where}
            if isinstance(error, NonFiniteError) and where == "training":
                fault |= self._episode_of(error)
            if isinstance(error, NonFiniteError | EnvFaultError):
                during = "an evaluation" if where == "evaluation" else "the window that began"
                error.add_note(f"in {during} after {progress.num_steps} environment steps.")
            path = self._write(fault, progress.num_steps, progress.num_updates)
            if path:
                error.add_note(f"Recorded in {path}: `pgtoolkit explain {self.run.path}`.")
            raise

    def _episode_of(self, error: NonFiniteError) -> dict[str, Any]:
        """Seed, step and actions of the episode in which an environment returned a bad number."""
        index = error.env_index
        vector_env: Any = None if self._collector is None else self._collector.env
        if index is None or self._tape is None or not hasattr(vector_env, "episode_before"):
            return {}
        taken = [event for event in self.flights[-1].events if "reward" in event]
        bad = [k for k, event in enumerate(taken) if not is_finite_in(event, index)]
        replay = vector_env.episode_before(index, len(taken) - 1 - bad[0]) if bad else None
        if replay is None:
            return {}
        seed, step = replay["start"].get("seed"), len(replay["actions"])
        known = "" if seed is None else f" (seed {seed})"
        error.add_note(f"at step {step} of its episode{known},")
        return {"episode_step": step, "seed": seed, "replay": replay}

    def review(self, metrics: Metrics, progress: Progress) -> None:
        """Writes a fault if the last update's gradient was a spike, or the return has collapsed.

        Args:
            metrics: what the update returned.
            progress: the counts after it.
        """
        norm = float(metrics[NORM]) if NORM in metrics else None
        if norm is not None:
            usual = statistics.median(self.norms) if len(self.norms) >= ENOUGH else math.inf
            self.norms.append(norm)
            if not math.isfinite(norm) or norm > SPIKE * usual > 0:
                self._passing("spike", spike_words(norm, usual), {"norm": norm, "median": usual})
        collapsed = COLLAPSE in progress.diagnosis.kinds
        if collapsed and not self.collapsed:
            found = next(x for x in progress.diagnosis.findings if x.kind == COLLAPSE)
            self._passing("collapse", found.sentence, found.as_dict())
        self.collapsed = collapsed

    def _begin(self, progress: Progress) -> None:
        """Opens the flight of a window, with a copy of the state where that is due."""
        before, rollout = None, None
        if self.stride <= MAX_STRIDE and (self.since >= self.stride or not self.flights):
            began = time.perf_counter()
            before, rollout = self._snapshot()
            self.copy_seconds = min(self.copy_seconds, time.perf_counter() - began)
            self.copies, self.since = self.copies + 1, 0
        self.since += 1
        flight = Flight(progress.num_steps, progress.num_updates, before, rollout, [], [])
        self.flights.append(flight)
        if self._tape is not None:
            self._tape.events = flight.events
        self._drop_old()

    def _require_finite_state(self) -> None:
        """Raises if a parameter, buffer or moment is not finite before a window.

        What is not finite before the first window, such as the bounds of a space, is meant to be.
        A moment of Adam that is infinite stops nothing: its parameter only never changes again.

        Raises:
            NonFiniteError: names the tensor.
        """
        tensors = self._parts.tensors()
        finite = not tensors or bool(torch.isfinite(torch.stack(norms_of(tensors)).sum()))
        if finite and self.meant is not None:
            return
        flight, (state, rollout) = self.flights[-1], self._snapshot()
        bad = {path: x for path, x in leaves(state).items() if not is_finite(x)}
        self.meant = self.meant if self.meant is not None else frozenset(bad)
        for path in bad:
            named = self._parts.describe(path, int((~bad[path].flatten().isfinite()).nonzero()[0]))
            if path not in self.meant and named.kind != "state":
                flight.before, flight.rollout = state, rollout
                raise NonFiniteError(named.words)

    def _keep_noise(self, noise: Tensor) -> Tensor:
        self.flights[-1].noise.append(noise)
        return noise

    def _snapshot(self) -> tuple[dict[str, Any] | None, dict[str, Tensor] | None]:
        """Copies of the agent's state, and of the rollout state of ordinary environments."""
        try:
            # With the tape in their place, ordinary environments are not asked for their state.
            with self._attached():
                state = without_transitions(self.agent.state_dict())
        except Exception as error:  # the environments' own code may run here
            LOG.debug("the flight recorder got no state: %s", error)
            return None, None
        if state_bytes(state) > MAX_BYTES:
            self.stride = NEVER
            return None, None
        if self._tape is None:
            return copied(state), None
        return copied(state), copied(vars(self._collector.rollout_state))

    def _replay_buffer(self) -> dict[str, Any]:
        """The state of the agent's replay buffer, for the recording, if it is not too large.

        Copies of the agent's state hold its counts alone; what it stored before a window is still
        there after it.
        """
        buffer = getattr(self.agent, "replay", None)
        if not isinstance(buffer, ReplayBuffer):
            return {}
        state = buffer.state_dict()
        return {"replay": state} if state_bytes(state) <= MAX_BYTES else {}

    def _count(self, seconds: float) -> None:
        """Chooses how often states are copied, from what a copy and an update take."""
        rate = 0.1 if self.update_seconds else 1.0
        self.update_seconds += rate * (seconds - self.update_seconds)
        if self.stride <= MAX_STRIDE and self.copies > 0:
            needed = math.ceil(self.copy_seconds / (COST * self.update_seconds))
            # The first update may be of another length than the rest: it alone ends no copies.
            self.stride = NEVER if needed > MAX_STRIDE and self.copies > 1 else needed
            self.stride = self.stride if self.stride == NEVER else min(self.stride, MAX_STRIDE)

    def _drop_old(self) -> None:
        """Forgets the flights before the oldest state that is kept, and what is too large."""
        states = [i for i, flight in enumerate(self.flights) if flight.before is not None]
        size = sum(flight.bytes for flight in self.flights)
        while len(states) > SNAPSHOTS or (len(states) > 1 and size > MAX_BYTES):
            for _ in range(states[1] - states[0]):
                size -= self.flights.popleft().bytes
            states = [i - states[1] + states[0] for i in states[1:]]
        while self.stride == NEVER and len(self.flights) > 1:
            self.flights.popleft()

    def _passing(self, kind: str, message: str, known: Mapping[str, Any]) -> None:
        """Writes a fault that does not stop the run, unless there are enough of them."""
        if not self.flights or self._num_passing() >= MAX_FILES:
            return
        last = self.flights[-1]
        fault = {**known, "kind": kind, "type": None, "message": message, "where": "training"}
        path = self._write(fault, last.num_steps, last.num_updates)
        if path:
            message = message.rstrip(".")
            LOG.warning("%s: recorded in %s (`pgtoolkit explain %s`)", message, path, self.run.path)

    def _num_passing(self) -> int:
        """The files of spikes and collapses in the folder; those of an earlier process too."""
        faults = []
        for path in fault_files(self.run.path):
            with contextlib.suppress(ValueError, OSError):
                faults.append(read_fault(path).get("kind"))
        return sum(kind in PASSING for kind in faults)

    def _write(self, fault: Mapping[str, Any], num_steps: int, num_updates: int) -> str | None:
        """Writes a fault with the recording; returns the file's path, None if there is none."""
        if parallel.rank() != 0:
            return None
        known = {"num_steps": num_steps, "num_updates": num_updates, **fault}
        try:
            recording = None
            if self.flights and self.flights[0].before is not None:
                flights = [flight.packed() for flight in self.flights]
                recording = {"flights": flights, "at_fault": self._snapshot()[0]}
                recording |= self._replay_buffer()
            return str(write_fault(self.run.path, known, recording))
        except Exception as error:  # the first error must be seen, whatever happens here
            LOG.warning("the fault cannot be recorded: %s", " ".join(str(error).split()))
            return None


def is_finite_in(event: Event, index: int) -> bool:
    """Whether what an environment returned at a step is finite."""
    rows = [event["reward"][index], event["obs"][index]]
    if "final_mask" in event and event["final_mask"][index]:
        rows.append(event["final_obs"][int(event["final_mask"][:index].sum())])
    return all(np.isfinite(row).all() for row in rows if np.asarray(row).dtype.kind == "f")


def described(error: Exception) -> dict[str, Any]:
    """What an exception says of a fault: kind, message, and the address as far as it is known."""
    kind, known = "exception", dict[str, Any]()
    if isinstance(error, NonFiniteError):
        kind, known = "non-finite", {"tensor": error.tensor, "step": error.step}
        known["env_index"] = error.env_index
    elif isinstance(error, EnvFaultError):
        kind, known = "environment", {"episode_step": error.step, "seed": error.seed}
        known |= {"env_index": error.env_index, "replay": error.replay}
    else:
        known["env_index"] = env_index_of(error.__traceback__)
    return {"kind": kind, "type": type(error).__name__, "message": str(error), **known}


def env_index_of(traceback: TracebackType | None) -> int | None:
    """The environment that a loop over environments was at when it raised; None if unknown.

    Gymnasium's ``SyncVectorEnv`` steps its environments in a loop over ``i``, and its exceptions do
    not say which of them raised.
    """
    found = None
    while traceback is not None:
        variables = traceback.tb_frame.f_locals
        owner, index = variables.get("self"), variables.get("i")
        if hasattr(owner, "envs") and isinstance(index, int):
            found = index
        traceback = traceback.tb_next
    return found


def spike_words(norm: float, usual: float) -> str:
    """The message of a spike."""
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    return f"the gradient's norm is {norm:.4g}, {norm / usual:,.0f} times its median of {usual:.4g}"


def copied(state: Any) -> Any:
    """A copy on the CPU that shares no memory with the state, in which tensors go on changing."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        parts = [copied(value) for value in state]
        return parts if isinstance(state, list) else tuple(parts)
    return state


def leaves(state: Any, path: str = "") -> dict[str, Tensor]:
    """The tensors of a state by their path, such as ``learner.policy.torso.0.weight``."""
    if isinstance(state, Tensor):
        return {path: state}
    items: list[tuple[Any, Any]] = []
    if isinstance(state, dict):
        items = list(state.items())
    elif isinstance(state, list | tuple):
        items = list(enumerate(state))
    found: dict[str, Tensor] = {}
    for key, value in items:
        found |= leaves(value, join(path, str(key)))
    return found


def join(path: str, name: str) -> str:
    """``path.name``."""
    return f"{path}.{name}" if path else name


def state_bytes(state: Any) -> int:
    """The bytes of all tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(state_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(state_bytes(value) for value in state)
    return 0
