"""Many steps of an environment with given actions, in one compiled loop, without a gradient."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, fx

from pgtoolkit.compiling import CompiledLoop, trace
from pgtoolkit.envs.compiled.layout import Layout, pack, unpack
from pgtoolkit.envs.compiled.policy_step import state_from_leaves
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, VectorState, leaves_of, where_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.torch_private import scan


@final
class Steps(NamedTuple):
    """The results of ``T`` steps, stacked; each as :meth:`DifferentiableVectorEnv.step` has it."""

    obs: Tensor
    """``[T, N, O]`` the observations after any reset."""
    reward: Tensor
    """``[T, N]``."""
    terminated: Tensor
    """``[T, N]`` bool."""
    truncated: Tensor
    """``[T, N]`` bool."""


@final
class CompiledSteps:
    """Steps one vector environment in a compiled loop; it compiles at its first call.

    Start states are drawn before the loop, a few for each row, and a row takes its next one when
    its episode ends. If a row has more ends than start states, more are drawn and the steps are run
    again. Random numbers are therefore used in another order than by
    :meth:`DifferentiableVectorEnv.step`, which draws when an episode ends. Everything else is the
    same.

    Args:
        env: stepped from its current state; after a call it is in the state after the last step.
    """

    def __init__(self, env: DifferentiableVectorEnv) -> None:
        self.env, self._loop, self._num_starts = env, CompiledLoop(_scan), 2
        self._step: TracedEnvStep | None = None

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Steps:
        """Steps every environment ``T`` times, and resets those whose episode ends.

        Args:
            actions: ``[T, N, A]``, ``T`` at least 2.
        """
        env_state = self.env.get_state()
        while True:
            num_ends, state_after, steps = self._run(env_state, actions)
            if num_ends <= self._num_starts:
                break
            self._num_starts = num_ends + 2
        self.env.set_state(state_after)
        return steps

    def _run(self, env_state: VectorState, actions: Tensor) -> tuple[int, VectorState, Steps]:
        """The largest number of ends in a row, the state after the last step, and the steps."""
        env = self.env
        generator = torch.Generator(env.device)
        generator.set_state(env_state.generator_state)
        inputs = [actions]
        if env.env.noise_shape is not None:
            shape = (*actions.shape[:2], *env.env.noise_shape)
            inputs.append(
                torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
            )
        starts = self._draw_starts(env_state.state, generator)
        # Elapsed steps in the dtype that packed booleans have, with which they are combined.
        elapsed = env_state.elapsed.float()
        carry = [torch.zeros_like(env_state.elapsed), elapsed, *leaves_of(env_state.state)]
        if self._step is None:
            rows = [x[0] for x in inputs]
            self._step = trace_env_step(env.env, env_state.state, carry, rows, starts)
        step = self._step
        carry, inputs = pack(carry, step.carry_layouts), pack(inputs, step.input_layouts)
        last, results = self._loop(step.graph, carry, inputs, starts, free=[*inputs, *starts[1:]])
        num_ends, elapsed, *leaves = unpack(last, step.carry_layouts)
        state_after = env_state._replace(
            state=state_from_leaves(env_state.state, leaves),
            elapsed=elapsed.long(),
            generator_state=generator.get_state(),
        )
        return int(num_ends.max()), state_after, Steps(*unpack(results, step.result_layouts))

    def _draw_starts(self, like: State, generator: torch.Generator) -> list[Tensor]:
        """``K`` start states for each row: ``K - 1``, and their tensors ``[K, N, ...]``, packed."""
        leaves, size = leaves_of(like), self.env.num_envs
        # One by one, so that the first ones do not depend on how many there are.
        drawn = [leaves_of(self.env.env.initial(size, generator)) for _ in range(self._num_starts)]
        columns = zip(zip(*drawn, strict=True), leaves, strict=True)
        stacked = [torch.stack(x).to(y) for x, y in columns]
        last = torch.tensor(self._num_starts - 1, device=self.env.device)
        return [last, *pack(stacked, [Layout.of(y) for y in leaves])]


@final
class TracedEnvStep(NamedTuple):
    """The graph of an environment's step on packed tensors, and the layouts of these."""

    graph: fx.GraphModule
    """Maps carry, inputs and start states to the next carry and the fields of :class:`Steps`."""
    carry_layouts: list[Layout]
    input_layouts: list[Layout]
    result_layouts: list[Layout]


def trace_env_step(
    env: DifferentiableEnv,
    like: State,
    carry: list[Tensor],
    inputs: list[Tensor],
    starts: list[Tensor],
) -> TracedEnvStep:
    """Traces a step of the environment with its resets.

    Args:
        env: the dynamics.
        like: a state of ``N`` environments.
        carry: the number of ends so far ``[N]``, elapsed steps ``[N]``, and the state's tensors.
        inputs: the action ``[N, A]``, and the dynamics' noise if they have one.
        starts: the last index ``K - 1``, and the tensors of start states ``[K, N, ...]``, packed.
    """
    carry_layouts, input_layouts = [Layout.of(x) for x in carry], [Layout.of(x) for x in inputs]
    result_layouts: list[Layout] = []

    def step(
        carry: list[Tensor], inputs: list[Tensor], starts: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        num_ends, elapsed, *leaves = unpack(carry, carry_layouts)
        action, *noise = unpack(inputs, input_layouts)
        before = state_from_leaves(like, leaves)
        after = env.transition(before, action, noise[0] if noise else None)
        terminated, env_truncated = env.terminal(after), env.truncated(after)
        truncated = elapsed + 1 >= env.max_episode_steps
        truncated = truncated if env_truncated is None else truncated | env_truncated
        done = (terminated | truncated).float()
        start = state_from_leaves(like, _select_starts(starts, num_ends, carry_layouts[2:]))
        next_state = where_state(done > 0.5, start, after)
        counts = [num_ends + done.long(), torch.where(done > 0.5, 0.0, elapsed + 1)]
        obs, reward = env.observation(next_state), env.reward(before, action, after)
        results = [obs, reward, terminated, truncated]
        result_layouts[:] = [Layout.of(x) for x in results]
        return (
            _clones(pack([*counts, *leaves_of(next_state)], carry_layouts)),
            _clones(pack(results, result_layouts)),
        )

    graph = trace(step, pack(carry, carry_layouts), pack(inputs, input_layouts), starts)
    return TracedEnvStep(graph, carry_layouts, input_layouts, result_layouts)


def _select_starts(starts: list[Tensor], index: Tensor, layouts: list[Layout]) -> list[Tensor]:
    """The tensors ``[N, ...]`` of start state number ``index`` ``[N]`` of each row."""
    last, *pools = starts
    index, selected = torch.minimum(index, last), []
    for pool, layout in zip(pools, layouts, strict=True):
        shape = (1, 1, -1) if layout.transposed else (1, -1, *[1] * (pool.dim() - 2))
        selected.append(pool.gather(0, index.view(shape).expand(1, *pool.shape[1:])).squeeze(0))
    return unpack(selected, layouts)


def _clones(tensors: list[Tensor]) -> list[Tensor]:
    """Copies, because the results of a loop's step must not share memory."""
    return [x.clone() for x in tensors]


def _scan(step: Any, carry: list[Tensor], inputs: list[Tensor], starts: list[Tensor]) -> Any:
    return scan(lambda c, x: step(c, x, starts), carry, inputs)
