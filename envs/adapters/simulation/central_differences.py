"""Jacobians of a simulator's step by central differences, and a test of their accuracy.

Shapes: ``K`` states, ``D`` tangent, ``A`` action and ``O`` observation dimensions, and ``P = 2 (D +
A) + 3`` points around each state.
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np

from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization, Precision, Simulator
from pgtoolkit.errors import RequestError

DOUBLE_STEP, SINGLE_STEP = 2.0**-20, 2.0**-8
"""Step sizes for functions that are computed in double and in single precision. They balance the
rounding error ``epsilon / step`` and the truncation error, which is ``step^2 / 6`` times the third
derivative. They are powers of two, so that ``x + step`` and ``x - step`` are rounded little."""

PROBE_RATIO, MAX_PROBE_STEP = 10.0, 2.0**-6
"""The step size of the test is ten times that of the derivative, but at most ``2^-6``."""

ROUNDING_MARGIN = 20.0
"""The assumed rounding error of a value, in epsilons of the value and per coordinate."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """Step sizes by which state and action are moved, for the differences of each part.

    Raises:
        RequestError: a step is not a positive finite number.
    """

    state: float
    """Step size for the Jacobian of the next state."""
    observation: float
    """Step size for the Jacobian of the observation."""
    reward: float
    """Step size for the gradient of the reward."""

    def __post_init__(self) -> None:
        for name, step in dataclasses.asdict(self).items():
            if not (np.isfinite(step) and step > 0):
                raise RequestError(f"the step for the {name} must be positive, not {step}")


class Stencil(NamedTuple):
    """The ``P`` points around each state from which the simulator steps.

    In this order: forwards along each of the ``D + A`` coordinates; backwards along each; the
    unmoved point; half a probe step and one probe step along the probe direction.
    """

    tangent: Array
    """``[P, D]``: moves of the state, the same for every state."""
    action: Array
    """``[K, P, A]``: the moved actions."""
    span: Array
    """``[K, D + A]``: distances between the forward and the backward points."""
    probe: Array
    """``[K, D + A]``: the direction along which the derivative is tested."""
    probe_step: float
    """The step size of the test."""


class StencilValues(NamedTuple):
    """Results of the steps from the points of a stencil."""

    state: Array
    """``[K, P, D]``: next states, as tangent vectors from the next state of the unmoved point."""
    observation: Array
    """``[K, P, O]``."""
    reward: Array
    """``[K, P, 1]``."""


def step_sizes_for(precision: Precision) -> Steps:
    """Step sizes by precision: ``2^-20`` for parts computed in double precision, else ``2^-8``.

    Values in single precision change in jumps of ``6e-8`` of their size, so a smaller step would
    measure the jumps.
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
    """Jacobians of next state, observation and reward: ``(f(x + h e_j) - f(x - h e_j)) / 2h``.

    The ``P`` steps of all states are one call of the simulator, or one call for each distinct step
    size if its parts need different ones. Actions are moved in double precision. An action within
    its bounds is not moved beyond them: most environments clip there, and the derivative inside the
    bounds is the useful one.

    **Disagreement.** Along one direction ``v``, ``J v`` is compared with a one-sided difference of
    second order with the step ``10 h`` (at most ``2^-6``)::

        (-3 f(x) + 4 f(x + 5 h v) - f(x + 10 h v)) / 10 h

    For smooth functions the two differ by ``O(h^2)`` times the third derivative. At a jump or a
    kink within ``10 h`` they differ by as much as the derivative itself. The difference is
    one-sided because symmetric differences of ``|x|`` at 0 are 0 for every step size. The
    disagreement is relative to the largest row sum of ``|J|`` plus the possible rounding error; of
    the three parts the largest disagreement is reported.

    Args:
        simulator: computes the steps.
        steps: the step sizes; None takes :func:`step_sizes_for` the simulator's precision.
    """

    def __init__(self, simulator: Simulator, steps: Steps | None = None) -> None:
        self.simulator = simulator
        self.steps = steps or step_sizes_for(simulator.precision)
        low, high = simulator.action_space.low, simulator.action_space.high
        self._low, self._high = low.astype(np.float64), high.astype(np.float64)
        self._direction = _direction(simulator.tangent_size + len(low))

    def __call__(self, saved: Array, action: Array) -> Linearization:
        """Jacobians at saved states ``[K, S]`` and actions ``[K, A]``."""
        size = self.simulator.tangent_size + len(self._low)
        if len(self._direction) != size:
            self._direction = _direction(size)
        jacobians: dict[str, Array] = {}
        disagreement = np.zeros(len(saved))
        for step in sorted(set(dataclasses.asdict(self.steps).values())):
            stencil = self._stencil(action.astype(np.float64), step)
            values = self._values(saved, stencil)
            for name in (n for n in StencilValues._fields if getattr(self.steps, n) == step):
                # A simulation that diverges gives derivatives that are not finite, not a warning.
                with np.errstate(invalid="ignore", over="ignore"):
                    part = getattr(values, name)
                    jacobians[name] = _jacobian(part, stencil.span)
                    rounding = self._rounding_error(name, part) / step
                    found = _disagreement(part, jacobians[name], stencil, rounding)
                    disagreement = np.maximum(disagreement, found)
        return Linearization(
            jacobians["state"], jacobians["observation"], jacobians["reward"][:, 0], disagreement
        )

    def _stencil(self, action: Array, step: float) -> Stencil:
        size = len(self._direction)
        states = size - action.shape[1]
        probe = self._probe(action)
        probe_step = max(2 * step, min(PROBE_RATIO * step, MAX_PROBE_STEP))
        moves = np.zeros((len(action), 2 * size + 3, size))
        moves[:, :size], moves[:, size : 2 * size] = step * np.eye(size), -step * np.eye(size)
        moves[:, -2], moves[:, -1] = probe_step / 2 * probe, probe_step * probe
        actions = action[:, None] + moves[:, :, states:]
        inside = ((self._low <= action) & (action <= self._high))[:, None]
        actions = np.where(inside, np.clip(actions, self._low, self._high), actions)
        span = np.full((len(action), size), 2 * step)
        columns = np.arange(size - states)
        forwards, backwards = states + columns, size + states + columns
        span[:, states:] = actions[:, forwards, columns] - actions[:, backwards, columns]
        return Stencil(moves[0, :, :states], actions, span, probe, probe_step)

    def _probe(self, action: Array) -> Array:
        """The probe direction ``[K, D + A]``; bounded actions move away from the nearer bound."""
        probe = np.tile(self._direction, (len(action), 1))
        action_part = probe[:, -action.shape[1] :]
        near_upper = action - self._low > self._high - action
        inwards = np.where(near_upper, -1.0, 1.0) * np.abs(action_part)
        bounded = np.isfinite(self._low) | np.isfinite(self._high)
        action_part[:] = np.where(bounded, inwards, action_part)
        return probe

    def _values(self, saved: Array, stencil: Stencil) -> StencilValues:
        shape = stencil.action.shape[:2]
        moved = self.simulator.perturb(
            np.repeat(saved, shape[1], axis=0), np.tile(stencil.tangent, (len(saved), 1))
        )
        outcome = self.simulator.step(moved, stencil.action.reshape(len(moved), -1))
        unmoved = np.repeat(outcome.saved.reshape(*shape, -1)[:, -3], shape[1], axis=0)
        tangent = self.simulator.displacement(outcome.saved, unmoved)
        parts = (tangent, outcome.observation, outcome.reward)
        return StencilValues(*(part.reshape(*shape, -1) for part in parts))

    def _rounding_error(self, name: str, part: Array) -> Array:
        """``[K]``: an upper bound of the rounding error in the values of one part."""
        epsilon = float(np.finfo(getattr(self.simulator.precision, name)).eps)
        # Tangent vectors are differences, so the size of a state is not known; 1 is assumed.
        size = np.ones(len(part)) if name == "state" else np.abs(part).max((1, 2), initial=0.0)
        return ROUNDING_MARGIN * len(self._direction) * epsilon * size


def _direction(size: int) -> Array:
    """The direction ``[D + A]`` along which the derivative is tested.

    The components are unequal, so that no difference of two coordinates is constant along the
    direction. They are at least 0.8, because with 0.6 the two differences of a jump would be equal.
    """
    random = np.random.default_rng(0)
    found: Array = random.choice([-1.0, 1.0], size) * random.uniform(0.8, 1.0, size)
    return found


def _jacobian(part: Array, span: Array) -> Array:
    """Central differences ``[K, size, D + A]`` of values ``[K, P, size]``."""
    size = span.shape[1]
    # The span is 0 if the two bounds of an action are equal; the difference is 0 there too.
    difference = (part[:, :size] - part[:, size : 2 * size]) / np.where(span, span, 1.0)[..., None]
    jacobian: Array = difference.transpose(0, 2, 1)
    return jacobian


def _disagreement(part: Array, jacobian: Array, stencil: Stencil, rounding: Array) -> Array:
    """``[K]``: the disagreement of one part, see :class:`CentralDifferences`."""
    unmoved, half, full = part[:, -3], part[:, -2], part[:, -1]
    one_sided = (-3 * unmoved + 4 * half - full) / stencil.probe_step
    expected = (jacobian @ stencil.probe[..., None])[..., 0]
    difference = np.abs(one_sided - expected).max(-1, initial=0.0)
    scale = np.abs(jacobian).sum(-1).max(-1, initial=0.0) + rounding
    relative: Array = difference / np.where(scale == 0, 1.0, scale)
    return relative
