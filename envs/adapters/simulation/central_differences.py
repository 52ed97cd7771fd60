"""Jacobians of a simulator's step by central differences, with a word on what they are worth.

Shapes: ``K`` states, ``D`` tangent, ``A`` action and ``O`` observation dimensions, ``P = 2 (D + A)
+ 3`` points around each state.
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np

from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization, Precision, Simulator
from pgtoolkit.errors import RequestError

# Rounding errs by ``epsilon / step``, the third derivative by ``step^2 / 6``. Powers of two, so
# that ``x + step`` and ``x - step`` are rounded as little as can be.
DOUBLE_STEP, SINGLE_STEP = 2.0**-20, 2.0**-8

# The second step size is ten times the first, but never so long that it is not local any more.
REACH, LONGEST_REACH = 10.0, 2.0**-6

# What rounding can do to a difference is no disagreement: so many epsilons of the value.
ROUNDINGS = 20.0


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """By how much state and action are moved, in their own units, to difference each part.

    Raises:
        RequestError: a step is not a positive finite number.
    """

    state: float
    """For the next state."""
    observation: float
    reward: float

    def __post_init__(self) -> None:
        for name, step in dataclasses.asdict(self).items():
            if not (np.isfinite(step) and step > 0):
                raise RequestError(f"the step for the {name} must be positive, not {step}")


class Points(NamedTuple):
    """Where the simulator steps from.

    Forwards along each coordinate, then backwards; not moved; half the reach and the reach.
    """

    tangent: Array
    """``[P, D]`` moves of the state, of every state the same."""
    action: Array
    """``[K, P, A]`` actions."""
    span: Array
    """``[K, D + A]`` from each backward to its forward point."""
    probe: Array
    """``[K, D + A]`` a direction."""
    reach: float
    """How far along it."""


class Values(NamedTuple):
    """What the steps led to."""

    state: Array
    """``[K, P, D]`` next states, as tangent vectors from that of no move."""
    observation: Array
    """``[K, P, O]``."""
    reward: Array
    """``[K, P, 1]``."""


def steps_for(precision: Precision) -> Steps:
    """``2^-20`` for parts computed in double precision, ``2^-8`` for the others.

    A part that is computed in single precision is a staircase with steps of ``6e-8`` of its value:
    a smaller step would difference the staircase.
    """

    def step(dtype: np.dtype) -> float:
        return DOUBLE_STEP if np.finfo(dtype).eps <= np.finfo(np.float64).eps else SINGLE_STEP

    return Steps(
        state=step(precision.state),
        observation=step(precision.observation),
        reward=step(precision.reward),
    )


@final
class CentralDifferences:
    """``(f(x + h e_j) - f(x - h e_j)) / 2h`` of next state, observation and reward together.

    All ``P`` steps of all states are one call of the simulator; two calls if its parts need
    different step sizes. Actions are moved in double precision. One within its bounds is not moved
    beyond them: most environments clip there, and the derivative that counts is the inner one.

    **Disagreement.** Along one direction ``v``, ``J v`` is compared with the one-sided difference
    of second order with the step ``10 h`` (capped at ``2^-6``)::

        (-3 f(x) + 4 f(x + 5 h v) - f(x + 10 h v)) / 10 h

    Smooth functions differ by ``O(h^2)`` of their third derivative. A jump or a kink within reach
    differs by as much as the derivative itself. One-sided, because symmetric differences of ``|x|``
    at 0 are 0 whatever the step. It is measured in units of the largest row of ``|J|`` of the part,
    and the worst part counts; what rounding can explain is not counted.

    Args:
        simulator: what to difference.
        steps: the step sizes; None takes :func:`steps_for` the simulator's precision.
    """

    def __init__(self, simulator: Simulator, steps: Steps | None = None) -> None:
        self.simulator = simulator
        self.steps = steps or steps_for(simulator.precision)
        low, high = simulator.action_space.low, simulator.action_space.high
        self._low, self._high = low.astype(np.float64), high.astype(np.float64)
        # Unequal lengths, so that no difference of two coordinates stands still along it. Not below
        # 0.8: at 0.6 both differences of a jump would happen to be the same.
        size, random = simulator.tangent_size + len(low), np.random.default_rng(0)
        self._direction = random.choice([-1.0, 1.0], size) * random.uniform(0.8, 1.0, size)

    def __call__(self, saved: Array, action: Array) -> Linearization:
        """The derivatives at states ``[K, S]`` and actions ``[K, A]``."""
        jacobians: dict[str, Array] = {}
        disagreement = np.zeros(len(saved))
        for step in sorted(set(dataclasses.asdict(self.steps).values())):
            points = self._points(action.astype(np.float64), step)
            values = self._values(saved, points)
            for name in (n for n in Values._fields if getattr(self.steps, n) == step):
                # A simulation that breaks gives derivatives that are not finite, not a warning.
                with np.errstate(invalid="ignore", over="ignore"):
                    part = getattr(values, name)
                    jacobians[name] = _jacobian(part, points.span)
                    rounding = self._rounding(name, part) / step
                    found = _disagreement(part, jacobians[name], points, rounding)
                    disagreement = np.maximum(disagreement, found)
        return Linearization(
            jacobians["state"], jacobians["observation"], jacobians["reward"][:, 0], disagreement
        )

    def _points(self, action: Array, step: float) -> Points:
        states, size = self.simulator.tangent_size, len(self._direction)
        probe = self._probe(action)
        reach = max(2 * step, min(REACH * step, LONGEST_REACH))
        moves = np.zeros((len(action), 2 * size + 3, size))
        moves[:, :size], moves[:, size : 2 * size] = step * np.eye(size), -step * np.eye(size)
        moves[:, -2], moves[:, -1] = reach / 2 * probe, reach * probe
        actions = action[:, None] + moves[:, :, states:]
        inside = ((self._low <= action) & (action <= self._high))[:, None]
        actions = np.where(inside, np.clip(actions, self._low, self._high), actions)
        span = np.full((len(action), size), 2 * step)
        columns = np.arange(size - states)
        forwards, backwards = states + columns, size + states + columns
        span[:, states:] = actions[:, forwards, columns] - actions[:, backwards, columns]
        return Points(moves[0, :, :states], actions, span, probe, reach)

    def _probe(self, action: Array) -> Array:
        """``[K, D + A]`` the direction, with actions that move away from the nearer bound."""
        probe = np.tile(self._direction, (len(action), 1))
        of_action = probe[:, self.simulator.tangent_size :]
        upper = action - self._low > self._high - action
        inwards = np.where(upper, -1.0, 1.0) * np.abs(of_action)
        bounded = np.isfinite(self._low) | np.isfinite(self._high)
        of_action[:] = np.where(bounded, inwards, of_action)
        return probe

    def _values(self, saved: Array, points: Points) -> Values:
        shape = points.action.shape[:2]
        moved = self.simulator.perturb(
            np.repeat(saved, shape[1], axis=0), np.tile(points.tangent, (len(saved), 1))
        )
        outcome = self.simulator.step(moved, points.action.reshape(len(moved), -1))
        unmoved = np.repeat(outcome.saved.reshape(*shape, -1)[:, -3], shape[1], axis=0)
        tangent = self.simulator.displacement(outcome.saved, unmoved)
        parts = (tangent, outcome.observation, outcome.reward)
        return Values(*(part.reshape(*shape, -1) for part in parts))

    def _rounding(self, name: str, part: Array) -> Array:
        """``[K]`` by how much rounding may change a value of this part, at most."""
        epsilon = float(np.finfo(getattr(self.simulator.precision, name)).eps)
        # The tangent of a state says how far it moved, not how large its numbers are.
        size = np.ones(len(part)) if name == "state" else np.abs(part).max((1, 2), initial=0.0)
        return ROUNDINGS * len(self._direction) * epsilon * size


def _jacobian(part: Array, span: Array) -> Array:
    """``[K, size, D + A]``."""
    size = span.shape[1]
    # A span of 0 is between two equal bounds, where nothing moves.
    difference = (part[:, :size] - part[:, size : 2 * size]) / np.where(span, span, 1.0)[..., None]
    jacobian: Array = difference.transpose(0, 2, 1)
    return jacobian


def _disagreement(part: Array, jacobian: Array, points: Points, rounding: Array) -> Array:
    """``[K]``, see :class:`CentralDifferences`."""
    here, half, far = part[:, -3], part[:, -2], part[:, -1]
    one_sided = (-3 * here + 4 * half - far) / points.reach
    expected = (jacobian @ points.probe[..., None])[..., 0]
    difference = np.abs(one_sided - expected).max(-1, initial=0.0)
    scale = np.abs(jacobian).sum(-1).max(-1, initial=0.0) + rounding
    relative: Array = difference / np.where(scale == 0, 1.0, scale)
    return relative
