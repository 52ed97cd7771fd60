"""Whether an exported policy acts as the agent does, on observations of its environment."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.discrete import Discrete
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import TanhSquashed
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.rollouts.rollout import collect, reset
from pgtoolkit.scripts.exporting.formats import Act
from pgtoolkit.seeding import stream

NUM_ENVS, NUM_STEPS = 10, 100
"""Environments, and steps of each, whose 1,000 observations are compared."""

TOLERANCE = 1e-5
"""Largest difference of an exported action from the agent's."""

SEED = 1000


class ExportError(RuntimeError):
    """An exported policy does not act as the agent does."""


def observe(env: AnyVectorEnv, policy: Policy) -> Tensor:
    """1,000 observations ``[1000, O]`` from episodes with sampled actions.

    Args:
        env: ``NUM_ENVS`` environments.
        policy: acts in them.
    """
    device, steps = torch.device("cpu"), -(-NUM_ENVS * NUM_STEPS // env.num_envs)
    noise = policy.draw_noise(steps, env.num_envs, generator=stream(SEED, "export", device))
    with torch.no_grad():
        window, _ = collect(env, policy, reset(env, seed=SEED, device=device), noise)
    return window.obs.flatten(0, 1)[: NUM_ENVS * NUM_STEPS]


def compare(
    policy: Policy, act: Act, observations: Tensor, action_space: Any, dtype: np.dtype[Any]
) -> float:
    """The largest difference between an exported policy's actions and the agent's.

    The first observation goes alone and the others together, so that a graph with a fixed number of
    rows is found.

    Args:
        policy: the agent's.
        act: the exported policy.
        observations: ``[M, O]`` as the policy reads them.
        action_space: of one environment.
        dtype: the dtype in which the exported policy reads them.

    Raises:
        ExportError: the largest difference is above ``TOLERANCE`` or not a number, or the actions
            have another shape or dtype.
    """
    with torch.no_grad():
        distribution = policy(observations)
        own = given_action(action_space)(distribution.mode.numpy())
        rows = observations.numpy().astype(dtype)
        found = np.concatenate([act(rows[:1]), act(rows[1:])])
        if found.shape != own.shape or found.dtype != own.dtype:
            raise ExportError(
                f"the exported actions are {found.dtype} {list(found.shape)} and the agent's "
                f"{own.dtype} {list(own.shape)}: nothing is written"
            )
        largest = float(difference(distribution, own, found, action_space).max())
    if not largest <= TOLERANCE:
        raise ExportError(
            f"the exported actions differ from the agent's by up to {largest:.2g} on "
            f"{len(rows):,} observations, and at most {TOLERANCE:g} is right: nothing is written"
        )
    return largest


def difference(
    distribution: Distribution, own: NDArray[Any], found: NDArray[Any], action_space: Any
) -> Tensor:
    """How far actions are from the agent's own, ``[M]``.

    It is the largest absolute difference of an entry, relative to the agent's entry where that is
    above 1. Of two categories or mixture components whose logarithmic weights are nearer than
    ``TOLERANCE``, rounding may choose either. So discrete actions differ by
    ``log p(own) - log p(found)``, and a mixture's by the distance from the nearest such component.

    Args:
        distribution: the agent's, of ``M`` observations.
        own: ``[M, A]`` its mode, as the environment is given it.
        found: ``[M, A]`` the actions to judge.
        action_space: of one environment.
    """
    if isinstance(distribution, Discrete):
        if not all(action_space.contains(action) for action in found):
            return torch.tensor([torch.inf])
        first, other = (torch.from_numpy(x).long() for x in (own, found))
        return distribution.log_prob(first) - distribution.log_prob(other)
    base = distribution.unsquashed if isinstance(distribution, TanhSquashed) else distribution
    choices = [own]
    if isinstance(base, GaussianMixture):
        means = distribution.squash(heaviest_means(base))
        choices = [given_action(action_space)(mean.numpy()) for mean in means.unbind(-2)]
    return torch.stack([relative_difference(choice, found) for choice in choices]).amin(0)


def heaviest_means(mixture: GaussianMixture) -> Tensor:
    """``[M, K, A]``: the means of the components that weigh most, up to rounding.

    In the place of a component that weighs less is the mean of the heaviest one.
    """
    heaviest = mixture.logits.amax(-1, keepdim=True)
    tied = (mixture.logits >= heaviest - TOLERANCE).unsqueeze(-1)
    return torch.where(tied, mixture.mean, mixture.mode.unsqueeze(-2))


def relative_difference(own: NDArray[Any], found: NDArray[Any]) -> Tensor:
    """``max_i |own_i - found_i| / max(1, |own_i|)`` ``[M]``."""
    first, other = (torch.from_numpy(x).double() for x in (own, found))
    return ((first - other).abs() / first.abs().clamp_min(1)).amax(-1)
