"""Many steps of an environment with given actions, in one compiled loop, without a gradient."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import FASTER, CompiledLoop, tracing
from pgtoolkit.envs.compiled.layout import Form, hold, release
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, VectorState, leaves_of, rebuild_state, where_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv


@final
class Steps(NamedTuple):
    """What ``T`` steps gave, as :meth:`DifferentiableVectorEnv.step` gives one."""

    obs: Tensor
    """``[T, N, O]`` after any reset."""
    reward: Tensor
    """``[T, N]``."""
    terminated: Tensor
    truncated: Tensor


@final
class CompiledSteps:
    """Takes steps of one vector environment; it compiles at its first call.

    Every row has a few start states drawn before the first step, and takes the next of them where
    its episode ends. If a row has more ends than that, more are drawn and the steps are taken
    again. So random numbers are used in another order than by
    :meth:`DifferentiableVectorEnv.step`, which draws when an episode ends. Everything else is the
    same.

    Args:
        env: stepped from where it stands; it goes on from the last step.
    """

    def __init__(self, env: DifferentiableVectorEnv) -> None:
        self.env, self._loop, self._num_starts = env, CompiledLoop(_scan), 2
        self._step: TracedSteps | None = None

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Steps:
        """Steps every environment ``T`` times, and resets those whose episode ends.

        Args:
            actions: ``[T, N, A]``, ``T`` at least 2.
        """
        begin = self.env.get_state()
        while True:
            num_ends, after, steps = self._take(begin, actions)
            if num_ends <= self._num_starts:
                break
            self._num_starts = num_ends + 2
        self.env.set_state(after)
        return steps

    def _take(self, begin: VectorState, actions: Tensor) -> tuple[int, VectorState, Steps]:
        """The most ends of a row, where they led to, and the steps."""
        env = self.env
        generator = torch.Generator(env.device)
        generator.set_state(begin.generator_state)
        given = [actions]
        if env.env.noise_shape is not None:
            shape = (*actions.shape[:2], *env.env.noise_shape)
            given.append(
                torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
            )
        starts = self._starts(begin.state, generator)
        # Elapsed steps as numbers of the same kind as truth values are held in.
        elapsed = begin.elapsed.float()
        carry = [torch.zeros_like(begin.elapsed), elapsed, *leaves_of(begin.state)]
        if self._step is None:
            self._step = trace(env.env, begin.state, carry, [x[0] for x in given], starts)
        step = self._step
        carry, given = hold(carry, step.carry), hold(given, step.given)
        pools = starts[1:]
        last, results = self._loop(step.graph, carry, given, starts, free=[*given, *pools])
        num_ends, elapsed, *leaves = release(last, step.carry)
        state = _rebuilt(begin.state, leaves)
        after = begin._replace(
            state=state, elapsed=elapsed.long(), generator_state=generator.get_state()
        )
        return int(num_ends.max()), after, Steps(*release(results, step.results))

    def _starts(self, like: State, generator: torch.Generator) -> list[Tensor]:
        """``K - 1``, and ``[K, N, ...]`` the tensors of every row's start states, held."""
        leaves, size = leaves_of(like), self.env.num_envs
        # One after the other: the first ones are the same, however many there are.
        drawn = [leaves_of(self.env.env.initial(size, generator)) for _ in range(self._num_starts)]
        columns = zip(zip(*drawn, strict=True), leaves, strict=True)
        stacked = [torch.stack(x).to(y) for x, y in columns]
        last = torch.tensor(self._num_starts - 1, device=self.env.device)
        return [last, *hold(stacked, [Form.of(y) for y in leaves])]


@final
class TracedSteps(NamedTuple):
    """A step's graph, and how its tensors are held."""

    graph: Any
    carry: list[Form]
    given: list[Form]
    results: list[Form]


def trace(
    env: DifferentiableEnv,
    like: State,
    carry: list[Tensor],
    given: list[Tensor],
    starts: list[Tensor],
) -> TracedSteps:
    """A step as a graph: from ends so far, elapsed steps and state, an action and noise."""
    forms = [Form.of(x) for x in carry], [Form.of(x) for x in given]
    results: list[Form] = []

    def step(
        carry: list[Tensor], given: list[Tensor], starts: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        num_ends, elapsed, *leaves = release(carry, forms[0])
        action, *noise = release(given, forms[1])
        before = _rebuilt(like, leaves)
        after = env.transition(before, action, noise[0] if noise else None)
        terminated, cut = env.terminal(after), env.truncated(after)
        truncated = elapsed + 1 >= env.max_episode_steps
        truncated = truncated if cut is None else truncated | cut
        done = (terminated | truncated).float()
        begun = _pick(starts, num_ends, forms[0][2:])
        on = where_state(done > 0.5, _rebuilt(like, begun), after)
        reached = [num_ends + done.long(), torch.where(done > 0.5, 0.0, elapsed + 1)]
        found = [env.observation(on), env.reward(before, action, after), terminated, truncated]
        results[:] = [Form.of(x) for x in found]
        return (
            _copies(hold([*reached, *leaves_of(on)], forms[0])),
            _copies(hold(found, results)),
        )

    tracer = make_fx(
        step, decomposition_table=FASTER, tracing_mode="fake", _allow_non_fake_inputs=True
    )
    with tracing():
        graph = tracer(hold(carry, forms[0]), hold(given, forms[1]), starts)
    return TracedSteps(graph, *forms, results)


def _pick(starts: list[Tensor], index: Tensor, forms: list[Form]) -> list[Tensor]:
    """The start states of every row with the row's own index ``[N]``."""
    last, *pools = starts
    index, picked = torch.minimum(index, last), []
    for pool, form in zip(pools, forms, strict=True):
        shape = (1, 1, -1) if form.turned else (1, -1, *[1] * (pool.dim() - 2))
        picked.append(pool.gather(0, index.view(shape).expand(1, *pool.shape[1:])).squeeze(0))
    return release(picked, forms)


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    """No result of a loop may be another's memory."""
    return [x.clone() for x in tensors]


def _scan(step: Any, carry: list[Tensor], given: list[Tensor], starts: list[Tensor]) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, given: step(carry, given, starts), carry, given)


def _rebuilt(like: State, leaves: list[Tensor]) -> State:
    return rebuild_state(like, leaves[0] if isinstance(like, Tensor) else tuple(leaves))
