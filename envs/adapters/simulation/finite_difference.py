"""A gradient for an ordinary environment: its own steps forwards, differences of them backwards."""

from typing import Any, NamedTuple, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearizer, Simulator
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.states import where_state
from pgtoolkit.errors import RequestError

FINITE_DIFFERENCES = GradientInfo(
    action="approximate", state="approximate", reward="approximate", method="finite differences"
)

ONCE = (
    "finite differences are differentiable once: a second derivative would be wrong without a "
    "word. Call backward without create_graph=True"
)


class SimulatedState(NamedTuple):
    """A state of a simulator, and what the step that led to it gave."""

    token: Tensor
    """``[N, D]`` zeros, which carry the graph: their gradient is the state's, in tangent space."""
    saved: Tensor
    """``[N, S]`` int64: the bits of the float64 numbers of :meth:`Simulator.reset`, which no cast
    to single precision may touch."""
    observation: Tensor
    """``[N, O]``."""
    reward: Tensor
    """``[N]``; 0 at a start."""
    terminated: Tensor
    """``[N]`` bool."""


@final
class FiniteDifference(DifferentiableEnv[SimulatedState]):
    """A simulator as a differentiable environment.

    **Forwards**, a transition is one step of the simulator, bit for bit, from the saved states. It
    costs nothing else. **Backwards**, the Jacobians of next state, observation and reward are
    computed together where a gradient arrives, from the same saved states. No simulation is kept
    alive, so nothing has to be put back. Differentiable once.

    The derivative of the state lives in the simulator's tangent space, so that a rotation has three
    dimensions, whatever it is stored in. A token that is not zero moves the state before the step.

    A step whose derivative changes with the step size by more than ``tolerance`` is near a jump or
    a kink, or in a contact too stiff for the step size: its gradient is used all the same, but
    counted as flagged. A derivative that is not finite is counted so too, and left to the agents'
    own check.

    Args:
        simulator: what to step.
        linearize: its Jacobians; None takes :class:`CentralDifferences`.
        tolerance: the relative disagreement of two step sizes from which a step is flagged.
        gradient: what to say of the derivatives.
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
        self._differentiated, self._flagged, self._worst = 0, 0, 0.0

    def initial(self, num_envs: int, generator: torch.Generator) -> SimulatedState:
        seeds = _seeds(num_envs, generator).tolist()
        starts = [self.simulator.reset(seed) for seed in seeds]
        saved, observation = (np.stack(part) for part in zip(*starts, strict=True))
        device = generator.device
        return SimulatedState(
            torch.zeros(num_envs, self.simulator.tangent_size, dtype=torch.float64, device=device),
            _bits(saved).to(device),
            torch.from_numpy(observation).to(device),
            torch.zeros(num_envs, dtype=torch.float64, device=device),
            torch.zeros(num_envs, dtype=torch.bool, device=device),
        )

    def reset_where(
        self, state: SimulatedState, mask: Tensor, generator: torch.Generator
    ) -> SimulatedState:
        """Resets the simulator for the rows of the mask only."""
        seeds = _seeds(mask.shape[0], generator)
        leaves = [leaf.detach().clone() for leaf in state]
        for row in mask.nonzero().flatten().tolist():
            saved, observation = self.simulator.reset(int(seeds[row]))
            for leaf, value in zip(leaves, (0, _bits(saved), observation, 0, False), strict=True):
                leaf[row] = torch.as_tensor(value)
        return where_state(mask, SimulatedState(*leaves), state)

    def transition(
        self, state: SimulatedState, action: Tensor, noise: Tensor | None
    ) -> SimulatedState:
        stepped = _Step.apply(self, state.token, action, state.saved)  # type: ignore[no-untyped-call]
        return SimulatedState(*stepped)

    def observation(self, state: SimulatedState) -> Tensor:
        return state.observation

    def reward(self, state: SimulatedState, action: Tensor, next_state: SimulatedState) -> Tensor:
        return next_state.reward

    def terminal(self, state: SimulatedState) -> Tensor:
        return state.terminated

    def metrics(self) -> dict[str, Tensor]:
        """The share of flagged steps, and the worst disagreement, of the steps differentiated."""
        if not self._differentiated:
            return {}
        found = {
            "environment/flagged_steps": torch.tensor(self._flagged / self._differentiated),
            "environment/worst_disagreement": torch.tensor(self._worst),
        }
        self._differentiated, self._flagged, self._worst = 0, 0, 0.0
        return found

    def jacobians(self, saved: Array, action: NDArray[np.floating]) -> tuple[Array, Array, Array]:
        """Of next state, observation and reward; counts what disagrees."""
        found = self.linearize(saved, action.astype(np.float64))
        finite = np.nan_to_num(found.disagreement, nan=np.inf)
        self._differentiated += len(finite)
        self._flagged += int((finite > self.tolerance).sum())
        self._worst = max(self._worst, float(finite.max(initial=0.0)))
        return found.state, found.observation, found.reward


class _Step(torch.autograd.Function):
    """``N`` steps: (token, action) to (token, saved, observation, reward, terminated)."""

    @staticmethod
    def forward(
        ctx: Any, env: FiniteDifference, token: Tensor, action: Tensor, saved: Tensor
    ) -> tuple[Tensor, ...]:
        before = _floats(saved)
        if bool(token.any()):
            before = env.simulator.perturb(before, token.double().cpu().numpy())
        outcome = env.simulator.step(before, action.cpu().numpy())
        ctx.env, ctx.before, ctx.dtype = env, before, token.dtype
        ctx.save_for_backward(action)
        ctx.set_materialize_grads(False)
        after, terminated = _bits(outcome.saved), torch.from_numpy(outcome.terminated)
        after, terminated = after.to(saved.device), terminated.to(saved.device)
        ctx.mark_non_differentiable(after, terminated)
        return (
            torch.zeros_like(token),
            after,
            torch.from_numpy(outcome.observation).to(token.device, token.dtype),
            torch.from_numpy(outcome.reward).to(token.device, token.dtype),
            terminated,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Gradient mode is on in a backward pass exactly when it builds a graph of itself.
        if torch.is_grad_enabled():
            raise RequestError(ONCE)
        (action,) = ctx.saved_tensors
        token, _, observation, reward, _ = gradients
        gradient = _pull_back(ctx.env, ctx.before, action, (token, observation, reward))
        tangent_size = ctx.env.simulator.tangent_size
        found = gradient.to(action.device)
        return None, found[:, :tangent_size].to(ctx.dtype), found[:, tangent_size:].to(action), None


def _pull_back(
    env: FiniteDifference, before: Array, action: Tensor, cotangents: tuple[Tensor | None, ...]
) -> Tensor:
    """``[N, D + A]``: ``sum_parts J^T cotangent``, 0 without a step where no cotangent arrives."""
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
                gradient[rows] += (row @ jacobian.reshape(len(jacobian), -1, columns))[:, 0]
    return torch.from_numpy(gradient)


def _seeds(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2**31 - 1, (count,), generator=generator, device=generator.device)


def _bits(saved: Array) -> Tensor:
    """As integers of the same bits, whatever dtype a state is cast to."""
    return torch.from_numpy(np.ascontiguousarray(saved)).view(torch.int64)


def _floats(bits: Tensor) -> Array:
    return cast(Array, bits.cpu().view(torch.float64).numpy())
