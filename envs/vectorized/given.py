"""The environments of an agent that is made in Python, from whatever names or makes one."""

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from gymnasium.vector import VectorEnv

from pgtoolkit.envs.adapters.choose import choose_gradient
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import python_words
from pgtoolkit.gymnasium_types import AnyEnv, AnyVectorEnv
from pgtoolkit.words import in_python

LOG = logging.getLogger("pgtoolkit")

EnvArgument: TypeAlias = (
    str
    | DifferentiableEnv[Any]
    | AnyEnv
    | AnyVectorEnv
    | Callable[..., DifferentiableEnv[Any] | AnyEnv | AnyVectorEnv]
)
"""An environment, as Python code gives it: an id, a ``path/to/file.py:Class``, one environment, a
vector environment, or a function or class that makes one."""


def as_vector_env(env: EnvArgument, num_envs: int, *, gradient: bool) -> AnyVectorEnv:
    """A vector environment of ``num_envs`` copies; one that is given is returned as it is.

    Args:
        env: a vector environment, or what
            :func:`~pgtoolkit.envs.registry.resolve.find_env` takes. One environment is copied, and
            is never stepped itself.
        num_envs: the number of copies.
        gradient: whether an environment without a gradient of its own is to get an adapter.

    Raises:
        RequestError: there is no such environment, or no adapter for it.
    """
    if isinstance(env, VectorEnv):
        return env
    with python_words():
        source = find_env(env)
        chosen = choose_gradient(source, needed=gradient)
        if chosen.sentence:
            LOG.warning("%s", in_python(chosen.sentence))
        if chosen.env is not None:
            return DifferentiableVectorEnv(chosen.env, num_envs)
        return make_vector_env(source, num_envs, differentiate="none")
