"""A simulator as a differentiable environment, whose backward pass takes finite differences."""

from typing import Any, NamedTuple, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearizer, Simulator
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.states import where_state
from pgtoolkit.second_derivatives import refuse_second_derivative
from pgtoolkit.state import Schema, array, items, tensor

FINITE_DIFFERENCES = GradientInfo(
    action="approximate", state="approximate", reward="approximate", method="finite differences"
)
"""The description of gradients by finite differences."""

KNOWN_ERROR = 1e-5
"""The largest estimated error of a derivative that is not flagged, relative to its row."""


class SimulatedState(NamedTuple):
    """States of a simulator, with the results of the steps that led to them."""

    tangent: Tensor
    """``[N, D]``: zeros that carry the graph. Their gradient is the gradient by the state, in
    tangent space."""
    saved: Tensor
    """``[N, S]`` int64: the bits of the saved float64 numbers, so that a cast to single precision
    does not change them."""
    observation: Tensor
    """``[N, O]``."""
    reward: Tensor
    """``[N]``; 0 at a start."""
    terminated: Tensor
    """``[N]`` bool."""


@final
class FiniteDifference(DifferentiableEnv[SimulatedState]):
    """A simulator as a differentiable environment.

    **Forward pass.** A transition is one step of the simulator from the saved states, equal to the
    bit, and costs nothing more. **Backward pass.** The Jacobians of next state, observation and
    reward are computed together from the same saved states, for the rows that receive a gradient.
    The graph holds only saved states. Second derivatives raise.

    The derivative by the state is a vector in the simulator's tangent space, so a rotation has
    three dimensions however it is stored. A ``tangent`` that is not zero moves the state before the
    step. Both ``saved`` and ``tangent`` become wider when something becomes state that was constant
    before; states of before remain valid.

    A step is counted as flagged if its derivative changes by more than ``tolerance`` with a longer
    step size: it is near a jump or a kink, or in a contact too stiff for the step size. It is also
    flagged if its derivative changes by more than ``1e-5`` with a shorter step size, that is, if it
    is itself not known to ``1e-5``, or if it is not finite. Its gradient is used nevertheless.

    Args:
        simulator: computes the steps.
        linearize: computes the Jacobians; None takes :class:`CentralDifferences`.
        tolerance: the largest relative disagreement with a longer step that is not flagged.
        gradient: the description of the derivatives.
    """

    def __init__(
        self,
        simulator: Simulator,
        linearize: Linearizer | None = None,
        *,
        tolerance: float = 0.05,
        gradient: GradientInfo = FINITE_DIFFERENCES,
    ) -> None:
        self.simulator, self.tolerance, self.gradient = simulator, tolerance, gradient
        self.linearize = linearize or CentralDifferences(simulator)
        self.observation_space = simulator.observation_space
        self.action_space = simulator.action_space
        self.max_episode_steps = simulator.max_episode_steps
        self._differentiated, self._flagged, self._worst, self._error = 0, 0, 0.0, 0.0

    def initial(self, num_envs: int, generator: torch.Generator) -> SimulatedState:
        seeds = _draw_seeds(num_envs, generator).tolist()
        starts = [self.simulator.reset(seed) for seed in seeds]
        saved = stack_rows([saved for saved, _ in starts], self.simulator.saved_size)
        observation = np.stack([observation for _, observation in starts])
        device = generator.device
        return SimulatedState(
            torch.zeros(num_envs, self.simulator.tangent_size, dtype=torch.float64, device=device),
            _to_bits(saved).to(device),
            torch.from_numpy(observation).to(device),
            torch.zeros(num_envs, dtype=torch.float64, device=device),
            torch.zeros(num_envs, dtype=torch.bool, device=device),
        )

    def reset_where(
        self, state: SimulatedState, mask: Tensor, generator: torch.Generator
    ) -> SimulatedState:
        """Resets the simulator for the rows of the mask only, each from the state of its row."""
        seeds, before = _draw_seeds(mask.shape[0], generator), _from_bits(state.saved)
        rows = mask.nonzero().flatten().tolist()
        starts = {row: self.simulator.reset_again(before[row], int(seeds[row])) for row in rows}
        state = self._widened(state)
        leaves = [leaf.detach().clone() for leaf in state]
        for row, (saved, observation) in starts.items():
            leaves[1][row] = 0
            leaves[1][row, : len(saved)] = _to_bits(saved)
            for leaf, value in zip(
                (leaves[0], *leaves[2:]), (0, observation, 0, False), strict=True
            ):
                leaf[row] = torch.as_tensor(value)
        return where_state(mask, SimulatedState(*leaves), state)

    def _widened(self, state: SimulatedState) -> SimulatedState:
        """The state with room for what has become state since it was saved."""
        more = max(0, self.simulator.tangent_size - state.tangent.shape[1])
        room = max(0, self.simulator.saved_size - state.saved.shape[1])
        if not more and not room:
            return state
        pad = torch.nn.functional.pad
        return state._replace(
            tangent=pad(state.tangent, (0, more)), saved=pad(state.saved, (0, room))
        )

    def transition(
        self, state: SimulatedState, action: Tensor, noise: Tensor | None
    ) -> SimulatedState:
        stepped = _Step.apply(self, state.tangent, action, state.saved)  # type: ignore[no-untyped-call]
        return SimulatedState(*stepped)

    def observation(self, state: SimulatedState) -> Tensor:
        return state.observation

    def reward(self, state: SimulatedState, action: Tensor, next_state: SimulatedState) -> Tensor:
        return next_state.reward

    def terminal(self, state: SimulatedState) -> Tensor:
        return state.terminated

    def begin_window(self) -> None:
        self.simulator.begin_window()

    def state_dict(self) -> dict[str, Any]:
        return self.simulator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.simulator.load_state_dict(state)

    def state_schema(self, own: SimulatedState) -> Schema:
        """Saved states may be narrower than those of now, and the simulator must know them."""
        count, simulator = len(own.tangent), self.simulator

        def saved(value: Any, path: str) -> None:
            array(torch.int64, (count, simulator.saved_size), longest=(1,))(value, path)
            simulator.require_states(_from_bits(value), path)

        tangent = array(own.tangent.dtype, (count, simulator.tangent_size), longest=(1,))
        others = (tensor(leaf) for leaf in own[2:])
        return items([tangent, saved, *others], SimulatedState._fields)

    def metrics(self) -> dict[str, Tensor]:
        """Share of flagged steps, largest disagreement and error, over the steps since last call.

        Only steps whose Jacobians were computed count.
        """
        if not self._differentiated:
            return {}
        found = {
            "environment/flagged_steps": torch.tensor(self._flagged / self._differentiated),
            "environment/worst_disagreement": torch.tensor(self._worst),
            "environment/worst_error": torch.tensor(self._error),
        }
        self._differentiated, self._flagged, self._worst, self._error = 0, 0, 0.0, 0.0
        return found

    def jacobians(self, saved: Array, action: NDArray[np.floating]) -> tuple[Array, Array, Array]:
        """Jacobians of next state, observation and reward; updates the counts of the metrics.

        Args:
            saved: ``[K, S]``.
            action: ``[K, A]``.
        """
        found = self.linearize(saved, action.astype(np.float64))
        disagreement = np.nan_to_num(found.disagreement, nan=np.inf)
        error = np.nan_to_num(found.error, nan=np.inf)
        self._differentiated += len(error)
        self._flagged += int(((disagreement > self.tolerance) | (error > KNOWN_ERROR)).sum())
        self._worst = max(self._worst, float(disagreement.max(initial=0.0)))
        self._error = max(self._error, float(error.max(initial=0.0)))
        return found.state, found.observation, found.reward


class _Step(torch.autograd.Function):
    """``N`` steps, from (tangent, action, saved) to the fields of :class:`SimulatedState`."""

    @staticmethod
    def forward(
        ctx: Any, env: FiniteDifference, tangent: Tensor, action: Tensor, saved: Tensor
    ) -> tuple[Tensor, ...]:
        before = _from_bits(saved)
        if bool(tangent.any()):
            before = env.simulator.perturb(before, tangent.double().cpu().numpy())
        outcome = env.simulator.step(before, action.cpu().numpy())
        ctx.env, ctx.before, ctx.dtype = env, before, tangent.dtype
        ctx.tangent_size = tangent.shape[1]
        ctx.save_for_backward(action)
        ctx.set_materialize_grads(False)
        after, terminated = _to_bits(outcome.saved), torch.from_numpy(outcome.terminated)
        after, terminated = after.to(saved.device), terminated.to(saved.device)
        ctx.mark_non_differentiable(after, terminated)
        return (
            tangent.new_zeros(len(tangent), env.simulator.tangent_size),
            after,
            torch.from_numpy(outcome.observation).to(tangent.device, tangent.dtype),
            torch.from_numpy(outcome.reward).to(tangent.device, tangent.dtype),
            terminated,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("a gradient by finite differences")
        (action,) = ctx.saved_tensors
        tangent, _, observation, reward, _ = gradients
        gradient = _vector_jacobian_product(
            ctx.env, ctx.before, action, (tangent, observation, reward)
        )
        found, size = gradient.to(action.device), action.shape[1]
        # What became state after this step was constant before it, so it has no gradient.
        by_state = torch.zeros(len(found), ctx.tangent_size, dtype=found.dtype, device=found.device)
        width = min(ctx.tangent_size, found.shape[1] - size)
        by_state[:, :width] = found[:, :width]
        return None, by_state.to(ctx.dtype), found[:, -size:].to(action), None


def _vector_jacobian_product(
    env: FiniteDifference, before: Array, action: Tensor, cotangents: tuple[Tensor | None, ...]
) -> Tensor:
    """``sum_parts J^T cotangent`` ``[N, D + A]``; rows without a cotangent are 0 at no cost."""
    count, columns = len(before), env.simulator.tangent_size + action.shape[1]
    given = [None if c is None else c.double().cpu().numpy() for c in cotangents]
    rows = np.zeros(count, dtype=bool)
    for cotangent in given:
        if cotangent is not None:
            rows |= (cotangent != 0).reshape(count, -1).any(1)
    gradient = np.zeros((count, columns))
    if rows.any():
        jacobians = env.jacobians(before[rows], action.detach().cpu().numpy()[rows])
        for jacobian, cotangent in zip(jacobians, given, strict=True):
            if cotangent is not None:
                row = cotangent[rows].reshape(len(jacobian), 1, -1)
                by = jacobian.reshape(len(jacobian), -1, columns)
                # A next state of then has no numbers that became state later.
                gradient[rows] += (row @ by[:, : row.shape[2]])[:, 0]
    return torch.from_numpy(gradient)


def stack_rows(rows: list[Array], size: int) -> Array:
    """Saved states as one array ``[K, S]``; narrower ones are filled with zeros."""
    found = np.zeros((len(rows), size))
    for index, row in enumerate(rows):
        found[index, : len(row)] = row
    return found


def _draw_seeds(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2**31 - 1, (count,), generator=generator, device=generator.device)


def _to_bits(saved: Array) -> Tensor:
    """float64 numbers as int64 of the same bits."""
    return torch.from_numpy(np.ascontiguousarray(saved)).view(torch.int64)


def _from_bits(bits: Tensor) -> Array:
    """The inverse of :func:`_to_bits`."""
    return cast(Array, bits.cpu().view(torch.float64).numpy())
