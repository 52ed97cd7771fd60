"""The environments that a command works on: named, given a gradient, wrapped."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, final

import torch

from pgtoolkit.envs.adapters.choose import Differentiate, GradientSource, choose_gradient
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.resolve import EnvSpec, find_env, make_vector_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.registry import WRAPPERS, known

EVAL_ENVS = 20
"""Environments of an evaluation where each of them is a Python object."""


@final
@dataclasses.dataclass(frozen=True)
class EnvFactory:
    """One environment, ready to be made in any number."""

    source: EnvSpec
    gradient: GradientSource
    wrap: Callable[[], DifferentiableEnv] | None
    """Makes another one with its adapter and its wrappers, if there are wrappers."""
    device: torch.device

    @property
    def batched(self) -> bool:
        """Whether any number of them is one batch of tensors."""
        return self.gradient.method == "auto" and self.gradient.env is not None

    def make(self, num_envs: int) -> AnyVectorEnv:
        """With the gradient, where there is one."""
        if self.gradient.env is not None:
            return DifferentiableVectorEnv(self.gradient.env, num_envs, device=self.device)
        return make_vector_env(self.source, num_envs, device=self.device, differentiate="none")

    def make_for_evaluation(self, episodes: int) -> AnyVectorEnv:
        """For that many episodes: all at once where they are a batch.

        Behind an adapter is the plain environment, and evaluation needs no more than that; but a
        wrapper may change what an action means.
        """
        if self.batched:
            return self.make(episodes)
        count = min(episodes, EVAL_ENVS)
        if self.wrap is not None:
            # An adapter that learns has one vector environment, which must not learn from this.
            return DifferentiableVectorEnv(self.wrap(), count, device=self.device)
        return make_vector_env(self.source, count, device=self.device, differentiate="none")


def make_environments(
    name: str,
    kwargs: Mapping[str, Any],
    *,
    differentiate: Differentiate,
    adapter_kwargs: Mapping[str, Any],
    wrappers: Mapping[str, Any],
    needed: bool,
    device: torch.device,
) -> EnvFactory:
    """Finds the environment and the gradient, and puts the wrappers around it.

    Args:
        name: in any of the three forms.
        kwargs: for the environment.
        differentiate: which gradient.
        adapter_kwargs: for the adapter.
        wrappers: name to arguments, the innermost first.
        needed: whether a gradient is needed.
        device: of the tensors.

    Raises:
        RequestError: no such environment, adapter or wrapper, or they do not go together.
    """
    source = find_env(name, kwargs)
    gradient = choose_gradient(source, differentiate, adapter_kwargs, needed=needed)
    if wrappers and gradient.env is None:
        raise RequestError(
            f"wrappers are for differentiable environments, and {source.name} is used without a "
            "gradient: leave --wrappers out, or give --differentiate finite-difference"
        )
    if gradient.env is None or not wrappers:
        return EnvFactory(source, gradient, None, device)

    def another() -> DifferentiableEnv:
        fresh = choose_gradient(source, gradient.method, adapter_kwargs, needed=needed).env
        assert fresh is not None, "the method is the one that gave a gradient before"
        return wrap(fresh, wrappers)

    gradient = dataclasses.replace(gradient, env=wrap(gradient.env, wrappers))
    return EnvFactory(source, gradient, another, device)


def wrap(env: DifferentiableEnv, wrappers: Mapping[str, Any]) -> DifferentiableEnv:
    """The environment with wrappers around it.

    Raises:
        RequestError: there is no such wrapper, or it does not take these arguments.
    """
    for name, arguments in wrappers.items():
        module = importlib.import_module(WRAPPERS[known(name, WRAPPERS, "wrapper")])
        if not isinstance(arguments, dict):
            raise RequestError(f"--wrappers: the arguments of {name} must be a JSON object")
        env = construct(getattr(module, name), {"env": env, **arguments})
    return env


def parse_wrappers(text: str) -> dict[str, Any]:
    """``{"GradientGate": {"clip_norm": 10}}``.

    Raises:
        RequestError: it is not a JSON object.
    """
    return parse_json_object(text, "--wrappers")
