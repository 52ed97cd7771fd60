"""Rows of the table of MuJoCo gradients in ``docs/environments.md``.

The gradient of the return of ``H`` steps by every action, through the MuJoCo adapter and autograd,
is compared with central differences of the return of Gymnasium's own environment.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, final

import gymnasium
import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.mujoco.adapter import MuJoCo
from pgtoolkit.envs.adapters.mujoco.snapshot import quiet_loading
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference, SimulatedState
from pgtoolkit.envs.adapters.simulation.simulator import Array
from pgtoolkit.gymnasium_types import AnyEnv

ENVS = (
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)

HEADINGS = (
    "environment",
    "start",
    "largest error",
    "differences known to",
    "flagged steps",
    "right, flagged, wrong",
)

WANTED_ERROR = 1e-5
"""Above this error, relative to the largest entry of the gradient, a gradient is not right."""

REFERENCE_STEPS = (1e-7, 1e-6)
"""Step sizes of the differences of the return. The smaller is the reference: in contacts the third
derivatives of a return are so large that 1e-6 is off by more than 1e-5. The distance of the two
tells how well the derivative is known by them."""


@final
@dataclasses.dataclass(frozen=True)
class Start:
    """How the simulation gets to the first of the measured steps."""

    name: str
    steps: int
    """Number of steps after the reset."""
    scale: float
    """Size of the random actions in these steps, relative to their range."""


RESET = Start("reset", 0, 0.0)
RUNNING = Start("60 random steps", 60, 0.9)
LYING = Start("lying, 100 steps without torque", 100, 0.0)


@final
@dataclasses.dataclass(frozen=True)
class MuJoCoCase:
    """One comparison: the errors are relative to the largest entry of the reference."""

    env: str
    start: str
    seed: int
    error: float
    """Distance of the adapter's gradient from the reference."""
    reference_error: float
    """Distance of the references with the two step sizes."""
    flagged_steps: float
    """Share of the steps that the adapter flags."""
    worst_disagreement: float
    worst_error: float
    same_return: bool
    """Whether the adapter's return equals the environment's to the bit."""
    gradient_size: float
    """The largest entry of the reference."""

    @property
    def outcome(self) -> str:
        """``right``, ``flagged`` or ``wrong``."""
        if self.error <= WANTED_ERROR:
            return "right"
        return "flagged" if self.flagged_steps > 0 else "wrong"


def starts_of(name: str) -> tuple[Start, ...]:
    """The starts that are measured for an environment; Humanoid-v5 is also measured lying."""
    return (RESET, RUNNING, LYING) if name == "Humanoid-v5" else (RESET, RUNNING)


def measure(name: str, start: Start, seed: int, horizon: int) -> MuJoCoCase:
    """Compares one gradient.

    Args:
        name: one of ``ENVS``.
        start: how the simulation gets to the first step.
        seed: seed of the reset and of the actions, which are within 0.9 of their range.
        horizon: number of steps of the return.
    """
    env, plain = MuJoCo(lambda: _make(name, start)), _make(name, start)
    space = env.action_space
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    random = np.random.default_rng(100 + seed)
    actions = 0.9 * random.uniform(low, high, (horizon, len(low)))
    before = start.scale * random.uniform(low, high, (start.steps, len(low)))
    value, gradient = adapter_gradient(env, seed, before, actions)
    found = {n: float(v) for n, v in env.metrics().items()}
    own, references = reference_gradients(plain, seed, before, actions)
    size = float(np.abs(references[0]).max())

    def distance(other: Array) -> float:
        return float(np.abs(other - references[0]).max()) / (size or 1.0)

    return MuJoCoCase(
        name,
        start.name,
        seed,
        distance(gradient),
        distance(references[1]),
        found["environment/flagged_steps"],
        found["environment/worst_disagreement"],
        found["environment/worst_error"],
        value == own,
        size,
    )


def adapter_gradient(
    env: FiniteDifference, seed: int, before: Array, actions: Array
) -> tuple[float, Array]:
    """The return of ``actions``, after the steps ``before``, and its gradient by autograd."""
    saved, observation = env.simulator.reset(seed)
    for action in before:
        saved = env.simulator.step(saved[None], action[None]).saved[0]
    state = SimulatedState(
        torch.zeros(1, env.simulator.tangent_size, dtype=torch.float64),
        torch.from_numpy(saved[None]).view(torch.int64),
        torch.from_numpy(observation[None]),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.bool),
    )
    leaf, total = torch.tensor(actions, requires_grad=True), torch.zeros((), dtype=torch.float64)
    for action in leaf:
        after = env.transition(state, action[None], None)
        total, state = total + env.reward(state, action[None], after).sum(), after
    return float(total.detach()), _gradient(total, leaf)


def reference_gradients(
    env: AnyEnv, seed: int, before: Array, actions: Array
) -> tuple[float, list[Array]]:
    """The return of the plain environment, and its central differences for each reference step.

    Each return starts from a copy of MuJoCo's whole ``MjData``.
    """
    env.reset(seed=seed)
    simulation: Any = env.unwrapped
    for action in before:
        simulation.step(action)
    start = simulation.data

    def total(changed: Array) -> float:
        simulation.data = copy.copy(start)
        return sum(float(simulation.step(action)[1]) for action in changed)

    gradients = [np.zeros_like(actions) for _ in REFERENCE_STEPS]
    for gradient, size in zip(gradients, REFERENCE_STEPS, strict=True):
        for index in np.ndindex(*actions.shape):
            move = np.zeros_like(actions)
            move[index] = size
            gradient[index] = (total(actions + move) - total(actions - move)) / (2 * size)
    return total(actions), gradients


def table(cases: Sequence[MuJoCoCase]) -> list[list[str]]:
    """Cells under ``HEADINGS``, one row for each environment and start."""
    rows = []
    for env, start in dict.fromkeys((case.env, case.start) for case in cases):
        group = [case for case in cases if (case.env, case.start) == (env, start)]
        outcomes = [case.outcome for case in group]
        counts = [str(outcomes.count(outcome)) for outcome in ("right", "flagged", "wrong")]
        rows.append(
            [
                f"`{env}`",
                start,
                _power(max(case.error for case in group)),
                _power(max(case.reference_error for case in group)),
                f"{np.mean([case.flagged_steps for case in group]):.0%}",
                ", ".join(counts),
            ]
        )
    return rows


def _power(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _gradient(total: Tensor, leaf: Tensor) -> Array:
    (gradient,) = torch.autograd.grad(total, leaf)
    found: Array = gradient.numpy()
    return found


def _make(name: str, start: Start) -> AnyEnv:
    options = {"terminate_when_unhealthy": False} if start is LYING else {}
    with quiet_loading():
        return gymnasium.make(name, **options)
