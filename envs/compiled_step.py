"""Many steps of an environment with given actions, in one compiled loop, without a gradient."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import FASTER, CompiledLoop, plain_layout, tracing
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, leaves_of, rebuild_state, where_state
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

    Every row has a start state drawn for every step and takes it where its episode ends, so random
    numbers are used in another order than by :meth:`DifferentiableVectorEnv.step`, which draws only
    when an episode ends. Everything else is the same.

    Args:
        env: stepped from where it stands; it goes on from the last step.
    """

    def __init__(self, env: DifferentiableVectorEnv) -> None:
        self.env, self._loop, self._step = env, CompiledLoop(_scan), None

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Steps:
        """Steps every environment ``T`` times, and resets those whose episode ends.

        Args:
            actions: ``[T, N, A]``, ``T`` at least 2.
        """
        env, begin = self.env, self.env.get_state()
        generator = torch.Generator(env.device)
        generator.set_state(begin.generator_state)
        given = [actions, *self._starts(begin.state, len(actions), generator)]
        if env.env.noise_shape is not None:
            shape = (*actions.shape[:2], *env.env.noise_shape)
            given.append(
                torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
            )
        carry = plain_layout([begin.elapsed, *leaves_of(begin.state)])
        if self._step is None:
            self._step = trace(env.env, begin.state, carry, [x[0] for x in given])
        given = plain_layout(given)
        last, results = self._loop(self._step, carry, given, free=given)
        elapsed, *leaves = last
        state = _rebuilt(begin.state, leaves)
        env.set_state(
            begin._replace(state=state, elapsed=elapsed, generator_state=generator.get_state())
        )
        return Steps(*results)

    def _starts(self, like: State, num_steps: int, generator: torch.Generator) -> list[Tensor]:
        """``[T, N, ...]`` the tensors of a start state for every step."""
        fresh = self.env.env.initial(num_steps * self.env.num_envs, generator)
        pairs = zip(leaves_of(fresh), leaves_of(like), strict=True)
        return [x.to(y.device, y.dtype).view(num_steps, *y.shape) for x, y in pairs]


def trace(env: DifferentiableEnv, like: State, carry: list[Tensor], given: list[Tensor]) -> Any:
    """A step as a graph: from elapsed steps and state, an action, a start and noise."""

    def step(carry: list[Tensor], given: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        elapsed, *leaves = carry
        action, rest = given[0], given[1:]
        start, noise = _rebuilt(like, rest[: len(leaves)]), rest[len(leaves) :]
        before = _rebuilt(like, leaves)
        after = env.transition(before, action, noise[0] if noise else None)
        terminated, cut = env.terminal(after), env.truncated(after)
        truncated = elapsed + 1 >= env.max_episode_steps
        truncated = truncated if cut is None else truncated | cut
        done = terminated | truncated
        on = where_state(done, start, after)
        elapsed = torch.where(done, 0, elapsed + 1)
        results = [env.observation(on), env.reward(before, action, after), terminated, truncated]
        return [elapsed, *leaves_of(on)], [x.clone() for x in results]

    tracer = make_fx(
        step, decomposition_table=FASTER, tracing_mode="fake", _allow_non_fake_inputs=True
    )
    with tracing():
        return tracer(carry, given)


def _scan(step: Any, carry: list[Tensor], given: list[Tensor]) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, given: step(carry, given), carry, given)


def _rebuilt(like: State, leaves: list[Tensor]) -> State:
    return rebuild_state(like, leaves[0] if isinstance(like, Tensor) else tuple(leaves))
