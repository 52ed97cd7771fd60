"""Environments written in JAX as differentiable environments of PyTorch."""

import functools
import sys
from abc import abstractmethod
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pgtoolkit.envs.adapters.jax.layout import (
    Layout,
    Leaf,
    import_jax,
    layout_of,
    require_matching_layout,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.second_derivatives import refuse_second_derivative
from pgtoolkit.user_code import describe_exception

CHECK_HINT = "(`pgtoolkit check-env` lists all that is wrong)"


class JaxState(NamedTuple):
    """JAX states as two tensors; :mod:`pgtoolkit.envs.adapters.jax.layout` packs them."""

    values: Tensor
    """``[N, D]``: all floating-point numbers of the states."""
    words: Tensor
    """``[N, K]`` int32: the bits of all other leaves."""


class JaxEnvironment(DifferentiableEnv[JaxState]):
    """A base class for environments that are written in ``jax.numpy``.

    A subclass defines ``reset`` and ``step`` for one environment, and the attributes
    ``observation_space``, ``action_space`` and ``max_episode_steps``. This class vectorises,
    compiles and differentiates them. The interface is that of Brax and MuJoCo Playground: a state
    is a tree of arrays (NamedTuples, dataclasses, dictionaries) whose root has the attributes
    ``obs`` ``[O]``, ``reward`` and ``done``, and ``step`` returns a state of the same structure.
    Random numbers within an episode come from a key in the state.

    **Gradient.** Each step is one autograd node. The forward pass calls the compiled, vectorised
    step and saves only its inputs; the backward pass calls the compiled ``jax.vjp`` at the same
    inputs, so it may be repeated with the same result. Second derivatives and batched backward
    passes (``is_grads_batched``) raise. Integers, booleans and random keys have no gradient.
    Tensors are shared by DLPack without a copy and stay on their device.

    **Precision.** ``step`` receives the state in the dtypes in which ``reset`` makes it. Between
    steps the floating-point numbers have the vector environment's dtype. float64 needs
    ``jax.config.update("jax_enable_x64", True)`` before the environment is first used.

    ``done`` must be true only in terminal states. Time limits and automatic resets are left to the
    vector environment, so do not add Brax's ``EpisodeWrapper`` or ``AutoResetWrapper``.

    Raises:
        RequestError: jax is not installed. On first use: the states that ``reset`` and ``step``
            return lack an attribute or do not match.
    """

    gradient = GradientInfo(method="jax.vjp")

    def __init__(self) -> None:
        import_jax()

    @abstractmethod
    def reset(self, key: Any) -> Any:
        """The initial state of one environment, drawn by a ``jax.random.PRNGKey``."""

    @abstractmethod
    def step(self, state: Any, action: Any) -> Any:
        """The next state of one environment after an action ``[A]``, with its ``reward``."""

    def jax_state(self, state: JaxState) -> Any:
        """The batch of states as a JAX tree whose leaves have a leading axis ``N``, for rendering.

        Raises:
            RequestError: the state is in float64 and JAX's leaves are in float32.
        """
        self._require_precision(state.values.dtype)
        return self._functions.unpack(_to_jax(state.values), _to_jax(state.words))

    def initial(self, num_envs: int, generator: torch.Generator) -> JaxState:
        # The key has 64 random bits: with 32, two of a few thousand starts would probably be equal.
        device = generator.device
        bits = torch.randint(
            -(2**31), 2**31, (num_envs, 2), generator=generator, device=device, dtype=torch.int32
        )
        values, words = self._functions.reset(_to_jax(bits))
        return JaxState(_to_torch(values), _to_torch(words))

    def transition(self, state: JaxState, action: Tensor, noise: Tensor | None) -> JaxState:
        self._require_precision(state.values.dtype)
        action = action.to(state.values.dtype)
        return JaxState(*_Step.apply(self._functions, *state, action))  # type: ignore[no-untyped-call]

    def observation(self, state: JaxState) -> Tensor:
        self._require_precision(state.values.dtype)
        leaf = self._layout.observation
        return _columns(state, leaf).reshape(-1, *leaf.shape)

    def reward(self, state: JaxState, action: Tensor, next_state: JaxState) -> Tensor:
        return _columns(next_state, self._layout.reward)[:, 0]

    def terminal(self, state: JaxState) -> Tensor:
        # A boolean is one word 0 or 1, Brax's done is a float 0 or 1, an int64 has two words.
        return (_columns(state, self._layout.done) != 0).any(-1)

    @functools.cached_property
    def _layout(self) -> Layout:
        try:
            return self._traced_layout()
        except RequestError as error:
            raise RequestError(f"{type(self).__name__}: {error} {CHECK_HINT}") from error
        except import_jax().errors.JAXTypeError as error:
            # A Python condition, loop or NumPy function on a traced array.
            file = getattr(sys.modules.get(type(self).__module__), "__file__", None) or "a prompt"
            what = describe_exception(error, file).splitlines()[0]
            raise RequestError(
                f"{type(self).__name__}: JAX cannot trace reset and step ({what}): use jax.numpy, "
                f"jnp.where and jax.lax.cond in them {CHECK_HINT}"
            ) from error

    def _traced_layout(self) -> Layout:
        jax = import_jax()
        start = jax.eval_shape(self.reset, jax.eval_shape(jax.random.PRNGKey, 0))
        layout = layout_of(start)
        promised = self.observation_space.shape
        if layout.observation.shape != promised:
            raise RequestError(
                f"the state's obs has the shape {list(layout.observation.shape)}, its "
                f"observation_space {list(promised)}: make them alike"
            )
        action = jax.ShapeDtypeStruct(self.action_space.shape, layout.dtype)
        require_matching_layout(layout, jax.eval_shape(self.step, start, action))
        return layout

    @functools.cached_property
    def _functions(self) -> "_Functions":
        return _Functions(self.reset, self.step, self._layout, type(self).__name__)

    def _require_precision(self, dtype: torch.dtype) -> None:
        if dtype != torch.float64:
            return
        for leaf in self._layout.leaves:
            if leaf.is_float and leaf.dtype.itemsize < 8:
                raise RequestError(
                    f"float64 was asked for, but reset makes {leaf.name} in {leaf.dtype}: call "
                    'jax.config.update("jax_enable_x64", True) before it is used first (and '
                    "name no narrower dtype), or use dtype=torch.float32"
                )


@final
class _Functions:
    """Compiled, vectorised functions on packed states; inputs and outputs are JAX arrays."""

    def __init__(self, reset: Any, step: Any, layout: Layout, name: str) -> None:
        jax = import_jax()
        self._name = name

        def start(bits: Any) -> Any:
            key = jax.random.fold_in(jax.random.PRNGKey(bits[0]), bits[1])
            return layout.pack(reset(key), layout.dtype)

        def advance(values: Any, words: Any, action: Any) -> Any:
            after = step(layout.unpack(values, words), action.astype(layout.dtype))
            return layout.pack(after, values.dtype)

        def vjp(values: Any, words: Any, action: Any, cotangent: Any) -> Any:
            def differentiable(values: Any, action: Any) -> Any:
                return jax.vmap(advance)(values, words, action)[0]

            return jax.vjp(differentiable, values, action)[1](cotangent)

        self.reset = jax.jit(jax.vmap(start))
        self.step = jax.jit(jax.vmap(advance))
        self._vjp = jax.jit(vjp)
        self.unpack = jax.jit(jax.vmap(layout.unpack))

    def vjp(self, values: Any, words: Any, action: Any, cotangent: Any) -> Any:
        """The cotangents of ``values`` and ``action`` for that of the values after the step.

        Raises:
            RequestError: JAX has no reverse-mode derivative of the step.
        """
        try:
            return self._vjp(values, words, action, cotangent)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise RequestError(
                f"{self._name}: JAX cannot differentiate its step ({single_line(error)}): replace "
                "the operation (jax.lax.scan instead of while_loop), or train with an agent that "
                f"needs no gradient, such as ppo {CHECK_HINT}"
            ) from error


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, functions: _Functions, values: Tensor, words: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.functions = functions
        ctx.save_for_backward(values, words, action)
        after, bits = functions.step(_to_jax(values), _to_jax(words), _to_jax(action))
        next_words = _to_torch(bits)
        ctx.mark_non_differentiable(next_words)
        return _to_torch(after), next_words

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("the gradient of a JaxEnvironment's step")
        inputs = [_to_jax(tensor) for tensor in ctx.saved_tensors]
        by_values, by_action = ctx.functions.vjp(*inputs, _to_jax(cotangent))
        return None, _to_torch(by_values), None, _to_torch(by_action)


def _columns(state: JaxState, leaf: Leaf) -> Tensor:
    row = state.values if leaf.is_float else state.words
    return row[:, leaf.start : leaf.stop]


def _to_jax(tensor: Tensor) -> Any:
    return import_jax().dlpack.from_dlpack(tensor.detach().contiguous())


def _to_torch(array: Any) -> Tensor:
    # JAX computes asynchronously from memory that it shares with PyTorch. Without the wait, an
    # in-place change of an input tensor could change the result.
    return from_dlpack(import_jax().block_until_ready(array))
