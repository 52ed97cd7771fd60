"""Makes the environments of a command from its flags: source, gradient and wrappers."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

import torch

from pgtoolkit.envs.adapters.choose import Differentiate, GradientSource, choose_gradient
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.ordinary.episode_state import NEW_EPISODES, ResumeChoice
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.resolve import EnvSpec, find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.envs.vectorized.make import make_vector_env, require_one_batch
from pgtoolkit.envs.vectorized.stepping import PLAIN, OnFault, Stepping
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.registry import WRAPPERS, lookup

MAX_UNBATCHED_EVAL_ENVS = 20
"""Environments that an evaluation steps side by side when they are not one batch of tensors."""


class Environments(Protocol):
    """The environments of a run, which can be made for training and for evaluation."""

    @property
    def source(self) -> EnvSpec: ...
    @property
    def gradient(self) -> GradientSource: ...
    @property
    def batched(self) -> bool:
        """Whether all environments are stepped as one batch of tensors."""

    @property
    def single(self) -> EnvSpec:
        """Makes one ordinary environment that acts as those for evaluation do."""

    def make(self, num_envs: int) -> AnyVectorEnv:
        """A vector environment for training."""

    def make_for_evaluation(self, episodes: int) -> AnyVectorEnv:
        """A vector environment that evaluates a policy for that many episodes."""


@final
@dataclasses.dataclass(frozen=True)
class EnvFactory:
    """Makes vector environments of one kind, with any number of environments."""

    source: EnvSpec
    gradient: GradientSource
    make_wrapped: Callable[[], DifferentiableEnv] | None
    """Makes another environment with its own adapter and wrappers; None without wrappers."""
    device: torch.device
    stepping: Stepping = PLAIN
    """Where ordinary environments run, and what happens when one fails."""

    @property
    def batched(self) -> bool:
        """Whether all environments are stepped as one batch of tensors."""
        dynamics = self.gradient.env if self.gradient.method == "auto" else None
        return dynamics is not None and dynamics.plain_maker() is None

    @property
    def single(self) -> EnvSpec:
        """Makes one ordinary environment; that of wrapped ones has their wrappers."""
        make = self.make_wrapped
        if make is None:
            return self.source
        return EnvSpec(self.source.name, lambda mode: NumpyEnv(make(), render_mode=mode))

    def make(self, num_envs: int) -> AnyVectorEnv:
        """A vector environment for training, differentiable if there is a gradient.

        Raises:
            RequestError: it has a gradient, and cannot be stepped as ``stepping`` says.
        """
        if self.gradient.env is not None:
            require_one_batch(self.source.name, self.stepping)
            return DifferentiableVectorEnv(self.gradient.env, num_envs, device=self.device)
        return self._make_ordinary(num_envs, self.stepping)

    def _make_ordinary(
        self, num_envs: int, stepping: Stepping, *, resume: ResumeChoice | None = None
    ) -> AnyVectorEnv:
        return make_vector_env(
            self.source,
            num_envs,
            device=self.device,
            differentiate="none",
            stepping=stepping,
            resume=resume,
        )

    def make_for_evaluation(self, episodes: int) -> AnyVectorEnv:
        """A vector environment that evaluates a policy for that many episodes.

        It has one environment for each episode if they are stepped as a batch, else at most
        ``MAX_UNBATCHED_EVAL_ENVS``. Adapters are left out, because an evaluation needs no gradient,
        unless there are wrappers: a wrapper may change what an action means. Where training drops
        an environment that fails, an evaluation restarts it, because each one has episodes to play.
        """
        if self.batched:
            assert self.gradient.env is not None, "environments that are one batch have a gradient"
            return DifferentiableVectorEnv(self.gradient.env, episodes, device=self.device)
        count = min(episodes, MAX_UNBATCHED_EVAL_ENVS)
        if self.make_wrapped is not None:
            # A separate environment, so that an adapter that learns does not learn from this one.
            return DifferentiableVectorEnv(self.make_wrapped(), count, device=self.device)
        on_fault: OnFault = "stop" if self.stepping.on_fault == "stop" else "restart"
        stepping = dataclasses.replace(self.stepping, on_fault=on_fault, needs_episodes=True)
        return self._make_ordinary(count, stepping, resume=NEW_EPISODES)


def make_env_factory(
    env: EnvArgument,
    kwargs: Mapping[str, Any],
    *,
    differentiate: Differentiate,
    adapter_kwargs: Mapping[str, Any],
    wrappers: Mapping[str, Any],
    needed: bool,
    device: torch.device,
    gym_wrappers: Mapping[str, Any] | None = None,
    stepping: Stepping = PLAIN,
) -> EnvFactory:
    """Finds the environment, chooses its gradient, and adds the wrappers.

    Args:
        env: the environment's id, ``module:Id-v0`` or ``path/to/file.py:Class``; in Python also one
            environment, or a function that makes one.
        kwargs: arguments of the environment's constructor.
        differentiate: value of ``--differentiate``: the source of the gradient.
        adapter_kwargs: arguments of the adapter's constructor.
        wrappers: wrapper name to its arguments, the innermost first.
        needed: whether an environment without a gradient of its own is to get an adapter.
        device: the device of the environments' tensors.
        gym_wrappers: Gymnasium's wrapper name to its arguments, the innermost first; they are
            around the ordinary environment, inside an adapter.
        stepping: where ordinary environments run, and what happens when one fails.

    Raises:
        RequestError: there is no such environment, adapter or wrapper, or they cannot be combined.
    """
    source = find_env(env, kwargs, gym_wrappers)
    gradient = choose_gradient(source, differentiate, adapter_kwargs, needed=needed)
    if wrappers and gradient.env is None:
        raise RequestError(
            f"wrappers are for differentiable environments, and {source.name} is used without a "
            "gradient: leave --wrappers out, or give --differentiate finite-difference"
        )
    if gradient.env is None or not wrappers:
        return EnvFactory(source, gradient, None, device, stepping)

    def make_wrapped() -> DifferentiableEnv:
        fresh = choose_gradient(source, gradient.method, adapter_kwargs, needed=needed).env
        assert fresh is not None, "this method gave a gradient above"
        return add_wrappers(fresh, wrappers)

    gradient = dataclasses.replace(gradient, env=add_wrappers(gradient.env, wrappers))
    return EnvFactory(source, gradient, make_wrapped, device, stepping)


def add_wrappers(env: DifferentiableEnv, wrappers: Mapping[str, Any]) -> DifferentiableEnv:
    """The environment inside its wrappers, the first wrapper innermost.

    Raises:
        RequestError: there is no such wrapper, or it does not accept these arguments.
    """
    for name, arguments in wrappers.items():
        wrapper = lookup(name, WRAPPERS, "wrapper")
        module = importlib.import_module(wrapper.module)
        if not isinstance(arguments, dict):
            raise RequestError(f"--wrappers: the arguments of {name} must be a JSON object")
        env = construct(getattr(module, wrapper.name), arguments, {"env": env})
    return env


def parse_gym_wrappers(text: str) -> dict[str, Any]:
    """Parses ``--gym-wrappers``, such as ``{"TimeLimit": {"max_episode_steps": 200}}``.

    Raises:
        RequestError: the text is not a JSON object.
    """
    return parse_json_object(text, "--gym-wrappers")


def parse_wrappers(text: str) -> dict[str, Any]:
    """Parses ``--wrappers``, such as ``{"GradientGate": {"clip_norm": 10}}``.

    Raises:
        RequestError: the text is not a JSON object.
    """
    return parse_json_object(text, "--wrappers")
