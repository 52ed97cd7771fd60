"""Jacobians of a simulator's step by central differences, and two tests of their accuracy.

Shapes: ``K`` states, ``D`` tangent, ``A`` action and ``O`` observation dimensions, and ``P = 2 (D +
A) + 5`` points around each state.
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization, Precision, Simulator
from pgtoolkit.errors import RequestError

DOUBLE_STEP, SINGLE_STEP = 2.0**-20, 2.0**-8
"""Step sizes for functions that are computed in double and in single precision. They balance the
rounding error ``epsilon / step`` and the truncation error, which is ``step^2 / 6`` times the third
derivative. They are powers of two, so that ``x + step`` and ``x - step`` are rounded little."""

PROBE_RATIO, MAX_PROBE_STEP = 10.0, 2.0**-6
"""The longer step of the first test is ten times that of the derivative, but at most ``2^-6``."""

SHORT_RATIO = 2.0**-4
"""The shorter step of the second test, relative to that of the derivative."""

MAX_ERROR = 1e-6
"""A derivative whose estimated error is larger is computed again with shorter steps."""

FINER_RATIOS = (2.0**-4, 2.0**-6)
"""These shorter steps, relative to the step for the precision: in double precision ``2^-24``, where
the rounding error is about ``1e-8``, and ``2^-26``."""

MIN_GAIN = 0.9
"""A shorter step is taken if it lowers the error to this share at least. At a jump it does not, and
its rounding error is larger."""

FAR_STEP = 2.0**-4
"""A number that the steps of a difference do not move at all, but this one does, is on a grid that
is coarser than the step, or near a jump: its derivative of 0 is that of a stair."""

ROUNDING_MARGIN = 20.0
"""The assumed rounding error of a value, in epsilons of the value and per coordinate."""


UNMOVED, HALF, FULL, AHEAD, BEHIND = -5, -4, -3, -2, -1
"""Indices of the last five points of a stencil."""


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
    unmoved point; half a long step and one long step along the probe direction; a short step
    forwards and one backwards along it.
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
    """The long step of the first test."""
    short_move: Array
    """``[K, D + A]``: the vector between the two points of the short steps."""
    step: float
    """The step size of the derivative."""


class Parts(NamedTuple):
    """The three parts of a step: values at the points of a stencil, or their Jacobians."""

    state: Array
    """``[K, P, D]``: next states, as tangent vectors from the next state of the unmoved point; or
    ``[K, D, D + A]``."""
    observation: Array
    """``[K, P, O]`` or ``[K, O, D + A]``."""
    reward: Array
    """``[K, P, 1]`` or ``[K, 1, D + A]``."""


class Tested(NamedTuple):
    """Results of the two tests, see :class:`CentralDifferences`."""

    disagreement: Array
    """``[K]``: change with a longer step."""
    error: Array
    """``[K]``: change with a shorter step."""


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

    If the simulator may round, a number that is the same at all points, but changes in proportion
    with steps of ``2^-5`` and ``2^-4`` along ``v``, is a stair, as of rounded observations: its
    derivative is 0 and says nothing, and the disagreement is at least 1.

    **Error.** ``J v`` is also compared with a central difference with the *shorter* step ``h /
    16``. A jump or a kink within ``h`` changes columns of ``J``, but is seldom within ``h / 16`` as
    well. The change, less the possible rounding error, is divided by each row's own sum of ``|J|``
    plus that rounding error, and the largest over the rows and parts is reported.

    **Shorter steps.** States whose error is above ``1e-6`` are computed again with ``h / 16``, and
    if it is still above, with ``h / 64``, and are replaced if that lowers the error by a tenth or
    more. Parts in single precision keep their step, since a shorter one would measure their
    rounding. The disagreement is always that of ``h``.

    Args:
        simulator: computes the steps.
        steps: the step sizes ``h``; None takes :func:`step_sizes_for` the simulator's precision.
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
        return self.refine(saved, action, self.differences(saved, action, self.steps))

    def refine(self, saved: Array, action: Array, found: Linearization) -> Linearization:
        """Computes the rows of ``found`` whose error is too large again, with shorter steps.

        Args:
            saved: ``[K, S]``.
            action: ``[K, A]``.
            found: Jacobians there; these arrays are overwritten where others have less error.
        """
        for ratio in FINER_RATIOS:
            rows = np.flatnonzero(found.error > MAX_ERROR)
            steps = self._finer(ratio)
            if len(rows) == 0 or steps == self.steps:
                break
            again = self.differences(saved[rows], action[rows], steps)
            if again.state.shape[1:] != found.state.shape[1:]:
                break  # a constant has become state meanwhile: the next call differentiates it
            better = again.error < MIN_GAIN * found.error[rows]
            for name in ("state", "observation", "reward", "error"):
                getattr(found, name)[rows[better]] = getattr(again, name)[better]
        return found

    def differences(self, saved: Array, action: Array, steps: Steps) -> Linearization:
        """Jacobians with the given step sizes, and their tests."""
        jacobians: dict[str, Array] = {}
        worst = Tested(np.zeros(len(saved)), np.zeros(len(saved)))
        for step in sorted(set(dataclasses.asdict(steps).values())):
            stencil = self._stencil(action.astype(np.float64), step)
            values = self._values(saved, stencil)
            for name in (n for n in Parts._fields if getattr(steps, n) == step):
                # A simulation that diverges gives derivatives that are not finite, not a warning.
                with np.errstate(invalid="ignore", over="ignore"):
                    jacobians[name] = _jacobian(getattr(values, name), stencil.span)
                    worst = self._test(name, values, jacobians[name], stencil, worst)
                    stairs = self._stairs(saved, stencil, name, getattr(values, name))
                    worst = worst._replace(disagreement=np.maximum(worst.disagreement, stairs))
        reward = jacobians["reward"][:, 0]
        return Linearization(jacobians["state"], jacobians["observation"], reward, *worst)

    def test(self, saved: Array, action: Array, jacobians: Parts) -> Tested:
        """The two tests of Jacobians ``[K, size, D + A]`` that were computed in another way."""
        worst = Tested(np.zeros(len(saved)), np.zeros(len(saved)))
        for step in sorted(set(dataclasses.asdict(self.steps).values())):
            stencil = self._stencil(action.astype(np.float64), step)
            stencil = stencil._replace(
                tangent=stencil.tangent[UNMOVED:], action=stencil.action[:, UNMOVED:]
            )
            values = self._values(saved, stencil)
            for name in (n for n in Parts._fields if getattr(self.steps, n) == step):
                with np.errstate(invalid="ignore", over="ignore"):
                    worst = self._test(name, values, getattr(jacobians, name), stencil, worst)
        return worst

    def _test(
        self, name: str, values: Parts, jacobian: Array, stencil: Stencil, worst: Tested
    ) -> Tested:
        """The larger of ``worst`` and the results of the two tests of one part."""
        part = getattr(values, name)
        rounding = self._rounding_error(name, part) / stencil.step
        disagreement = _disagreement(part, jacobian, stencil, rounding)
        error = _error(part, jacobian, stencil, self._epsilon(name))
        return Tested(np.maximum(worst.disagreement, disagreement), np.maximum(worst.error, error))

    def _finer(self, ratio: float) -> Steps:
        """The steps of the parts in double precision times the ratio; the others as they are."""
        steps = dataclasses.asdict(self.steps)
        double = np.finfo(np.float64).eps
        finer = {n: ratio * s if self._epsilon(n) <= double else s for n, s in steps.items()}
        return Steps(**finer)

    def _stencil(self, action: Array, step: float) -> Stencil:
        size = len(self._direction)
        states = size - action.shape[1]
        probe = self._probe(action)
        probe_step = max(2 * step, min(PROBE_RATIO * step, MAX_PROBE_STEP))
        moves = np.zeros((len(action), 2 * size + 5, size))
        moves[:, :size], moves[:, size : 2 * size] = step * np.eye(size), -step * np.eye(size)
        for point, distance in zip(
            (HALF, FULL, AHEAD, BEHIND),
            (probe_step / 2, probe_step, SHORT_RATIO * step, -SHORT_RATIO * step),
            strict=True,
        ):
            moves[:, point] = distance * probe
        actions = action[:, None] + moves[:, :, states:]
        inside = ((self._low <= action) & (action <= self._high))[:, None]
        actions = np.where(inside, np.clip(actions, self._low, self._high), actions)
        span = np.full((len(action), size), 2 * step)
        columns = np.arange(size - states)
        forwards, backwards = states + columns, size + states + columns
        span[:, states:] = actions[:, forwards, columns] - actions[:, backwards, columns]
        short = moves[:, AHEAD] - moves[:, BEHIND]
        short[:, states:] = actions[:, AHEAD] - actions[:, BEHIND]
        return Stencil(moves[0, :, :states], actions, span, probe, probe_step, short, step)

    def _probe(self, action: Array) -> Array:
        """The probe direction ``[K, D + A]``; bounded actions move away from the nearer bound."""
        probe = np.tile(self._direction, (len(action), 1))
        action_part = probe[:, -action.shape[1] :]
        near_upper = action - self._low > self._high - action
        inwards = np.where(near_upper, -1.0, 1.0) * np.abs(action_part)
        bounded = np.isfinite(self._low) | np.isfinite(self._high)
        action_part[:] = np.where(bounded, inwards, action_part)
        return probe

    def _values(self, saved: Array, stencil: Stencil, unmoved: int = UNMOVED) -> Parts:
        """The parts at all points of the stencil; the tangents are from the point ``unmoved``."""
        shape = stencil.action.shape[:2]
        moved = self.simulator.perturb(
            np.repeat(saved, shape[1], axis=0), np.tile(stencil.tangent, (len(saved), 1))
        )
        outcome = self.simulator.step(moved, stencil.action.reshape(len(moved), -1))
        origin = np.repeat(outcome.saved.reshape(*shape, -1)[:, unmoved], shape[1], axis=0)
        tangent = self.simulator.displacement(outcome.saved, origin)
        parts = (tangent, outcome.observation, outcome.reward)
        return Parts(*(part.reshape(*shape, -1) for part in parts))

    def _stairs(self, saved: Array, stencil: Stencil, name: str, part: Array) -> Array:
        """``[K]``: 1 where a number that no point of the stencil moves is moved further away.

        Half of the far step must move it by more than a third of what the whole does: a smooth
        function without a slope, such as ``x^2`` at 0, moves by a quarter or less.
        """
        found = np.zeros(len(saved))
        if not self.simulator.may_round:
            return found
        still = (part == part[:, UNMOVED][:, None]).all(1)
        rows = still.any(1)
        if rows.any():
            far = getattr(self._far_values(saved[rows], stencil, rows), name)
            half, whole = (np.abs(far[:, i] - far[:, 0]) for i in (1, 2))
            found[rows] = ((half > whole / 3) & (half > 0) & still[rows]).any(1)
        return found

    def _far_values(self, saved: Array, stencil: Stencil, rows: NDArray[np.bool_]) -> Parts:
        """Values at the unmoved point, and at half of and all of :data:`FAR_STEP` along the probe.

        An action within its bounds is not moved beyond them.
        """
        fractions, states = np.array([0.0, 0.5, 1.0])[:, None], stencil.tangent.shape[1]
        action = stencil.action[rows, UNMOVED][:, None]
        moved = action + FAR_STEP * fractions * stencil.probe[rows, None, states:]
        inside = (self._low <= action) & (action <= self._high)
        moved = np.where(inside, np.clip(moved, self._low, self._high), moved)
        tangent = FAR_STEP * fractions * self._direction[:states]
        return self._values(saved, stencil._replace(tangent=tangent, action=moved), unmoved=0)

    def _rounding_error(self, name: str, part: Array) -> Array:
        """``[K]``: an upper bound of the rounding error in the values of one part."""
        # Tangent vectors are differences, so the size of a state is not known; 1 is assumed.
        size = np.ones(len(part)) if name == "state" else np.abs(part).max((1, 2), initial=0.0)
        return ROUNDING_MARGIN * len(self._direction) * self._epsilon(name) * size

    def _epsilon(self, name: str) -> float:
        """The rounding unit of one part."""
        return float(np.finfo(getattr(self.simulator.precision, name)).eps)


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
    unmoved, half, full = part[:, UNMOVED], part[:, HALF], part[:, FULL]
    one_sided = (-3 * unmoved + 4 * half - full) / stencil.probe_step
    expected = (jacobian @ stencil.probe[..., None])[..., 0]
    difference = np.abs(one_sided - expected).max(-1, initial=0.0)
    scale = np.abs(jacobian).sum(-1).max(-1, initial=0.0) + rounding
    relative: Array = difference / np.where(scale == 0, 1.0, scale)
    return relative


def _error(part: Array, jacobian: Array, stencil: Stencil, epsilon: float) -> Array:
    """``[K]``: the error of one part, see :class:`CentralDifferences`.

    The rounding errors of the ``D + A`` columns of ``J`` are independent, so that of their sum
    grows with the square root of their number.
    """
    ahead, behind = part[:, AHEAD], part[:, BEHIND]
    size = np.maximum(1.0, np.maximum(np.abs(ahead), np.abs(behind)))
    differences = 1 / SHORT_RATIO + np.sqrt(jacobian.shape[2])
    rounding = ROUNDING_MARGIN * epsilon / stencil.step * differences * size
    expected = (jacobian @ stencil.short_move[..., None])[..., 0]
    change = np.abs(ahead - behind - expected) / (2 * SHORT_RATIO * stencil.step)
    relative = np.maximum(change - rounding, 0.0) / (np.abs(jacobian).sum(-1) + rounding)
    error: Array = relative.max(-1, initial=0.0)
    return error
