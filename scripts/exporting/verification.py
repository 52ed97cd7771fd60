"""Whether an exported policy acts as the agent does, on observations of its environment."""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.discrete import Discrete
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import TanhSquashed
from pgtoolkit.errors import ExportError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.evaluation import collect_windows
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.rollouts.rollout import reset
from pgtoolkit.scripts.exporting.formats import Act
from pgtoolkit.seeding import stream

NUM_OBSERVATIONS = 1000
"""Observations that are compared, at least."""

NUM_ENVS, STEPS_AT_A_TIME = 10, 10
"""Environments that give the observations, and their steps between two comparisons."""

TOLERANCE = 1e-5
"""Largest difference of an exported action from the agent's."""

ROUNDING_FACTOR, MAX_ROUNDING = 3.0, 1e-3
"""The difference may be so many times the change of the agent's own actions by rounding, where that
is more than ``TOLERANCE``, and at most the second number."""

SEED = 1000

ADVICE = "Export to the other format (.onnx or .pt2), and report it"


@final
class Comparison(NamedTuple):
    """The result of :func:`compare`."""

    num_observations: int
    """Number of observations."""
    largest: float
    """The largest difference of an exported action from the agent's."""
    rounding: float
    """The largest change of the agent's actions if they are computed in float64."""

    @property
    def limit(self) -> float:
        """The largest difference that is right."""
        return max(TOLERANCE, min(ROUNDING_FACTOR * self.rounding, MAX_ROUNDING))


def observe(env: AnyVectorEnv, policy: Policy) -> Iterator[Tensor]:
    """Observations ``[M, O]``, 1,000 in all or some more, from episodes with sampled actions.

    They come in parts, because pictures are large.

    Args:
        env: some ``NUM_ENVS`` environments.
        policy: acts in them.
    """
    device = torch.device("cpu")
    generator = stream(SEED, "export", device)

    def draw_noise(num_steps: int) -> Tensor:
        return policy.draw_noise(num_steps, env.num_envs, generator=generator)

    start = reset(env, seed=SEED, device=device)
    windows = collect_windows(env, policy, start, draw_noise, STEPS_AT_A_TIME)
    wanted = math.ceil(NUM_OBSERVATIONS / (STEPS_AT_A_TIME * env.num_envs))
    for window in itertools.islice(windows, wanted):
        yield window.obs.flatten(0, 1)


def compare(
    policy: Policy, act: Act, parts: Iterable[Tensor], action_space: Any, dtype: np.dtype[Any]
) -> Comparison:
    """Compares an exported policy's actions with the agent's.

    Args:
        policy: the agent's.
        act: the exported policy.
        parts: observations ``[M, O]`` as the policy reads them.
        action_space: of one environment.
        dtype: the dtype in which the exported policy reads them.

    Raises:
        ExportError: the largest difference is above its limit or not a number, or the actions have
            another shape or dtype.
    """
    found = [compare_part(policy, act, part, action_space, dtype) for part in parts]
    # NumPy's maximum is NaN if one of the numbers is.
    largest, rounding = np.max([part[1:] for part in found], axis=0).tolist()
    result = Comparison(sum(part.num_observations for part in found), largest, rounding)
    if not largest <= result.limit:
        raise ExportError(
            f"the exported actions differ from the agent's by up to {largest:.2g} on "
            f"{result.num_observations:,} observations, at most {result.limit:.2g} is right "
            f"(rounding changes the agent's own by {rounding:.2g}): no file is left. {ADVICE}"
        )
    return result


@torch.no_grad()
def compare_part(
    policy: Policy, act: Act, observations: Tensor, action_space: Any, dtype: np.dtype[Any]
) -> Comparison:
    """:func:`compare` for some observations, whatever the differences are.

    The first observation goes alone and the others together, so that a graph with a fixed number of
    rows is found.

    Raises:
        ExportError: the actions have another shape or dtype.
    """
    give, rows = given_action(action_space), observations.numpy().astype(dtype)
    distribution = policy(observations)
    exact = copy.deepcopy(policy).double()(observations.double()).mode
    own, found = give(distribution.mode.numpy()), np.concatenate([act(rows[:1]), act(rows[1:])])
    if found.shape != own.shape or found.dtype != own.dtype:
        raise ExportError(
            f"the exported actions are {found.dtype} {list(found.shape)} and the agent's "
            f"{own.dtype} {list(own.shape)}: no file is left. {ADVICE}"
        )
    largest, rounding = (
        float(difference(distribution, own, x, action_space).max())
        for x in (found, give(exact.numpy()))
    )
    return Comparison(len(rows), largest, rounding)


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
